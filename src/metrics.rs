//! Shared parts of all metrics. Each metric family is defined beside the code that it counts.
//!
//! No label names an object, so the number of series is fixed.

pub(crate) mod process;

use std::fmt;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Prefix of every metric family.
const PREFIX: &str = "ca_overlap";

/// One label. Name and value are known at compile time, so a client cannot create a series.
pub(crate) type Label = [(&'static str, &'static str); 1];

/// Makes a registry with our prefix and the metric of the running version.
pub fn registry() -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The version that runs", version);
    registry
}

/// The metrics of the program and of its process, as `OpenMetrics` text.
pub(crate) fn encode(ours: &Registry, process: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    encode_registry(&mut text, ours)?;
    encode_registry(&mut text, process)?;
    encode_eof(&mut text)?;
    Ok(text)
}

/// Registers whether this program runs with `--audit`, which changes nothing.
pub(crate) fn register_audit(registry: &mut Registry, audit: bool) {
    let gauge = Gauge::<i64>::default();
    gauge.set(audit.into());
    registry.register("audit", "1 with --audit: what is counted was not done", gauge);
}

/// A counter for each value of one label. All are exported from the start. Clones share the counts.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    family: Family<Label, Counter>,
    /// The counters of `family`, which need no lock here.
    by_value: Box<[(&'static str, Counter)]>,
}

impl Counters {
    /// Makes the counters for `values`: the names of an enum's variants, so that none is missing.
    pub(crate) fn new(label: &'static str, values: &[&'static str]) -> Self {
        let family = Family::<Label, Counter>::default();
        let handle = |value| (value, family.get_or_create_owned(&[(label, value)]));
        Self { by_value: values.iter().copied().map(handle).collect(), family }
    }

    /// Adds one to the counter of this value.
    pub(crate) fn inc(&self, value: impl Into<&'static str>) {
        let value = value.into();
        if let Some((_, counter)) = self.by_value.iter().find(|(known, _)| *known == value) {
            counter.inc();
        }
    }

    /// Registers the counters. The exporter appends `_total` to `name`.
    pub(crate) fn register(&self, registry: &mut Registry, name: &'static str, help: &'static str) {
        registry.register(name, help, self.family.clone());
    }
}
