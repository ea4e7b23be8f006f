//! Which CAs the keeper announces to which Secrets (docs/design.md, "Announce").
//!
//! A *follower* trusts the CAs of its *sources*: those that its annotation `trust` names, and the
//! Secret of its CA issuer if cert-manager owns it. Metadata shows who follows what; only sources are
//! read, and each follower when something may have to change.
//!
//! ```text
//! metadata of all Secrets ─► followers ─┐
//! Issuers, ClusterIssuers ─► sources ───┴─► offers ─► what a follower is to be told ─► the ask
//! ```
//!
//! No clock and no I/O: [`super::controller`] has both. All state can be read again from the objects.

mod cascade;
mod follows;
pub(crate) mod issuers;
mod refusal;
pub(crate) mod source;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::Event;
use tokio::time::Instant;

pub(crate) use self::cascade::Cascade;
use self::cascade::Told;
use self::follows::{Follows, format_trusted};
use self::issuers::Issuers;
pub(crate) use self::refusal::Refusal;
use self::source::Source;
pub(crate) use self::source::{Offer, SourceRead};
use super::fair::Fair;
use super::overflow::{Budget, Overflow};
use crate::kubernetes::issuer::{Issuer, IssuerKey, IssuerKind};
use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::announcement::MAX_ANNOUNCED;
use crate::x509::certs::{Bundle, Certificate, Fingerprint};
use crate::x509::issuer::{Issuers as IssuerSearch, MAX_CHAIN};

/// The most bytes of all followers, and of all sources.
const MAX_FOLLOWERS: usize = 32 << 20;
const MAX_SOURCES: usize = 16 << 20;
/// The most Secrets of other namespaces that the Secrets of one namespace follow by `trust`.
const MAX_FOREIGN: usize = 64;
/// How long after a look at a source the next one may come.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// Followers and sources.
#[derive(Debug)]
pub(crate) struct Trust {
    /// `None` without `--follow-issuers`.
    issuers: Option<Issuers>,
    /// The namespaces for whose Secrets the webhook is never called.
    uncalled: Vec<String>,
    settle: Duration,
    followers: Fair<Key, Follower>,
    sources: Fair<Key, Source>,
    /// The sources in other namespaces that the Secrets of a namespace follow, with their numbers.
    foreign: HashMap<String, BTreeMap<Key, usize>>,
    /// Secrets that carry the label of an issuer's source.
    labelled: Fair<Key, ()>,
    /// What the list has shown so far, until it is complete.
    shown: Option<HashSet<Key>>,
    is_listed: bool,
    overflow: Overflow,
    todo: Todo,
}

/// What has to be done after an event.
#[derive(Debug, Default)]
pub(crate) struct Todo {
    /// Followers to reconcile.
    pub(crate) followers: BTreeSet<Key>,
    /// Sources to read, and when.
    pub(crate) sources: BTreeMap<Key, Instant>,
}

/// A follower.
#[derive(Debug)]
struct Follower {
    uid: Option<String>,
    /// The version that was seen last.
    version: String,
    follows: Follows,
    /// The Secret of its issuer.
    of_issuer: Option<Key>,
    sources: Vec<Key>,
    /// The CAs of its sources that issued its leaf; `None` if it was not read yet.
    issuers: Option<Vec<Fingerprint>>,
    /// The hash of what it was compared with last, and which version of it.
    compared: Option<(u64, String)>,
    /// The hash of what it is being compared with, and the version that was seen at that time.
    comparing: (u64, String),
    /// The hash of the refusals that were reported.
    reported: u64,
    /// What decides about renewals; `None` if it was not read yet.
    told: Option<Told>,
}

/// What a follower is to be told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// The CAs to announce: the present ones of all sources first.
    pub(crate) offers: Vec<Offer>,
    /// What its annotation `trusted` is to say.
    pub(crate) trusted: Option<String>,
    /// What is not announced, and why, if that was not reported yet.
    pub(crate) new_refusals: Vec<Refusal>,
    /// The version of the follower that was seen last.
    pub(crate) seen: String,
}

/// How the label `source` of a source is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LabelRule {
    /// As it is.
    Any,
    /// `issuer`, unless a person has set another value.
    Issuer,
    /// Not `issuer`.
    NotIssuer,
}

impl Trust {
    /// No followers yet. `cluster_namespace` holds the Secrets of `ClusterIssuer`s; without it no
    /// issuer is followed. For the Secrets of the `own_namespace` the webhook is never called.
    pub(crate) fn new(
        cluster_namespace: Option<String>,
        own_namespace: String,
        settle: Duration,
        overflow: Overflow,
    ) -> Self {
        Self {
            issuers: cluster_namespace.map(Issuers::new),
            uncalled: vec![own_namespace, names::UNCALLED_NAMESPACE.to_owned()],
            settle,
            followers: Fair::new(MAX_FOLLOWERS),
            sources: Fair::new(MAX_SOURCES),
            foreign: HashMap::new(),
            labelled: Fair::new(MAX_FOLLOWERS),
            shown: None,
            is_listed: false,
            overflow,
            todo: Todo::default(),
        }
    }

    /// Whether issuers are followed.
    pub(crate) fn follows_issuers(&self) -> bool {
        self.issuers.is_some()
    }

    /// Takes what is to be done since the last call.
    pub(crate) fn take_todo(&mut self) -> Todo {
        mem::take(&mut self.todo)
    }

    /// Takes in what the watch of metadata shows.
    pub(crate) fn secret(&mut self, event: Event<(Key, ObjectMeta)>, now: Instant) {
        match event {
            Event::Init => self.shown = Some(HashSet::new()),
            Event::InitApply((key, meta)) => {
                self.see(&key, &meta, now);
                if let Some(shown) = &mut self.shown
                    && (self.followers.get(key.namespace(), &key).is_some()
                        || self.labelled.get(key.namespace(), &key).is_some())
                {
                    shown.insert(key);
                }
            }
            Event::InitDone => {
                let shown = self.shown.take().unwrap_or_default();
                let known = self.followers.iter().map(|(key, _)| key);
                let known = known.chain(self.labelled.iter().map(|(key, ())| key));
                let gone: Vec<Key> = known.filter(|key| !shown.contains(*key)).cloned().collect();
                for key in gone {
                    self.forget(&key, now);
                    self.labelled.remove(key.namespace(), &key);
                }
                self.is_listed = true;
                // The list does not show the sources that are gone.
                let sources: Vec<Key> = self.sources.iter().map(|(key, _)| key.clone()).collect();
                for key in sources {
                    self.read_source(&key, now);
                }
                self.check_labels(now);
                self.look_at_all();
            }
            Event::Apply((key, meta)) => self.see(&key, &meta, now),
            Event::Delete((key, _)) => {
                self.forget(&key, now);
                self.labelled.remove(key.namespace(), &key);
                self.read_source(&key, now);
            }
        }
    }

    /// Takes in what the watches of issuers show.
    pub(crate) fn issuer(&mut self, kind: IssuerKind, event: Event<Issuer>, now: Instant) {
        let Some(issuers) = &mut self.issuers else { return };
        let was_listed = issuers.is_listed();
        let changed: HashSet<IssuerKey> = issuers.take(kind, event).into_iter().collect();
        let is_listed = issuers.is_listed();
        let is_of = |follower: &Follower| {
            follower.follows.issuer.as_ref().is_some_and(|issuer| changed.contains(issuer))
        };
        if !changed.is_empty() {
            let all = self.followers.iter().filter(|(_, follower)| is_of(follower));
            let keys: Vec<Key> = all.map(|(key, _)| key.clone()).collect();
            for key in keys {
                self.link(&key, now);
            }
        }
        if !changed.is_empty() || is_listed != was_listed {
            self.check_labels(now);
        }
    }

    /// How the label of this source is to be.
    pub(crate) fn label_rule(&self, key: &Key) -> LabelRule {
        let Some(issuers) = &self.issuers else { return LabelRule::Any };
        let mut followers = self.source(key).into_iter().flat_map(|source| &source.followers);
        match issuers.is_signer(key) {
            Some(true) if followers.any(|follower| self.is_of_issuer(follower, key)) => {
                LabelRule::Issuer
            }
            Some(false) => LabelRule::NotIssuer,
            _ => LabelRule::Any,
        }
    }

    /// Takes in a source that was read.
    pub(crate) fn source_read(&mut self, key: &Key, read: SourceRead, now: Instant) {
        let Some(mut source) = self.sources.remove(key.namespace(), key) else { return };
        let needs = source.needs();
        let is_same = source.read.as_ref() == Some(&read);
        source.take(read, self.settle, now);
        let followers = source.followers_to_look_at(&needs, !is_same, |key| self.is_told(key));
        let ends = source.next();
        self.put(key, source);
        self.look_at(followers);
        if let Some(ends) = ends {
            self.read_at(key, ends);
        }
    }

    /// What this Secret is to be told; `None` if it is no follower, or if not all is known yet.
    pub(crate) fn wanted(&mut self, key: &Key) -> Option<Wanted> {
        let (wanted, refused, wanted_hash) = self.compute(key)?;
        let follower = self.followers.get_mut(key.namespace(), key)?;
        follower.comparing = (wanted_hash, follower.version.clone());
        let refused_hash = hash(&refused);
        let is_new = mem::replace(&mut follower.reported, refused_hash) != refused_hash;
        let seen = follower.version.clone();
        Some(Wanted { new_refusals: if is_new { refused } else { Vec::new() }, seen, ..wanted })
    }

    /// Whether this Secret is a follower.
    pub(crate) fn is_follower(&self, key: &Key) -> bool {
        self.followers.get(key.namespace(), key).is_some()
    }

    /// The uid of a follower.
    pub(crate) fn uid(&self, key: &Key) -> Option<&str> {
        self.followers.get(key.namespace(), key)?.uid.as_deref()
    }

    /// Notes that a follower was compared with what was wanted, in this state. Returns when it is to
    /// be read again: its leaf is of a previous CA, and expires then. `is_left_alone` says whether
    /// nothing is ever announced to it; `None` if no leaf is renewed.
    pub(crate) fn compared(
        &mut self,
        key: &Key,
        secret: &SecretView,
        is_left_alone: Option<bool>,
        now: Instant,
        time: Timestamp,
    ) -> Option<Timestamp> {
        let follower = self.followers.get(key.namespace(), key)?;
        let leaf = self.leaf(follower, secret, time);
        let (issued, ends) = leaf.unwrap_or_default();
        let told = is_left_alone
            .map(|is_left_alone| self.told(follower, key, secret, ends, is_left_alone, time));
        let sources = follower.sources.clone();
        let follower = self.followers.get_mut(key.namespace(), key)?;
        follower.told = told;
        let (wanted, seen) = mem::take(&mut follower.comparing);
        let version = secret.resource_version().to_owned();
        if follower.version == seen {
            // No watch has shown a later one.
            follower.version.clone_from(&version);
        }
        follower.compared = Some((wanted, version));
        let before = follower.issuers.replace(issued.clone());
        if before.as_ref() != Some(&issued) {
            for source in &sources {
                self.change(source, now, |source| {
                    source.unread -= usize::from(before.is_none() && source.unread > 0);
                    source.count(before.as_deref().unwrap_or_default(), &issued);
                });
            }
        }
        let is_former = |source: &Source| issued.iter().any(|ca| source.is_former(*ca));
        let mut sources = sources.iter().filter_map(|key| self.source(key));
        ends.filter(|_| sources.any(is_former))
    }

    /// Has a follower reconciled, if it was not compared in this state with what is wanted.
    pub(crate) fn look(&mut self, key: &Key) {
        let Some((_, _, hash)) = self.compute(key) else { return };
        let Some(follower) = self.followers.get(key.namespace(), key) else { return };
        let compared = follower.compared.as_ref();
        if compared.is_none_or(|(it, version)| *it != hash || *version != follower.version) {
            self.todo.followers.insert(key.clone());
        }
    }

    /// Which CAs of its sources issued the leaf of a follower, and when the leaf expires. `None` if
    /// it has.
    fn leaf(
        &self,
        follower: &Follower,
        secret: &SecretView,
        time: Timestamp,
    ) -> Option<(Vec<Fingerprint>, Option<Timestamp>)> {
        let mut certificates: Vec<Certificate> = Vec::new();
        for source in follower.sources.iter().filter_map(|key| self.source(key)) {
            for certificate in source.certificates() {
                if !certificates.contains(certificate) {
                    certificates.push(certificate.clone());
                }
            }
        }
        let chain = Bundle::parse(secret.view().tls_crt?, MAX_CHAIN).ok()?;
        let leaf = chain.certificates().first().filter(|leaf| !leaf.is_expired(time))?;
        let ends = Timestamp::from_second(leaf.not_after()).ok();
        let found = IssuerSearch::default().of_chain(&chain, &certificates, &std::iter::empty());
        Some((found.into_iter().map(|index| certificates[index].fingerprint()).collect(), ends))
    }

    /// Takes in the metadata of a Secret.
    fn see(&mut self, key: &Key, meta: &ObjectMeta, now: Instant) {
        let label = meta.labels.as_ref().and_then(|labels| labels.get(names::SOURCE));
        if label.is_some_and(|label| label == names::SOURCE_ISSUER) {
            let is_new = self.labelled.get(key.namespace(), key).is_none();
            let inserted = self.labelled.insert(key.namespace(), key.clone(), (), PLACE);
            for (dropped, ()) in inserted.dropped(key.clone()) {
                self.overflow.note(Budget::Followers, dropped.namespace());
            }
            if is_new && self.label_rule(key) == LabelRule::NotIssuer && self.is_listed {
                self.todo.sources.insert(key.clone(), now);
            }
        } else {
            self.labelled.remove(key.namespace(), key);
        }
        self.read_source(key, now);
        let is_called = !self.uncalled.iter().any(|namespace| namespace == key.namespace());
        let follows = is_called.then(|| Follows::read(key, meta, self.issuers.is_some())).flatten();
        let Some(follows) = follows else {
            self.forget(key, now);
            return;
        };
        let version = meta.resource_version.clone().unwrap_or_default();
        let known = self.followers.get_mut(key.namespace(), key);
        if let Some(known) = known.filter(|known| known.uid == meta.uid) {
            known.version = version;
            let links = |it: &Follows| (it.issuer.clone(), it.trust.clone());
            let is_linked = links(&known.follows) == links(&follows);
            known.follows = follows;
            if is_linked {
                self.look(key);
            } else {
                self.link(key, now);
            }
            return;
        }
        self.forget(key, now);
        let follower = Follower {
            uid: meta.uid.clone(),
            version,
            of_issuer: None,
            sources: Vec::new(),
            issuers: None,
            compared: None,
            comparing: (0, String::new()),
            reported: hash(&Vec::<Refusal>::new()),
            told: None,
            follows,
        };
        let size = follower.size();
        let inserted = self.followers.insert(key.namespace(), key.clone(), follower, size);
        for (dropped, follower) in inserted.dropped(key.clone()) {
            self.overflow.note(Budget::Followers, dropped.namespace());
            self.unlink(&dropped, &follower, now);
        }
        self.link(key, now);
    }

    /// Finds the sources of a follower again.
    fn link(&mut self, key: &Key, now: Instant) {
        let Some(follower) = self.followers.get(key.namespace(), key) else { return };
        let issuer = follower.follows.issuer.clone();
        let of_issuer = issuer.zip(self.issuers.as_ref());
        let of_issuer = of_issuer.and_then(|(issuer, known)| known.secret(&issuer).cloned());
        let of_issuer = of_issuer.filter(|source| source != key);
        let trust = follower.follows.trust.clone();
        let before = follower.parts();
        self.unlink_parts(key, &before, now);
        let mut sources: Vec<Key> = of_issuer.iter().cloned().collect();
        for source in trust {
            if !sources.contains(&source) && self.admit(key, &source) {
                sources.push(source);
            }
        }
        for source in &sources {
            let is_new = self.source(source).is_none();
            let mut linked = self.sources.remove(source.namespace(), source).unwrap_or_default();
            linked.followers.insert(key.clone());
            linked.unread += 1;
            self.put(source, linked);
            if is_new {
                self.todo.sources.insert(source.clone(), now);
            } else if of_issuer.as_ref() == Some(source) {
                // It may lack its label.
                self.read_source(source, now);
            }
        }
        if let Some(follower) = self.followers.get_mut(key.namespace(), key) {
            follower.of_issuer = of_issuer;
            follower.sources = sources;
            follower.issuers = None;
            follower.compared = None;
            follower.told = None;
        }
        self.look(key);
        self.look_below(key);
    }

    /// Counts a source of another namespace. Each namespace may follow a limited number of them.
    fn admit(&mut self, follower: &Key, source: &Key) -> bool {
        if follower.namespace() == source.namespace() {
            return true;
        }
        let foreign = self.foreign.entry(follower.namespace().to_owned()).or_default();
        if !foreign.contains_key(source) && foreign.len() >= MAX_FOREIGN {
            self.overflow.note(Budget::Sources, follower.namespace());
            return false;
        }
        *foreign.entry(source.clone()).or_default() += 1;
        true
    }

    fn forget(&mut self, key: &Key, now: Instant) {
        if let Some(follower) = self.followers.remove(key.namespace(), key) {
            self.unlink(key, &follower, now);
            self.look_below(key);
        }
    }

    fn unlink(&mut self, key: &Key, follower: &Follower, now: Instant) {
        self.unlink_parts(key, &follower.parts(), now);
    }

    fn unlink_parts(
        &mut self,
        key: &Key,
        (sources, issuers): &(Vec<Key>, Option<Vec<Fingerprint>>),
        now: Instant,
    ) {
        for source in sources {
            self.release(key, source);
            let Some(linked) = self.sources.get_mut(source.namespace(), source) else { continue };
            linked.followers.remove(key);
            if linked.followers.is_empty() {
                self.sources.remove(source.namespace(), source);
                continue;
            }
            let was_read = issuers.is_some();
            let issuers = issuers.as_deref().unwrap_or_default();
            self.change(source, now, |source| {
                source.unread -= usize::from(!was_read && source.unread > 0);
                source.count(issuers, &[]);
            });
        }
    }

    fn release(&mut self, follower: &Key, source: &Key) {
        let Some(foreign) = self.foreign.get_mut(follower.namespace()) else { return };
        if let Some(count) = foreign.get_mut(source) {
            *count -= 1;
            if *count == 0 {
                foreign.remove(source);
            }
        }
        if foreign.is_empty() {
            self.foreign.remove(follower.namespace());
        }
    }

    /// Changes what a source knows of its followers.
    fn change(&mut self, key: &Key, now: Instant, change: impl FnOnce(&mut Source)) {
        let Some(source) = self.sources.get_mut(key.namespace(), key) else { return };
        let needs = source.needs();
        change(source);
        source.update(self.settle, now);
        let Some(source) = self.source(key) else { return };
        let followers = source.followers_to_look_at(&needs, false, |key| self.is_told(key));
        let ends = source.next();
        self.look_at(followers);
        if let Some(ends) = ends {
            self.read_at(key, ends);
        }
    }

    /// Whether the keeper announces something to a follower, or to those of its own.
    fn is_told(&self, key: &Key) -> bool {
        let follower = self.followers.get(key.namespace(), key);
        follower.is_some_and(|follower| follower.follows.is_announced_to)
            || self.source(key).is_some()
    }

    fn put(&mut self, key: &Key, source: Source) {
        let size = source.size();
        let inserted = self.sources.insert(key.namespace(), key.clone(), source, size);
        for (dropped, _) in inserted.dropped(key.clone()) {
            self.overflow.note(Budget::Sources, dropped.namespace());
        }
    }

    /// Reads a Secret soon if it is a source.
    fn read_source(&mut self, key: &Key, now: Instant) {
        if self.source(key).is_some() {
            self.read_at(key, now);
        }
    }

    fn read_at(&mut self, key: &Key, at: Instant) {
        let last = self.source(key).and_then(|source| source.read_at);
        let at = last.map_or(at, |last| at.max(last + READ_INTERVAL));
        let known = self.todo.sources.entry(key.clone()).or_insert(at);
        *known = at.min(*known);
    }

    /// Reads the Secrets whose label may have to change.
    fn check_labels(&mut self, now: Instant) {
        if !self.is_listed {
            return;
        }
        let labelled: Vec<Key> = self.labelled.iter().map(|(key, ())| key.clone()).collect();
        for key in labelled {
            if self.label_rule(&key) == LabelRule::NotIssuer {
                self.read_at(&key, now);
            }
        }
    }

    fn look_at_all(&mut self) {
        let all: Vec<Key> = self.followers.iter().map(|(key, _)| key.clone()).collect();
        for key in all {
            self.look(&key);
        }
    }

    fn source(&self, key: &Key) -> Option<&Source> {
        self.sources.get(key.namespace(), key)
    }

    /// What a follower is to be told, what is refused, and a hash of both.
    fn compute(&self, key: &Key) -> Option<(Wanted, Vec<Refusal>, u64)> {
        let follower = self.followers.get(key.namespace(), key).filter(|_| self.is_listed)?;
        let follows = &follower.follows;
        let issuer = follows.issuer.as_ref().zip(self.issuers.as_ref());
        if issuer.is_some_and(|(issuer, known)| !known.is_known(issuer)) {
            return None;
        }
        let (mut refused, mut trusted) = (Vec::new(), Vec::<(String, String)>::new());
        let mut offers: Vec<Offer> = Vec::new();
        for name in &follower.sources {
            let source = self.source(name)?;
            let all = source.offers()?;
            let read = source.read.as_ref()?;
            let is_of_issuer = follower.of_issuer.as_ref() == Some(name);
            if !is_of_issuer && !read.exists {
                refused.push(Refusal::Missing(name.clone()));
            }
            if !is_of_issuer && name.namespace() != key.namespace() {
                let known = follows.trusted.iter().find(|(known, _)| known == name.namespace());
                let uid = read.namespace_uid.as_ref();
                if let Some((namespace, known)) = known {
                    if !trusted.iter().any(|(it, _)| it == namespace) {
                        trusted.push((namespace.clone(), known.clone()));
                    }
                    if uid.is_some_and(|uid| uid != known) {
                        refused.push(Refusal::OtherNamespace(name.clone()));
                        continue;
                    }
                }
                if !read.consents {
                    if read.exists {
                        refused.push(Refusal::NoConsent(name.clone()));
                    }
                    // What lingers stays: the Secret may be replaced right now.
                    offers.extend(all.into_iter().filter(|offer| offer.stays_only && !read.exists));
                    continue;
                }
                if let Some(uid) = uid.filter(|_| known.is_none())
                    && !trusted.iter().any(|(it, _)| it == name.namespace())
                {
                    trusted.push((name.namespace().to_owned(), uid.clone()));
                }
            }
            offers.extend(all);
        }
        for name in self.above(key)? {
            offers.extend(self.source(&name).map_or(Some(Vec::new()), Source::offers)?);
        }
        for named in follows.trust.iter().filter(|named| !follower.sources.contains(named)) {
            refused.push(Refusal::TooMany(named.clone()));
        }
        let offers = in_order(offers);
        let present = offers.iter().filter(|offer| !offer.stays_only).count();
        if present > MAX_ANNOUNCED {
            refused.push(Refusal::TooManyCas(present));
        }
        let wanted = Wanted { offers, trusted: format_trusted(&trusted), ..Wanted::default() };
        let words =
            wanted.offers.iter().map(|it| (it.certificate.fingerprint(), it.since, it.stays_only));
        let hash = hash(&(words.collect::<Vec<_>>(), &wanted.trusted, &refused));
        Some((wanted, refused, hash))
    }
}

/// The bytes of an entry that is only a key.
const PLACE: usize = 256;

impl Follower {
    fn parts(&self) -> (Vec<Key>, Option<Vec<Fingerprint>>) {
        (self.sources.clone(), self.issuers.clone())
    }

    /// About the bytes that it takes.
    fn size(&self) -> usize {
        const PLACES: usize = 1024;
        PLACES + PLACE * self.follows.trust.len() + 128 * self.follows.trusted.len()
    }
}

/// Each CA once, those that the sources hold now first.
fn in_order(mut offers: Vec<Offer>) -> Vec<Offer> {
    offers.sort_by_key(|offer| (offer.since.is_some(), offer.stays_only));
    let mut found: Vec<Offer> = Vec::new();
    for offer in offers {
        if !found.iter().any(|known| known.certificate == offer.certificate) {
            found.push(offer);
        }
    }
    found
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
