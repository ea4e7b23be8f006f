//! Serves `/livez`, `/readyz` and `/metrics` on the admin port, over plain HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::drain::Drain;
use super::self_check;
use super::tls::Published;
use crate::metrics::{encode, process};

/// The router of the admin port.
pub fn router<R: Ready>(admin: Admin<R>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz::<R>))
        .route("/metrics", get(metrics::<R>))
        .with_state(Arc::new(Served { admin, process: process::registry() }))
}

/// What the routes share.
struct Served<R> {
    admin: Admin<R>,
    process: Registry,
}

/// The state of the admin port.
#[derive(Debug)]
pub struct Admin<R> {
    /// Decides whether the process is ready.
    pub readiness: R,
    /// The metrics that `/metrics` shows, beside those of the process.
    pub registry: Registry,
}

/// Decides whether a process can do its work.
pub trait Ready: Send + Sync + 'static {
    /// The reason why it cannot, if there is one.
    fn missing(&self, now: Timestamp) -> impl Future<Output = Option<&'static str>> + Send;
}

/// Decides whether the webhook can do its work.
#[derive(Clone, Debug)]
pub struct WebhookReadiness {
    /// The address of the webhook port.
    pub address: SocketAddr,
    /// The configuration that is served there.
    pub published: Published,
    /// Self-managed: whether the caBundle, as last read, verifies the serving certificate.
    pub trusted: Option<watch::Receiver<bool>>,
    /// Whether the process is ending.
    pub drain: Drain,
}

impl Ready for WebhookReadiness {
    /// Checks with a TLS handshake to our own listener.
    async fn missing(&self, now: Timestamp) -> Option<&'static str> {
        if self.drain.is_draining() {
            return Some("draining: this process is about to end");
        }
        let Some(current) = self.published.borrow().clone() else {
            return Some("no serving certificate yet");
        };
        if current.check_valid(now).is_err() {
            return Some("the serving certificate is not valid now");
        }
        if self.trusted.as_ref().is_some_and(|trusted| !*trusted.borrow()) {
            return Some(
                "the caBundle of the MutatingWebhookConfiguration was not seen to verify the \
                 serving certificate",
            );
        }
        if !self_check::serves(self.address, current.leaf().clone()).await {
            return Some("the webhook's port does not answer with the serving certificate");
        }
        None
    }
}

async fn readyz<R: Ready>(State(served): State<Arc<Served<R>>>) -> Response {
    match served.admin.readiness.missing(Timestamp::now()).await {
        None => "ok\n".into_response(),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")).into_response(),
    }
}

/// The content type that Prometheus asks for (`OpenMetrics` specification, "Overall Structure").
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

async fn metrics<R: Ready>(State(served): State<Arc<Served<R>>>) -> Response {
    match encode(&served.admin.registry, &served.process) {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
