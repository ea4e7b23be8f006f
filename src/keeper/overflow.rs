//! Reports what exceeds a budget of the keeper: by a metric, and by a log line that names the
//! namespace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub use super::metrics::Budget;
use super::metrics::KeeperMetrics;

/// How often one budget is named in the log.
const INTERVAL: Duration = Duration::from_secs(60);

/// Counts and logs. Clones share the metric and the times.
#[derive(Clone, Debug, Default)]
pub struct Overflow {
    metrics: KeeperMetrics,
    logged: Arc<Mutex<HashMap<Budget, Instant>>>,
}

impl Overflow {
    /// Reports to these metrics.
    pub fn new(metrics: KeeperMetrics) -> Self {
        Self { metrics, logged: Arc::default() }
    }

    /// Notes that something of this namespace is dropped.
    pub(crate) fn note(&self, budget: Budget, namespace: &str) {
        self.metrics.over_budget(budget);
        let now = Instant::now();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.get(&budget).is_none_or(|at| now - *at >= INTERVAL) {
            logged.insert(budget, now);
            let budget: &str = budget.into();
            tracing::warn!(
                namespace,
                budget,
                "this namespace uses more than its share: the keeper drops a part of it"
            );
        }
    }
}
