//! Whether somebody would promote what waits: the keeper's Lease, as last heard of.

use std::time::Instant;

use tokio::sync::watch;

use crate::overlap::staged::KeeperHealth;

/// What is known of the keeper's Lease. Whoever watches it publishes this; no request waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// Nobody watches: staged mode is not switched on.
    Ignored,
    /// Nothing was heard yet; so much patience is left.
    Awaited(Instant),
    /// It is good until then, by our own clock that nobody sets.
    Until(Instant),
}

impl Heartbeat {
    /// One that never changes, for installations without staged mode.
    pub fn ignored() -> watch::Receiver<Self> {
        watch::channel(Self::Ignored).1
    }

    /// What that means at `now`.
    pub fn keeper(self, now: Instant) -> KeeperHealth {
        match self {
            Self::Ignored => KeeperHealth::Absent,
            Self::Awaited(until) if now < until => KeeperHealth::Unknown,
            Self::Until(until) if now < until => KeeperHealth::Alive,
            Self::Awaited(_) | Self::Until(_) => KeeperHealth::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_lease_is_good_until_its_end_and_unknown_only_for_a_while() {
        let now = Instant::now();
        let (before, after) = (now, now + Duration::from_secs(1));
        for (heartbeat, at, expected) in [
            (Heartbeat::Ignored, after, KeeperHealth::Absent),
            (Heartbeat::Awaited(after), before, KeeperHealth::Unknown),
            (Heartbeat::Awaited(after), after, KeeperHealth::Lost),
            (Heartbeat::Until(after), before, KeeperHealth::Alive),
            (Heartbeat::Until(after), after, KeeperHealth::Lost),
        ] {
            assert_eq!(heartbeat.keeper(at), expected);
        }
    }
}
