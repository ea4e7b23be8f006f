//! Logs and metric families, with handles that are resolved once.

use prometheus_client::registry::Registry;

/// Counts what the admission endpoint decides.
#[derive(Clone, Debug, Default)]
pub struct AdmissionMetrics {}

impl AdmissionMetrics {
    /// Registers the families in `registry`, whose prefix is `ca_overlap`.
    pub fn register(_registry: &mut Registry) -> Self {
        Self {}
    }
}
