//! The hostile shapes of `benches/hostile.rs`, judged as the fuzzer's inputs are.

use super::oracle::review;
use crate::admission::shapes as hostile;

/// At 100 kB, and at 1 MiB, where no value leaves room.
#[test]
fn every_hostile_shape_is_judged() {
    for (name, generate) in hostile::cases() {
        for size in [100_000, 1 << 20] {
            if let Err(wrong) = review::check(&generate(size)) {
                panic!("{name} of {size} bytes: {}", &wrong[..wrong.len().min(500)]);
            }
        }
    }
}
