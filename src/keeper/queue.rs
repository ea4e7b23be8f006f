//! A queue of keys, each with the time at which it becomes due. The namespaces take turns.

use std::collections::BTreeSet;

use super::fair::Fair;
use crate::kubernetes::key::Key;

/// The most keys in a queue: far more than the keeper tracks Secrets.
const MAX: usize = 100_000;

/// Keys in the order of their times, each key at most once. Deadlines use the wall clock, and
/// everything else uses the monotonic clock. The next look at the queue notices a jump of the wall
/// clock.
#[derive(Debug)]
pub(super) struct Queue<T> {
    of_key: Fair<Key, T>,
    by_time: BTreeSet<(T, Key)>,
    /// The keys that are due. Of these a namespace with many does not keep others waiting.
    due: Fair<(T, Key), ()>,
}

impl<T: Copy + Ord> Queue<T> {
    /// Sets the time of `key` to `at`. Returns the keys for which there is no room any more.
    pub(super) fn set(&mut self, key: &Key, at: T) -> Vec<Key> {
        self.remove(key);
        let inserted = self.of_key.insert(key.namespace(), key.clone(), at, 1);
        if inserted.is_in() {
            self.by_time.insert((at, key.clone()));
        }
        let forget = |(key, at)| {
            self.forget(&key, at);
            key
        };
        inserted.dropped(key.clone()).map(forget).collect()
    }

    /// Whether `key` is in the queue.
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.of_key.get(key.namespace(), key).is_some()
    }

    /// Sets the time of `key` to `at` if `key` is in the queue for a later time.
    pub(super) fn hasten(&mut self, key: &Key, at: T) {
        if self.of_key.get(key.namespace(), key).is_some_and(|set| *set > at) {
            // It has its place already, so nothing is dropped.
            self.set(key, at);
        }
    }

    /// Sets the time of `key` to `at`, unless it is in the queue for an earlier time. Returns the keys
    /// for which there is no room any more.
    pub(super) fn set_by(&mut self, key: &Key, at: T) -> Vec<Key> {
        if self.contains(key) {
            self.hasten(key, at);
            return Vec::new();
        }
        self.set(key, at)
    }

    /// Removes `key`.
    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(at) = self.of_key.remove(key.namespace(), key) {
            self.forget(key, at);
        }
    }

    /// The earliest time of a key that may be popped.
    pub(super) fn first(&self, now: T, may: impl Fn(&str) -> bool) -> Option<T> {
        if self.due.has(may) {
            return Some(now);
        }
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Removes and returns a key whose time has come by `now`, of a namespace that `may` have one.
    pub(super) fn pop(&mut self, now: T, may: impl Fn(&str) -> bool) -> Option<Key> {
        while let Some((at, _)) = self.by_time.first()
            && *at <= now
            && let Some((at, key)) = self.by_time.pop_first()
        {
            self.due.insert(key.namespace(), (at, key.clone()), (), 1);
        }
        let ((_, key), ()) = self.due.take(may)?;
        self.of_key.remove(key.namespace(), &key);
        Some(key)
    }

    fn forget(&mut self, key: &Key, at: T) {
        let entry = (at, key.clone());
        if !self.by_time.remove(&entry) {
            self.due.remove(key.namespace(), &entry);
        }
    }
}

impl<T: Copy + Ord> Default for Queue<T> {
    fn default() -> Self {
        Self { of_key: Fair::new(MAX), by_time: BTreeSet::new(), due: Fair::new(MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(_: &str) -> bool {
        true
    }

    #[test]
    fn a_key_is_queued_once_and_keys_come_in_order_of_time() {
        let [a, b, c] = ["a", "b", "c"].map(|name| Key::new("n", name));
        let mut queue = Queue::default();
        queue.set(&a, 3);
        queue.set(&b, 2);
        queue.set(&c, 9);
        queue.set(&a, 1);
        queue.hasten(&c, 8);
        queue.hasten(&c, 9);
        queue.hasten(&Key::new("n", "d"), 0);
        assert_eq!(queue.of_key.get("n", &c), Some(&8));
        assert!(queue.contains(&b));
        assert_eq!(queue.first(0, any), Some(1));
        assert_eq!(queue.pop(0, any), None);
        assert_eq!(
            [queue.pop(5, any), queue.pop(5, any), queue.pop(5, any)],
            [Some(a), Some(b), None]
        );
        queue.remove(&c);
        assert!(queue.first(0, any).is_none() && queue.of_key.is_empty());
    }

    #[test]
    fn a_namespace_with_many_keys_keeps_no_other_one_waiting() {
        let mut queue = Queue::default();
        for number in 0..1000 {
            queue.set(&Key::new("busy", number.to_string()), number);
        }
        let quiet = Key::new("quiet", "a");
        queue.set(&quiet, 999);
        let first = [queue.pop(1000, any), queue.pop(1000, any)];
        assert_eq!(first, [Some(Key::new("busy", "0")), Some(quiet.clone())]);
        // A key that is due already can be given another time.
        queue.set(&Key::new("busy", "1"), 2000);
        assert_eq!(queue.pop(1000, any), Some(Key::new("busy", "2")));
        // If a namespace may have no more, only other keys wake the controller.
        queue.set(&quiet, 1500);
        let is_other = |namespace: &str| namespace != "busy";
        assert_eq!(queue.pop(1000, is_other), None);
        assert_eq!((queue.first(1000, is_other), queue.first(1000, any)), (Some(1500), Some(1000)));
    }

    #[test]
    fn a_full_queue_drops_keys_of_the_namespace_with_most() {
        let mut queue = Queue { of_key: Fair::new(3), ..Queue::default() };
        let busy = ["a", "b", "c"].map(|name| Key::new("busy", name));
        for key in &busy {
            assert!(queue.set(key, 5).is_empty());
        }
        let quiet = Key::new("quiet", "a");
        assert_eq!(queue.set(&quiet, 9), [busy[2].clone()]);
        assert_eq!(queue.set(&busy[2], 1), [busy[2].clone()], "it has its share");
        let left: Vec<Key> = std::iter::from_fn(|| queue.pop(9, any)).collect();
        assert_eq!(left, [busy[0].clone(), quiet, busy[1].clone()]);
    }
}
