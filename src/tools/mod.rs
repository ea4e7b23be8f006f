//! The commands beside the server, and the control plane that tests and demo run.

pub mod control_plane;
pub mod demo;
pub mod review;
