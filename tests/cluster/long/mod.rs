//! Tests that take too long for every change: `make kind-test-full`.

mod delays;
mod nodes;
mod upgrade;
