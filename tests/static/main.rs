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

#[allow(dead_code, reason = "other test programs use the rest")]
#[path = "../support"]
mod support {
    pub(crate) mod binary;
    pub(crate) mod program;
    pub(crate) mod rig;
    pub(crate) mod skip;
}
