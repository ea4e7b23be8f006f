//! What tests and the demo need and the program does not: never shipped.
//!
//! It does not know `ca_overlap`, whose inline tests use it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]
#![allow(clippy::missing_panics_doc, clippy::return_self_not_must_use, reason = "as above")]

pub mod certs;
pub mod control_plane;
pub mod handshake;
pub mod names;
pub mod reviews;
pub mod secrets;
