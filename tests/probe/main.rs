//! `ca-overlap probe` against TLS servers that are not ours, with the fault and without it.
//!
//! nginx cannot have the fault by a reload of a certificate file alone: what it resumes is bound to
//! the certificate's contents. It has it where the name of the file holds a variable, because then
//! sessions are bound to the text of that setting.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails here")]

mod run;
mod servers;
#[path = "../support/mod.rs"]
mod support;

mod mutual;
mod rotation;
mod usage;
