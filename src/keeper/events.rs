//! Publishes Events on Secrets (events.k8s.io/v1), which `kubectl events` shows.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep_until};

use super::overflow::{Budget, Overflow};
use super::turns;
use crate::keeper::metrics::{EventResult, KeeperMetrics, RestartResult};
use crate::kubernetes::call::call;
use crate::kubernetes::key::Key;
use crate::kubernetes::reason::{AUDIT_NOTE, Reason};
use crate::names;
use crate::overlap::restart::RestartOutcome;
use crate::x509::certs::Fingerprint;

/// Queues Events for publication. Never waits and never fails: Events may be lost. The namespaces
/// take turns. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Events {
    queue: turns::Sender<QueuedEvent>,
    overflow: Overflow,
    metrics: KeeperMetrics,
}

#[derive(Debug)]
struct QueuedEvent {
    key: Key,
    uid: Option<String>,
    reason: Reason,
    is_warning: bool,
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
        let (queue, notes) = turns::channel(MAX_QUEUED);
        let publisher = publish(client, identity, notes, metrics.clone());
        (Self { queue, overflow: Overflow::new(metrics.clone()), metrics }, publisher)
    }

    /// Logs an Event, a warning at `warn`, and queues it: the Secret's key and the uid of its present
    /// object, the reason, and a text that must not quote the Secret's content.
    pub(crate) fn publish(&self, key: &Key, uid: Option<&str>, reason: Reason, text: String) {
        self.queue(key, uid, reason, reason.is_warning(), text);
    }

    /// As [`Self::publish`], but says `what` would be done with `--audit`. It is no warning.
    pub(super) fn would(&self, key: &Key, uid: Option<&str>, reason: Reason, what: &str) {
        self.queue(key, uid, reason, false, format!("{AUDIT_NOTE}{what}"));
    }

    fn queue(&self, key: &Key, uid: Option<&str>, reason: Reason, is_warning: bool, text: String) {
        let name = reason.name();
        if is_warning {
            tracing::warn!(secret = %key, reason = name, "{text}");
        } else {
            tracing::info!(secret = %key, reason = name, "{text}");
        }
        let uid = uid.map(ToOwned::to_owned);
        let note = QueuedEvent { key: key.clone(), uid, reason, is_warning, text };
        for namespace in self.queue.send(key.namespace(), note) {
            self.metrics.event(EventResult::Dropped);
            self.overflow.note(Budget::Events, &namespace);
        }
    }
}

/// The length of the queue. When it is full, the namespace with most Events loses its last ones.
const MAX_QUEUED: usize = 256;
/// How many Events may be published at once.
const BURST: u32 = 100;
/// After a burst, one Event may be published per interval.
const INTERVAL: Duration = Duration::from_millis(500);
/// How much of a Secret's name begins the name of an Event. The API server rejects the beginning of a
/// generated name that ends with anything but `-`, or is too long, and shortens it to 58 bytes.
const MAX_NAME: usize = 57;
/// The API server accepts notes of up to 1024 bytes (events.k8s.io/v1); our texts are ASCII.
const MAX_TEXT: usize = 1000;

/// Publishes each Event as an object of its own. The recorder of the client library would merge
/// those of one Secret and reason, whatever their texts: other CAs and workloads would not be named.
async fn publish(
    client: Client,
    identity: String,
    mut notes: turns::Receiver<QueuedEvent>,
    metrics: KeeperMetrics,
) {
    let mut bucket = TokenBucket { tokens: BURST, filled: Instant::now() };
    loop {
        while !bucket.take(Instant::now()) {
            sleep_until(bucket.filled + INTERVAL).await;
        }
        let Some(queued) = notes.next().await else { return };
        let api: Api<Event> = Api::namespaced(client.clone(), queued.key.namespace());
        let event = queued.event(&identity, Timestamp::now());
        match call(api.create(&PostParams::default(), &event)).await {
            Ok(_) => metrics.event(EventResult::Published),
            Err(error) => {
                metrics.event(EventResult::Failed);
                tracing::debug!(%error, secret = %queued.key, "cannot publish an Event");
            }
        }
    }
}

impl QueuedEvent {
    /// The object to create. The API server completes its name.
    fn event(&self, identity: &str, now: Timestamp) -> Event {
        let (namespace, name) = (self.key.namespace().to_owned(), self.key.name());
        Event {
            metadata: ObjectMeta {
                generate_name: Some(name.chars().take(MAX_NAME).chain(['-']).collect()),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            type_: Some(if self.is_warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(self.reason.name().to_owned()),
            action: Some(self.reason.action().to_owned()),
            note: Some(self.text.chars().take(MAX_TEXT).collect()),
            regarding: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Secret".to_owned()),
                namespace: Some(namespace),
                name: Some(name.to_owned()),
                uid: self.uid.clone(),
                ..ObjectReference::default()
            }),
            reporting_controller: Some(names::KEEPER_SERVICE_ACCOUNT.to_owned()),
            reporting_instance: Some(identity.to_owned()),
            ..Event::default()
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

/// The text for the result of a step of restarting a workload.
pub(crate) fn of_restart(outcome: &RestartOutcome) -> (RestartResult, Reason, &'static str) {
    match outcome {
        RestartOutcome::Complete => {
            (RestartResult::Done, Reason::Restarted, "its rollout is complete")
        }
        RestartOutcome::Denied => (
            RestartResult::Failed,
            Reason::RestartFailed,
            "the API server or an admission policy does not allow it",
        ),
        RestartOutcome::NoConsent => (
            RestartResult::NotAllowed,
            Reason::RestartFailed,
            "not restarted, because it does not consent: its pod template refers neither \
             to this Secret nor to one of its group that names the workload, and it does \
             not carry the annotation ca-overlap.dev/allow-restart=true",
        ),
        RestartOutcome::Paused => (
            RestartResult::Stuck,
            Reason::RestartFailed,
            "it has been paused, or in an earlier rollout, for more than ten minutes",
        ),
        RestartOutcome::NotAllowed(why) => (RestartResult::NotAllowed, Reason::RestartFailed, *why),
        RestartOutcome::Reverted => (
            RestartResult::Reverted,
            Reason::RestartFailed,
            "something removed the restart annotation from its pod template",
        ),
        RestartOutcome::Stuck => (
            RestartResult::Stuck,
            Reason::RestartFailed,
            "its rollout has taken more than ten minutes",
        ),
        RestartOutcome::Started | RestartOutcome::Waiting => (
            RestartResult::Started,
            Reason::Restarted,
            "its pods are being replaced, because their trust has changed",
        ),
    }
}

/// How many names the text for a promotion lists.
const MAX_NAMES: usize = 3;

/// The text for a promotion that did not wait any longer for these Secrets.
pub(crate) fn of_group_wait(not_awaited: &[String]) -> String {
    let named = not_awaited.iter().take(MAX_NAMES).map(String::as_str).collect::<Vec<_>>();
    let more = not_awaited.len() - named.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        "did not wait any longer for {}{more}: without the new CA, changed within --settle, or not \
         restarted yet",
        named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use http::Method;
    use serde_json::json;

    use super::super::mock::api;
    use super::*;

    #[tokio::test]
    async fn two_events_of_a_secret_with_one_reason_are_two_objects() {
        let (client, mut api) = api();
        let (events, publisher) = Events::new(client, "me".to_owned(), KeeperMetrics::default());
        let key = Key::new("n", "s");
        let texts = ["deployment/a: it does not exist", "deployment/b: it does not exist"];
        for text in texts {
            events.publish(&key, Some("u"), Reason::RestartFailed, text.to_owned());
        }
        drop(events);
        let server = async {
            for text in texts {
                let call =
                    api.expect(&Method::POST, "/apis/events.k8s.io/v1/namespaces/n/events").await;
                let about = json!({
                    "apiVersion": "v1", "kind": "Secret", "namespace": "n", "name": "s", "uid": "u",
                });
                assert_eq!((&call.body["note"], &call.body["regarding"]), (&json!(text), &about));
                assert_eq!(call.body["metadata"]["generateName"], "s-");
                assert_eq!(call.body["reason"], "RestartFailed");
                assert_eq!(call.body["type"], "Warning");
                let body = call.body.clone();
                call.answer(&body);
            }
        };
        tokio::join!(publisher, server);
        assert!(api.is_quiet());
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn an_event_of_type_warning_is_logged_as_a_warning() {
        let (client, _api) = api();
        let (events, _publisher) = Events::new(client, "me".to_owned(), KeeperMetrics::default());
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            for reason in [Reason::RetireBlocked, Reason::Retired] {
                events.publish(&Key::new("n", "s"), None, reason, "text".to_owned());
            }
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let levels: Vec<&str> =
            text.lines().filter_map(|line| line.split_ascii_whitespace().nth(1)).collect();
        assert_eq!(levels.len(), 2, "{text}");
        assert!(levels[0].contains("WARN") && levels[1].contains("INFO"), "{text}");
    }

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
