//! `ca-overlap webhook`: its parts, and how it ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use super::parts::Parts;
use super::{ADMIN_PORT, Error, administer, lease};
use crate::admission::handler::{self, Admission};
use crate::admission::heartbeat::Heartbeat;
use crate::admission::metrics::AdmissionMetrics;
use crate::admission::respond::Installation;
use crate::kubernetes;
use crate::kubernetes::client::own_namespace;
use crate::metrics;
use crate::overlap::policy::Defaults;
use crate::server::accept::{Limits, Server, Transport, bind};
use crate::server::admin::Readiness;
use crate::server::drain::{Drain, Signals};
use crate::server::metrics::ServerMetrics;
use crate::server::tls::{self, Publisher};
use crate::serving_cert::api::Cluster;
use crate::serving_cert::files::Files;
use crate::serving_cert::manager::{self, Manager};
use crate::serving_cert::metrics::CertificateMetrics;

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

/// Serves until a signal ends it.
pub fn run(config: Config) -> Result<(), Error> {
    super::run(Builder::new_multi_thread(), serve(config))
}

async fn serve(config: Config) -> Result<(), Error> {
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
    let mut signals = Signals::new()?;
    let hangups = signal(SignalKind::hangup())?;
    let force = Arc::new(Notify::new());
    let mut parts = Parts::default();
    parts.start(HANGUPS, forward(hangups, force.clone()));
    let mut registry = metrics::registry();
    let metrics = ServerMetrics::register(&mut registry);
    let certificate_metrics = CertificateMetrics::register(&mut registry);
    let admission_metrics = AdmissionMetrics::register(&mut registry);
    let namespace = namespace.unwrap_or_else(own_namespace);

    let webhook_port = bind("--listen", listen).await?;
    let admin_port = bind("--admin-listen", admin_listen).await?;
    let address = webhook_port.local_addr()?;
    let (publisher, serving) = tls::channel();
    let certificates = Certificates {
        client_ca,
        reload_interval: tls_reload_interval,
        publisher,
        metrics: certificate_metrics,
        force,
    };
    let trusted = certificates.start(source, &namespace, &service, &mut parts).await?;

    let drain = Drain::default();
    let keeper = match keeper_lease {
        None => Heartbeat::ignored(),
        Some(name) => {
            let (heartbeat, watch) = lease::watch(client("--staged").await?, &namespace, &name);
            parts.start(LEASE, watch);
            heartbeat
        }
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
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, webhook = %address, admin = %admin_port.local_addr()?, "listening");
    parts.start(ADMIN_PORT, administer(admin_port, readiness, registry, limits, &drain));
    parts.start(PORT, webhook.run(webhook_port));
    end(parts, &mut signals, &drain, &metrics, drain_delay, drain_timeout).await
}

const PORT: &str = "the webhook's port";
const CERTIFICATES: &str = "the source of the serving certificate";
const LEASE: &str = "the watch of the keeper's Lease";
const HANGUPS: &str = "the ear for SIGHUP";

/// Waits for a signal, or for a part that ends by itself, then for the connections to end.
async fn end(
    mut parts: Parts,
    signals: &mut Signals,
    drain: &Drain,
    metrics: &ServerMetrics,
    delay: Duration,
    limit: Duration,
) -> Result<(), Error> {
    let outcome = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "draining: still accepting, but asking every connection to close");
            Ok(())
        }
        part = parts.ended() => {
            tracing::error!(part, "it has ended unexpectedly: draining");
            Err(Error::Ended(part))
        }
    };
    drain.start();
    metrics.draining();
    let cut = tokio::select! {
        cut = drain.finished(delay, limit), if parts.runs(PORT) => cut,
        signal = signals.next(), if parts.runs(PORT) => {
            tracing::warn!(signal, "ending at once");
            drain.connections()
        }
        // Nobody accepts any more: callers are better off with another replica.
        else => drain.connections(),
    };
    if cut > 0 {
        // Silent ones, mostly: whoever kept them past the limit would not have used them.
        tracing::warn!(connections = cut, "still open at the end");
    }
    tracing::info!("ended");
    outcome
}

/// SIGHUP ends nothing, but asks the source of certificates for a change.
async fn forward(mut hangups: Signal, force: Arc<Notify>) {
    while hangups.recv().await.is_some() {
        tracing::info!("SIGHUP: renewing what is served");
        force.notify_one();
    }
}

/// What every source of certificates needs.
struct Certificates {
    client_ca: Option<PathBuf>,
    reload_interval: Duration,
    publisher: Publisher,
    metrics: CertificateMetrics,
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
        parts: &mut Parts,
    ) -> Result<Option<watch::Receiver<bool>>, Error> {
        let Self { client_ca, reload_interval, publisher, metrics, force } = self;
        match source {
            Source::Files { cert, key } => {
                let files = Files { cert, key, client_ca, interval: reload_interval };
                let reloader = files.publish(Timestamp::now(), publisher, metrics)?;
                parts.start(CERTIFICATES, reloader.run(force));
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
                parts.start(CERTIFICATES, manager.run(force));
                Ok(Some(trusted))
            }
        }
    }
}

async fn client(flag: &'static str) -> Result<kube::Client, Error> {
    kubernetes::client::client().await.map_err(|error| Error::Client(flag, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whichever_part_dies_is_named_and_the_rest_drains_as_long_as_it_accepts() {
        let (delay, limit) = (Duration::from_secs(15), Duration::from_secs(110));
        let all = [PORT, ADMIN_PORT, CERTIFICATES, LEASE, HANGUPS];
        for (dies, panics) in all.into_iter().flat_map(|name| [(name, true), (name, false)]) {
            let mut parts = Parts::default();
            for name in all {
                parts.start(name, async move {
                    assert!(name != dies || !panics, "a part that panics");
                    if name != dies {
                        std::future::pending::<()>().await;
                    }
                });
            }
            let (mut signals, drain) = (Signals::new().unwrap(), Drain::default());
            let (metrics, start) = (ServerMetrics::default(), tokio::time::Instant::now());
            let ended = end(parts, &mut signals, &drain, &metrics, delay, limit).await.unwrap_err();
            assert_eq!(ended.to_string(), format!("{dies} has ended unexpectedly"));
            assert!(drain.is_draining());
            let expected = if dies == PORT { Duration::ZERO } else { delay };
            assert_eq!(start.elapsed(), expected, "{dies}");
        }
    }
}
