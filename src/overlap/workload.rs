//! The workloads that a Secret names in its annotation `restart` (DESIGN §4.3).

use std::fmt;

/// The most workloads that one Secret can name.
const MAX_WORKLOADS: usize = 16;

/// What can be restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its name, in the Secret's namespace.
    pub(crate) name: String,
}

/// The kinds of workloads that can be restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `daemonset`
    DaemonSet,
    /// `deployment`
    Deployment,
    /// `statefulset`
    StatefulSet,
}

impl Workload {
    /// Reads `deployment/x`, `statefulset/x` or `daemonset/x`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('/')?;
        let kind = match kind {
            "daemonset" => Kind::DaemonSet,
            "deployment" => Kind::Deployment,
            "statefulset" => Kind::StatefulSet,
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
            Kind::DaemonSet => "daemonset",
            Kind::Deployment => "deployment",
            Kind::StatefulSet => "statefulset",
        };
        write!(f, "{kind}/{}", self.name)
    }
}

/// Reads the annotation `restart`: the workloads in order, and how many of its words are none.
pub(crate) fn list(text: &str) -> (Vec<Workload>, usize) {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    let all: Vec<Option<Workload>> = words.map(Workload::parse).collect();
    let unreadable = all.iter().filter(|workload| workload.is_none()).count();
    let mut workloads: Vec<Workload> = all.into_iter().flatten().collect();
    let too_many = workloads.len().saturating_sub(MAX_WORKLOADS);
    workloads.truncate(MAX_WORKLOADS);
    (workloads, unreadable + too_many)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_read_and_what_is_none_is_not() {
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
