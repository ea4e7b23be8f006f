//! What the admission endpoint counts.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::{Label, handle};

/// Counts what the admission endpoint decides. Clones count together.
#[derive(Clone, Debug)]
pub struct AdmissionMetrics {
    admissions: Family<Label, Counter>,
    by_decision: [Counter; Decision::ALL.len()],
    duration: Histogram,
    carried: Counter,
    warnings: Family<Label, Counter>,
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
            "requests_refused",
            "Requests that were no readable review, by HTTP status",
            metrics.requests_refused.clone(),
        );
        metrics
    }

    /// One review was answered, `elapsed` after its body had arrived.
    pub fn decided(&self, decision: Decision, elapsed: Duration) {
        if let Some(counter) = self.by_decision.get(decision as usize) {
            counter.inc();
        }
        self.duration.observe(elapsed.as_secs_f64());
    }

    /// `n` certificates were bundled into one object.
    pub fn carried(&self, n: u64) {
        self.carried.inc_by(n);
    }

    /// One warning was sent. Reasons are constants of ours, so their number is bounded.
    pub fn warned(&self, reason: &'static str) {
        self.warnings.get_or_create(&[("reason", reason)]).inc();
    }

    /// One request was answered with `status`, one of 400, 408, 413, 415 and 500; others count as
    /// 500.
    pub fn refused(&self, status: u16) {
        let at = STATUSES.iter().position(|s| *s == status).unwrap_or(STATUSES.len() - 1);
        if let Some(counter) = self.by_status.get(at) {
            counter.inc();
        }
    }
}

impl Default for AdmissionMetrics {
    /// Handles that count, in no registry.
    fn default() -> Self {
        let admissions = Family::<Label, Counter>::default();
        let by_decision =
            Decision::ALL.map(|decision| handle(&admissions, [("decision", decision.as_str())]));
        let requests_refused = Family::<Label, Counter>::default();
        let by_status = LABELS.map(|code| handle(&requests_refused, [("code", code)]));
        Self {
            admissions,
            by_decision,
            duration: Histogram::new(BUCKETS),
            carried: Counter::default(),
            warnings: Family::default(),
            requests_refused,
            by_status,
        }
    }
}

/// What was decided for one write, as metrics and audit annotations name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// No record, and nothing new was introduced.
    FirstContact,
    /// A carried certificate came back as the generator's own.
    Rollback,
    /// A new CA replaces the active one.
    Rotation,
    /// The generator wrote what it had written before, or bundles by itself.
    Same,
    /// The generator dropped one of its own.
    Retirement,
    /// `ca.crt` was left alone by the write.
    Unchanged,
    /// One side of `ca.crt` holds no readable certificate.
    NotReadable,
    /// Too many certificates for a rotation: a trust store.
    TrustStore,
    /// One side has no `ca.crt`.
    NoCa,
    /// A guard or `mode: off`.
    Skipped,
}

impl Decision {
    /// In the order of their declaration, which is the order of the handles.
    const ALL: [Self; 10] = [
        Self::FirstContact,
        Self::Rollback,
        Self::Rotation,
        Self::Same,
        Self::Retirement,
        Self::Unchanged,
        Self::NotReadable,
        Self::TrustStore,
        Self::NoCa,
        Self::Skipped,
    ];

    /// The value of the label `decision`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FirstContact => "first_contact",
            Self::Rollback => "rollback",
            Self::Rotation => "rotation",
            Self::Same => "same",
            Self::Retirement => "retirement",
            Self::Unchanged => "unchanged",
            Self::NotReadable => "not_readable",
            Self::TrustStore => "trust_store",
            Self::NoCa => "no_ca",
            Self::Skipped => "skipped",
        }
    }
}

/// The statuses that are counted, the last for all others.
const STATUSES: [u16; 5] = [400, 408, 413, 415, 500];
/// The same, as values of the label `code`.
const LABELS: [&str; 5] = ["400", "408", "413", "415", "500"];

/// Seconds. The API server's own histogram starts at 5 ms; ours must resolve what is below.
const BUCKETS: [f64; 14] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.5, 2.5,
];

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn counts_stand_under_their_names() {
        let mut registry = super::super::registry();
        let metrics = AdmissionMetrics::register(&mut registry);
        for decision in Decision::ALL {
            metrics.decided(decision, Duration::from_micros(40));
        }
        metrics.decided(Decision::Rotation, Duration::from_millis(3));
        metrics.carried(2);
        metrics.warned("not_parsed");
        metrics.refused(413);
        metrics.refused(418);

        let text = text(&registry);
        for line in [
            "ca_overlap_admissions_total{decision=\"rotation\"} 2",
            "ca_overlap_admissions_total{decision=\"first_contact\"} 1",
            "ca_overlap_admissions_total{decision=\"skipped\"} 1",
            "ca_overlap_admission_duration_seconds_count 11",
            "ca_overlap_certificates_carried_total 2",
            "ca_overlap_warnings_total{reason=\"not_parsed\"} 1",
            "ca_overlap_requests_refused_total{code=\"413\"} 1",
            "ca_overlap_requests_refused_total{code=\"500\"} 1",
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
