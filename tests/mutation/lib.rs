//! The decision and the admission endpoint alone, with their tests, as one crate: one compilation
//! and one link for each mutant. `run.sh` puts it together and adds the modules of
//! `tests/decision` and `tests/admission`.
#![cfg_attr(test, allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![allow(missing_docs)]

// The tests name the crate that they test.
#[cfg(test)]
extern crate self as ca_overlap;

pub mod admission;
pub mod names;
pub mod overlap;
pub mod metrics;
pub mod x509;
