//! `ca-overlap keeper`: its parts, and how it ends.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use tokio::runtime::Builder;
use tokio::sync::watch;

use super::parts::Parts;
use super::{ADMIN_PORT, Error, administer};
use crate::keeper::controller::Controller;
use crate::keeper::events::Events;
use crate::keeper::lease::{self, Election};
use crate::keeper::metrics::KeeperMetrics;
use crate::keeper::reconcile::Actor;
use crate::keeper::secrets::Secrets;
use crate::keeper::workloads::Restarter;
use crate::kubernetes::client::client;
use crate::metrics;
use crate::overlap::outlook::Rules;
use crate::server::accept::{Limits, bind};
use crate::server::admin::Ready;
use crate::server::drain::{Drain, Signals};

/// The validated flags.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// `--admin-listen`.
    pub(crate) admin_listen: SocketAddr,
    /// The Lease, and who we are.
    pub(crate) election: lease::Settings,
    /// `--settle`, `--default-mode`, `--keep` and `--window`.
    pub(crate) rules: Rules,
}

/// Keeps Secrets until a signal ends it.
pub(crate) fn run(config: Config) -> Result<(), Error> {
    // Nearly all of the time is spent waiting for the API server.
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(2);
    super::run(runtime, keep(config))
}

async fn keep(config: Config) -> Result<(), Error> {
    let Config { admin_listen, election, rules } = config;
    let mut signals = Signals::new()?;
    let client = client().await.map_err(|error| Error::Client("keeper", error))?;
    let mut registry = metrics::registry();
    let metrics = KeeperMetrics::register(&mut registry);
    let admin_port = bind("--admin-listen", admin_listen).await?;
    let (stop, stopped) = watch::channel(false);

    let identity = election.identity.clone();
    let (events, publisher) = Events::new(client.clone(), identity.clone(), metrics.clone());
    let (election, leadership) = Election::new(client.clone(), election);
    let actor = Actor {
        secrets: Secrets::new(client.clone(), leadership.clone()),
        restarter: Restarter::new(client.clone(), leadership.clone()),
        rules,
        leadership,
    };
    let (controller, complete) = Controller::new(actor, events, metrics);
    let drain = Drain::default();
    let readiness = Readiness { complete, drain: drain.clone() };
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, admin = %admin_port.local_addr()?, identity, "keeping");
    let mut parts = Parts::default();
    parts.start(ADMIN_PORT, administer(admin_port, readiness, registry, LIMITS, &drain));
    // It ends with the controller, which is then the one to be named.
    parts.start(PUBLISHER, publisher.then(|()| pending::<()>()));
    parts.start(CONTROLLER, controller.run(client, stopped.clone()));
    parts.start(ELECTION, election.run(stopped));
    end(parts, &mut signals, &drain, &stop).await
}

const CONTROLLER: &str = "the controller";
const ELECTION: &str = "the election";
const PUBLISHER: &str = "the publisher of Events";

/// Waits for a signal, or for a part that ends by itself, then for those that are told to.
async fn end(
    mut parts: Parts,
    signals: &mut Signals,
    drain: &Drain,
    stop: &watch::Sender<bool>,
) -> Result<(), Error> {
    let outcome = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "ending: giving the Lease back");
            Ok(())
        }
        // Another replica may act as soon as the Lease is given back.
        part = parts.ended() => {
            tracing::error!(part, "it has ended unexpectedly: giving the Lease back");
            Err(Error::Ended(part))
        }
    };
    drain.start();
    stop.send_replace(true);
    tokio::select! {
        () = parts.all_ended(&[CONTROLLER, ELECTION]) => {}
        signal = signals.next() => tracing::warn!(signal, "ending at once"),
    }
    tracing::info!("ended");
    outcome
}

const LIMITS: Limits = Limits {
    max_connections: 64,
    handshake_timeout: Duration::from_secs(10),
    request_timeout: Duration::from_secs(10),
    idle_timeout: Duration::from_secs(120),
};

/// Ready is who has seen all Secrets, leader or not: a standby is there to take over.
#[derive(Clone, Debug)]
struct Readiness {
    complete: watch::Receiver<[bool; 2]>,
    drain: Drain,
}

impl Ready for Readiness {
    async fn missing(&self, _: Timestamp) -> Option<&'static str> {
        if self.drain.is_draining() {
            return Some("draining: this process is about to end");
        }
        (*self.complete.borrow() != [true; 2]).then_some("the Secrets are not listed yet")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whichever_part_dies_is_named_and_the_others_are_told_and_waited_for() {
        let all = [ADMIN_PORT, CONTROLLER, ELECTION, PUBLISHER];
        for dies in all {
            let (stop, stopped) = watch::channel(false);
            let mut parts = Parts::default();
            for name in all {
                let stopped = stopped.clone();
                parts.start(name, async move {
                    assert_ne!(name, dies, "a part that panics");
                    lease::stopped(stopped).await;
                });
            }
            let (mut signals, drain) = (Signals::new().unwrap(), Drain::default());
            let ended = end(parts, &mut signals, &drain, &stop).await.unwrap_err();
            assert_eq!(ended.to_string(), format!("{dies} has ended unexpectedly"));
            assert!(drain.is_draining() && *stopped.borrow());
        }
    }
}
