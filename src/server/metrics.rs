//! What the listener and the certificates count.

use std::sync::atomic::AtomicI64;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::metrics::{Label, handle};

/// Counts connections, handshakes and certificates. Clones count together; the default is in no
/// registry.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    connections: Gauge,
    accepted: Counter,
    evicted: Counter,
    handshakes: Family<Label, Counter>,
    by_result: [Counter; 3],
    timeouts: Family<Label, Counter>,
    by_phase: [Counter; 3],
    panics: Counter,
    not_after: Gauge<i64, AtomicI64>,
    signing_ca_not_after: Gauge<i64, AtomicI64>,
    refreshes: Family<Label, Counter>,
    by_refresh: [Counter; 2],
    bundle_verified: Gauge,
    draining: Gauge,
}

impl ServerMetrics {
    /// Registers the families in `registry`, whose prefix is `ca_overlap`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.register_connections(registry);
        metrics.register_certificates(registry);
        metrics
    }

    /// A connection was accepted.
    pub fn connected(&self) {
        self.accepted.inc();
        self.connections.inc();
    }

    /// A connection that had not asked anything made room for another one.
    pub fn evicted(&self) {
        self.evicted.inc();
    }

    /// A connection has ended.
    pub fn disconnected(&self) {
        self.connections.dec();
    }

    /// A TLS handshake has ended.
    pub fn handshake(&self, result: HandshakeResult) {
        let [ok, failed, timeout] = &self.by_result;
        match result {
            HandshakeResult::Ok => ok.inc(),
            HandshakeResult::Failed => failed.inc(),
            HandshakeResult::Timeout => timeout.inc(),
        };
    }

    /// A connection was closed because its peer was too slow.
    pub fn timed_out(&self, phase: TimeoutPhase) {
        let [handshake, first_request, idle] = &self.by_phase;
        match phase {
            TimeoutPhase::Handshake => handshake.inc(),
            TimeoutPhase::FirstRequest => first_request.inc(),
            TimeoutPhase::Idle => idle.inc(),
        };
    }

    /// A handler panicked; its request was answered with 500.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// A serving certificate was renewed or re-read, or that failed.
    pub fn refreshed(&self, result: RefreshResult) {
        let [ok, failed] = &self.by_refresh;
        match result {
            RefreshResult::Failed => {
                failed.inc();
            }
            RefreshResult::Ok { not_after } => {
                ok.inc();
                self.not_after.set(not_after.as_second());
            }
        }
    }

    /// The CA that we issue the serving certificate by expires then.
    pub fn signing_ca(&self, not_after: Timestamp) {
        self.signing_ca_not_after.set(not_after.as_second());
    }

    /// Whether the caBundle, as last read from the API server, verifies the served certificate.
    pub fn bundle_verified(&self, verified: bool) {
        self.bundle_verified.set(i64::from(verified));
    }

    /// The process was told to end.
    pub fn draining(&self) {
        self.draining.set(1);
    }

    fn register_connections(&self, registry: &mut Registry) {
        registry.register("connections", "Connections that are open", self.connections.clone());
        registry.register(
            "connections_accepted",
            "Connections that were accepted",
            self.accepted.clone(),
        );
        registry.register(
            "connections_evicted",
            "Connections that were closed to make room before they had asked anything",
            self.evicted.clone(),
        );
        registry.register(
            "tls_handshakes",
            "TLS handshakes that ended, by result",
            self.handshakes.clone(),
        );
        registry.register(
            "connection_timeouts",
            "Connections closed because the peer was too slow, by what was waited for",
            self.timeouts.clone(),
        );
        registry.register(
            "handler_panics",
            "Requests answered with 500 because their handler panicked",
            self.panics.clone(),
        );
        registry.register("draining", "1 once the process was told to end", self.draining.clone());
    }

    fn register_certificates(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "serving_certificate_not_after",
            "When the certificate that is served expires, as a Unix time; 0 while there is none",
            Unit::Seconds,
            self.not_after.clone(),
        );
        registry.register_with_unit(
            "signing_ca_not_after",
            "When our own CA, of which we serve, expires, as a Unix time; 0 with mounted certificates",
            Unit::Seconds,
            self.signing_ca_not_after.clone(),
        );
        registry.register(
            "serving_certificate_refreshes",
            "Attempts to renew or re-read the serving certificate, by result",
            self.refreshes.clone(),
        );
        registry.register(
            "ca_bundle_verified",
            "1 if the caBundle, as last read back, verifies the certificate that is served",
            self.bundle_verified.clone(),
        );
    }
}

impl Default for ServerMetrics {
    fn default() -> Self {
        let handshakes = Family::<Label, Counter>::default();
        let by_result = ["ok", "failed", "timeout"].map(|r| handle(&handshakes, [("result", r)]));
        let timeouts = Family::<Label, Counter>::default();
        let by_phase =
            ["tls_handshake", "first_request", "idle"].map(|p| handle(&timeouts, [("phase", p)]));
        let refreshes = Family::<Label, Counter>::default();
        let by_refresh = ["ok", "failed"].map(|r| handle(&refreshes, [("result", r)]));
        Self {
            connections: Gauge::default(),
            accepted: Counter::default(),
            evicted: Counter::default(),
            handshakes,
            by_result,
            timeouts,
            by_phase,
            panics: Counter::default(),
            not_after: Gauge::default(),
            signing_ca_not_after: Gauge::default(),
            refreshes,
            by_refresh,
            bundle_verified: Gauge::default(),
            draining: Gauge::default(),
        }
    }
}

/// How a TLS handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeResult {
    /// The peers agreed.
    Ok,
    /// They did not, or the connection broke.
    Failed,
    /// The peer was too slow.
    Timeout,
}

/// What was waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutPhase {
    /// The rest of the TLS handshake.
    Handshake,
    /// The rest of the first request's header.
    FirstRequest,
    /// Another request.
    Idle,
}

/// How an attempt to get a serving certificate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshResult {
    /// The one at hand stays.
    Failed,
    /// Published.
    Ok {
        /// When it expires.
        not_after: Timestamp,
    },
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn counts_stand_under_their_names() {
        let mut registry = crate::metrics::registry();
        let metrics = ServerMetrics::register(&mut registry);
        metrics.connected();
        metrics.connected();
        metrics.disconnected();
        metrics.handshake(HandshakeResult::Failed);
        metrics.timed_out(TimeoutPhase::FirstRequest);
        let not_after = Timestamp::from_second(2_000_000_000).unwrap();
        metrics.refreshed(RefreshResult::Ok { not_after });
        metrics.signing_ca(Timestamp::from_second(2_000_000_001).unwrap());
        metrics.bundle_verified(true);
        metrics.draining();

        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "ca_overlap_connections 1",
            "ca_overlap_connections_accepted_total 2",
            "ca_overlap_tls_handshakes_total{result=\"failed\"} 1",
            "ca_overlap_connection_timeouts_total{phase=\"first_request\"} 1",
            "ca_overlap_serving_certificate_not_after_seconds 2000000000",
            "ca_overlap_signing_ca_not_after_seconds 2000000001",
            "ca_overlap_serving_certificate_refreshes_total{result=\"ok\"} 1",
            "ca_overlap_ca_bundle_verified 1",
            "ca_overlap_draining 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
