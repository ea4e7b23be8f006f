//! The workloads in a Secret's annotation `restart` (docs/settings.md).

use std::fmt;

/// The most workloads that are read from one Secret.
const MAX_WORKLOADS: usize = 16;

/// A workload that the keeper can restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    /// Which kind of object it is.
    pub(crate) kind: WorkloadKind,
    /// The name of the object, which is in the Secret's namespace.
    pub(crate) name: String,
}

/// The kinds of workloads that the keeper can restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkloadKind {
    /// `daemonset`
    DaemonSet,
    /// `deployment`
    Deployment,
    /// `statefulset`
    StatefulSet,
}

impl Workload {
    /// Parses `deployment/x`, `statefulset/x` or `daemonset/x`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('/')?;
        let kind = match kind {
            "daemonset" => WorkloadKind::DaemonSet,
            "deployment" => WorkloadKind::Deployment,
            "statefulset" => WorkloadKind::StatefulSet,
            _ => return None,
        };
        let is_name = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        let fits = (1..=253).contains(&name.len()) && name.bytes().all(is_name);
        (fits && !name.starts_with('.')).then(|| Self { kind, name: name.to_owned() })
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            WorkloadKind::DaemonSet => "daemonset",
            WorkloadKind::Deployment => "deployment",
            WorkloadKind::StatefulSet => "statefulset",
        };
        write!(f, "{kind}/{}", self.name)
    }
}

/// Parses the annotation `restart`: the workloads in order, and how many words were dropped because
/// they name no workload or exceed the limit.
pub(crate) fn parse_list(text: &str) -> (Vec<Workload>, usize) {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    let all: Vec<Option<Workload>> = words.map(Workload::parse).collect();
    let invalid = all.iter().filter(|workload| workload.is_none()).count();
    let mut workloads: Vec<Workload> = all.into_iter().flatten().collect();
    let too_many = workloads.len().saturating_sub(MAX_WORKLOADS);
    workloads.truncate(MAX_WORKLOADS);
    (workloads, invalid + too_many)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_supported_kinds_with_valid_names_are_workloads() {
        for text in ["deployment/envoy-ratelimit", "statefulset/db.a", "daemonset/x"] {
            assert_eq!(Workload::parse(text).unwrap().to_string(), text);
        }
        for text in
            ["", "x", "pod/x", "deployment/", "deployment/../x", "deployment/a/b", "deployment/A"]
        {
            assert_eq!(Workload::parse(text), None, "{text}");
        }
    }
}
