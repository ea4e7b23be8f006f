//! `ca-overlap webhook`: telemetry, certificates, listeners, and how it ends.

use super::lease;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use kube::config::Kubeconfig;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::admission::handler::{self, Admission};
use crate::admission::heartbeat::Heartbeat;
use crate::admission::metrics::AdmissionMetrics;
use crate::admission::respond::Installation;
use crate::metrics;
use crate::names;
use crate::overlap::policy::Defaults;
use crate::server::accept::{Limits, Server, Transport, bind};
use crate::server::admin::{self, Admin, Readiness};
use crate::server::drain::{Drain, Signals};
use crate::server::metrics::ServerMetrics;
use crate::server::tls::{self, Publisher};
use crate::serving_cert::api::Cluster;
use crate::serving_cert::files::Files;
use crate::serving_cert::manager::{self, Manager};

/// The validated flags.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--listen`.
    pub listen: SocketAddr,
    /// `--admin-listen`.
    pub admin_listen: SocketAddr,
    /// Where the serving certificate comes from.
    pub source: Source,
    /// `--client-ca`.
    pub client_ca: Option<PathBuf>,
    /// `--tls-reload-interval`.
    pub tls_reload_interval: Duration,
    /// `--namespace`, if given.
    pub namespace: Option<String>,
    /// `--service`.
    pub service: String,
    /// `--keeper-user`, if given.
    pub keeper_user: Option<String>,
    /// With `--staged`: the keeper's Lease.
    pub keeper_lease: Option<String>,
    /// `--settle`.
    pub settle: Duration,
    /// `--default-mode`, `--keep` and `--window`.
    pub defaults: Defaults,
    /// Limits of the webhook's port.
    pub limits: Limits,
    /// `--request-timeout`, for a body.
    pub body_timeout: Duration,
    /// `--max-body`, in bytes.
    pub max_body: usize,
    /// `--drain-delay`.
    pub drain_delay: Duration,
    /// `--drain-timeout`.
    pub drain_timeout: Duration,
}

/// Where the serving certificate comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// `--tls-cert` and `--tls-key`.
    Files {
        /// PEM, the leaf first.
        cert: PathBuf,
        /// PEM.
        key: PathBuf,
    },
    /// `--self-managed`.
    SelfManaged {
        /// `--ca-secret`.
        ca_secret: String,
        /// `--webhook-config`.
        webhook_config: String,
        /// `--ca-lifetime`.
        ca_lifetime: Duration,
        /// `--leaf-lifetime`.
        leaf_lifetime: Duration,
        /// `--trust-settle`.
        trust_settle: Duration,
        /// `--reconcile-interval`.
        reconcile_interval: Duration,
    },
}

/// Serves until a signal ends it. Fails where it cannot start, or had to cut connections.
pub fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(serve(config));
    // A task that hangs must not keep the process from ending.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let Config {
        listen,
        admin_listen,
        source,
        client_ca,
        tls_reload_interval,
        namespace,
        service,
        keeper_user,
        keeper_lease,
        settle,
        defaults,
        limits,
        body_timeout,
        max_body,
        drain_delay,
        drain_timeout,
    } = config;
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let force = hangups().context("cannot listen for SIGHUP")?;
    let mut registry = metrics::registry();
    let metrics = ServerMetrics::register(&mut registry);
    let admission_metrics = AdmissionMetrics::register(&mut registry);
    let namespace = namespace.unwrap_or_else(own_namespace);

    let webhook_port = bind("--listen", listen).await?;
    let admin_port = bind("--admin-listen", admin_listen).await?;
    let address = webhook_port.local_addr().context("--listen: no local address")?;
    let (publisher, serving) = tls::channel();
    let certificates = Certificates {
        client_ca,
        reload_interval: tls_reload_interval,
        publisher,
        metrics: metrics.clone(),
        force,
    };
    let trusted = certificates.start(source, &namespace, &service).await?;

    let drain = Drain::default();
    let keeper = match keeper_lease {
        None => Heartbeat::ignored(),
        Some(name) => lease::watch(client("--staged").await?, &namespace, &name),
    };
    let usual = Installation::new(defaults, namespace);
    let keeper_user = keeper_user.unwrap_or_else(|| usual.keeper_user.clone());
    let installation = Installation { keeper_user, settle, ..usual };
    let admission =
        Admission { installation, keeper, max_body, body_timeout, metrics: admission_metrics };
    let webhook = Server {
        transport: Transport::Tls(serving.clone()),
        router: handler::router(Arc::new(admission)),
        limits,
        drain: drain.clone(),
        metrics: metrics.clone(),
    };
    let readiness = Readiness { address, published: serving, trusted, drain: drain.clone() };
    let admin = Server {
        transport: Transport::Plain,
        router: admin::router(Admin { readiness, registry }),
        limits: Limits { max_connections: ADMIN_CONNECTIONS, ..limits },
        drain: drain.without_waiting(),
        metrics: ServerMetrics::default(),
    };
    announce(&webhook_port, &admin_port);
    tokio::spawn(webhook.run(webhook_port));
    tokio::spawn(admin.run(admin_port));

    end(&mut signals, &drain, &metrics, drain_delay, drain_timeout).await
}

/// Waits for a signal, then for the connections to end.
async fn end(
    signals: &mut Signals,
    drain: &Drain,
    metrics: &ServerMetrics,
    delay: Duration,
    limit: Duration,
) -> anyhow::Result<()> {
    let signal = signals.next().await;
    tracing::info!(signal, "draining: still accepting, but asking every connection to close");
    drain.start();
    metrics.draining();
    let cut = tokio::select! {
        cut = drain.finished(delay, limit) => cut,
        signal = signals.next() => {
            tracing::warn!(signal, "ending at once");
            drain.connections()
        }
    };
    if cut > 0 {
        // Silent ones, mostly: whoever kept them past the limit would not have used them.
        tracing::warn!(connections = cut, "still open at the end");
    }
    tracing::info!("ended");
    Ok(())
}

/// From now on SIGHUP ends nothing, but asks the source of certificates for a change.
fn hangups() -> std::io::Result<Arc<Notify>> {
    let mut signals = signal(SignalKind::hangup())?;
    let force = Arc::new(Notify::new());
    let notified = force.clone();
    tokio::spawn(async move {
        while signals.recv().await.is_some() {
            tracing::info!("SIGHUP: renewing what is served");
            notified.notify_one();
        }
    });
    Ok(force)
}

/// What every source of certificates needs.
struct Certificates {
    client_ca: Option<PathBuf>,
    reload_interval: Duration,
    publisher: Publisher,
    metrics: ServerMetrics,
    /// Notified on SIGHUP.
    force: Arc<Notify>,
}

impl Certificates {
    /// Starts the source; self-managed, says whether the caBundle verifies what is served.
    async fn start(
        self,
        source: Source,
        namespace: &str,
        service: &str,
    ) -> anyhow::Result<Option<watch::Receiver<bool>>> {
        let Self { client_ca, reload_interval, publisher, metrics, force } = self;
        match source {
            Source::Files { cert, key } => {
                let files = Files { cert, key, client_ca, interval: reload_interval };
                let reloader = files.publish(Timestamp::now(), publisher, metrics)?;
                tokio::spawn(reloader.run(force));
                Ok(None)
            }
            Source::SelfManaged {
                ca_secret,
                webhook_config,
                ca_lifetime,
                leaf_lifetime,
                trust_settle,
                reconcile_interval,
            } => {
                let cluster = Cluster::new(
                    client("--self-managed").await?,
                    namespace,
                    &ca_secret,
                    &webhook_config,
                );
                let settings = manager::Settings {
                    dns_names: vec![
                        format!("{service}.{namespace}.svc"),
                        format!("{service}.{namespace}.svc.cluster.local"),
                    ],
                    ca_lifetime,
                    leaf_lifetime,
                    trust_settle,
                    reconcile_interval,
                    client_ca,
                    reload_interval,
                };
                let (manager, trusted) = Manager::new(cluster, settings, publisher, metrics)?;
                tokio::spawn(manager.run(force));
                Ok(Some(trusted))
            }
        }
    }
}

/// Kubelet, Prometheus and a person or two.
const ADMIN_CONNECTIONS: usize = 64;

fn announce(webhook: &TcpListener, admin: &TcpListener) {
    if let (Ok(webhook), Ok(admin)) = (webhook.local_addr(), admin.local_addr()) {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            %webhook,
            %admin,
            "listening"
        );
    }
}

/// As kubectl finds its way: `KUBECONFIG`, else as a pod.
async fn client(flag: &str) -> anyhow::Result<kube::Client> {
    // Its causes are told by its own text already.
    let mut config = kube::Config::infer().await.map_err(|error| {
        anyhow::anyhow!("{flag}: no cluster: set KUBECONFIG, or run in a pod: {error}")
    })?;
    // The rounds of the manager are the retries, and say so.
    config.default_retry = false;
    kube::Client::try_from(config).with_context(|| format!("{flag}: the kubeconfig cannot be used"))
}

/// The pod's own namespace, else that of the kubeconfig's context, else the manifests' default.
pub(crate) fn own_namespace() -> String {
    const OF_POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
    let of_pod = std::fs::read_to_string(OF_POD).ok().map(|name| name.trim().to_owned());
    of_pod
        .filter(|name| !name.is_empty())
        .or_else(of_kubeconfig)
        .unwrap_or_else(|| names::NAMESPACE.to_owned())
}

fn of_kubeconfig() -> Option<String> {
    let config = Kubeconfig::read().ok()?;
    let current = config.current_context?;
    let context = config.contexts.into_iter().find(|context| context.name == current)?;
    context.context?.namespace
}
