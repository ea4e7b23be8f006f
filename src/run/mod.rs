//! The two servers, wired from their parts and supervised.

pub mod keeper;
mod lease;
pub mod webhook;
