//! Metrics of the serving certificate.

use std::sync::atomic::AtomicI64;

use jiff::Timestamp;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use strum::{IntoStaticStr, VariantNames};

use crate::metrics::Counters;

/// Counts renewals and shows expiry times. Clones share their values; the default is not
/// registered.
#[derive(Clone, Debug)]
pub struct CertificateMetrics {
    not_after: Gauge<i64, AtomicI64>,
    signing_ca_not_after: Gauge<i64, AtomicI64>,
    refreshes: Counters,
    bundle_verified: Gauge,
}

impl CertificateMetrics {
    /// Registers the metrics in `registry`, whose prefix is `ca_overlap`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register_with_unit(
            "serving_certificate_not_after_timestamp",
            "Expiry of the serving certificate, as a Unix time; 0 while there is none",
            Unit::Seconds,
            metrics.not_after.clone(),
        );
        registry.register_with_unit(
            "signing_ca_not_after_timestamp",
            "Expiry of our CA that issued the serving certificate, as a Unix time; 0 with mounted certificates",
            Unit::Seconds,
            metrics.signing_ca_not_after.clone(),
        );
        metrics.refreshes.register(
            registry,
            "serving_certificate_refreshes",
            "Attempts to renew or reload the serving certificate, by result",
        );
        registry.register(
            "ca_bundle_verified",
            "1 if the caBundle, as last read, verifies the serving certificate",
            metrics.bundle_verified.clone(),
        );
        metrics
    }

    /// Counts a new serving certificate, and records its expiry.
    pub(super) fn refreshed(&self, not_after: Timestamp) {
        self.refreshes.inc(RefreshResult::Ok);
        self.not_after.set(not_after.as_second());
    }

    /// Counts a failed renewal. The previous certificate stays in service.
    pub(super) fn refresh_failed(&self) {
        self.refreshes.inc(RefreshResult::Failed);
    }

    /// Records the expiry of the CA that issued the serving certificate.
    pub(super) fn signing_ca(&self, not_after: Timestamp) {
        self.signing_ca_not_after.set(not_after.as_second());
    }

    /// Records whether the caBundle, as last read, verifies the serving certificate.
    pub(super) fn bundle_verified(&self, verified: bool) {
        self.bundle_verified.set(i64::from(verified));
    }
}

impl Default for CertificateMetrics {
    fn default() -> Self {
        Self {
            not_after: Gauge::default(),
            signing_ca_not_after: Gauge::default(),
            refreshes: Counters::new("result", RefreshResult::VARIANTS),
            bundle_verified: Gauge::default(),
        }
    }
}

#[derive(IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
enum RefreshResult {
    Ok,
    Failed,
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn every_value_has_its_metric_name() {
        let mut registry = crate::metrics::registry();
        let metrics = CertificateMetrics::register(&mut registry);
        metrics.refreshed(Timestamp::from_second(2_000_000_000).unwrap());
        metrics.signing_ca(Timestamp::from_second(2_000_000_001).unwrap());
        metrics.bundle_verified(true);

        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "ca_overlap_serving_certificate_not_after_timestamp_seconds 2000000000",
            "ca_overlap_signing_ca_not_after_timestamp_seconds 2000000001",
            "ca_overlap_serving_certificate_refreshes_total{result=\"ok\"} 1",
            "ca_overlap_serving_certificate_refreshes_total{result=\"failed\"} 0",
            "ca_overlap_ca_bundle_verified 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
