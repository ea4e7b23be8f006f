//! The commands for people: all but the two servers.

mod annotate;
pub(crate) mod announce;
pub(crate) mod check;
pub(crate) mod cluster;
mod complete;
pub(crate) mod distrust;
mod documents;
pub(crate) mod drain;
mod elsewhere;
pub(crate) mod error;
pub mod inspect;
mod installed;
pub(crate) mod output;
mod plain;
pub(crate) mod probe;
mod progress_line;
mod registration;
pub(crate) mod review;
mod server_args;
pub(crate) mod simulate;
pub(crate) mod status;
mod table;
mod text;
