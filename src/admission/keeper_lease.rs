//! The state of the keeper's Lease, which says whether a keeper would promote a waiting pair.

use std::time::Instant;

use tokio::sync::watch;

use crate::names;
use crate::overlap::staged::KeeperHealth;

/// What is known of the keeper's Lease. The lease watcher publishes it; no request waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeeperLease {
    /// It is not watched, because staged mode is not enabled.
    NotWatched,
    /// It was not seen yet. From this time on it counts as lost.
    AwaitedUntil(Instant),
    /// It is valid until this time of our monotonic clock.
    ValidUntil(Instant),
}

impl KeeperLease {
    /// A state that never changes, for installations without staged mode.
    pub fn not_watched() -> watch::Receiver<Self> {
        watch::channel(Self::NotWatched).1
    }

    /// What it says about the keeper at `now`.
    pub fn keeper(self, now: Instant) -> KeeperHealth {
        match self {
            Self::NotWatched => KeeperHealth::Absent,
            Self::AwaitedUntil(until) if now < until => KeeperHealth::Unknown,
            Self::ValidUntil(until) if now < until => KeeperHealth::Alive,
            Self::AwaitedUntil(_) | Self::ValidUntil(_) => KeeperHealth::Lost,
        }
    }
}

/// Whether a Lease with this holder is held by a keeper that promotes; with `audit`, also by one that
/// would. While `drain` holds it, nothing promotes.
pub fn is_keeper(holder: &str, audit: bool) -> bool {
    let would = holder.starts_with(names::AUDIT_HOLDER);
    !holder.is_empty() && !holder.starts_with(names::DRAIN_HOLDER) && (audit || !would)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_lease_is_valid_until_its_end_and_unknown_only_for_a_while() {
        let now = Instant::now();
        let (before, after) = (now, now + Duration::from_secs(1));
        for (keeper_lease, at, expected) in [
            (KeeperLease::NotWatched, after, KeeperHealth::Absent),
            (KeeperLease::AwaitedUntil(after), before, KeeperHealth::Unknown),
            (KeeperLease::AwaitedUntil(after), after, KeeperHealth::Lost),
            (KeeperLease::ValidUntil(after), before, KeeperHealth::Alive),
            (KeeperLease::ValidUntil(after), after, KeeperHealth::Lost),
        ] {
            assert_eq!(keeper_lease.keeper(at), expected);
        }
    }
}
