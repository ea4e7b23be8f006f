//! Certificates, the decision and the admission endpoint with their tests as one crate, so that a
//! mutant costs one compilation and one link. `run.sh` assembles it.
#![cfg_attr(test, allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![allow(missing_docs)]

// The tests refer to the crate by its name.
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
