//! Leader election: the replica that holds the Lease acts.
//!
//! `kube-lease-manager` takes and renews the Lease, but it keeps reporting leadership while its
//! renewals fail. So this module also reads the Lease back from the API server. The replica may act
//! for 80 % of the Lease's duration after the last renewal that was read, by the monotonic clock.
//! Two replicas that act at once do no harm, because each write is bound to a `resourceVersion`;
//! they would only ask twice.

use std::time::Duration;

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError, LeaseParams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::kubernetes::explain::{Audience, explain};

/// The configuration of the election.
#[derive(Clone, Debug)]
pub struct ElectionConfig {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub lease: String,
    /// The name of this replica, unique among the replicas.
    pub identity: String,
    /// How long the Lease is valid without a renewal, in whole seconds; at least 3.
    pub duration: Duration,
}

impl ElectionConfig {
    /// How long before its end the Lease is renewed: two thirds of its duration.
    fn renewed_before_end(&self) -> Duration {
        self.duration.mul_f64(2.0 / 3.0)
    }

    /// How long this replica may act after a renewal. The rest of the duration, a fifth, is for
    /// requests that are in flight.
    fn term(&self) -> Duration {
        self.duration.mul_f64(0.8)
    }
}

/// Whether this replica may act. All clones share one state.
#[derive(Clone, Debug)]
pub struct Leadership {
    state: watch::Receiver<LeaseState>,
    is_audit: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LeaseState {
    /// Whether `kube-lease-manager` says that this replica leads.
    is_claimed: bool,
    /// Until when the replica may act, by the last renewal that was read back.
    confirmed_until: Option<Instant>,
}

impl Leadership {
    /// The same with `--audit`: it acts, but writes nothing.
    #[must_use]
    pub fn auditing(self) -> Self {
        Self { is_audit: true, ..self }
    }

    /// Whether this replica writes nothing.
    pub(crate) fn is_audit(&self) -> bool {
        self.is_audit
    }

    /// Whether this replica may act now.
    pub(crate) fn may_act(&self) -> bool {
        self.until().is_some()
    }

    /// Until when this replica may act; `None` if it may not.
    pub(crate) fn until(&self) -> Option<Instant> {
        let LeaseState { is_claimed, confirmed_until } = *self.state.borrow();
        confirmed_until.filter(|until| is_claimed && Instant::now() < *until)
    }

    /// Waits for the next change.
    pub(crate) async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            // The election has ended: nothing changes any more.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
impl Leadership {
    /// Leadership that a test switches on and off.
    pub(super) fn switched(leads: bool) -> (LeadershipSwitch, Self) {
        let switch = LeadershipSwitch(watch::Sender::new(LeaseState::default()));
        switch.set(leads);
        let leadership = Self { state: switch.0.subscribe(), is_audit: false };
        (switch, leadership)
    }
}

/// Switches leadership on and off in tests.
#[cfg(test)]
pub(super) struct LeadershipSwitch(watch::Sender<LeaseState>);

#[cfg(test)]
impl LeadershipSwitch {
    pub(super) fn set(&self, leads: bool) {
        let confirmed_until = Some(Instant::now() + Duration::from_secs(3600));
        self.0.send_replace(LeaseState { is_claimed: leads, confirmed_until });
    }
}

/// Competes for the Lease; see [`Election::run`].
pub struct Election {
    client: Client,
    config: ElectionConfig,
    state: watch::Sender<LeaseState>,
}

impl Election {
    /// Creates the election, and the leadership that it reports.
    pub fn new(client: Client, config: ElectionConfig) -> (Self, Leadership) {
        let (state, receiver) = watch::channel(LeaseState::default());
        (Self { client, config, state }, Leadership { state: receiver, is_audit: false })
    }

    /// Competes for the Lease until `stop` is true, then releases it.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let manager = {
            let ended = stopped(stop.clone());
            tokio::select! {
                () = ended => None,
                manager = self.manager() => Some(manager),
            }
        };
        let Some(mut manager) = manager else { return };
        tokio::select! {
            () = stopped(stop) => {}
            () = self.claim(&mut manager) => {}
            () = self.observe() => {}
        }
        // First stop acting here, then let another replica act.
        self.state.send_replace(LeaseState::default());
        match timeout(RELEASE_TIMEOUT, manager.release()).await {
            Ok(Ok(())) => tracing::info!("released the Lease"),
            Ok(Err(error)) => {
                tracing::warn!(
                    error = describe(&error),
                    "cannot release the Lease: another replica acts only after it has expired"
                );
            }
            Err(_) => tracing::warn!(
                "releasing the Lease timed out: another replica acts only after it has expired"
            ),
        }
    }

    /// Creates the Lease if it does not exist, and its manager.
    async fn manager(&self) -> LeaseManager {
        let ElectionConfig { namespace, lease, identity, duration } = &self.config;
        let grace = self.config.renewed_before_end().as_secs();
        // Each replica has its own field manager, so that their writes conflict.
        let field_manager: String = format!("ca-overlap-{identity}").chars().take(128).collect();
        let mut backoff = LeaseBackoff::default();
        loop {
            let parameters = LeaseParams::new(identity.clone(), duration.as_secs(), grace)
                .with_field_manager(field_manager.clone());
            let builder = LeaseManagerBuilder::new(self.client.clone(), lease.clone())
                .with_namespace(namespace.clone())
                .with_parameters(parameters);
            match builder.build().await {
                Ok(manager) => return manager,
                Err(error) => backoff.wait(&error, &self.config).await,
            }
        }
    }

    /// Takes and renews the Lease; never ends.
    async fn claim(&self, manager: &mut LeaseManager) {
        let mut backoff = LeaseBackoff::default();
        loop {
            match manager.changed().await {
                Ok(is_claimed) => {
                    backoff = LeaseBackoff::default();
                    self.state.send_modify(|state| state.is_claimed = is_claimed);
                }
                Err(LeaseManagerError::NonexistentLease(_)) => {
                    self.state.send_replace(LeaseState::default());
                    *manager = self.manager().await;
                }
                Err(error) => backoff.wait(&error, &self.config).await,
            }
        }
    }

    /// Watches the stored Lease, and notes its renewals.
    async fn observe(&self) {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.config.namespace);
        let only =
            watcher::Config::default().fields(&format!("metadata.name={}", self.config.lease));
        let mut events = std::pin::pin!(leases(watcher::watcher(api, only).default_backoff()));
        while let Some(lease) = events.next().await {
            let until = lease.and_then(|lease| self.confirmed_until(&lease));
            self.state.send_modify(|state| state.confirmed_until = until);
        }
    }

    /// Until when this replica may act, by the stored Lease.
    fn confirmed_until(&self, lease: &Lease) -> Option<Instant> {
        let spec = lease.spec.as_ref()?;
        let is_ours = spec.holder_identity.as_deref() == Some(self.config.identity.as_str());
        let renewed = spec.renew_time.as_ref().filter(|_| is_ours)?;
        // Our own clock wrote `renewTime`. If it has been set back, the age is negative: use zero.
        let age = Timestamp::now().duration_since(renewed.0);
        let age = Duration::try_from(age).unwrap_or_default();
        let left = self.config.term().checked_sub(age)?;
        Some(Instant::now() + left)
    }
}

/// The Lease each time it is read; `None` when it is deleted. The watch retries on errors.
fn leases(
    events: impl Stream<Item = watcher::Result<Event<Lease>>>,
) -> impl Stream<Item = Option<Lease>> {
    events.filter_map(|event| async {
        match event {
            Ok(Event::Apply(lease) | Event::InitApply(lease)) => Some(Some(lease)),
            Ok(Event::Delete(_)) => Some(None),
            // Without a watch no renewal is confirmed, and the replica stops acting in time.
            Ok(Event::Init | Event::InitDone) | Err(_) => None,
        }
    })
}

/// Waits until `stop` is true, or its sender is dropped.
pub(crate) async fn stopped(mut stop: watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// The time limit for releasing the Lease at the end of the process.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// The backoff of calls for the Lease.
#[derive(Default)]
struct LeaseBackoff {
    /// Failures in a row.
    failures: u32,
}

impl LeaseBackoff {
    /// Logs the first failure in a row, and waits: 1 s, doubled each time up to 32 s, and at most a
    /// third of the Lease's duration.
    async fn wait(&mut self, error: &LeaseManagerError, config: &ElectionConfig) {
        if self.failures == 0 {
            tracing::warn!(
                error = describe(error),
                lease = config.lease,
                "cannot take or renew the Lease: trying again"
            );
        }
        let pause = Duration::from_secs(1 << self.failures.min(5)).min(config.duration / 3);
        self.failures = self.failures.saturating_add(1);
        sleep(pause).await;
    }
}

fn describe(error: &LeaseManagerError) -> String {
    match error {
        LeaseManagerError::KubeError(error) => explain(error, Audience::Log),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    fn election() -> Election {
        let config = ElectionConfig {
            namespace: "n".into(),
            lease: "l".into(),
            identity: "me".into(),
            duration: Duration::from_secs(15),
        };
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("none"))
        });
        Election::new(Client::new(service, "n"), config).0
    }

    fn lease(holder: &str, age: i64) -> Lease {
        let renewed = Timestamp::now() - jiff::SignedDuration::from_secs(age);
        Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                renew_time: Some(MicroTime(renewed)),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_counts_from_the_time_it_was_made() {
        let election = election();
        let left = |holder, age| {
            let until = election.confirmed_until(&lease(holder, age))?;
            Some((until - Instant::now()).as_secs_f64().round())
        };
        // 15 s, less a margin of 3 s.
        assert_eq!(left("me", 0), Some(12.0));
        assert_eq!(left("me", 5), Some(7.0));
        assert_eq!(left("me", 13), None);
        // A clock that was set back gives at most a whole term.
        assert_eq!(left("me", -3600), Some(12.0));
        assert_eq!(left("another", 0), None);
        assert!(election.confirmed_until(&Lease::default()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_acts_only_with_both_the_librarys_claim_and_a_renewal() {
        let (sender, receiver) = watch::channel(LeaseState::default());
        let leadership = Leadership { state: receiver, is_audit: false };
        let soon = Instant::now() + Duration::from_secs(12);
        for (is_claimed, confirmed_until, may_act) in
            [(true, None, false), (false, Some(soon), false), (true, Some(soon), true)]
        {
            sender.send_replace(LeaseState { is_claimed, confirmed_until });
            assert_eq!(leadership.may_act(), may_act);
        }
        // Renewals fail, and the library does not report it.
        tokio::time::advance(Duration::from_secs(12)).await;
        assert!(!leadership.may_act());
    }
}
