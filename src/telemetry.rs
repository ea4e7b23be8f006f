//! Logs and metric families, with handles that are resolved once.
//!
//! Nothing here ever takes an object, a body or a key: what is logged and counted is a decision, a
//! reason or a number. No label names an object, so the number of series is fixed.

mod admission;
mod keeper;
mod logs;
mod server;

pub use admission::AdmissionMetrics;
pub use keeper::{AskKind, AskResult, EventResult, KeeperMetrics, RestartResult};
pub use logs::{Format, Level, init};
pub use server::{HandshakeResult, RefreshResult, ServerMetrics, TimeoutPhase};

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Prefix of every metric family.
const PREFIX: &str = "ca_overlap";

/// One label, both sides known at compile time: nothing a client sends can become a series.
type Label = [(&'static str, &'static str); 1];

/// An empty registry with our prefix, that says which version runs.
pub fn registry() -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The version that runs", version);
    registry
}

/// A handle on one member of a family; from then on the family's lock is not taken again.
fn handle<M: Default + Clone>(family: &Family<Label, M>, label: Label) -> M {
    family.get_or_create_owned(&label)
}
