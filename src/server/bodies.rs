//! The memory for the bodies of all requests.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;

use super::shares::{Claim, Rules, Shares};

/// The memory for bodies. A body claims what its header announces, before it is read. So bodies that
/// were granted their memory never wait for each other. The claim ends when the answer is written.
#[derive(Debug)]
pub(super) struct Bodies {
    small: Arc<Shares>,
    large: Arc<Shares>,
}

/// A body of at most so many bytes is small. An eighth of the memory is for small bodies alone, so
/// that large ones never delay them. Nearly every review is small.
const SMALL: usize = 64 << 10;

impl Bodies {
    /// Shares `capacity` bytes. A body waits for `patience`. `gauge` shows how many are claimed.
    pub(super) fn new(capacity: usize, patience: Duration, gauge: &Gauge) -> Self {
        let shares = |capacity| {
            let rules = Rules {
                capacity,
                share: capacity,
                kept: 0,
                waiting: usize::MAX,
                patience,
                age: Duration::ZERO,
                // Long enough for a body of the API server, which arrives within milliseconds, and
                // short enough for the one that waits.
                own_age: patience / 2,
            };
            Shares::new(rules, gauge.clone())
        };
        Self { small: shares(capacity / 8), large: shares(capacity - capacity / 8) }
    }

    /// Claims the memory for a body of at most `size` bytes.
    pub(super) fn claim(&self, peer: IpAddr, size: usize) -> Claim {
        let shares = if size <= SMALL { &self.small } else { &self.large };
        shares.claim(peer, size)
    }
}
