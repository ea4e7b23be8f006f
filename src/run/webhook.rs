//! `ca-overlap webhook`: starts its parts, drains and ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::registry::Registry;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use super::parts::Parts;
use super::{ADMIN_PORT, LIST, RunError, administer, distrusted, lease_watch};
use crate::admission::handler::{self, Admission};
use crate::admission::keeper_lease::KeeperLease;
use crate::admission::metrics::AdmissionMetrics;
use crate::admission::respond::Installation;
use crate::kubernetes;
use crate::server::accept::{Limits, Server, Transport, bind};
use crate::server::admin::WebhookReadiness;
use crate::server::drain::{Drain, Signals};
use crate::server::metrics::ServerMetrics;
use crate::server::tls;
use crate::serving_cert::files::CertificateFiles;
use crate::serving_cert::manager::{Manager, ManagerConfig};
use crate::serving_cert::metrics::CertificateMetrics;
use crate::serving_cert::objects::{ObjectClient, ObjectNames};

/// The validated flags.
#[derive(Clone, Debug)]
pub(crate) struct WebhookConfig {
    /// `--listen`.
    pub(crate) listen: SocketAddr,
    /// `--admin-listen`.
    pub(crate) admin_listen: SocketAddr,
    /// Where the serving certificate comes from.
    pub(crate) source: CertificateSource,
    /// The defaults and names that reviews are answered with.
    pub(crate) installation: Installation,
    /// `--distrusted`.
    pub(crate) distrusted: Option<PathBuf>,
    /// `--keeper-lease`, if `--staged` is set.
    pub(crate) keeper_lease: Option<String>,
    /// Limits of the webhook's port.
    pub(crate) limits: Limits,
    /// `--drain-delay`.
    pub(crate) drain_delay: Duration,
    /// `--drain-timeout`.
    pub(crate) drain_timeout: Duration,
}

/// Where the serving certificate comes from.
#[derive(Clone, Debug)]
pub(crate) enum CertificateSource {
    /// `--tls-cert` and `--tls-key`.
    Files(CertificateFiles),
    /// `--self-managed`.
    SelfManaged(ObjectNames, ManagerConfig),
}

/// Runs the webhook until a signal ends it.
pub(crate) fn run(config: WebhookConfig) -> Result<(), RunError> {
    super::run(Builder::new_multi_thread(), config.limits.open(), serve(config))
}

async fn serve(config: WebhookConfig) -> Result<(), RunError> {
    let mut signals = Signals::new()?;
    let hangups = signal(SignalKind::hangup())?;
    let force = Arc::new(Notify::new());
    let mut parts = Parts::default();
    parts.start(HANGUPS, forward(hangups, force.clone()));
    let audit = config.installation.audit;
    let mut registry = super::registry(audit);
    let (metrics, certificate_metrics, admission_metrics) = register(&mut registry);

    let webhook_port = bind("--listen", config.listen).await?;
    let admin_port = bind("--admin-listen", config.admin_listen).await?;
    let address = webhook_port.local_addr()?;
    let (publisher, serving) = tls::channel();
    let trusted = match config.source {
        CertificateSource::Files(files) => {
            let reloader = files.publish(Timestamp::now(), publisher, certificate_metrics)?;
            parts.start(CERTIFICATES, reloader.run(force));
            None
        }
        CertificateSource::SelfManaged(objects, settings) => {
            let cluster = ObjectClient::new(client("--self-managed").await?, &objects);
            let (manager, trusted) =
                Manager::new(cluster, settings, publisher, certificate_metrics)?;
            parts.start(CERTIFICATES, manager.run(force));
            Some(trusted)
        }
    };

    let drain = Drain::default();
    let keeper = match config.keeper_lease {
        None => KeeperLease::not_watched(),
        Some(name) => {
            let namespace = &config.installation.own_namespace;
            let (keeper_lease, watch) =
                lease_watch::watch(client("--staged").await?, namespace, &name, audit);
            parts.start(LEASE, watch);
            keeper_lease
        }
    };
    let (sender, installation) = watch::channel(config.installation);
    let follow = distrusted::follow(config.distrusted, &mut registry, move |list| {
        sender.send_modify(|installation| installation.defaults.distrusted = list);
    });
    parts.start(LIST, follow);
    let admission = Admission {
        installation,
        keeper,
        max_body: config.limits.max_body,
        body_timeout: config.limits.request_timeout,
        metrics: admission_metrics,
    };
    let webhook = Server {
        transport: Transport::Tls(serving.clone()),
        router: handler::router(Arc::new(admission)),
        limits: config.limits,
        drain: drain.clone(),
        metrics: metrics.clone(),
    };
    let readiness = WebhookReadiness { address, published: serving, trusted, drain: drain.clone() };
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, audit, webhook = %address, admin = %admin_port.local_addr()?, "listening");
    parts.start(ADMIN_PORT, administer(admin_port, readiness, registry, config.limits, &drain));
    parts.start(PORT, webhook.run(webhook_port));
    end(parts, &mut signals, &drain, &metrics, config.drain_delay, config.drain_timeout).await
}

/// Registers the metrics of the webhook alone.
pub(super) fn register(
    registry: &mut Registry,
) -> (ServerMetrics, CertificateMetrics, AdmissionMetrics) {
    (
        ServerMetrics::register(registry),
        CertificateMetrics::register(registry),
        AdmissionMetrics::register(registry),
    )
}

const PORT: &str = "the webhook's port";
const CERTIFICATES: &str = "the source of the serving certificate";
const LEASE: &str = "the watch of the keeper's Lease";
const HANGUPS: &str = "the handler of SIGHUP";

/// Waits for a signal or the unexpected end of a part, then drains the connections.
async fn end(
    mut parts: Parts,
    signals: &mut Signals,
    drain: &Drain,
    metrics: &ServerMetrics,
    delay: Duration,
    limit: Duration,
) -> Result<(), RunError> {
    let outcome = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "draining: still accepting, and asking connections to close");
            Ok(())
        }
        part = parts.ended() => {
            tracing::error!(part, "a part has ended unexpectedly: draining, then exiting");
            Err(RunError::Ended(part))
        }
    };
    drain.start();
    metrics.draining();
    let cut = tokio::select! {
        cut = drain.finished(delay, limit), if parts.runs(PORT) => cut,
        signal = signals.next(), if parts.runs(PORT) => {
            tracing::warn!(signal, "second signal: exiting at once");
            drain.connections()
        }
        // The port is no longer served, so the callers should go to another replica at once.
        else => drain.connections(),
    };
    if cut > 0 {
        // Mostly idle ones: no request waits on them.
        tracing::warn!(connections = cut, "closing connections that did not end in time");
    }
    tracing::info!("the webhook has ended");
    outcome
}

/// On SIGHUP, asks the source of the serving certificate to rotate or reload.
async fn forward(mut hangups: Signal, force: Arc<Notify>) {
    while hangups.recv().await.is_some() {
        tracing::info!("SIGHUP: renewing the serving certificate");
        force.notify_one();
    }
}

async fn client(flag: &'static str) -> Result<kube::Client, RunError> {
    kubernetes::client::client().await.map_err(|error| RunError::Client(flag, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_dies_is_named_and_the_webhook_drains_while_it_accepts() {
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
