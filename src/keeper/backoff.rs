//! Backoff: computes when a failed reconcile is tried again, and whether to report it. The
//! controller's queue does the waiting.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::kubernetes::key::Key;

/// Why a reconcile has to be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryCause {
    /// With `--audit`: it stays due, because nothing is done about it.
    Audit,
    /// Another writer changed the object in between.
    Conflict,
    /// A call failed.
    Failed,
    /// The webhook did not see an ask.
    NotSeen,
    /// The namespace is opted out.
    OptedOut,
    /// The webhook saw an ask and changed nothing.
    Refused {
        /// Whether it had only just become due by the keeper's clock. The webhook's clock may be
        /// slow.
        is_by_clock: bool,
    },
}

/// When and how to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retry {
    /// How long to wait.
    pub(super) pause: Duration,
    /// Whether to report the failure; it is reported once.
    pub(super) is_news: bool,
    /// How many tries failed before this one.
    pub(super) before: u32,
}

/// The keys that are in backoff.
#[derive(Debug, Default)]
pub(super) struct Retries {
    waiting: HashMap<Key, RetryState>,
}

#[derive(Debug)]
struct RetryState {
    cause: RetryCause,
    count: u32,
    is_reported: bool,
    /// Whether it is tried often, to notice soon that the webhook is back.
    is_probe: bool,
    /// The version of the Secret that was refused.
    version: String,
    /// Since when the webhook is not called.
    unseen_since: Option<Instant>,
}

const SECOND: Duration = Duration::from_secs(1);
/// The longest pause after a call that failed.
const MAX_PAUSE: Duration = Duration::from_secs(15);
/// After this many failures in a row, about ten minutes, the pause becomes [`LONG_PAUSE`].
const MANY_FAILURES: u32 = 40;
/// The pause after [`MANY_FAILURES`].
const LONG_PAUSE: Duration = Duration::from_secs(300);
/// The longest pause after an ask that the webhook did not see.
const UNSEEN: Duration = Duration::from_secs(600);
/// The longest pause after an ask that the webhook did not see, once a Secret shows that the webhook
/// is called again.
pub(super) const SEEN_AGAIN: Duration = Duration::from_secs(60);
/// How many unseen asks are repeated often, as probes; the others wait for them.
const PROBES: usize = 4;
/// After this many tries a probe pauses for [`UNSEEN`] too, and another ask may become a probe.
const STALE_PROBE: u32 = 10;
/// How many refusals right after a deadline are not reported, because two clocks always differ a
/// little.
const BY_CLOCK: u32 = 3;
/// The first pause after a refusal.
const REFUSED: Duration = Duration::from_secs(60);
/// After this many refusals in a row the Secret has a problem, and waits until it changes.
const MAX_REFUSALS: u32 = 5;
/// The pause after [`MAX_REFUSALS`]. The flags of the webhook may change, and no watch shows that.
const REFUSED_FOR_LONG: Duration = Duration::from_secs(86_400);

impl Retries {
    /// Whether `key` is in backoff.
    pub(super) fn is_waiting(&self, key: &Key) -> bool {
        self.waiting.contains_key(key)
    }

    /// Whether the webhook has refused it so often that this is a problem.
    pub(super) fn is_refused(&self, key: &Key) -> bool {
        let is_refused = |t: &RetryState| matches!(t.cause, RetryCause::Refused { .. });
        self.waiting.get(key).is_some_and(|state| is_refused(state) && state.count >= MAX_REFUSALS)
    }

    /// Ends the backoff: a try succeeded, or the Secret is gone.
    pub(super) fn forget(&mut self, key: &Key) {
        self.waiting.remove(key);
    }

    /// Ends the backoff of what was refused, or not done, if the Secret now has another version. If `version` is
    /// `None`, something else has become due, and the backoff ends too.
    pub(super) fn changed(&mut self, key: &Key, version: Option<&str>) {
        let is_over = |state: &RetryState| {
            matches!(state.cause, RetryCause::Audit | RetryCause::Refused { .. })
                && version != Some(state.version.as_str())
        };
        if self.waiting.get(key).is_some_and(is_over) {
            self.waiting.remove(key);
        }
    }

    /// The keys whose asks the webhook did not see. They keep their counts when they are repeated:
    /// the webhook may still not be registered for some of them.
    pub(super) fn not_seen(&self) -> Vec<Key> {
        let unseen = self.waiting.iter().filter(|(_, state)| state.cause == RetryCause::NotSeen);
        unseen.map(|(key, _)| key.clone()).collect()
    }

    /// Since when the webhook is not called for `key`.
    pub(super) fn unseen_since(&self, key: &Key) -> Option<Instant> {
        self.waiting.get(key)?.unseen_since
    }

    /// Notes a failure with this version of the Secret.
    pub(super) fn failed(&mut self, key: &Key, cause: RetryCause, version: &str) -> Retry {
        let is_probe = cause == RetryCause::NotSeen
            && match self.waiting.get(key).filter(|state| state.cause == cause) {
                Some(state) => state.is_probe,
                None => self.probes() < PROBES,
            };
        let state = self.waiting.entry(key.clone()).or_insert_with(|| RetryState {
            cause,
            count: 0,
            is_reported: false,
            is_probe,
            version: String::new(),
            unseen_since: None,
        });
        if cause == RetryCause::NotSeen {
            state.unseen_since.get_or_insert_with(Instant::now);
        }
        let before = state.count;
        state.cause = cause;
        state.is_probe = is_probe;
        version.clone_into(&mut state.version);
        state.count = before.saturating_add(1);
        let is_by_clock = cause == RetryCause::Refused { is_by_clock: true };
        let is_failure = !is_by_clock || before >= BY_CLOCK;
        let is_news = is_failure && !state.is_reported;
        state.is_reported |= is_failure;
        Retry { pause: pause(cause, is_probe, before), is_news, before }
    }

    fn probes(&self) -> usize {
        let is_probe = |state: &&RetryState| state.is_probe && state.count < STALE_PROBE;
        self.waiting.values().filter(is_probe).count()
    }
}

fn pause(cause: RetryCause, is_probe: bool, before: u32) -> Duration {
    let doubled = |first: Duration, times: u32| first.saturating_mul(1 << times.min(10));
    match cause {
        RetryCause::Conflict => doubled(Duration::from_millis(50), before).min(MAX_PAUSE),
        RetryCause::Failed if before >= MANY_FAILURES => LONG_PAUSE,
        RetryCause::Failed => doubled(SECOND, before).min(MAX_PAUSE),
        RetryCause::NotSeen if is_probe => doubled(SECOND, before).min(UNSEEN),
        RetryCause::Audit | RetryCause::NotSeen | RetryCause::OptedOut => UNSEEN,
        RetryCause::Refused { .. } if before + 1 >= MAX_REFUSALS => REFUSED_FOR_LONG,
        RetryCause::Refused { is_by_clock: true } if before < BY_CLOCK => doubled(SECOND, before),
        RetryCause::Refused { is_by_clock: true } => doubled(REFUSED, before - BY_CLOCK),
        RetryCause::Refused { .. } => doubled(REFUSED, before),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(retries: &mut Retries, key: &Key, cause: RetryCause, times: usize) -> Vec<u64> {
        (0..times).map(|_| retries.failed(key, cause, "7").pause.as_secs()).collect()
    }

    #[test]
    fn pauses_grow_to_ten_minutes_while_the_webhook_is_not_called() {
        let mut retries = Retries::default();
        let key = Key::new("kube-system", "a");
        let pauses = seconds(&mut retries, &key, RetryCause::NotSeen, 12);
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
    }

    #[test]
    fn a_few_keys_probe_and_all_are_repeated_when_one_ask_is_seen() {
        let mut retries = Retries::default();
        let keys: Vec<Key> = (0..10).map(|n| Key::new("n", n.to_string())).collect();
        let first: Vec<u64> =
            keys.iter().map(|k| seconds(&mut retries, k, RetryCause::NotSeen, 1)[0]).collect();
        assert_eq!(first, [1, 1, 1, 1, 600, 600, 600, 600, 600, 600]);
        // A probe that is never seen makes room for another one.
        seconds(&mut retries, &keys[0], RetryCause::NotSeen, 9);
        let later = Key::new("n", "later");
        assert_eq!(seconds(&mut retries, &later, RetryCause::NotSeen, 1), [1]);
        retries.forget(&keys[1]);
        let mut released = retries.not_seen();
        released.sort();
        let mut wanted: Vec<Key> = keys.iter().filter(|key| **key != keys[1]).cloned().collect();
        wanted.push(later);
        assert_eq!(released, wanted);
    }

    #[test]
    fn a_webhook_with_a_slow_clock_is_asked_again_soon_and_not_reported() {
        let mut retries = Retries::default();
        let key = Key::new("n", "a");
        let cause = RetryCause::Refused { is_by_clock: true };
        let retries_made: Vec<Retry> = (0..5).map(|_| retries.failed(&key, cause, "7")).collect();
        let pauses: Vec<u64> = retries_made.iter().map(|retry| retry.pause.as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 60, 86_400]);
        let news: Vec<bool> = retries_made.iter().map(|retry| retry.is_news).collect();
        assert_eq!(news, [false, false, false, true, false]);
    }

    #[test]
    fn an_ask_that_is_always_refused_is_a_problem_until_the_version_changes() {
        let mut retries = Retries::default();
        let key = Key::new("n", "a");
        let cause = RetryCause::Refused { is_by_clock: false };
        assert_eq!(seconds(&mut retries, &key, cause, 4), [60, 120, 240, 480]);
        assert!(!retries.is_refused(&key));
        assert_eq!(seconds(&mut retries, &key, cause, 3), [86_400; 3], "it stops");
        assert!(retries.is_refused(&key));
        retries.changed(&key, Some("7"));
        assert!(retries.is_refused(&key) && retries.is_waiting(&key));
        retries.changed(&key, Some("8"));
        assert!(!retries.is_refused(&key) && !retries.is_waiting(&key));
        assert!(retries.failed(&key, cause, "8").is_news);
        // A new version ends the backoff of refused asks only.
        retries.failed(&key, RetryCause::NotSeen, "8");
        retries.changed(&key, Some("9"));
        assert!(retries.is_waiting(&key));
    }
}
