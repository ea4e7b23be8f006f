//! The commands beside the server, and the control plane that tests and demo run.

pub mod cluster;
pub mod control_plane;
pub mod demo;
pub mod distrust;
mod documents;
pub mod inspect;
pub mod probe;
mod progress;
pub mod review;
pub mod simulate;
pub mod status;
mod table;
mod text;
