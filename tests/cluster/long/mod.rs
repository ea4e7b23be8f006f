//! Tests that take too long for every change: `make kind-test-full`.

mod cert_manager;
mod delays;
mod nodes;
mod upgrade;
