//! What the source of the serving certificate counts.

use std::sync::atomic::AtomicI64;

use jiff::Timestamp;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use strum::{IntoStaticStr, VariantNames};

use crate::metrics::Counters;

/// Counts renewals, and says until when. Clones count together; the default is in no registry.
#[derive(Clone, Debug)]
pub struct CertificateMetrics {
    not_after: Gauge<i64, AtomicI64>,
    signing_ca_not_after: Gauge<i64, AtomicI64>,
    refreshes: Counters,
    bundle_verified: Gauge,
}

impl CertificateMetrics {
    /// Registers the families in `registry`, whose prefix is `ca_overlap`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register_with_unit(
            "serving_certificate_not_after",
            "When the certificate that is served expires, as a Unix time; 0 while there is none",
            Unit::Seconds,
            metrics.not_after.clone(),
        );
        registry.register_with_unit(
            "signing_ca_not_after",
            "When our own CA, of which we serve, expires, as a Unix time; 0 with mounted certificates",
            Unit::Seconds,
            metrics.signing_ca_not_after.clone(),
        );
        metrics.refreshes.register(
            registry,
            "serving_certificate_refreshes",
            "Attempts to renew or re-read the serving certificate, by result",
        );
        registry.register(
            "ca_bundle_verified",
            "1 if the caBundle, as last read back, verifies the certificate that is served",
            metrics.bundle_verified.clone(),
        );
        metrics
    }

    /// A serving certificate was renewed or re-read, and expires then.
    pub(super) fn refreshed(&self, not_after: Timestamp) {
        self.refreshes.inc(Refresh::Ok);
        self.not_after.set(not_after.as_second());
    }

    /// That failed: the one at hand stays.
    pub(super) fn refresh_failed(&self) {
        self.refreshes.inc(Refresh::Failed);
    }

    /// The CA that we issue the serving certificate by expires then.
    pub(super) fn signing_ca(&self, not_after: Timestamp) {
        self.signing_ca_not_after.set(not_after.as_second());
    }

    /// Whether the caBundle, as last read from the API server, verifies the served certificate.
    pub(super) fn bundle_verified(&self, verified: bool) {
        self.bundle_verified.set(i64::from(verified));
    }
}

impl Default for CertificateMetrics {
    fn default() -> Self {
        Self {
            not_after: Gauge::default(),
            signing_ca_not_after: Gauge::default(),
            refreshes: Counters::new("result", Refresh::VARIANTS),
            bundle_verified: Gauge::default(),
        }
    }
}

#[derive(IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
enum Refresh {
    Ok,
    Failed,
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn counts_stand_under_their_names() {
        let mut registry = crate::metrics::registry();
        let metrics = CertificateMetrics::register(&mut registry);
        metrics.refreshed(Timestamp::from_second(2_000_000_000).unwrap());
        metrics.signing_ca(Timestamp::from_second(2_000_000_001).unwrap());
        metrics.bundle_verified(true);

        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "ca_overlap_serving_certificate_not_after_seconds 2000000000",
            "ca_overlap_signing_ca_not_after_seconds 2000000001",
            "ca_overlap_serving_certificate_refreshes_total{result=\"ok\"} 1",
            "ca_overlap_serving_certificate_refreshes_total{result=\"failed\"} 0",
            "ca_overlap_ca_bundle_verified 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
