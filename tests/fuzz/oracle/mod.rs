//! The properties that hold for any input, as functions. The fuzz targets call them with generated
//! inputs, and the test suite (`tests/pure/fuzz`) with the committed seeds, on stable Rust.
//!
//! A check returns the fault instead of panicking, so that negative controls can show that it
//! detects faults.

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
