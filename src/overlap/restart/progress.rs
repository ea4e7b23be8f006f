//! The annotation `restarted`, which holds the progress of a restart:
//! `<trust> <workload> <since> <started|waits> [leaf]`, or `<trust>` when the restart is complete.

use jiff::Timestamp;

/// The progress of a restart that is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartProgress {
    /// The current workload, by name, because a person may edit the list meanwhile.
    pub workload: String,
    /// When its rollout started, or when the keeper began to wait for it.
    pub since: Timestamp,
    /// Whether its rollout cannot start yet.
    pub is_waiting: bool,
    /// Whether pods already trust the CAs, so that only the leaf is new to them.
    pub is_for_leaf: bool,
}

impl RestartProgress {
    /// Whether progress follows the trust in the annotation, even if the progress does not parse.
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

    /// The annotation's value for a restart that is for `trust`.
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
    fn progress_parses_back_and_other_text_does_not() {
        for (is_waiting, is_for_leaf) in [(true, false), (false, false), (true, true)] {
            let since = "2026-03-01T10:00:00Z".parse().unwrap();
            let workload = "deployment/a".to_owned();
            let progress = RestartProgress { workload, since, is_waiting, is_for_leaf };
            let text = progress.to_annotation("T2");
            assert!(text.starts_with("T2 ") && RestartProgress::is_noted(&text));
            assert_eq!(RestartProgress::parse(&text), Some(progress));
        }
        assert!(!RestartProgress::is_noted("T2") && !RestartProgress::is_noted(""));
        for text in ["", "T2", "T2 1 2026-03-01T10:00:00Z", "T2 deployment/a soon started"] {
            assert_eq!(RestartProgress::parse(text), None, "{text}");
        }
    }
}
