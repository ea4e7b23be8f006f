//! With `--staged`, the webhook watches the keeper's Lease to know whether a keeper runs
//! (docs/design.md, "Staged mode").

use std::pin::pin;
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::watch;

use crate::admission::keeper_lease::{self, KeeperLease};

/// How long the webhook waits for the Lease after its start. In that time it starts no stage, and
/// ends none.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The state of the Lease, and the future that watches it.
pub(super) fn watch(
    client: Client,
    namespace: &str,
    name: &str,
    audit: bool,
) -> (watch::Receiver<KeeperLease>, impl Future<Output = ()> + use<>) {
    let (sender, receiver) =
        watch::channel(KeeperLease::AwaitedUntil(Instant::now() + START_TIMEOUT));
    let leases: Api<Lease> = Api::namespaced(client, namespace);
    // The manifests grant the right to watch the Lease of this name only.
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    (
        receiver,
        follow(leases, config, sender, RenewalTracker { audit, ..RenewalTracker::default() }),
    )
}

async fn follow(
    leases: Api<Lease>,
    config: watcher::Config,
    sender: watch::Sender<KeeperLease>,
    mut tracker: RenewalTracker,
) {
    let mut events = pin!(watcher(leases, config).default_backoff());
    let mut is_there = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => is_there = false,
            Ok(Event::Apply(lease) | Event::InitApply(lease)) => {
                is_there = true;
                let spec = lease.spec.unwrap_or_default();
                let until = tracker.observe(&spec, Instant::now(), Timestamp::now());
                sender.send_replace(KeeperLease::ValidUntil(until));
            }
            Ok(Event::InitDone) if is_there => {}
            Ok(Event::InitDone | Event::Delete(_)) => {
                sender.send_replace(KeeperLease::ValidUntil(Instant::now()));
            }
            // Without further renewals the last one expires.
            Err(error) => tracing::warn!(%error, "cannot watch the keeper's Lease"),
        }
    }
}

/// Computes when the Lease expires. It counts from the arrival of each renewal by our own clock,
/// because the dates in the Lease are from another machine's clock. Only for the first one that
/// arrives the date is used, because it may be an old one.
#[derive(Default)]
struct RenewalTracker {
    /// Whether a keeper with `--audit` counts.
    audit: bool,
    last: Option<LeaseSpec>,
    until: Option<Instant>,
}

impl RenewalTracker {
    fn observe(&mut self, spec: &LeaseSpec, received: Instant, now: Timestamp) -> Instant {
        let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        let duration = Duration::from_secs(seconds.unwrap_or_default());
        let holder = spec.holder_identity.as_deref();
        let is_held = holder.is_some_and(|holder| keeper_lease::is_keeper(holder, self.audit));
        let until = match (&self.last, self.until) {
            _ if !is_held => received,
            (Some(last), Some(until)) if *last == *spec => until,
            (Some(_), _) => received + duration,
            (None, _) => received + remaining(spec, duration, now),
        };
        self.last = Some(spec.clone());
        self.until = Some(until);
        until
    }
}

/// The time until the Lease expires by its own dates, at most its whole duration.
fn remaining(spec: &LeaseSpec, duration: Duration, now: Timestamp) -> Duration {
    let Some(renewed) = &spec.renew_time else { return Duration::ZERO };
    let age = now.duration_since(renewed.0);
    let age = Duration::try_from(age).unwrap_or_default();
    duration.saturating_sub(age)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    fn spec(renewed: Timestamp, holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(renewed)),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_renewal_counts_from_its_arrival_and_the_first_one_from_its_date() {
        let (start, now) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut tracker = RenewalTracker::default();
        let old = now - jiff::SignedDuration::from_secs(5);
        assert_eq!(tracker.observe(&spec(old, "a"), start, now), at(10));
        // The same Lease again, as after a new list, is no renewal.
        assert_eq!(tracker.observe(&spec(old, "a"), at(3), now), at(10));
        // The keeper's clock may be wrong by hours.
        assert_eq!(tracker.observe(&spec(now, "a"), at(4), now), at(19));
        let ahead = now + jiff::SignedDuration::from_hours(5);
        assert_eq!(tracker.observe(&spec(ahead, "b"), at(8), now), at(23));
        // Released.
        assert_eq!(tracker.observe(&spec(ahead, ""), at(9), now), at(9));
        assert_eq!(tracker.observe(&spec(ahead, "ca-overlap-drain-x"), at(9), now), at(9));
        assert_eq!(tracker.observe(&spec(ahead, "ca-overlap-audit-x"), at(9), now), at(9));
        let mut trial = RenewalTracker { audit: true, ..RenewalTracker::default() };
        assert_eq!(trial.observe(&spec(now, "ca-overlap-audit-x"), at(9), now), at(24));
        assert_eq!(RenewalTracker::default().observe(&spec(ahead, "a"), start, now), at(15));
        let gone = now - jiff::SignedDuration::from_secs(60);
        assert_eq!(RenewalTracker::default().observe(&spec(gone, "a"), start, now), start);
        assert_eq!(RenewalTracker::default().observe(&LeaseSpec::default(), start, now), start);
    }
}
