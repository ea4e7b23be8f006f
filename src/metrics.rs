//! What all metric families share. The families themselves stand beside what they count.
//!
//! No label names an object, so the number of series is fixed.

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

/// A handle on one member of a family; from then on the family's lock is not taken again.
pub(crate) fn handle<M: Default + Clone>(family: &Family<Label, M>, label: Label) -> M {
    family.get_or_create_owned(&label)
}
