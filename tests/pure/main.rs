//! Tests without an API server: the pure parts, sockets on loopback, and the commands as users run them.
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
mod decision;
mod docs;
mod exit_codes;
mod fuzz;
mod histories;
mod inspect;
mod keeper;
mod listener;
mod manifests;
mod readers;
mod review;
mod serving_cert;
mod simulate;
mod staged_handshakes;

#[path = "../support/mod.rs"]
mod support;
