//! Chains of issuers, and which leaves are to be renewed (docs/design.md, "Cascade").
//!
//! The Secret of an intermediate follows the Secret of its root, and has followers of its own. These
//! are told the new root, too, before the intermediate is renewed.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{Follower, Source, Trust};
use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::MAX_STORED_BLOCKS;
use crate::overlap::record::Record;
use crate::x509::certs::{Bundle, Certificate, Fingerprint};

/// The most issuers above a leaf.
const MAX_ABOVE: usize = 8;

/// The leaves of an issuer that a previous CA issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cascade {
    /// The Secret of the issuer.
    pub(crate) source: Key,
    /// The CAs that new leaves verify against.
    pub(crate) held: Vec<Certificate>,
    /// The Secrets with such a leaf.
    pub(crate) leaves: Vec<Key>,
    /// The Secrets that do not trust these CAs yet.
    pub(crate) missing: Vec<Key>,
    /// Whether all have trusted them for the settle time.
    pub(crate) is_settled: bool,
}

/// What decides about renewals, of a follower as it was read.
#[derive(Debug)]
pub(super) struct Told {
    /// Nothing is ever announced to it, and its leaf is not renewed.
    is_left_alone: bool,
    /// Whether it has a `ca.crt`.
    has_ca_crt: bool,
    /// When its leaf expires; `None` without one.
    ends: Option<Timestamp>,
    /// The CAs of its sources, and those above, that it trusts, and since when.
    trusts: Vec<(Fingerprint, Timestamp)>,
}

impl Trust {
    /// The cascades that are to be made.
    pub(crate) fn cascades(&self, now: Timestamp) -> Vec<Cascade> {
        let issuers = self.issuers.as_ref().filter(|it| self.is_listed && it.is_listed());
        let Some(issuers) = issuers else { return Vec::new() };
        let sources = self.sources.iter().filter(|(key, _)| issuers.is_signer(key) == Some(true));
        sources.filter_map(|(key, source)| self.cascade(key, source, now)).collect()
    }

    fn cascade(&self, key: &Key, source: &Source, now: Timestamp) -> Option<Cascade> {
        let held = &source.read.as_ref().filter(|read| !read.held.is_empty())?.held;
        let prints: Vec<Fingerprint> = held.iter().map(Certificate::fingerprint).collect();
        let has_old_leaf = |name: &&Key| {
            let follower = self.followers.get(name.namespace(), name);
            self.is_of_issuer(name, key)
                && follower.is_some_and(|follower| follower.has_old_leaf(&prints, now))
        };
        let leaves: Vec<Key> = source.followers.iter().filter(has_old_leaf).cloned().collect();
        if leaves.is_empty() {
            return None;
        }
        let settle = SignedDuration::try_from(self.settle).unwrap_or(SignedDuration::MAX);
        let (mut missing, mut is_settled) = (Vec::new(), true);
        for name in self.readers(key, source) {
            let Some(follower) = self.followers.get(name.namespace(), &name) else { continue };
            match follower.trusts_since(&prints) {
                Some(since) => is_settled &= now.duration_since(since) >= settle,
                None => missing.push(name),
            }
        }
        is_settled &= missing.is_empty();
        Some(Cascade { source: key.clone(), held: held.clone(), leaves, missing, is_settled })
    }

    /// Those that can meet a new leaf of this issuer, and are told its CAs: the Secrets of the issuer
    /// and of the issuers below, and those that trust it by their annotation.
    fn readers(&self, key: &Key, source: &Source) -> BTreeSet<Key> {
        let mut readers = self.below(key);
        let consents = source.read.as_ref().is_some_and(|read| read.consents);
        let may_follow = |name: &&Key| consents || name.namespace() == key.namespace();
        let is_by_name = |name: &&Key| {
            let follower = self.followers.get(name.namespace(), name);
            !self.is_of_issuer(name, key)
                && follower.is_some_and(|follower| follower.follows.trust.contains(key))
        };
        readers.extend(source.followers.iter().filter(is_by_name).filter(may_follow).cloned());
        readers
    }

    /// Whether a follower is issued by the issuer that signs with this Secret.
    pub(super) fn is_of_issuer(&self, follower: &Key, source: &Key) -> bool {
        let follower = self.followers.get(follower.namespace(), follower);
        follower.is_some_and(|follower| follower.of_issuer.as_ref() == Some(source))
    }

    /// The Secrets of an issuer, and of the issuers below.
    pub(super) fn below(&self, source: &Key) -> BTreeSet<Key> {
        let mut found = BTreeSet::new();
        let mut todo = vec![source.clone()];
        while let Some(key) = todo.pop() {
            for name in self.source(&key).into_iter().flat_map(|source| &source.followers) {
                if self.is_of_issuer(name, &key) && found.insert(name.clone()) {
                    todo.push(name.clone());
                }
            }
        }
        found
    }

    /// The Secrets of the issuers above that of a follower, the lowest first. `None` if they are not
    /// all known yet.
    pub(super) fn above(&self, follower: &Key) -> Option<Vec<Key>> {
        let known = self.issuers.as_ref();
        let mut found: Vec<Key> = Vec::new();
        let of_issuer =
            |key: &Key| self.followers.get(key.namespace(), key).map(|it| it.of_issuer.clone());
        let mut next = of_issuer(follower).flatten();
        while let Some(source) = next.take().filter(|_| found.len() < MAX_ABOVE) {
            let Some(above) = self.followers.get(source.namespace(), &source) else { break };
            let issuer = above.follows.issuer.as_ref().zip(known);
            if issuer.is_some_and(|(issuer, known)| !known.is_known(issuer)) {
                return None;
            }
            next = above.of_issuer.clone().filter(|it| !found.contains(it));
            found.extend(next.clone());
        }
        Some(found)
    }

    /// Has these followers reconciled, and those of the issuers among them.
    pub(super) fn look_at(&mut self, followers: Vec<Key>) {
        for key in &followers {
            self.look_below(key);
        }
        self.todo.followers.extend(followers);
    }

    /// Has the followers of an issuer reconciled where what is above it has changed.
    pub(super) fn look_below(&mut self, source: &Key) {
        for key in self.below(source) {
            self.look(&key);
        }
    }

    /// What decides about renewals.
    pub(super) fn told(
        &self,
        follower: &Follower,
        key: &Key,
        secret: &SecretView,
        ends: Option<Timestamp>,
        is_left_alone: bool,
        now: Timestamp,
    ) -> Told {
        let view = secret.view();
        let trusted = view.ca_crt.and_then(|text| Bundle::parse(text, MAX_STORED_BLOCKS).ok());
        let trusted = trusted.unwrap_or_default();
        let record = view.annotation(names::CARRIED);
        let record = record.and_then(|text| Record::of_object(text, view.uid).ok());
        let before = follower.told.as_ref().map_or(&[][..], |told| &told.trusts);
        let since = |ca: Fingerprint| {
            let entry = record.as_ref().and_then(|(record, _)| record.entry(ca));
            let announced = entry.filter(|entry| entry.announced.is_some()).map(|it| it.since);
            let known = before.iter().find(|(it, _)| *it == ca).map(|(_, since)| *since);
            announced.into_iter().chain(known).min().unwrap_or(now)
        };
        let above = self.above(key).unwrap_or_default();
        let sources = follower.sources.iter().chain(&above).filter_map(|key| self.source(key));
        let held = sources.flat_map(|source| source.read.iter().flat_map(|read| &read.held));
        let held = held.filter(|ca| trusted.contains(ca)).map(Certificate::fingerprint);
        Told {
            is_left_alone,
            has_ca_crt: view.ca_crt.is_some(),
            ends,
            trusts: held.map(|ca| (ca, since(ca))).collect(),
        }
    }
}

impl Follower {
    /// Whether it has a leaf that is not of these CAs.
    fn has_old_leaf(&self, held: &[Fingerprint], now: Timestamp) -> bool {
        let Some((told, issuers)) = self.told.as_ref().zip(self.issuers.as_ref()) else {
            return false;
        };
        let is_valid = told.ends.is_some_and(|ends| now < ends);
        is_valid && !told.is_left_alone && !issuers.iter().any(|ca| held.contains(ca))
    }

    /// Since when it trusts all of these CAs: forever where it trusts none. `None` if it does not.
    fn trusts_since(&self, held: &[Fingerprint]) -> Option<Timestamp> {
        let told = self.told.as_ref()?;
        if told.is_left_alone || !told.has_ca_crt {
            return Some(Timestamp::UNIX_EPOCH);
        }
        let since = |ca: &Fingerprint| told.trusts.iter().find(|(it, _)| it == ca).map(|it| it.1);
        held.iter().map(since).collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}
