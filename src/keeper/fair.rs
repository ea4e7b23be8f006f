//! A limited collection that namespaces share. What one namespace puts into it never costs another
//! one its place (docs/design.md, "The keeper").
//!
//! `server::shares` is another module, because a connection ends by itself, when it is
//! asked to, and others wait for its place.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Entries of namespaces, with a limit for the sum of their sizes.
///
/// A namespace may use all that is free. When nothing is free, the namespace that uses most makes
/// room: it loses entries, or its new entry is refused. So a namespace that uses no more than its
/// equal share loses nothing.
#[derive(Debug)]
pub struct Fair<K, V> {
    limit: usize,
    used: usize,
    shares: HashMap<Arc<str>, Share<K, V>>,
    by_use: BTreeSet<(usize, Arc<str>)>,
    /// The namespaces in the order of their turns.
    by_turn: BTreeSet<(u64, Arc<str>)>,
    last_turn: u64,
    len: usize,
}

#[derive(Debug)]
struct Share<K, V> {
    used: usize,
    turn: u64,
    entries: BTreeMap<K, (V, usize)>,
}

/// What a new entry has pushed out.
#[derive(Debug, PartialEq, Eq)]
pub enum Inserted<K, V> {
    /// It is in, and these are out: entries of the namespaces that used most.
    In(Vec<(K, V)>),
    /// It is not in, because its own namespace uses most; these are out.
    Refused(V, Vec<(K, V)>),
}

impl<K, V> Inserted<K, V> {
    /// Whether the new entry is in.
    pub fn is_in(&self) -> bool {
        matches!(self, Self::In(_))
    }

    /// All that has no place: the new entry, which has this key, if it was refused, and what it
    /// pushed out.
    pub fn dropped(self, key: K) -> impl Iterator<Item = (K, V)> {
        let (refused, out) = match self {
            Self::In(out) => (None, out),
            Self::Refused(value, out) => (Some((key, value)), out),
        };
        refused.into_iter().chain(out)
    }
}

impl<K: Ord + Clone, V> Fair<K, V> {
    /// An empty collection with this limit.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            used: 0,
            shares: HashMap::new(),
            by_use: BTreeSet::new(),
            by_turn: BTreeSet::new(),
            last_turn: 0,
            len: 0,
        }
    }

    /// Adds or replaces an entry of this size.
    pub fn insert(&mut self, namespace: &str, key: K, value: V, size: usize) -> Inserted<K, V> {
        self.remove(namespace, &key);
        let mut out = Vec::new();
        while self.used + size > self.limit {
            let own = self.shares.get(namespace).map_or(0, |share| share.used) + size;
            let most = self.by_use.last().filter(|(used, _)| *used >= own).cloned();
            let Some((_, most)) = most.filter(|(_, most)| **most != *namespace) else {
                return Inserted::Refused(value, out);
            };
            let last = self.shares.get(&most).and_then(|share| share.entries.last_key_value());
            let Some(last) = last.map(|(key, _)| key.clone()) else {
                return Inserted::Refused(value, out);
            };
            out.extend(self.remove(&most, &last).map(|value| (last, value)));
        }
        self.change(namespace, |share| {
            share.entries.insert(key, (value, size));
            share.used += size;
        });
        self.used += size;
        self.len += 1;
        Inserted::In(out)
    }

    /// Removes an entry.
    pub fn remove<Q: Ord + ?Sized>(&mut self, namespace: &str, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if !self.shares.get(namespace)?.entries.contains_key(key) {
            return None;
        }
        let mut removed = None;
        self.change(namespace, |share| {
            removed = share.entries.remove(key);
            share.used -= removed.as_ref().map_or(0, |(_, size)| *size);
        });
        let (value, size) = removed?;
        self.used -= size;
        self.len -= 1;
        Some(value)
    }

    /// Removes and returns the first entry of the namespace whose turn it is, of those that `may`
    /// take one. After its turn a namespace waits for the turns of all others.
    pub fn take(&mut self, may: impl Fn(&str) -> bool) -> Option<(K, V)> {
        let (_, namespace) = self.by_turn.iter().find(|(_, namespace)| may(namespace))?.clone();
        let first = self.shares.get(&namespace)?.entries.first_key_value()?.0.clone();
        let value = self.remove(&namespace, &first)?;
        if let Some(share) = self.shares.get_mut(&namespace) {
            self.by_turn.remove(&(share.turn, namespace.clone()));
            self.last_turn += 1;
            share.turn = self.last_turn;
            self.by_turn.insert((share.turn, namespace));
        }
        Some((first, value))
    }

    /// Whether a namespace that `may` take an entry has one.
    pub fn has(&self, may: impl Fn(&str) -> bool) -> bool {
        self.shares.keys().any(|namespace| may(namespace))
    }

    /// The value of an entry.
    pub fn get<Q: Ord + ?Sized>(&self, namespace: &str, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shares.get(namespace)?.entries.get(key).map(|(value, _)| value)
    }

    /// The value of an entry, to change it. Its size stays.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, namespace: &str, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.shares.get_mut(namespace)?.entries.get_mut(key).map(|(value, _)| value)
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let shares = self.shares.values();
        shares.flat_map(|share| share.entries.iter().map(|(key, (value, _))| (key, value)))
    }

    /// The entries of a namespace, to change them. Their sizes stay.
    pub fn of_mut(&mut self, namespace: &str) -> impl Iterator<Item = (&K, &mut V)> {
        let entries = self.shares.get_mut(namespace).into_iter();
        entries.flat_map(|share| share.entries.iter_mut().map(|(key, (value, _))| (key, value)))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Changes the share of a namespace, and keeps it in order.
    fn change(&mut self, namespace: &str, change: impl FnOnce(&mut Share<K, V>)) {
        let (name, mut share) = self.shares.remove_entry(namespace).unwrap_or_else(|| {
            self.last_turn += 1;
            let share = Share { used: 0, turn: self.last_turn, entries: BTreeMap::new() };
            (namespace.into(), share)
        });
        self.by_use.remove(&(share.used, name.clone()));
        self.by_turn.remove(&(share.turn, name.clone()));
        change(&mut share);
        if !share.entries.is_empty() {
            self.by_use.insert((share.used, name.clone()));
            self.by_turn.insert((share.turn, name.clone()));
            self.shares.insert(name, share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of a namespace, in order.
    fn keys(fair: &Fair<u32, &'static str>, of: &str) -> Vec<u32> {
        fair.iter().filter(|(_, namespace)| **namespace == of).map(|(key, _)| *key).collect()
    }

    #[test]
    fn a_namespace_that_fills_everything_makes_room_for_another_one() {
        let mut fair = Fair::new(10);
        for key in 0..10 {
            assert_eq!(fair.insert("busy", key, "busy", 1), Inserted::In(Vec::new()));
        }
        assert_eq!(fair.insert("busy", 10, "busy", 1), Inserted::Refused("busy", Vec::new()));
        for key in 0..5 {
            let out = vec![(9 - key, "busy")];
            assert_eq!(fair.insert("quiet", key, "quiet", 1), Inserted::In(out));
        }
        // Now both have the same share, so neither takes more from the other.
        assert_eq!(fair.insert("quiet", 5, "quiet", 1), Inserted::Refused("quiet", Vec::new()));
        assert_eq!(fair.insert("busy", 5, "busy", 1), Inserted::Refused("busy", Vec::new()));
        let third = fair.insert("third", 0, "third", 3);
        let Inserted::In(out) = third else { panic!("{third:?}") };
        assert_eq!(out.len(), 3);
        assert_eq!((keys(&fair, "busy").len(), keys(&fair, "quiet").len()), (4, 3));
        assert_eq!((fair.len(), fair.used), (8, 10));
    }

    #[test]
    fn an_entry_that_is_larger_than_all_is_refused_and_pushes_nothing_out() {
        let mut fair = Fair::new(10);
        fair.insert("quiet", 1, "quiet", 4);
        assert_eq!(fair.insert("busy", 1, "busy", 11), Inserted::Refused("busy", Vec::new()));
        assert_eq!(fair.insert("busy", 2, "busy", 6), Inserted::In(Vec::new()));
        // A replacement counts once, also if it is smaller.
        assert_eq!(fair.insert("busy", 2, "busy", 5), Inserted::In(Vec::new()));
        assert_eq!((fair.used, fair.len()), (9, 2));
        assert_eq!(fair.remove("busy", &2), Some("busy"));
        assert_eq!(fair.remove("busy", &2), None);
        assert_eq!((fair.used, fair.len(), fair.by_turn.len()), (4, 1, 1));
    }

    #[test]
    fn namespaces_take_turns() {
        let mut fair = Fair::new(1000);
        for key in 0..100 {
            fair.insert("busy", key, "busy", 1);
        }
        fair.insert("quiet", 7, "quiet", 1);
        fair.insert("quiet", 8, "quiet", 1);
        let order: Vec<_> = (0..5).map_while(|_| fair.take(|_| true)).collect();
        assert_eq!(order, [(0, "busy"), (7, "quiet"), (1, "busy"), (8, "quiet"), (2, "busy")]);
        fair.insert("quiet", 9, "quiet", 1);
        assert!(fair.has(|namespace| namespace != "busy"));
        assert_eq!(fair.take(|namespace| namespace != "busy"), Some((9, "quiet")));
        assert_eq!(fair.take(|namespace| namespace != "busy"), None);
        assert!(!fair.has(|namespace| namespace != "busy"));
    }
}
