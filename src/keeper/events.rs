//! Events on Secrets (events.k8s.io/v1): what happened, for `kubectl describe` and `kubectl events`.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::keeper::metrics::{EventResult, KeeperMetrics};
use crate::kubernetes::call::call;
use crate::kubernetes::key::Key;
use crate::names;
use crate::x509::certs::Fingerprint;

/// Why an Event is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The webhook did not see, or did not do, what was asked.
    AskFailed,
    /// A CA was distrusted.
    Distrusted,
    /// A CA is carried from now on.
    Overlapping,
    /// The waiting pair serves.
    Promoted,
    /// What an update had dropped is carried again.
    Repaired,
    /// A workload was not restarted, or its rollout is stuck.
    RestartFailed,
    /// A workload was restarted.
    Restarted,
    /// A carried CA has gone.
    Retired,
    /// A carried CA is over, and the leaf needs it.
    RetireBlocked,
    /// A pair waits no longer, and does not serve either.
    StageEnded,
    /// A new pair waits.
    Staged,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::AskFailed => "AskFailed",
            Self::Distrusted => "Distrusted",
            Self::Overlapping => "Overlapping",
            Self::Promoted => "Promoted",
            Self::Repaired => "Repaired",
            Self::RestartFailed => "RestartFailed",
            Self::Restarted => "Restarted",
            Self::Retired => "Retired",
            Self::RetireBlocked => "RetireBlocked",
            Self::StageEnded => "StageEnded",
            Self::Staged => "Staged",
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::Distrusted => "Distrust",
            Self::AskFailed => "Ask",
            Self::Overlapping => "Overlap",
            Self::Promoted => "Promote",
            Self::Repaired => "Repair",
            Self::RestartFailed | Self::Restarted => "Restart",
            Self::Retired | Self::RetireBlocked => "Retire",
            Self::Staged | Self::StageEnded => "Stage",
        }
    }

    fn kind(self) -> EventType {
        match self {
            Self::AskFailed | Self::RestartFailed | Self::RetireBlocked => EventType::Warning,
            _ => EventType::Normal,
        }
    }
}

/// Where Events go. Never waits and never fails: an Event is a courtesy. Clones are the same.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Note>,
    metrics: KeeperMetrics,
}

#[derive(Debug)]
struct Note {
    key: Key,
    uid: Option<String>,
    reason: Reason,
    text: String,
}

impl Events {
    /// Where they go, and what publishes them as the replica `identity` until nobody can say one.
    pub fn new(
        client: Client,
        identity: String,
        metrics: KeeperMetrics,
    ) -> (Self, impl Future<Output = ()>) {
        let (queue, notes) = mpsc::channel(WAITING);
        let reporter =
            Reporter { controller: names::KEEPER_SERVICE_ACCOUNT.into(), instance: Some(identity) };
        let recorder = Recorder::new(client, reporter);
        let publisher = publish(recorder, notes, metrics.clone());
        (Self { queue, metrics }, publisher)
    }

    /// Says something about a Secret: the uid of its present object, what happened, and a text
    /// without anything of its content.
    pub(crate) fn say(&self, key: &Key, uid: Option<&str>, reason: Reason, text: String) {
        tracing::info!(secret = %key, reason = reason.as_str(), "{text}");
        let note = Note { key: key.clone(), uid: uid.map(ToOwned::to_owned), reason, text };
        if self.queue.try_send(note).is_err() {
            self.metrics.event(EventResult::Dropped);
        }
    }
}

/// How many wait for the API server; more are dropped.
const WAITING: usize = 256;
/// So many at once,
const BURST: u32 = 100;
/// and then one in this time. The recorder remembers each for six minutes, so this bounds its
/// memory, too.
const INTERVAL: Duration = Duration::from_millis(500);
/// The API server takes 1024 bytes; our texts are ASCII.
const MAX_TEXT: usize = 1000;

async fn publish(recorder: Recorder, mut notes: mpsc::Receiver<Note>, metrics: KeeperMetrics) {
    let mut bucket = Bucket { tokens: BURST, filled: Instant::now() };
    while let Some(Note { key, uid, reason, text }) = notes.recv().await {
        if !bucket.take(Instant::now()) {
            metrics.event(EventResult::Dropped);
            continue;
        }
        let event = Event {
            type_: reason.kind(),
            reason: reason.as_str().to_owned(),
            note: Some(text.chars().take(MAX_TEXT).collect()),
            action: reason.action().to_owned(),
            secondary: None,
        };
        let regarding = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Secret".to_owned()),
            namespace: Some(key.namespace().to_owned()),
            name: Some(key.name().to_owned()),
            uid,
            ..ObjectReference::default()
        };
        match call(recorder.publish(&event, &regarding)).await {
            Ok(()) => metrics.event(EventResult::Published),
            Err(error) => {
                metrics.event(EventResult::Failed);
                tracing::debug!(%error, secret = %key, "cannot publish an Event");
            }
        }
    }
}

/// A bucket of tokens.
struct Bucket {
    tokens: u32,
    filled: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        while self.filled + INTERVAL <= now {
            if self.tokens >= BURST {
                self.filled = now;
                break;
            }
            self.filled += INTERVAL;
            self.tokens += 1;
        }
        let has = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        has
    }
}

/// What to say of a repair: which CAs are carried again, and which settings are back, by their keys.
pub(crate) fn of_repair(carried_again: &[Fingerprint], restored: &[&str]) -> String {
    let mut what = Vec::new();
    if !carried_again.is_empty() {
        let all: Vec<String> = carried_again.iter().map(ToString::to_string).collect();
        what.push(format!("carried again: {}", all.join(", ")));
    }
    if !restored.is_empty() {
        what.push(format!("set again: {}", restored.join(", ")));
    }
    format!("a write that the webhook did not see had dropped this; {}", what.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repair_says_what_came_back() {
        let ca = Fingerprint::of(b"CA1");
        let text = of_repair(&[ca], &[]);
        assert!(text.ends_with(&format!("; carried again: {ca}")), "{text}");
        let text = of_repair(&[], &[names::KEEP, names::MODE]);
        assert!(text.ends_with("; set again: ca-overlap.dev/keep, ca-overlap.dev/mode"), "{text}");
        assert!(!text.contains("carried again"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_the_rate_is_kept() {
        let start = Instant::now();
        let mut bucket = Bucket { tokens: BURST, filled: start };
        let burst = (0..500).filter(|_| bucket.take(start)).count();
        assert_eq!(burst, 100);
        let minute = (1..=60_000)
            .filter(|ms| ms % 10 == 0 && bucket.take(start + Duration::from_millis(*ms)))
            .count();
        assert_eq!(minute, 120);
        let later = start + Duration::from_secs(86_400);
        assert_eq!((0..500).filter(|_| bucket.take(later)).count(), 100);
    }
}
