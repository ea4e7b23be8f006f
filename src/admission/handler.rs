//! `POST /mutate`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;

use crate::names;
use crate::overlap::policy::Defaults;
use crate::telemetry::AdmissionMetrics;

/// What the handler needs; one for the whole process.
#[derive(Debug)]
pub struct Admission {
    /// What to do with the Secrets that do not say it themselves.
    pub defaults: Defaults,
    /// The namespace we run in: its Secrets are never touched.
    pub own_namespace: String,
    /// The largest body that is read, in bytes; a larger one gets 413.
    pub max_body: usize,
    /// How long a body may take to arrive; past it the answer is 408.
    pub body_timeout: Duration,
    /// Where decisions are counted.
    pub metrics: AdmissionMetrics,
}

/// The router of the webhook port: `POST /mutate` and nothing else.
pub fn router(admission: Arc<Admission>) -> Router {
    Router::new().route(names::MUTATE_PATH, post(|| async { "" })).with_state(admission)
}
