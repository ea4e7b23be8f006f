//! `ca-overlap webhook`: its parts, and how it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use super::parts::Parts;
use super::{ADMIN_PORT, Error, administer, lease};
use crate::admission::handler::{self, Admission};
use crate::admission::heartbeat::Heartbeat;
use crate::admission::metrics::AdmissionMetrics;
use crate::admission::respond::Installation;
use crate::kubernetes;
use crate::metrics;
use crate::server::accept::{Limits, Server, Transport, bind};
use crate::server::admin::Readiness;
use crate::server::drain::{Drain, Signals};
use crate::server::metrics::ServerMetrics;
use crate::server::tls;
use crate::serving_cert::api::{Cluster, Objects};
use crate::serving_cert::files::Files;
use crate::serving_cert::manager::{self, Manager};
use crate::serving_cert::metrics::CertificateMetrics;

/// The validated flags.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// `--listen`.
    pub(crate) listen: SocketAddr,
    /// `--admin-listen`.
    pub(crate) admin_listen: SocketAddr,
    /// Where the serving certificate comes from.
    pub(crate) source: Source,
    /// What reviews are answered by.
    pub(crate) installation: Installation,
    /// With `--staged`: the keeper's Lease.
    pub(crate) keeper_lease: Option<String>,
    /// Limits of the webhook's port.
    pub(crate) limits: Limits,
    /// `--request-timeout`, for a body.
    pub(crate) body_timeout: Duration,
    /// `--max-body`, in bytes.
    pub(crate) max_body: usize,
    /// `--drain-delay`.
    pub(crate) drain_delay: Duration,
    /// `--drain-timeout`.
    pub(crate) drain_timeout: Duration,
}

/// Where the serving certificate comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// `--tls-cert` and `--tls-key`.
    Files(Files),
    /// `--self-managed`.
    SelfManaged(Objects, manager::Settings),
}

/// Serves until a signal ends it.
pub(crate) fn run(config: Config) -> Result<(), Error> {
    super::run(Builder::new_multi_thread(), serve(config))
}

async fn serve(config: Config) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let hangups = signal(SignalKind::hangup())?;
    let force = Arc::new(Notify::new());
    let mut parts = Parts::default();
    parts.start(HANGUPS, forward(hangups, force.clone()));
    let mut registry = metrics::registry();
    let metrics = ServerMetrics::register(&mut registry);
    let certificate_metrics = CertificateMetrics::register(&mut registry);
    let admission_metrics = AdmissionMetrics::register(&mut registry);

    let webhook_port = bind("--listen", config.listen).await?;
    let admin_port = bind("--admin-listen", config.admin_listen).await?;
    let address = webhook_port.local_addr()?;
    let (publisher, serving) = tls::channel();
    let trusted = match config.source {
        Source::Files(files) => {
            let reloader = files.publish(Timestamp::now(), publisher, certificate_metrics)?;
            parts.start(CERTIFICATES, reloader.run(force));
            None
        }
        Source::SelfManaged(objects, settings) => {
            let cluster = Cluster::new(client("--self-managed").await?, &objects);
            let (manager, trusted) =
                Manager::new(cluster, settings, publisher, certificate_metrics)?;
            parts.start(CERTIFICATES, manager.run(force));
            Some(trusted)
        }
    };

    let drain = Drain::default();
    let keeper = match config.keeper_lease {
        None => Heartbeat::ignored(),
        Some(name) => {
            let namespace = &config.installation.own_namespace;
            let (heartbeat, watch) = lease::watch(client("--staged").await?, namespace, &name);
            parts.start(LEASE, watch);
            heartbeat
        }
    };
    let admission = Admission {
        installation: config.installation,
        keeper,
        max_body: config.max_body,
        body_timeout: config.body_timeout,
        metrics: admission_metrics,
    };
    let webhook = Server {
        transport: Transport::Tls(serving.clone()),
        router: handler::router(Arc::new(admission)),
        limits: config.limits,
        drain: drain.clone(),
        metrics: metrics.clone(),
    };
    let readiness = Readiness { address, published: serving, trusted, drain: drain.clone() };
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, webhook = %address, admin = %admin_port.local_addr()?, "listening");
    parts.start(ADMIN_PORT, administer(admin_port, readiness, registry, config.limits, &drain));
    parts.start(PORT, webhook.run(webhook_port));
    end(parts, &mut signals, &drain, &metrics, config.drain_delay, config.drain_timeout).await
}

const PORT: &str = "the webhook's port";
const CERTIFICATES: &str = "the source of the serving certificate";
const LEASE: &str = "the watch of the keeper's Lease";
const HANGUPS: &str = "the handler of SIGHUP";

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
