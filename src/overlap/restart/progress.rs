//! How far a restart has come, as it stands on the Secret:
//! `<trust> <workload> <since> <started|waits> [leaf]`, or `<trust>` when it is complete.

use jiff::Timestamp;

/// How far a restart has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The last workload that was begun. By name: the list may be edited meanwhile.
    pub workload: String,
    /// When its rollout was started, or since when it is waited for.
    pub since: Timestamp,
    /// It cannot be started yet.
    pub is_waiting: bool,
    /// The pods trust the CAs already; only the leaf is new to them.
    pub is_for_leaf: bool,
}

impl Progress {
    /// Whether the annotation tells of a restart that is not complete, readable or not.
    pub fn is_noted(text: &str) -> bool {
        text.split_ascii_whitespace().nth(1).is_some()
    }

    /// Reads the annotation.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace().skip(1);
        Some(Self {
            workload: words.next()?.to_owned(),
            since: words.next()?.parse().ok()?,
            is_waiting: match words.next()? {
                "started" => false,
                "waits" => true,
                _ => return None,
            },
            is_for_leaf: words.next() == Some("leaf"),
        })
    }

    /// The annotation's value for the change to `trust`.
    pub fn to_annotation(&self, trust: &str) -> String {
        let Self { workload, since, is_waiting, is_for_leaf } = self;
        let state = if *is_waiting { "waits" } else { "started" };
        let leaf = if *is_for_leaf { " leaf" } else { "" };
        format!("{trust} {workload} {since:.0} {state}{leaf}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_survives_printing_and_what_is_none_is_begun_anew() {
        for (is_waiting, is_for_leaf) in [(true, false), (false, false), (true, true)] {
            let since = "2026-03-01T10:00:00Z".parse().unwrap();
            let workload = "deployment/a".to_owned();
            let progress = Progress { workload, since, is_waiting, is_for_leaf };
            let text = progress.to_annotation("T2");
            assert!(text.starts_with("T2 ") && Progress::is_noted(&text));
            assert_eq!(Progress::parse(&text), Some(progress));
        }
        assert!(!Progress::is_noted("T2") && !Progress::is_noted(""));
        for text in ["", "T2", "T2 1 2026-03-01T10:00:00Z", "T2 deployment/a soon started"] {
            assert_eq!(Progress::parse(text), None, "{text}");
        }
    }
}
