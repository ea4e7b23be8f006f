//! What all metric families share. The families themselves stand beside what they count.
//!
//! No label names an object, so the number of series is fixed.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Prefix of every metric family.
const PREFIX: &str = "ca_overlap";

/// One label, both sides known at compile time: nothing a client sends can become a series.
pub(crate) type Label = [(&'static str, &'static str); 1];

/// An empty registry with our prefix, that says which version runs.
pub fn registry() -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The version that runs", version);
    registry
}

/// A counter for each value of a label, all there from the start. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    family: Family<Label, Counter>,
    /// Found here, they need no lock.
    by_value: Box<[(&'static str, Counter)]>,
}

impl Counters {
    /// For these values: the names of an enum's variants, so that none is forgotten.
    pub(crate) fn new(label: &'static str, values: &[&'static str]) -> Self {
        let family = Family::<Label, Counter>::default();
        let handle = |value| (value, family.get_or_create_owned(&[(label, value)]));
        Self { by_value: values.iter().copied().map(handle).collect(), family }
    }

    /// One more of this value.
    pub(crate) fn inc(&self, value: impl Into<&'static str>) {
        let value = value.into();
        if let Some((_, counter)) = self.by_value.iter().find(|(known, _)| *known == value) {
            counter.inc();
        }
    }

    /// Registers them, without the suffix `_total`.
    pub(crate) fn register(&self, registry: &mut Registry, name: &'static str, help: &'static str) {
        registry.register(name, help, self.family.clone());
    }
}
