//! Whether somebody would promote what waits: the keeper's Lease, as last heard of.

use std::time::Instant;

use tokio::sync::watch;

use crate::overlap::staged::Keeper;

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
    pub fn keeper(self, now: Instant) -> Keeper {
        match self {
            Self::Ignored => Keeper::Absent,
            Self::Awaited(until) if now < until => Keeper::Unknown,
            Self::Until(until) if now < until => Keeper::Alive,
            Self::Awaited(_) | Self::Until(_) => Keeper::Lost,
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
            (Heartbeat::Ignored, after, Keeper::Absent),
            (Heartbeat::Awaited(after), before, Keeper::Unknown),
            (Heartbeat::Awaited(after), after, Keeper::Lost),
            (Heartbeat::Until(after), before, Keeper::Alive),
            (Heartbeat::Until(after), after, Keeper::Lost),
        ] {
            assert_eq!(heartbeat.keeper(at), expected);
        }
    }
}
