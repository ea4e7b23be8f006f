//! Helpers of the tests and the demo; never shipped.
//!
//! This crate must not depend on `ca_overlap`, because the inline tests of that crate use it.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails here")]
#![allow(clippy::missing_panics_doc, clippy::return_self_not_must_use, reason = "as above")]

pub mod certs;
pub mod control_plane;
pub mod handshake;
pub mod names;
pub mod reviews;
pub mod secrets;
