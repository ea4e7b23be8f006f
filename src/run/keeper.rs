//! `ca-overlap keeper`: starts its parts and shuts them down.

use std::future::pending;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use tokio::runtime::Builder;
use tokio::sync::watch;

use super::parts::Parts;
use super::{ADMIN_PORT, LIST, RunError, administer, distrusted};
use crate::keeper::audit::Audit;
use crate::keeper::ca_bundles::CaBundles;
use crate::keeper::controller::Controller;
use crate::keeper::election::{Election, ElectionConfig};
use crate::keeper::events::Events;
use crate::keeper::metrics::KeeperMetrics;
use crate::keeper::pace::Pace;
use crate::keeper::reconcile::{Called, Reconciler};
use crate::keeper::secrets::Secrets;
use crate::keeper::workloads::Restarter;
use crate::kubernetes::client::client;
use crate::overlap::outlook::Rules;
use crate::server::accept::{Limits, bind};
use crate::server::admin::Ready;
use crate::server::drain::{Drain, Signals};

/// The validated flags.
#[derive(Clone, Debug)]
pub(crate) struct KeeperConfig {
    /// `--admin-listen`.
    pub(crate) admin_listen: SocketAddr,
    /// The Lease, and the name of this replica.
    pub(crate) election: ElectionConfig,
    /// `--group-wait`.
    pub(crate) group_wait: Duration,
    /// `--announce-rate`
    pub(crate) announce_rate: NonZeroU32,
    /// `--cluster-resource-namespace`, with `--follow-issuers`
    pub(crate) cluster_resource_namespace: Option<String>,
    /// `--renew-leaves`
    pub(crate) renew_leaves: bool,
    /// `--settle`, `--default-mode`, `--keep` and `--window`.
    pub(crate) rules: Rules,
    /// `--distrusted`.
    pub(crate) distrusted: Option<PathBuf>,
    /// `--audit`.
    pub(crate) audit: bool,
}

/// Runs the keeper until a signal ends it.
pub(crate) fn run(config: KeeperConfig) -> Result<(), RunError> {
    // The keeper mostly waits for the API server, so two threads are enough.
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(2);
    super::run(runtime, 0, keep(config))
}

async fn keep(config: KeeperConfig) -> Result<(), RunError> {
    let KeeperConfig {
        admin_listen,
        election,
        group_wait,
        announce_rate,
        cluster_resource_namespace,
        renew_leaves,
        mut rules,
        distrusted,
        audit,
    } = config;
    let mut signals = Signals::new()?;
    let client = client().await.map_err(|error| RunError::Client("keeper", error))?;
    let mut registry = super::registry(audit);
    let metrics = KeeperMetrics::register(&mut registry);
    let (sender, lists) = watch::channel(Arc::default());
    let follow = distrusted::follow(distrusted, &mut registry, move |list| {
        sender.send_replace(list);
    });
    rules.defaults.distrusted = lists.borrow().clone();
    let admin_port = bind("--admin-listen", admin_listen).await?;
    let (stop, stopped) = watch::channel(false);

    let identity = election.identity.clone();
    let own_namespace = election.namespace.clone();
    let (events, publisher) = Events::new(client.clone(), identity.clone(), metrics.clone());
    let (election, leadership) = Election::new(client.clone(), election);
    let audit = audit.then(|| Audit::new(events.clone(), metrics.clone()));
    let leadership = if audit.is_some() { leadership.auditing() } else { leadership };
    let reconciler = Reconciler {
        secrets: Secrets::new(client.clone(), leadership.clone()),
        restarter: Restarter::new(client.clone(), leadership.clone()),
        rules,
        group_wait,
        pace: Pace::new(announce_rate),
        ca_bundles: CaBundles::new(client.clone()),
        called: Called::default(),
        audit: audit.clone(),
        leadership,
    };
    let (controller, complete) = Controller::new(reconciler, events, metrics);
    let controller =
        controller.following(lists).announcing(cluster_resource_namespace, own_namespace);
    let controller = if renew_leaves { controller.renewing() } else { controller };
    let drain = Drain::default();
    let readiness = KeeperReadiness { complete, drain: drain.clone() };
    let version = env!("CARGO_PKG_VERSION");
    let (admin, audit) = (admin_port.local_addr()?, audit.is_some());
    tracing::info!(version, audit, %admin, identity, "the keeper has started");
    let mut parts = Parts::default();
    parts.start(ADMIN_PORT, administer(admin_port, readiness, registry, LIMITS, &drain));
    // The publisher ends with the controller, and then the controller is to be reported.
    parts.start(PUBLISHER, publisher.then(|()| pending::<()>()));
    parts.start(LIST, follow);
    parts.start(CONTROLLER, controller.run(client, stopped.clone()));
    parts.start(ELECTION, election.run(stopped));
    end(parts, &mut signals, &drain, &stop).await
}

const CONTROLLER: &str = "the controller";
const ELECTION: &str = "the election";
const PUBLISHER: &str = "the publisher of Events";

/// Waits for a signal or the unexpected end of a part, then stops the controller and the election.
async fn end(
    mut parts: Parts,
    signals: &mut Signals,
    drain: &Drain,
    stop: &watch::Sender<bool>,
) -> Result<(), RunError> {
    let outcome = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "shutting down: releasing the Lease");
            Ok(())
        }
        part = parts.ended() => {
            tracing::error!(part, "a part has ended unexpectedly: releasing the Lease and exiting");
            Err(RunError::Ended(part))
        }
    };
    drain.start();
    stop.send_replace(true);
    tokio::select! {
        () = parts.all_ended(&[CONTROLLER, ELECTION]) => {}
        signal = signals.next() => tracing::warn!(signal, "second signal: exiting at once"),
    }
    tracing::info!("the keeper has ended");
    outcome
}

pub(super) const LIMITS: Limits = Limits {
    max_connections: 64,
    body_memory: 0,
    max_body: 0,
    handshake_timeout: Duration::from_secs(10),
    request_timeout: Duration::from_secs(10),
    idle_timeout: Duration::from_secs(120),
};

/// A replica is ready once both first lists are complete, whether it leads or not: a standby has to
/// be able to take over.
#[derive(Clone, Debug)]
struct KeeperReadiness {
    complete: watch::Receiver<[bool; 2]>,
    drain: Drain,
}

impl Ready for KeeperReadiness {
    async fn missing(&self, _: Timestamp) -> Option<&'static str> {
        if self.drain.is_draining() {
            return Some("draining: the process is shutting down");
        }
        let is_complete = *self.complete.borrow() == [true; 2];
        (!is_complete).then_some("the first list of Secrets is not complete yet")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::election;

    #[tokio::test]
    async fn a_part_that_dies_is_named_and_the_others_are_stopped_and_awaited() {
        let all = [ADMIN_PORT, CONTROLLER, ELECTION, PUBLISHER];
        for dies in all {
            let (stop, stopped) = watch::channel(false);
            let mut parts = Parts::default();
            for name in all {
                let stopped = stopped.clone();
                parts.start(name, async move {
                    assert_ne!(name, dies, "a part that panics");
                    election::stopped(stopped).await;
                });
            }
            let (mut signals, drain) = (Signals::new().unwrap(), Drain::default());
            let ended = end(parts, &mut signals, &drain, &stop).await.unwrap_err();
            assert_eq!(ended.to_string(), format!("{dies} has ended unexpectedly"));
            assert!(drain.is_draining() && *stopped.borrow());
        }
    }
}
