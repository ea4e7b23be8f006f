//! What the admission endpoint counts.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::admission::respond::Verdict;
use crate::metrics::{Label, handle};
use crate::overlap::Warning;
use crate::overlap::ask::Ask;
use crate::overlap::staged::Change;

/// Counts what the admission endpoint decides. Clones count together.
#[derive(Clone, Debug)]
pub struct AdmissionMetrics {
    admissions: Family<Label, Counter>,
    by_verdict: [Counter; Verdict::ALL.len()],
    duration: Histogram,
    carried: Counter,
    warnings: Family<Label, Counter>,
    by_warning: [Counter; Warning::ALL.len()],
    asks: Family<Label, Counter>,
    by_ask: [Counter; Ask::NAMES.len()],
    stages: Family<Label, Counter>,
    by_change: [Counter; Change::NAMES.len()],
    requests_refused: Family<Label, Counter>,
    by_status: [Counter; STATUSES.len()],
}

impl AdmissionMetrics {
    /// Registers the families in `registry`, whose prefix is `ca_overlap`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "admissions",
            "Reviews that were answered, by what was decided",
            metrics.admissions.clone(),
        );
        registry.register_with_unit(
            "admission_duration",
            "From the whole body to the answer",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register(
            "certificates_carried",
            "Previous CA certificates that were bundled into an admitted object",
            metrics.carried.clone(),
        );
        registry.register(
            "warnings",
            "Admission warnings that were sent, by reason",
            metrics.warnings.clone(),
        );
        registry.register(
            "asks",
            "What the keeper asked for and was done, by ask",
            metrics.asks.clone(),
        );
        registry.register(
            "stages",
            "What has happened to staged rotations, by change",
            metrics.stages.clone(),
        );
        registry.register(
            "requests_refused",
            "Requests that were no readable review, by HTTP status",
            metrics.requests_refused.clone(),
        );
        metrics
    }

    /// One review was answered, `elapsed` after its body had arrived.
    pub fn decided(&self, verdict: Verdict, elapsed: Duration) {
        let at = Verdict::ALL.iter().position(|v| *v == verdict);
        if let Some(counter) = at.and_then(|at| self.by_verdict.get(at)) {
            counter.inc();
        }
        self.duration.observe(elapsed.as_secs_f64());
    }

    /// `n` certificates were bundled into one object.
    pub fn carried(&self, n: u64) {
        self.carried.inc_by(n);
    }

    /// One warning was sent.
    pub fn warned(&self, warning: Warning) {
        let at = Warning::ALL.iter().position(|w| *w == warning);
        if let Some(counter) = at.and_then(|at| self.by_warning.get(at)) {
            counter.inc();
        }
    }

    /// The keeper asked for this, and it was acted on.
    pub fn asked(&self, name: &str) {
        let at = Ask::NAMES.iter().position(|known| *known == name);
        if let Some(counter) = at.and_then(|at| self.by_ask.get(at)) {
            counter.inc();
        }
    }

    /// This has happened to a staged rotation.
    pub fn staged(&self, change: &str) {
        let at = Change::NAMES.iter().position(|known| *known == change);
        if let Some(counter) = at.and_then(|at| self.by_change.get(at)) {
            counter.inc();
        }
    }

    /// One request was answered with `status`: 400, 408, 413 or 415.
    pub fn refused(&self, status: u16) {
        let at = STATUSES.iter().position(|s| *s == status);
        if let Some(counter) = at.and_then(|at| self.by_status.get(at)) {
            counter.inc();
        }
    }
}

impl Default for AdmissionMetrics {
    /// Handles that count, in no registry.
    fn default() -> Self {
        let admissions = Family::<Label, Counter>::default();
        let by_verdict =
            Verdict::ALL.map(|verdict| handle(&admissions, [("decision", verdict.as_str())]));
        let warnings = Family::<Label, Counter>::default();
        let by_warning =
            Warning::ALL.map(|warning| handle(&warnings, [("reason", warning.reason())]));
        let asks = Family::<Label, Counter>::default();
        let by_ask = Ask::NAMES.map(|name| handle(&asks, [("ask", name)]));
        let stages = Family::<Label, Counter>::default();
        let by_change = Change::NAMES.map(|name| handle(&stages, [("change", name)]));
        let requests_refused = Family::<Label, Counter>::default();
        let by_status = LABELS.map(|code| handle(&requests_refused, [("code", code)]));
        Self {
            admissions,
            by_verdict,
            duration: Histogram::new(BUCKETS),
            carried: Counter::default(),
            warnings,
            by_warning,
            asks,
            by_ask,
            stages,
            by_change,
            requests_refused,
            by_status,
        }
    }
}

/// The statuses that are counted.
const STATUSES: [u16; 4] = [400, 408, 413, 415];
/// The same, as values of the label `code`.
const LABELS: [&str; 4] = ["400", "408", "413", "415"];

/// Seconds. The API server's own histogram starts at 5 ms; ours must resolve what is below.
const BUCKETS: [f64; 14] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.5, 2.5,
];

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::overlap::Case;

    #[test]
    fn counts_stand_under_their_names() {
        let mut registry = crate::metrics::registry();
        let metrics = AdmissionMetrics::register(&mut registry);
        for verdict in Verdict::ALL {
            metrics.decided(verdict, Duration::from_micros(40));
        }
        metrics.decided(Verdict::Decided(Case::Rotation), Duration::from_millis(3));
        metrics.carried(2);
        metrics.warned(Warning::DataFull);
        for ask in Ask::NAMES {
            metrics.asked(ask);
        }
        for change in Change::NAMES {
            metrics.staged(change);
        }
        metrics.refused(413);
        metrics.refused(400);

        let text = text(&registry);
        for line in [
            "ca_overlap_admissions_total{decision=\"rotation\"} 2",
            "ca_overlap_admissions_total{decision=\"first_contact\"} 1",
            "ca_overlap_admissions_total{decision=\"own_namespace\"} 1",
            "ca_overlap_admission_duration_seconds_count 17",
            "ca_overlap_certificates_carried_total 2",
            "ca_overlap_warnings_total{reason=\"data_full\"} 1",
            "ca_overlap_asks_total{ask=\"retire\"} 1",
            "ca_overlap_asks_total{ask=\"promote\"} 1",
            "ca_overlap_asks_total{ask=\"repair\"} 1",
            "ca_overlap_stages_total{change=\"begun\"} 1",
            "ca_overlap_stages_total{change=\"promoted\"} 1",
            "ca_overlap_requests_refused_total{code=\"413\"} 1",
            "ca_overlap_requests_refused_total{code=\"400\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("ca_overlap_build_info{version="), "{text}");
    }

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }
}
