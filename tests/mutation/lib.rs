//! Certificates, the decision and the admission endpoint alone, with their tests, as one crate: one
//! compilation and one link for each mutant. `run.sh` puts it together.
#![cfg_attr(test, allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![allow(missing_docs)]

// The tests name the crate that they test.
#[cfg(test)]
extern crate self as ca_overlap;

pub mod admission;
pub mod metrics;
pub mod names;
pub mod overlap;
pub mod x509;

#[cfg(test)]
#[path = "../tests/pure/admission/mod.rs"]
mod admission_tests;
#[cfg(test)]
#[path = "../tests/pure/decision/mod.rs"]
mod decision_tests;
#[cfg(test)]
#[path = "../tests/support"]
mod support {
    pub(crate) mod property;
}
