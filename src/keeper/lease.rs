//! Who acts: the holder of the Lease, for as long as its own clock confirms it.
//!
//! `kube-lease-manager` takes and renews the Lease, but goes on saying that it leads while renewals
//! fail. So its word is not enough here: this replica may act until a part of the Lease's duration
//! after the last renewal *that was read back from the API server*, by the monotonic clock. Two that
//! act at once would do no harm, since each write is bound to a `resourceVersion`; they would only
//! ask twice.

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

use crate::kubernetes::explain::{For, explain};

/// What the election goes by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub lease: String,
    /// Who we are, unlike any other replica.
    pub identity: String,
    /// How long the Lease holds without a renewal, in whole seconds; at least 3.
    pub duration: Duration,
}

impl Settings {
    /// Renewed this long before it ends: three times within its life.
    fn renewed_before_end(&self) -> Duration {
        self.duration.mul_f64(2.0 / 3.0)
    }

    /// For so long a renewal lets us act: a fifth of the Lease is for what is under way.
    fn term(&self) -> Duration {
        self.duration.mul_f64(0.8)
    }
}

/// Whether this replica may act. Clones tell the same.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Standing>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    /// The library's word.
    is_claimed: bool,
    /// Until when the last renewal that was read back is good for.
    confirmed_until: Option<Instant>,
}

impl Leadership {
    /// Whether it may act now.
    pub(crate) fn may_act(&self) -> bool {
        self.until().is_some()
    }

    /// Until when it may act, if it may.
    pub(crate) fn until(&self) -> Option<Instant> {
        let Standing { is_claimed, confirmed_until } = *self.0.borrow();
        confirmed_until.filter(|until| is_claimed && Instant::now() < *until)
    }

    /// Waits for news.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // The election has ended: there will be no news.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
impl Leadership {
    /// One that a test gives and takes, by sending whether it leads.
    pub(super) fn given(leads: bool) -> (Given, Self) {
        let given = Given(watch::Sender::new(Standing::default()));
        given.set(leads);
        let leadership = Self(given.0.subscribe());
        (given, leadership)
    }
}

/// Gives and takes leadership.
#[cfg(test)]
pub(super) struct Given(watch::Sender<Standing>);

#[cfg(test)]
impl Given {
    pub(super) fn set(&self, leads: bool) {
        let confirmed_until = Some(Instant::now() + Duration::from_secs(3600));
        self.0.send_replace(Standing { is_claimed: leads, confirmed_until });
    }
}

/// Runs for the Lease; see [`Election::run`].
pub struct Election {
    client: Client,
    settings: Settings,
    standing: watch::Sender<Standing>,
}

impl Election {
    /// Not running yet.
    pub fn new(client: Client, settings: Settings) -> (Self, Leadership) {
        let (standing, receiver) = watch::channel(Standing::default());
        (Self { client, settings, standing }, Leadership(receiver))
    }

    /// Runs for the Lease until `stop` says so, then gives it back.
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
        // First nothing is begun any more, then another may begin.
        self.standing.send_replace(Standing::default());
        match timeout(RELEASE_PATIENCE, manager.release()).await {
            Ok(Ok(())) => tracing::info!("the Lease is given back"),
            Ok(Err(error)) => {
                tracing::warn!(
                    error = describe(&error),
                    "cannot give the Lease back: it will expire"
                );
            }
            Err(_) => tracing::warn!("cannot give the Lease back in time: it will expire"),
        }
    }

    /// The Lease exists afterwards.
    async fn manager(&self) -> LeaseManager {
        let Settings { namespace, lease, identity, duration } = &self.settings;
        let grace = self.settings.renewed_before_end().as_secs();
        // One manager of fields for each replica: theirs must conflict.
        let field_manager: String = format!("ca-overlap-{identity}").chars().take(128).collect();
        let mut trouble = Trouble::default();
        loop {
            let parameters = LeaseParams::new(identity.clone(), duration.as_secs(), grace)
                .with_field_manager(field_manager.clone());
            let builder = LeaseManagerBuilder::new(self.client.clone(), lease.clone())
                .with_namespace(namespace.clone())
                .with_parameters(parameters);
            match builder.build().await {
                Ok(manager) => return manager,
                Err(error) => trouble.wait(&error, &self.settings).await,
            }
        }
    }

    /// Takes and renews the Lease.
    async fn claim(&self, manager: &mut LeaseManager) {
        let mut trouble = Trouble::default();
        loop {
            match manager.changed().await {
                Ok(is_claimed) => {
                    trouble = Trouble::default();
                    self.standing.send_modify(|standing| standing.is_claimed = is_claimed);
                }
                Err(LeaseManagerError::NonexistentLease(_)) => {
                    self.standing.send_replace(Standing::default());
                    *manager = self.manager().await;
                }
                Err(error) => trouble.wait(&error, &self.settings).await,
            }
        }
    }

    /// Reads back what is stored.
    async fn observe(&self) {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.settings.namespace);
        let only =
            watcher::Config::default().fields(&format!("metadata.name={}", self.settings.lease));
        let mut events = std::pin::pin!(leases(watcher::watcher(api, only).default_backoff()));
        while let Some(lease) = events.next().await {
            let until = lease.and_then(|lease| self.confirmed_until(&lease));
            self.standing.send_modify(|standing| standing.confirmed_until = until);
        }
    }

    /// Until when a stored Lease lets us act.
    fn confirmed_until(&self, lease: &Lease) -> Option<Instant> {
        let spec = lease.spec.as_ref()?;
        let is_ours = spec.holder_identity.as_deref() == Some(self.settings.identity.as_str());
        let renewed = spec.renew_time.as_ref().filter(|_| is_ours)?;
        // The time is of our own clock. One that was put back makes the age negative: none then.
        let age = Timestamp::now().duration_since(renewed.0);
        let age = Duration::try_from(age).unwrap_or_default();
        let left = self.settings.term().checked_sub(age)?;
        Some(Instant::now() + left)
    }
}

/// The Lease each time it is read; `None` when it is gone. Errors are retried by the watch.
fn leases(
    events: impl Stream<Item = watcher::Result<Event<Lease>>>,
) -> impl Stream<Item = Option<Lease>> {
    events.filter_map(|event| async {
        match event {
            Ok(Event::Apply(lease) | Event::InitApply(lease)) => Some(Some(lease)),
            Ok(Event::Delete(_)) => Some(None),
            // Of an election that cannot be watched nothing is confirmed: the fence closes.
            Ok(Event::Init | Event::InitDone) | Err(_) => None,
        }
    })
}

/// Ends when told to, or when nobody is left to tell.
pub(crate) async fn stopped(mut stop: watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// To give the Lease back; the process is about to end.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);

/// Failures in a row.
#[derive(Default)]
struct Trouble {
    failures: u32,
}

impl Trouble {
    /// Says it once, and waits: one second, doubled, at most a third of the Lease.
    async fn wait(&mut self, error: &LeaseManagerError, settings: &Settings) {
        if self.failures == 0 {
            tracing::warn!(
                error = describe(error),
                lease = settings.lease,
                "cannot take or renew the Lease: trying again"
            );
        }
        let pause = Duration::from_secs(1 << self.failures.min(5)).min(settings.duration / 3);
        self.failures = self.failures.saturating_add(1);
        sleep(pause).await;
    }
}

fn describe(error: &LeaseManagerError) -> String {
    match error {
        LeaseManagerError::KubeError(error) => explain(error, For::Log),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    fn election() -> Election {
        let settings = Settings {
            namespace: "n".into(),
            lease: "l".into(),
            identity: "me".into(),
            duration: Duration::from_secs(15),
        };
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("none"))
        });
        Election::new(Client::new(service, "n"), settings).0
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
    async fn a_renewal_counts_from_when_it_was_made() {
        let election = election();
        let left = |holder, age| {
            let until = election.confirmed_until(&lease(holder, age))?;
            Some((until - Instant::now()).as_secs_f64().round())
        };
        // 15 s, less a margin of 3 s.
        assert_eq!(left("me", 0), Some(12.0));
        assert_eq!(left("me", 5), Some(7.0));
        assert_eq!(left("me", 13), None);
        // A clock that was put back gives no more than a whole term.
        assert_eq!(left("me", -3600), Some(12.0));
        assert_eq!(left("another", 0), None);
        assert!(election.confirmed_until(&Lease::default()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_librarys_word_alone_and_a_renewal_alone_are_not_enough() {
        let (sender, receiver) = watch::channel(Standing::default());
        let leadership = Leadership(receiver);
        let soon = Instant::now() + Duration::from_secs(12);
        for (is_claimed, confirmed_until, may_act) in
            [(true, None, false), (false, Some(soon), false), (true, Some(soon), true)]
        {
            sender.send_replace(Standing { is_claimed, confirmed_until });
            assert_eq!(leadership.may_act(), may_act);
        }
        // Renewals fail, and nobody says so.
        tokio::time::advance(Duration::from_secs(12)).await;
        assert!(!leadership.may_act());
    }
}
