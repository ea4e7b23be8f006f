//! `ca-overlap keeper`: telemetry, the admin port, the election, and how it ends.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::act::Actor;
use super::api::Secrets;
use super::controller::Controller;
use super::due::{Problem, Rules};
use super::events::Events;
use super::lease::{self, Election};
use super::restart::Restarter;
use crate::server::accept::{BindError, Limits, Server, Transport, bind};
use crate::server::admin::{self, Admin, Ready};
use crate::server::drain::{Drain, Signals};
use crate::telemetry::{self, KeeperMetrics, ServerMetrics};

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

/// Why the keeper cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
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
    let mut registry = telemetry::registry();
    let metrics = KeeperMetrics::register(&mut registry, &Problem::NAMES);
    let admin_port = bind("--admin-listen", admin_listen).await?;
    let (stop, stopped) = watch::channel(false);

    let identity = election.identity.clone();
    let events = Events::start(client.clone(), identity.clone(), metrics.clone());
    let (election, leadership) = Election::new(client.clone(), election);
    let actor = Actor {
        secrets: Secrets::new(client.clone()),
        restarter: Restarter::new(client.clone()),
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
    tokio::spawn(admin.run(admin_port));
    let election = tokio::spawn(election.run(stopped.clone()));
    let controller = tokio::spawn(controller.run(client, stopped));

    let signal = signals.next().await;
    tracing::info!(signal, "ending: giving the Lease back");
    drain.start();
    stop.send_replace(true);
    let ended = async { drop(tokio::join!(controller, election)) };
    tokio::select! {
        () = ended => {}
        signal = signals.next() => tracing::warn!(signal, "ending at once"),
    }
    tracing::info!("ended");
    Ok(())
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
