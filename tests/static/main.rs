//! Tests that start the program: the one that cargo built or, with `make test-static`, the one that
//! is shipped, also in an empty root.
#![allow(unreachable_pub, reason = "a test crate has no public API")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod empty_root;
mod log;
mod probe;
mod program;

#[path = "../support/mod.rs"]
mod support;
