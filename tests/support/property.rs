//! The configuration of the property tests.

use proptest::test_runner::{Config, RngSeed};

/// Runs the same `cases` cases each time, or as many new ones as `PROPTEST_CASES` says.
pub(crate) fn config(cases: u32) -> Config {
    let default = Config { failure_persistence: None, ..Config::default() };
    let is_set = std::env::var_os("PROPTEST_CASES").is_some();
    if is_set { default } else { Config { cases, rng_seed: RngSeed::Fixed(1), ..default } }
}
