//! What needs no API server: the pure parts, sockets on loopback, and the commands as users run them.
#![allow(unreachable_pub, reason = "one crate of many modules")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod admission;
mod architecture;
mod command_line;
mod corpus;
mod decision;
mod docs;
mod histories;
mod inspect;
mod keeper;
mod manifests;
mod review;
mod serving_cert;
mod simulate;
mod staged_handshakes;
mod wire;

#[allow(dead_code, reason = "other test programs use the rest")]
#[path = "../support"]
mod support {
    pub(crate) mod binary;
    pub(crate) mod command;
    pub(crate) mod helm;
    pub(crate) mod rig;
    pub(crate) mod skip;
}
