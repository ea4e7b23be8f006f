//! Metrics of the listener.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use strum::{IntoStaticStr, VariantNames};

use crate::metrics::Counters;

/// Counts connections and handshakes. Clones share their counts; the default is not registered.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    pub(super) connections: Gauge,
    accepted: Counter,
    evicted: Counters,
    pub(super) body_memory: Gauge,
    bodies_refused: Counters,
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
        metrics.evicted.register(
            registry,
            "connections_evicted",
            "Connections closed because others needed their places, by reason",
        );
        registry.register_with_unit(
            "body_memory",
            "Memory claimed by the bodies of requests in flight, of --body-memory",
            Unit::Bytes,
            metrics.body_memory.clone(),
        );
        metrics.bodies_refused.register(
            registry,
            "bodies_refused",
            "Requests answered with 503 because there was no memory for their body, by reason",
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
    pub(super) fn accepted(&self) {
        self.accepted.inc();
    }

    /// Counts a connection that was closed because others needed its place.
    pub(super) fn evicted(&self, reason: Eviction) {
        self.evicted.inc(reason);
    }

    /// Counts a body that got no memory, or lost it.
    pub(super) fn body_refused(&self, reason: BodyRefusal) {
        self.bodies_refused.inc(reason);
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
            evicted: Counters::new("reason", Eviction::VARIANTS),
            body_memory: Gauge::default(),
            bodies_refused: Counters::new("reason", BodyRefusal::VARIANTS),
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

/// Which connections are closed when others need their places.
#[derive(Clone, Copy, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Eviction {
    /// One without a request in flight.
    Idle,
    /// One that has sent no request.
    Silent,
    /// One that got no place itself.
    Waiting,
}

/// Why a body was refused.
#[derive(Clone, Copy, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub(super) enum BodyRefusal {
    /// It gave way to a body of a peer that held less, or that had waited.
    Displaced,
    /// None got free in time.
    NoMemory,
}

/// What a slow peer did not send, or read, in time.
#[derive(Clone, Copy, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub(super) enum TimeoutPhase {
    /// The rest of the TLS handshake.
    TlsHandshake,
    /// The rest of the first request's header.
    FirstRequest,
    /// The next request.
    Idle,
    /// The answer.
    Answer,
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn every_count_has_its_metric_name() {
        let mut registry = crate::metrics::registry();
        let metrics = ServerMetrics::register(&mut registry);
        metrics.accepted();
        metrics.evicted(Eviction::Idle);
        metrics.body_refused(BodyRefusal::NoMemory);
        metrics.handshake(HandshakeResult::Failed);
        metrics.timed_out(TimeoutPhase::FirstRequest);
        metrics.draining();

        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "ca_overlap_connections 0",
            "ca_overlap_connections_accepted_total 1",
            "ca_overlap_connections_evicted_total{reason=\"idle\"} 1",
            "ca_overlap_connections_evicted_total{reason=\"silent\"} 0",
            "ca_overlap_body_memory_bytes 0",
            "ca_overlap_bodies_refused_total{reason=\"no_memory\"} 1",
            "ca_overlap_tls_handshakes_total{result=\"failed\"} 1",
            "ca_overlap_connection_timeouts_total{phase=\"first_request\"} 1",
            "ca_overlap_draining 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
