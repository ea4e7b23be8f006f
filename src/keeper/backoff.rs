//! What did not work out, and when it is tried again.

use std::collections::HashMap;
use std::time::Duration;

use crate::kubernetes::key::Key;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Another writer has just been there.
    Conflict,
    /// A call failed.
    Failed,
    /// The webhook did not see an ask.
    NotSeen,
    /// The webhook changed nothing.
    Refused {
        /// It was due by the clock alone: the webhook's may be slow.
        is_by_clock: bool,
    },
}

/// What follows from trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// When to try again.
    pub(super) pause: Duration,
    /// Whether to say so: once.
    pub(super) is_news: bool,
    /// How often it has gone wrong before.
    pub(super) before: u32,
}

/// Who waits for another try.
#[derive(Debug, Default)]
pub(super) struct Retries {
    waiting: HashMap<Key, Trial>,
}

#[derive(Debug)]
struct Trial {
    trouble: Trouble,
    count: u32,
    is_told: bool,
    /// It tells soon when the webhook is back.
    is_probe: bool,
    /// The version that was refused.
    version: String,
}

const SECOND: Duration = Duration::from_secs(1);
/// The longest pause after a call that failed.
const LONGEST: Duration = Duration::from_secs(15);
/// After as many failures in a row, some ten minutes,
const PATIENT: u32 = 40;
/// it is tried only so often.
const RARELY: Duration = Duration::from_secs(300);
/// The longest pause of those whose asks are not seen.
const UNSEEN: Duration = Duration::from_secs(600);
/// So many of them try soon, and the others wait for these.
const PROBES: usize = 4;
/// A probe that was not seen so often is no good sign for the others: it waits longest already.
const STALE_PROBE: u32 = 10;
/// The clocks of two machines differ by a little: so many refusals are not worth a word.
const BY_CLOCK: u32 = 3;
/// What was refused is likely to be refused again.
const REFUSED: Duration = Duration::from_secs(60);
/// Refused as often in a row it is a problem, and left at that until the Secret has changed;
const STUBBORN: u32 = 5;
/// save that the webhook's flags may have, of which nobody tells.
const REFUSED_FOR_GOOD: Duration = Duration::from_secs(86_400);

impl Retries {
    /// Whether it waits for its turn.
    pub(super) fn is_waiting(&self, key: &Key) -> bool {
        self.waiting.contains_key(key)
    }

    /// Whether the webhook and the keeper disagree about it for good.
    pub(super) fn is_refused(&self, key: &Key) -> bool {
        let is_refused = |t: &Trial| matches!(t.trouble, Trouble::Refused { .. });
        self.waiting.get(key).is_some_and(|trial| is_refused(trial) && trial.count >= STUBBORN)
    }

    /// It worked, or is gone.
    pub(super) fn forget(&mut self, key: &Key) {
        self.waiting.remove(key);
    }

    /// It is another version than what was refused, or something else has become due.
    pub(super) fn changed(&mut self, key: &Key, version: Option<&str>) {
        let is_over = |trial: &Trial| {
            matches!(trial.trouble, Trouble::Refused { .. })
                && version != Some(trial.version.as_str())
        };
        if self.waiting.get(key).is_some_and(is_over) {
            self.waiting.remove(key);
        }
    }

    /// The webhook has seen an ask: whose asks it did not see, all try again. They keep their
    /// counts: for some it may still not be registered.
    pub(super) fn seen(&self) -> Vec<Key> {
        let unseen = self.waiting.iter().filter(|(_, trial)| trial.trouble == Trouble::NotSeen);
        unseen.map(|(key, _)| key.clone()).collect()
    }

    /// It went wrong with this version of it.
    pub(super) fn wrong(&mut self, key: &Key, trouble: Trouble, version: &str) -> Turn {
        let is_probe = trouble == Trouble::NotSeen
            && match self.waiting.get(key).filter(|trial| trial.trouble == trouble) {
                Some(trial) => trial.is_probe,
                None => self.probes() < PROBES,
            };
        let trial = self.waiting.entry(key.clone()).or_insert_with(|| Trial {
            trouble,
            count: 0,
            is_told: false,
            is_probe,
            version: String::new(),
        });
        let before = trial.count;
        trial.trouble = trouble;
        trial.is_probe = is_probe;
        version.clone_into(&mut trial.version);
        trial.count = before.saturating_add(1);
        let is_by_clock = trouble == Trouble::Refused { is_by_clock: true };
        let is_worth_a_word = !is_by_clock || before >= BY_CLOCK;
        let is_news = is_worth_a_word && !trial.is_told;
        trial.is_told |= is_worth_a_word;
        Turn { pause: pause(trouble, is_probe, before), is_news, before }
    }

    fn probes(&self) -> usize {
        let is_probe = |trial: &&Trial| trial.is_probe && trial.count < STALE_PROBE;
        self.waiting.values().filter(is_probe).count()
    }
}

fn pause(trouble: Trouble, is_probe: bool, before: u32) -> Duration {
    let doubled = |first: Duration, times: u32| first.saturating_mul(1 << times.min(10));
    match trouble {
        Trouble::Conflict => doubled(Duration::from_millis(50), before).min(LONGEST),
        Trouble::Failed if before >= PATIENT => RARELY,
        Trouble::Failed => doubled(SECOND, before).min(LONGEST),
        Trouble::NotSeen if is_probe => doubled(SECOND, before).min(UNSEEN),
        Trouble::NotSeen => UNSEEN,
        Trouble::Refused { .. } if before + 1 >= STUBBORN => REFUSED_FOR_GOOD,
        Trouble::Refused { is_by_clock: true } if before < BY_CLOCK => doubled(SECOND, before),
        Trouble::Refused { is_by_clock: true } => doubled(REFUSED, before - BY_CLOCK),
        Trouble::Refused { .. } => doubled(REFUSED, before),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(retries: &mut Retries, key: &Key, trouble: Trouble, times: usize) -> Vec<u64> {
        (0..times).map(|_| retries.wrong(key, trouble, "7").pause.as_secs()).collect()
    }

    #[test]
    fn where_the_webhook_is_not_called_the_pauses_grow_to_ten_minutes() {
        let mut retries = Retries::default();
        let key = Key::new("kube-system", "a");
        let pauses = seconds(&mut retries, &key, Trouble::NotSeen, 12);
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
    }

    #[test]
    fn a_few_probe_for_all_and_all_go_on_when_one_was_seen() {
        let mut retries = Retries::default();
        let keys: Vec<Key> = (0..10).map(|n| Key::new("n", n.to_string())).collect();
        let first: Vec<u64> =
            keys.iter().map(|k| seconds(&mut retries, k, Trouble::NotSeen, 1)[0]).collect();
        assert_eq!(first, [1, 1, 1, 1, 600, 600, 600, 600, 600, 600]);
        // One that is never seen does not hold a place for ever.
        seconds(&mut retries, &keys[0], Trouble::NotSeen, 9);
        let later = Key::new("n", "later");
        assert_eq!(seconds(&mut retries, &later, Trouble::NotSeen, 1), [1]);
        retries.forget(&keys[1]);
        let mut released = retries.seen();
        released.sort();
        let mut wanted: Vec<Key> = keys.iter().filter(|key| **key != keys[1]).cloned().collect();
        wanted.push(later);
        assert_eq!(released, wanted);
    }

    #[test]
    fn a_webhook_whose_clock_is_slow_is_asked_again_at_once_and_without_a_word() {
        let mut retries = Retries::default();
        let key = Key::new("n", "a");
        let trouble = Trouble::Refused { is_by_clock: true };
        let turns: Vec<Turn> = (0..5).map(|_| retries.wrong(&key, trouble, "7")).collect();
        let pauses: Vec<u64> = turns.iter().map(|turn| turn.pause.as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 60, 86_400]);
        let news: Vec<bool> = turns.iter().map(|turn| turn.is_news).collect();
        assert_eq!(news, [false, false, false, true, false]);
    }

    #[test]
    fn what_is_refused_for_good_is_a_problem_until_it_is_another_version() {
        let mut retries = Retries::default();
        let key = Key::new("n", "a");
        let trouble = Trouble::Refused { is_by_clock: false };
        assert_eq!(seconds(&mut retries, &key, trouble, 4), [60, 120, 240, 480]);
        assert!(!retries.is_refused(&key));
        assert_eq!(seconds(&mut retries, &key, trouble, 3), [86_400; 3], "it stops");
        assert!(retries.is_refused(&key));
        retries.changed(&key, Some("7"));
        assert!(retries.is_refused(&key) && retries.is_waiting(&key));
        retries.changed(&key, Some("8"));
        assert!(!retries.is_refused(&key) && !retries.is_waiting(&key));
        assert!(retries.wrong(&key, trouble, "8").is_news);
        // Others wait whatever the version is.
        retries.wrong(&key, Trouble::NotSeen, "8");
        retries.changed(&key, Some("9"));
        assert!(retries.is_waiting(&key));
    }
}
