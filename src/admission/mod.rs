//! From an `AdmissionReview` to its answer: read, guard, decide, patch.

mod asked;
pub mod guard;
pub mod handler;
pub mod heartbeat;
pub mod metrics;
pub mod patch;
mod refusal;
pub mod respond;
pub mod review;
mod staging;
mod values;
mod verdict;

use base64::engine::{GeneralPurposeConfig, Simd};

/// Standard base64 with padding, by the fastest engine that the machine has.
static BASE64: std::sync::LazyLock<Simd> =
    std::sync::LazyLock::new(|| Simd::standard(GeneralPurposeConfig::new()));
