//! The commands beside the server.

pub(crate) mod cluster;
pub(crate) mod distrust;
mod documents;
pub(crate) mod error;
pub mod inspect;
pub(crate) mod output;
pub(crate) mod probe;
mod progress;
pub(crate) mod review;
mod settings;
pub(crate) mod simulate;
pub(crate) mod status;
mod table;
mod text;
