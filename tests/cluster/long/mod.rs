//! Tests that take too long for every change: `make node-test-full`.

mod delays;
mod upgrade;
