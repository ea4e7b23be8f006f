//! Answers admission reviews: read, guard, decide, patch.

mod answer;
mod ask_outcome;
mod create;
mod decision;
pub mod guard;
pub mod handler;
pub mod keeper_lease;
pub mod metrics;
pub mod patch;
mod refusal;
pub mod respond;
pub mod review;
mod values;
mod write_plan;

use base64::engine::{GeneralPurposeConfig, Simd};

/// Standard base64 with padding, with the fastest engine that this CPU supports.
static BASE64: std::sync::LazyLock<Simd> =
    std::sync::LazyLock::new(|| Simd::standard(GeneralPurposeConfig::new()));
