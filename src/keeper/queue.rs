//! What is to be looked at, and when.

use std::collections::{BTreeSet, HashMap};

use crate::kubernetes::key::Key;

/// Keys, each at most once, by a time: of the wall clock for deadlines, of the monotonic clock for
/// retries. What a clock that steps can do is then bounded by how often one looks here.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    by_time: BTreeSet<(T, Key)>,
    of_key: HashMap<Key, T>,
}

impl<T: Copy + Ord> Agenda<T> {
    /// Puts `key` at `at`, wherever it was before.
    pub(super) fn set(&mut self, key: &Key, at: T) {
        if let Some(old) = self.of_key.insert(key.clone(), at) {
            self.by_time.remove(&(old, key.clone()));
        }
        self.by_time.insert((at, key.clone()));
    }

    /// Puts `key` at `at`, if it is not there already.
    pub(super) fn add(&mut self, key: &Key, at: T) {
        if !self.of_key.contains_key(key) {
            self.set(key, at);
        }
    }

    /// Takes `key` out.
    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(at) = self.of_key.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    /// The earliest time.
    pub(super) fn first(&self) -> Option<T> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out the earliest key that is not after `now`.
    pub(super) fn pop(&mut self, now: T) -> Option<Key> {
        let (_, key) = self.by_time.first().filter(|(at, _)| *at <= now)?;
        let key = key.clone();
        self.remove(&key);
        Some(key)
    }
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), of_key: HashMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_stands_once_and_comes_in_order_of_time() {
        let [a, b, c] = ["a", "b", "c"].map(|name| Key::new("n", name));
        let mut agenda = Agenda::default();
        agenda.set(&a, 3);
        agenda.set(&b, 2);
        agenda.set(&c, 9);
        agenda.set(&a, 1);
        agenda.add(&b, 0);
        assert_eq!(agenda.first(), Some(1));
        assert_eq!(agenda.pop(0), None);
        assert_eq!([agenda.pop(5), agenda.pop(5), agenda.pop(5)], [Some(a), Some(b), None]);
        agenda.remove(&c);
        assert!(agenda.first().is_none() && agenda.of_key.is_empty());
    }
}
