//! What tests and the demo need and the program does not: never shipped.
//!
//! It does not know `ca_overlap`, whose inline tests use it.

pub mod control_plane;
pub mod names;
