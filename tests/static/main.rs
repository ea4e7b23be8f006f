//! The program as it is run: cargo's, or with `make test-static` the one that is shipped, in an empty
//! root too.
#![allow(unreachable_pub, reason = "one crate of many modules")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod empty_root;
mod probe;
mod program;

#[path = "../support/mod.rs"]
mod support;
