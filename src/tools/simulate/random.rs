//! Random numbers that depend only on the seed, so that they are the same on every machine.

/// The generator `SplitMix64`. Not for cryptography.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// An own stream for each topic and index, so that the numbers for one peer do not depend on
    /// events of another.
    pub(super) fn of(seed: u64, topic: &str, index: u64) -> Self {
        let mut state = Self(seed);
        for part in topic.bytes().map(u64::from).chain([index]) {
            state = Self(state.next() ^ part);
        }
        state
    }

    /// An own stream for each peer.
    pub(super) fn of_peer(&mut self, peer: usize) -> Self {
        Self::of(self.next(), "peer", peer as u64)
    }

    /// A number below `limit`; 0 if that is 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(limit);
        // The upper half of the product is below `limit`.
        u64::try_from(product >> 64).unwrap_or_default()
    }

    /// An index below `limit`; 0 if that is 0.
    pub(super) fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap_or_default()
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_reproducible_different_and_in_range() {
        let draw = |seed, topic, index| {
            let mut random = Random::of(seed, topic, index);
            (0..8).map(|_| random.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, "a", 0), draw(1, "a", 0));
        for other in [draw(2, "a", 0), draw(1, "b", 0), draw(1, "a", 1)] {
            assert_ne!(draw(1, "a", 0), other);
        }
        let mut random = Random::of(7, "range", 0);
        let mut seen = [0_u32; 10];
        for _ in 0..10_000 {
            seen[random.index(10)] += 1;
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn the_numbers_are_those_of_the_published_generator() {
        let mut random = Random(1_234_567);
        let expected = [6_457_827_717_110_365_317_u64, 3_203_168_211_198_807_973];
        assert_eq!([random.next(), random.next()], expected);
    }
}
