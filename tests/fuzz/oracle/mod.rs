//! What must hold for any input, as plain functions: the fuzz targets call them with what the
//! fuzzer made, and the test suite (`tests/pure/fuzz`) with the committed seeds, on stable Rust.
//!
//! A check returns what is wrong instead of panicking, so that tests can show that it would be
//! found: an oracle that never says no proves nothing.

#[macro_use]
mod rule;

pub mod answer;
pub mod certificate;
pub mod input;
pub mod pem;
pub mod pool;
pub mod record;
pub mod review;
pub mod secrets;
pub mod settings;
pub mod x509;
