//! `ca-overlap keeper`: telemetry, the admin port, the election, and how it ends.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::keeper::act::Actor;
use crate::keeper::api::Secrets;
use crate::keeper::controller::Controller;
use crate::keeper::events::Events;
use crate::keeper::lease::{self, Election};
use crate::keeper::metrics::KeeperMetrics;
use crate::keeper::restart::Restarter;
use crate::metrics;
use crate::overlap::outlook::{Problem, Rules};
use crate::server::accept::{BindError, Limits, Server, Transport, bind};
use crate::server::admin::{self, Admin, Ready};
use crate::server::drain::{Drain, Signals};
use crate::server::metrics::ServerMetrics;

/// The validated flags.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--admin-listen`.
    pub admin_listen: SocketAddr,
    /// The Lease, and who we are.
    pub election: lease::Settings,
    /// `--settle`, `--default-mode`, `--keep` and `--window`.
    pub rules: Rules,
}

/// Why the keeper cannot start, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A part has ended that never should: a restart helps where going on does not.
    #[error("{0} has ended unexpectedly")]
    Ended(&'static str),
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used: {0}")]
    Client(kube::Error),
    /// There is no cluster.
    #[error("no cluster: set KUBECONFIG, or run in a pod: {0}")]
    NoCluster(kube::config::InferConfigError),
    /// The runtime, or signals, cannot be had.
    #[error("cannot start the runtime: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Keeps Secrets until a signal ends it.
pub fn run(config: Config) -> Result<(), StartError> {
    // Nearly all of the time is spent waiting for the API server.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let outcome = runtime.block_on(keep(config));
    // A task that hangs must not keep the process from ending.
    runtime.shutdown_background();
    outcome
}

const WORKERS: usize = 2;

/// As kubectl finds its way: `KUBECONFIG`, else as a pod.
async fn client() -> Result<Client, StartError> {
    let mut config = kube::Config::infer().await.map_err(StartError::NoCluster)?;
    // Who calls repeats, and knows what for.
    config.default_retry = false;
    Client::try_from(config).map_err(StartError::Client)
}

async fn keep(config: Config) -> Result<(), StartError> {
    let Config { admin_listen, election, rules } = config;
    let mut signals = Signals::new()?;
    let client = client().await?;
    let mut registry = metrics::registry();
    let metrics = KeeperMetrics::register(&mut registry, &Problem::NAMES);
    let admin_port = bind("--admin-listen", admin_listen).await?;
    let (stop, stopped) = watch::channel(false);

    let identity = election.identity.clone();
    let events = Events::start(client.clone(), identity.clone(), metrics.clone());
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
    let admin = Server {
        transport: Transport::Plain,
        router: admin::router(Admin { readiness, registry }),
        limits: ADMIN_LIMITS,
        drain: drain.without_waiting(),
        metrics: ServerMetrics::default(),
    };
    announce(&admin_port, &identity);
    let mut parts = Parts {
        admin: tokio::spawn(admin.run(admin_port)),
        controller: tokio::spawn(controller.run(client, stopped.clone())),
        election: tokio::spawn(election.run(stopped)),
    };

    let outcome = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "ending: giving the Lease back");
            Ok(())
        }
        // Another replica may act as soon as the Lease is given back.
        part = parts.first_end() => Err(StartError::Ended(part)),
    };
    drain.start();
    stop.send_replace(true);
    tokio::select! {
        () = parts.ended() => {}
        signal = signals.next() => tracing::warn!(signal, "ending at once"),
    }
    tracing::info!("ended");
    outcome
}

/// What runs until it is told to stop.
struct Parts<A> {
    admin: JoinHandle<A>,
    controller: JoinHandle<()>,
    election: JoinHandle<()>,
}

impl<A> Parts<A> {
    /// Waits for the first that ends, or panics, without being told to.
    async fn first_end(&mut self) -> &'static str {
        tokio::select! {
            _ = &mut self.admin => "the admin port",
            _ = &mut self.controller => "the controller",
            _ = &mut self.election => "the election",
        }
    }

    /// Waits for those that were told to.
    async fn ended(self) {
        for part in [self.controller, self.election] {
            // One that has been waited for already must not be asked again.
            if !part.is_finished() {
                drop(part.await);
            }
        }
    }
}

/// Kubelet, Prometheus and a person or two.
const ADMIN_LIMITS: Limits = Limits {
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

fn announce(admin: &TcpListener, identity: &str) {
    if let Ok(admin) = admin.local_addr() {
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!(version, %admin, identity, "keeping");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whichever_part_dies_is_noticed_and_the_others_are_waited_for() {
        for (dies, name) in [(0, "the admin port"), (1, "the controller"), (2, "the election")] {
            let (stop, stopped) = watch::channel(false);
            let part = |number: usize| {
                let stopped = stopped.clone();
                tokio::spawn(async move {
                    assert_ne!(number, dies, "a part that panics");
                    lease::stopped(stopped).await;
                })
            };
            let mut parts = Parts { admin: part(0), controller: part(1), election: part(2) };
            assert_eq!(parts.first_end().await, name);
            stop.send_replace(true);
            parts.ended().await;
        }
    }
}
