//! Metrics of the admission endpoint.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use strum::VariantNames;

use super::refusal::Refusal;
use super::respond::{AdmissionDecision, Answer};
use crate::metrics::Counters;
use crate::overlap::Warning;
use crate::overlap::ask::Ask;
use crate::overlap::staged::StageChange;

/// Counts the answers of the admission endpoint. Clones share their counts; the default is not
/// registered.
#[derive(Clone, Debug)]
pub struct AdmissionMetrics {
    admissions: Counters,
    duration: Histogram,
    carried: Counter,
    announced: Counter,
    warnings: Counters,
    asks: Counters,
    stages: Counters,
    requests_refused: Counters,
}

impl AdmissionMetrics {
    /// Registers the metrics in `registry`, whose prefix is `ca_overlap`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.admissions.register(
            registry,
            "admissions",
            "Admission reviews answered, by decision",
        );
        registry.register_with_unit(
            "admission_duration",
            "Time from the complete body to the answer",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register(
            "certificates_carried",
            "Previous CA certificates appended to admitted Secrets",
            metrics.carried.clone(),
        );
        registry.register(
            "certificates_announced",
            "CA certificates appended to admitted Secrets ahead of their use",
            metrics.announced.clone(),
        );
        metrics.warnings.register(registry, "warnings", "Admission warnings sent, by reason");
        metrics.asks.register(registry, "asks", "Asks of the keeper that were carried out, by ask");
        metrics.stages.register(registry, "stages", "Changes of staged rotations, by change");
        metrics.requests_refused.register(
            registry,
            "requests_refused",
            "Requests refused because they are not a readable admission review, by HTTP status",
        );
        metrics
    }

    /// Counts one answer, given `elapsed` after the body had arrived.
    pub(super) fn answered(&self, answer: &Answer, elapsed: Duration) {
        self.admissions.inc(answer.decision);
        self.duration.observe(elapsed.as_secs_f64());
        self.carried.inc_by(u64::try_from(answer.appended).unwrap_or(u64::MAX));
        self.announced.inc_by(u64::try_from(answer.announced).unwrap_or(u64::MAX));
        answer.asked.into_iter().for_each(|ask| self.asks.inc(ask));
        answer.staged.into_iter().for_each(|change| self.stages.inc(change));
        answer.warnings.iter().for_each(|warning| self.warnings.inc(*warning));
    }

    /// Counts one refused request.
    pub(super) fn refused(&self, refusal: &Refusal) {
        self.requests_refused.inc(refusal);
    }
}

impl Default for AdmissionMetrics {
    fn default() -> Self {
        Self {
            admissions: Counters::new("decision", &AdmissionDecision::names()),
            duration: Histogram::new(BUCKETS),
            carried: Counter::default(),
            announced: Counter::default(),
            warnings: Counters::new("reason", Warning::VARIANTS),
            asks: Counters::new("ask", Ask::VARIANTS),
            stages: Counters::new("change", StageChange::VARIANTS),
            requests_refused: Counters::new("code", Refusal::VARIANTS),
        }
    }
}

/// Seconds. The API server's own histogram starts at 5 ms; most of our answers take less.
const BUCKETS: [f64; 14] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.5, 2.5,
];

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::overlap::Case;
    use crate::overlap::record::Record;

    #[test]
    fn every_count_has_its_metric_name() {
        let mut registry = crate::metrics::registry();
        let metrics = AdmissionMetrics::register(&mut registry);
        let answer = Answer {
            decision: AdmissionDecision::Case(Case::Rotation),
            patch: None,
            warnings: vec![Warning::DataFull],
            record: Record::default(),
            appended: 2,
            announced: 3,
            cut: 0,
            asked: Some(Ask::Retire.name()),
            staged: Some(StageChange::Begun.into()),
            audit: None,
        };
        metrics.answered(&answer, Duration::from_millis(3));
        metrics.refused(&Refusal::TooLarge(1));

        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "ca_overlap_admissions_total{decision=\"rotation\"} 1",
            "ca_overlap_admissions_total{decision=\"first_contact\"} 0",
            "ca_overlap_admissions_total{decision=\"foreign_overlap\"} 0",
            "ca_overlap_admissions_total{decision=\"own_namespace\"} 0",
            "ca_overlap_admission_duration_seconds_count 1",
            "ca_overlap_certificates_carried_total 2",
            "ca_overlap_certificates_announced_total 3",
            "ca_overlap_warnings_total{reason=\"data_full\"} 1",
            "ca_overlap_warnings_total{reason=\"staged_cert_manager\"} 0",
            "ca_overlap_asks_total{ask=\"retire\"} 1",
            "ca_overlap_asks_total{ask=\"promote\"} 0",
            "ca_overlap_asks_total{ask=\"repair\"} 0",
            "ca_overlap_stages_total{change=\"begun\"} 1",
            "ca_overlap_stages_total{change=\"promoted\"} 0",
            "ca_overlap_requests_refused_total{code=\"413\"} 1",
            "ca_overlap_requests_refused_total{code=\"400\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("ca_overlap_build_info{version="), "{text}");
    }
}
