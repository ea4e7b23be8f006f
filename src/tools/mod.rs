//! The commands beside the server.

pub mod cluster;
pub mod distrust;
mod documents;
pub mod inspect;
pub(crate) mod output;
pub mod probe;
mod progress;
pub mod review;
pub mod simulate;
pub mod status;
mod table;
mod text;
