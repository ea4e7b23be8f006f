//! A queue of keys, each with the time at which it becomes due.

use std::collections::{BTreeSet, HashMap};

use crate::kubernetes::key::Key;

/// Keys in the order of their times, each key at most once. Deadlines use the wall clock, and
/// everything else uses the monotonic clock. The next look at the queue notices a jump of the wall
/// clock.
#[derive(Debug)]
pub(super) struct Queue<T> {
    by_time: BTreeSet<(T, Key)>,
    of_key: HashMap<Key, T>,
}

impl<T: Copy + Ord> Queue<T> {
    /// Sets the time of `key` to `at`.
    pub(super) fn set(&mut self, key: &Key, at: T) {
        if let Some(old) = self.of_key.insert(key.clone(), at) {
            self.by_time.remove(&(old, key.clone()));
        }
        self.by_time.insert((at, key.clone()));
    }

    /// Adds `key` at `at`, unless it is in the queue already.
    pub(super) fn add(&mut self, key: &Key, at: T) {
        if !self.of_key.contains_key(key) {
            self.set(key, at);
        }
    }

    /// Sets the time of `key` to `at` if `key` is in the queue for a later time.
    pub(super) fn hasten(&mut self, key: &Key, at: T) {
        if self.of_key.get(key).is_some_and(|set| *set > at) {
            self.set(key, at);
        }
    }

    /// Removes `key`.
    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(at) = self.of_key.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    /// The earliest time.
    pub(super) fn first(&self) -> Option<T> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Removes and returns the earliest key, if its time has come by `now`.
    pub(super) fn pop(&mut self, now: T) -> Option<Key> {
        let (_, key) = self.by_time.first().filter(|(at, _)| *at <= now)?;
        let key = key.clone();
        self.remove(&key);
        Some(key)
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), of_key: HashMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_queued_once_and_keys_come_in_order_of_time() {
        let [a, b, c] = ["a", "b", "c"].map(|name| Key::new("n", name));
        let mut queue = Queue::default();
        queue.set(&a, 3);
        queue.set(&b, 2);
        queue.set(&c, 9);
        queue.set(&a, 1);
        queue.add(&b, 0);
        queue.hasten(&c, 8);
        queue.hasten(&c, 9);
        queue.hasten(&Key::new("n", "d"), 0);
        assert_eq!(queue.of_key[&c], 8);
        assert_eq!(queue.first(), Some(1));
        assert_eq!(queue.pop(0), None);
        assert_eq!([queue.pop(5), queue.pop(5), queue.pop(5)], [Some(a), Some(b), None]);
        queue.remove(&c);
        assert!(queue.first().is_none() && queue.of_key.is_empty());
    }
}
