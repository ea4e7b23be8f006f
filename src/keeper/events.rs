//! Publishes Events on Secrets (events.k8s.io/v1), which `kubectl events` shows.

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

/// The reason of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The webhook did not see an ask, or changed nothing.
    AskFailed,
    /// A CA is distrusted.
    Distrusted,
    /// A CA is carried from now on.
    Overlapping,
    /// The waiting pair cannot go into service.
    PromoteBlocked,
    /// The waiting pair is now in service.
    Promoted,
    /// A waiting pair is now in service, although its group is not ready. Published as `Promoted`.
    PromotedAlone,
    /// The webhook restored what was dropped by a write that it did not see.
    Repaired,
    /// A workload was not restarted, or its rollout is stuck.
    RestartFailed,
    /// A workload was restarted.
    Restarted,
    /// A carried CA was removed.
    Retired,
    /// A carried CA has ended, but stays, because the Secret's own leaf needs it.
    RetireBlocked,
    /// A waiting pair was dropped without a promotion.
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
            Self::PromoteBlocked => "PromoteBlocked",
            Self::Promoted | Self::PromotedAlone => "Promoted",
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
            Self::PromoteBlocked | Self::Promoted | Self::PromotedAlone => "Promote",
            Self::Repaired => "Repair",
            Self::RestartFailed | Self::Restarted => "Restart",
            Self::Retired | Self::RetireBlocked => "Retire",
            Self::Staged | Self::StageEnded => "Stage",
        }
    }

    fn kind(self) -> EventType {
        match self {
            Self::AskFailed
            | Self::PromoteBlocked
            | Self::PromotedAlone
            | Self::RestartFailed
            | Self::RetireBlocked => EventType::Warning,
            _ => EventType::Normal,
        }
    }
}

/// Queues Events for publication. Never waits and never fails: Events may be lost. Clones share
/// one queue.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<QueuedEvent>,
    metrics: KeeperMetrics,
}

#[derive(Debug)]
struct QueuedEvent {
    key: Key,
    uid: Option<String>,
    reason: Reason,
    text: String,
}

impl Events {
    /// Creates the queue, and the future that publishes from it as the replica `identity`. The
    /// future ends when all clones of the queue are dropped.
    pub fn new(
        client: Client,
        identity: String,
        metrics: KeeperMetrics,
    ) -> (Self, impl Future<Output = ()>) {
        let (queue, notes) = mpsc::channel(MAX_QUEUED);
        let reporter =
            Reporter { controller: names::KEEPER_SERVICE_ACCOUNT.into(), instance: Some(identity) };
        let recorder = Recorder::new(client, reporter);
        let publisher = publish(recorder, notes, metrics.clone());
        (Self { queue, metrics }, publisher)
    }

    /// Logs an Event and queues it: the Secret's key and the uid of its present object, the reason,
    /// and a text that must not quote the Secret's content.
    pub(crate) fn publish(&self, key: &Key, uid: Option<&str>, reason: Reason, text: String) {
        tracing::info!(secret = %key, reason = reason.as_str(), "{text}");
        let note = QueuedEvent { key: key.clone(), uid: uid.map(ToOwned::to_owned), reason, text };
        if self.queue.try_send(note).is_err() {
            self.metrics.event(EventResult::Dropped);
        }
    }
}

/// The length of the queue; further Events are dropped.
const MAX_QUEUED: usize = 256;
/// How many Events may be published at once.
const BURST: u32 = 100;
/// After a burst, one Event may be published per interval. This also limits the memory of the
/// recorder, which keeps each Event for six minutes.
const INTERVAL: Duration = Duration::from_millis(500);
/// The API server accepts notes of up to 1024 bytes (events.k8s.io/v1); our texts are ASCII.
const MAX_TEXT: usize = 1000;

async fn publish(
    recorder: Recorder,
    mut notes: mpsc::Receiver<QueuedEvent>,
    metrics: KeeperMetrics,
) {
    let mut bucket = TokenBucket { tokens: BURST, filled: Instant::now() };
    while let Some(QueuedEvent { key, uid, reason, text }) = notes.recv().await {
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

/// A token bucket: a burst of [`BURST`] tokens, then one token per [`INTERVAL`].
struct TokenBucket {
    tokens: u32,
    filled: Instant,
}

impl TokenBucket {
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

/// The text for a repair: the CAs that are carried again, and the keys of the restored settings.
pub(crate) fn of_repair(carried_again: &[Fingerprint], restored: &[&str]) -> String {
    let mut what = Vec::new();
    if !carried_again.is_empty() {
        let all: Vec<String> = carried_again.iter().map(ToString::to_string).collect();
        what.push(format!("carried again: {}", all.join(", ")));
    }
    if !restored.is_empty() {
        what.push(format!("set again: {}", restored.join(", ")));
    }
    format!("the webhook missed a write that dropped CAs or settings; {}", what.join("; "))
}

/// How many names the text for a promotion lists.
const MAX_NAMES: usize = 3;

/// The text for a promotion that did not wait any longer for these Secrets of its group.
pub(crate) fn of_group_wait(not_awaited: &[String]) -> String {
    let named = not_awaited.iter().take(MAX_NAMES).map(String::as_str).collect::<Vec<_>>();
    let more = not_awaited.len() - named.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        "did not wait any longer for {}{more}: in the group, but without the new CA, changed within \
         --settle, or not restarted yet",
        named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_repair_names_what_was_restored() {
        let ca = Fingerprint::of(b"CA1");
        let text = of_repair(&[ca], &[]);
        assert!(text.ends_with(&format!("; carried again: {ca}")), "{text}");
        let text = of_repair(&[], &[names::KEEP, names::MODE]);
        assert!(text.ends_with("; set again: ca-overlap.dev/keep, ca-overlap.dev/mode"), "{text}");
        assert!(!text.contains("carried again"));
    }

    #[tokio::test(start_paused = true)]
    async fn events_pass_in_a_burst_and_then_at_a_fixed_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket { tokens: BURST, filled: start };
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
