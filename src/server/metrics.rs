//! Metrics of the listener.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use strum::{IntoStaticStr, VariantNames};

use crate::metrics::Counters;

/// Counts connections and handshakes. Clones share their counts; the default is not registered.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    connections: Gauge,
    accepted: Counter,
    evicted: Counter,
    handshakes: Counters,
    timeouts: Counters,
    panics: Counter,
    draining: Gauge,
}

impl ServerMetrics {
    /// Registers the metrics in `registry`, whose prefix is `ca_overlap`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register("connections_accepted", "Connections accepted", metrics.accepted.clone());
        registry.register(
            "connections_evicted",
            "Connections without a request that were closed to make room for new ones",
            metrics.evicted.clone(),
        );
        metrics.handshakes.register(registry, "tls_handshakes", "TLS handshakes, by result");
        metrics.timeouts.register(
            registry,
            "connection_timeouts",
            "Connections closed because the peer was too slow, by phase",
        );
        registry.register(
            "handler_panics",
            "Requests answered with 500 because their handler panicked",
            metrics.panics.clone(),
        );
        registry.register(
            "draining",
            "1 after the process was told to stop",
            metrics.draining.clone(),
        );
        metrics
    }

    /// Counts an accepted connection.
    pub(super) fn connected(&self) {
        self.accepted.inc();
        self.connections.inc();
    }

    /// Counts an evicted connection.
    pub(super) fn evicted(&self) {
        self.evicted.inc();
    }

    /// Counts the end of a connection.
    pub(super) fn disconnected(&self) {
        self.connections.dec();
    }

    /// Counts a TLS handshake.
    pub(super) fn handshake(&self, result: HandshakeResult) {
        self.handshakes.inc(result);
    }

    /// Counts a connection that was closed because its peer was too slow.
    pub(super) fn timed_out(&self, phase: TimeoutPhase) {
        self.timeouts.inc(phase);
    }

    /// Counts a handler that panicked.
    pub(super) fn panicked(&self) {
        self.panics.inc();
    }

    /// Records that the process was told to stop.
    pub(crate) fn draining(&self) {
        self.draining.set(1);
    }
}

impl Default for ServerMetrics {
    fn default() -> Self {
        Self {
            connections: Gauge::default(),
            accepted: Counter::default(),
            evicted: Counter::default(),
            handshakes: Counters::new("result", HandshakeResult::VARIANTS),
            timeouts: Counters::new("phase", TimeoutPhase::VARIANTS),
            panics: Counter::default(),
            draining: Gauge::default(),
        }
    }
}

/// How a TLS handshake ended.
#[derive(Clone, Copy, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub(super) enum HandshakeResult {
    /// It succeeded.
    Ok,
    /// It failed, or the connection broke.
    Failed,
    /// The peer was too slow.
    Timeout,
}

/// What a slow peer did not send in time.
#[derive(Clone, Copy, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub(super) enum TimeoutPhase {
    /// The rest of the TLS handshake.
    TlsHandshake,
    /// The rest of the first request's header.
    FirstRequest,
    /// The next request.
    Idle,
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn every_count_has_its_metric_name() {
        let mut registry = crate::metrics::registry();
        let metrics = ServerMetrics::register(&mut registry);
        metrics.connected();
        metrics.connected();
        metrics.disconnected();
        metrics.handshake(HandshakeResult::Failed);
        metrics.timed_out(TimeoutPhase::FirstRequest);
        metrics.draining();

        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "ca_overlap_connections 1",
            "ca_overlap_connections_accepted_total 2",
            "ca_overlap_tls_handshakes_total{result=\"failed\"} 1",
            "ca_overlap_connection_timeouts_total{phase=\"first_request\"} 1",
            "ca_overlap_draining 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
