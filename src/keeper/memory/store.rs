//! The last known states of Secrets, within limits that the namespaces share.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{MAX_ONE, Remembered, fingerprints};
use crate::keeper::fair::Fair;
use crate::keeper::overflow::{Budget, Overflow};
use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::overlap::distrust::{DistrustList, FormerDistrust, MAX_LISTED};
use crate::x509::certs::Fingerprint;

/// The most bytes that are remembered of all Secrets together.
const MAX_ALL: usize = 32 << 20;
/// How long the keeper polls the name of a Secret that is gone.
const LOST_FOR: Duration = Duration::from_secs(600);
/// How many such names it polls at a time.
const MAX_LOST: usize = 256;
/// The limits of the pause between two polls. The pause is as long as the Secret has been gone.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The most fingerprints that are remembered of one namespace, so that no namespace takes the
/// memory of others.
const MAX_DISTRUSTED: usize = 256;

/// The last known states of Secrets, limited in size.
#[derive(Debug)]
pub struct Memory {
    /// By the bytes that they take.
    secrets: Fair<Key, MemoryEntry>,
    /// The remembered Secrets that are gone, and since when.
    lost: Fair<Key, Instant>,
    /// The namespaces that hold a remembered Secret that is not gone.
    namespaces: HashMap<String, NamespaceEntry>,
    /// The Secrets that are not remembered, because they or all together are too large.
    refused: HashSet<Key>,
    /// What was once distrusted in the namespaces that hold, or held, a remembered Secret.
    distrusted: HashMap<String, NamespaceDistrust>,
    /// What was once distrusted in the whole cluster, and is not on the list any more.
    delisted: Arc<BTreeSet<Fingerprint>>,
    overflow: Overflow,
}

#[derive(Debug, Default)]
struct NamespaceDistrust {
    fingerprints: Arc<BTreeSet<Fingerprint>>,
    /// How many of its Secrets are remembered, gone or not.
    remembered: usize,
}

#[derive(Debug)]
struct MemoryEntry {
    secret: Arc<Remembered>,
    /// The uid of its namespace, read while the Secret was there.
    namespace: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct NamespaceEntry {
    uid: Option<Arc<str>>,
    secrets: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(Overflow::default())
    }
}

impl Memory {
    /// An empty memory that reports to `overflow` what does not fit.
    pub fn new(overflow: Overflow) -> Self {
        Self {
            secrets: Fair::new(MAX_ALL),
            lost: Fair::new(MAX_LOST),
            namespaces: HashMap::new(),
            refused: HashSet::new(),
            distrusted: HashMap::new(),
            delisted: Arc::default(),
            overflow,
        }
    }

    /// Remembers a Secret as it is. Returns the namespace if its uid is still to be read.
    pub fn remember(&mut self, key: &Key, secret: &SecretView) -> Option<Key> {
        let is_new = !self.namespaces.contains_key(key.namespace());
        self.distrusted.entry(key.namespace().to_owned()).or_default().remembered += 1;
        // Count the new state first, because forgetting the earlier one may remove the namespace's
        // entry.
        let entry = self.namespaces.entry(key.namespace().to_owned()).or_default();
        entry.secrets += 1;
        let namespace = entry.uid.clone();
        self.forget(key);
        if !self.store(key, secret, namespace) {
            self.leave(key.namespace());
            self.release(key.namespace());
            return None;
        }
        is_new.then(|| Key::new("", key.namespace()))
    }

    /// Stores the state of a Secret. Returns whether there is room for it.
    fn store(&mut self, key: &Key, secret: &SecretView, namespace: Option<Arc<str>>) -> bool {
        let Some(remembered) = Remembered::of(secret) else { return false };
        let size = remembered.size();
        if size > MAX_ONE {
            self.refused.insert(key.clone());
            return false;
        }
        let distrusted: Vec<Fingerprint> = fingerprints(remembered.distrust()).collect();
        let entry = MemoryEntry { secret: Arc::new(remembered), namespace };
        let inserted = self.secrets.insert(key.namespace(), key.clone(), entry, size);
        let is_in = inserted.is_in();
        for (dropped, _) in inserted.dropped(key.clone()) {
            self.overflow.note(Budget::Memory, dropped.namespace());
            // The caller undoes what it has counted for this Secret itself.
            let was_lost = dropped != *key && self.forget_traces(&dropped);
            if !was_lost {
                self.refused.insert(dropped);
            }
        }
        if is_in {
            self.distrust(key, &distrusted);
        }
        is_in
    }

    /// The last known state of a Secret, unless it has been gone for too long.
    pub fn get(&self, key: &Key, now: Instant) -> Option<Arc<Remembered>> {
        if self.lost_since(key).is_some_and(|since| now - since >= LOST_FOR) {
            return None;
        }
        self.secrets.get(key.namespace(), key).map(|kept| Arc::clone(&kept.secret))
    }

    fn lost_since(&self, key: &Key) -> Option<Instant> {
        self.lost.get(key.namespace(), key).copied()
    }

    /// The uid of the namespace that held the Secret.
    pub fn namespace_uid(&self, key: &Key) -> Option<&str> {
        self.secrets.get(key.namespace(), key)?.namespace.as_deref()
    }

    /// Sets the present uid of a namespace. Forgets the Secrets that were lost in an earlier
    /// namespace of this name.
    pub fn set_namespace_uid(&mut self, namespace: &str, uid: Option<&str>) {
        let uid: Option<Arc<str>> = uid.map(Arc::from);
        if let Some(entry) = self.namespaces.get_mut(namespace) {
            entry.uid.clone_from(&uid);
        }
        let mut of_another = Vec::new();
        for (key, kept) in self.secrets.of_mut(namespace) {
            if self.lost.get(namespace, key).is_none() {
                kept.namespace.clone_from(&uid);
            } else if kept.namespace != uid {
                of_another.push(key.clone());
            }
        }
        for key in of_another {
            self.forget(&key);
        }
    }

    /// Notes that a Secret is gone. Returns when to poll its name, if at all.
    pub fn lose(&mut self, key: &Key, now: Instant) -> Option<Instant> {
        if self.secrets.get(key.namespace(), key).is_none() {
            self.refused.remove(key);
            return None;
        }
        if self.lost_since(key).is_none() {
            if self.lost.len() >= MAX_LOST {
                self.expire(now);
            }
            // The namespace may be deleted too, so its uid is read again for the next Secret in it.
            self.leave(key.namespace());
            let inserted = self.lost.insert(key.namespace(), key.clone(), now, 1);
            let is_in = inserted.is_in();
            for (dropped, _) in inserted.dropped(key.clone()) {
                self.overflow.note(Budget::Deletions, dropped.namespace());
                // It has left its namespace already.
                self.secrets.remove(dropped.namespace(), &dropped);
                self.release(dropped.namespace());
            }
            if !is_in {
                return None;
            }
        }
        let age = self.lost_since(key).map_or(Duration::ZERO, |since| now - since);
        if age >= LOST_FOR {
            self.forget(key);
            return None;
        }
        // Most Secrets that are created again appear within seconds, so the first pauses are short.
        // If a whole namespace is deleted, the growing pauses limit the calls.
        Some(now + age.clamp(SHORTEST_PAUSE, LONGEST_PAUSE))
    }

    /// Notes that a Secret still exists but has lost its labels. Its state is then remembered until
    /// the repair, even if the webhook is down for long. A new object of this name does not count.
    pub fn found(&mut self, key: &Key, secret: &SecretView) {
        let Some(kept) = self.secrets.get(key.namespace(), key) else { return };
        let uid = kept.namespace.clone();
        if secret.object_uid() == Some(&kept.secret.uid)
            && self.lost.remove(key.namespace(), key).is_some()
        {
            let entry = self.namespaces.entry(key.namespace().to_owned());
            entry.or_insert(NamespaceEntry { uid, secrets: 0 }).secrets += 1;
        }
    }

    /// Forgets the Secrets that have been gone for too long, and returns their keys.
    pub fn expire(&mut self, now: Instant) -> Vec<Key> {
        let is_over = |(_, since): &(&Key, &Instant)| now - **since >= LOST_FOR;
        let over: Vec<Key> = self.lost.iter().filter(is_over).map(|(k, _)| k.clone()).collect();
        for key in &over {
            self.forget(key);
        }
        over
    }

    /// Forgets a Secret.
    pub fn forget(&mut self, key: &Key) {
        self.refused.remove(key);
        if self.secrets.remove(key.namespace(), key).is_some() {
            self.forget_traces(key);
        }
    }

    /// Forgets what is known of a Secret whose state is forgotten. Returns whether it was gone.
    fn forget_traces(&mut self, key: &Key) -> bool {
        let was_lost = self.lost.remove(key.namespace(), key).is_some();
        if !was_lost {
            self.leave(key.namespace());
        }
        self.release(key.namespace());
        was_lost
    }

    /// Notes what a Secret distrusts. No repair in its namespace brings that back for as long as
    /// any Secret of the namespace is remembered, also when the Secret that said so is gone. Other
    /// namespaces may belong to other people, so it says nothing there.
    pub fn distrust(&mut self, key: &Key, distrusted: &[Fingerprint]) {
        let Some(known) = self.distrusted.get_mut(key.namespace()) else { return };
        for fingerprint in distrusted {
            let known = &mut known.fingerprints;
            if known.len() < MAX_DISTRUSTED && !known.contains(fingerprint) {
                Arc::make_mut(known).insert(*fingerprint);
            }
        }
    }

    /// Notes the list of the cluster that another one replaces. No repair brings back what it lists
    /// for as long as any Secret is remembered.
    pub fn delist(&mut self, list: &DistrustList) {
        let room = MAX_LISTED.saturating_sub(self.delisted.len());
        if !self.is_empty() {
            Arc::make_mut(&mut self.delisted).extend(list.fingerprints().take(room));
        }
    }

    /// What no repair in this namespace brings back, besides the list of the cluster.
    pub fn distrusted(&self, namespace: &str) -> FormerDistrust {
        let known = self.distrusted.get(namespace).map(|known| Arc::clone(&known.fingerprints));
        FormerDistrust { namespace: known.unwrap_or_default(), cluster: Arc::clone(&self.delisted) }
    }

    /// Forgets what was distrusted in a namespace with its last remembered Secret.
    fn release(&mut self, namespace: &str) {
        let Some(known) = self.distrusted.get_mut(namespace) else { return };
        known.remembered -= 1;
        if known.remembered == 0 {
            self.distrusted.remove(namespace);
        }
        if self.distrusted.is_empty() {
            self.delisted = Arc::default();
        }
    }

    fn leave(&mut self, namespace: &str) {
        let Some(entry) = self.namespaces.get_mut(namespace) else { return };
        entry.secrets -= 1;
        if entry.secrets == 0 {
            self.namespaces.remove(namespace);
        }
    }

    /// How many Secrets are remembered.
    pub fn len(&self) -> usize {
        self.secrets.len()
    }

    /// Whether no Secret is remembered.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// How many Secrets are not remembered, because they or all together are too large.
    pub fn refused(&self) -> usize {
        self.refused.len()
    }
}
