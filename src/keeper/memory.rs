//! The keeper's memory: the last known state of Secrets (docs/design.md, "The keeper"). Repairs
//! need it, because CAs and settings can be dropped by a write while the webhook is down, or by a
//! DELETE and a CREATE.
//!
//! It holds only public values, and only what this keeper itself has read from the API server. To
//! find what is missing, it calls the webhook's own decision, which says what the webhook would
//! have carried.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::ask::{MAX_REPAIRED, Repair, Repaired};
use crate::overlap::distrust::{DistrustList, MAX_LISTED};
use crate::overlap::outlook::{PublicSecret, Rules, may_change_data, settings};
use crate::overlap::record::{Entry, Record};
use crate::overlap::settings::Settings;
use crate::overlap::write::carried_entries;
use crate::overlap::{self, Contents, MAX_STORED_BLOCKS, RecordAfter, Write};
use crate::x509::certs::{Bundle, Certificate, Fingerprint};
use crate::x509::issuer::Issuers;

/// The most bytes that are remembered of one Secret. A Secret with more is not remembered.
const MAX_ONE: usize = 64 << 10;
/// The most bytes that are remembered of all Secrets together.
const MAX_ALL: usize = 32 << 20;
/// How long the keeper polls the name of a Secret that is gone.
const LOST_FOR: Duration = Duration::from_secs(600);
/// How many such names it polls at a time.
const MAX_LOST: usize = 256;
/// The limits of the pause between two polls. The pause is as long as the Secret has been gone.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The last known state of a Secret.
#[derive(Debug)]
pub struct Remembered {
    uid: String,
    created: Option<Timestamp>,
    ca_crt: Box<[u8]>,
    tls_crt: Option<Box<[u8]>>,
    record: Option<String>,
    settings: BTreeMap<&'static str, String>,
    mode: Option<String>,
}

/// What a Secret has lost and a repair has to restore.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RepairPlan {
    /// Certificates to carry again.
    pub certificates: Vec<Repaired>,
    /// Annotations to set again.
    pub annotations: BTreeMap<&'static str, String>,
    /// The label `mode` to set again.
    pub mode: Option<String>,
    /// Whether the Secret was deleted and created again, so that its uid is another one.
    pub is_recreated: bool,
    /// When the remembered object was created.
    created: Option<Timestamp>,
}

impl RepairPlan {
    /// The repair to ask the webhook for.
    pub fn repair(self) -> Repair {
        let settings =
            self.annotations.into_iter().chain(self.mode.map(|mode| (names::MODE, mode)));
        Repair { certificates: self.certificates, settings: settings.collect() }.fitting()
    }

    /// Whether the remembered object may have been in a namespace that was created at `namespace`.
    /// A younger namespace is another one of the same name. If a time is unknown, the answer is no.
    pub fn can_be_of(&self, namespace: Option<Timestamp>) -> bool {
        namespace.zip(self.created).is_some_and(|(namespace, secret)| namespace <= secret)
    }
}

impl Remembered {
    /// Takes what is worth remembering; `None` for a Secret without a uid or `ca.crt`.
    pub fn of(secret: &SecretView) -> Option<Self> {
        let view = secret.view();
        let setting = |key| {
            let value = secret.annotation(key).filter(|v| v.len() <= names::MAX_RESTORED)?;
            Some((key, value.to_owned()))
        };
        Some(Self {
            uid: secret.object_uid()?.to_owned(),
            created: secret.created(),
            ca_crt: view.ca_crt?.into(),
            tls_crt: view.tls_crt.map(Into::into),
            record: secret.annotation(names::CARRIED).map(ToOwned::to_owned),
            settings: names::SETTINGS.into_iter().filter_map(setting).collect(),
            mode: secret.label(names::MODE).map(ToOwned::to_owned),
        })
    }

    fn size(&self) -> usize {
        let settings: usize = self.settings.values().map(String::len).sum();
        let tls_crt = self.tls_crt.as_ref().map_or(0, |text| text.len());
        self.ca_crt.len() + tls_crt + settings + self.record.as_ref().map_or(0, String::len)
    }

    /// What the Secret has lost since then, by a write that the webhook did not see; `None` if the
    /// webhook saw the write, or if nothing is lost. A `distrusted` CA is never restored, whatever
    /// the Secret's own settings say ([`Memory::distrusted`]).
    pub fn compare(
        &self,
        secret: &SecretView,
        rules: &Rules,
        distrusted: &[Fingerprint],
        now: Timestamp,
    ) -> Option<RepairPlan> {
        let view = secret.view();
        let ca_crt = view.ca_crt.filter(|_| !view.is_token)?;
        let is_recreated = secret.object_uid() != Some(self.uid.as_str());
        let record = secret.annotation(names::CARRIED);
        // The webhook always restores its record, so it did not see a write that removed it.
        let is_wiped = self.record.is_some() && record.is_none();
        if !is_recreated && !is_wiped && record != self.record.as_deref() {
            return None;
        }
        // It writes a record when `ca.crt` changes, so it did not see a change without one either.
        let is_missed = record.is_none() && ca_crt != &*self.ca_crt;
        let mut plan = RepairPlan { is_recreated, created: self.created, ..RepairPlan::default() };
        if is_recreated || is_wiped || is_missed {
            plan.annotations = self.lost_settings(secret);
            let has_mode = secret.label(names::MODE).is_some();
            plan.mode = self.mode.clone().filter(|_| !has_mode);
        }
        let (mut settings, may_change_data) = restored(&view, &plan, rules);
        settings.distrust.extend(fingerprints(self.distrust()));
        settings.distrust.extend(distrusted.iter().copied());
        if may_change_data {
            plan.certificates = self.lost_certificates(&view, &settings, now);
        }
        let is_empty = plan.certificates.is_empty();
        (!is_empty || !plan.annotations.is_empty() || plan.mode.is_some()).then_some(plan)
    }

    fn distrust(&self) -> &str {
        self.settings.get(names::DISTRUST).map(String::as_str).unwrap_or_default()
    }

    /// The settings that are missing now. A setting with a new value keeps it, but `distrust` gets
    /// back the fingerprints that it has lost.
    fn lost_settings(&self, secret: &SecretView) -> BTreeMap<&'static str, String> {
        let lacks = |key: &str| secret.annotation(key).is_none();
        let lost = self.settings.iter().filter(|(key, _)| lacks(key));
        let mut lost: BTreeMap<_, _> = lost.map(|(key, value)| (*key, value.clone())).collect();
        if let Some(listed) = secret.annotation(names::DISTRUST) {
            let known: Vec<Fingerprint> = fingerprints(listed).collect();
            let missing = fingerprints(self.distrust()).filter(|f| !known.contains(f));
            let missing: Vec<String> = missing.map(|f| f.to_string()).collect();
            if !missing.is_empty() {
                let listed = Some(listed.trim().trim_end_matches(',').to_owned());
                let all = listed.into_iter().filter(|text| !text.is_empty()).chain(missing);
                lost.insert(names::DISTRUST, all.collect::<Vec<_>>().join(","));
            }
        }
        lost
    }

    /// The certificates that the webhook would carry now and that are missing in `ca.crt` or in the
    /// record.
    fn lost_certificates(
        &self,
        view: &PublicSecret<'_>,
        settings: &Settings,
        now: Timestamp,
    ) -> Vec<Repaired> {
        let record = self.record.as_deref().and_then(|text| Record::parse(text).ok());
        let bundle = |text: &[u8]| Bundle::parse(text, MAX_STORED_BLOCKS).unwrap_or_default();
        let Some(ca_crt) = view.ca_crt else { return Vec::new() };
        let found = bundle(ca_crt);
        let listed = view.annotations.get(names::CARRIED);
        let listed = listed.and_then(|text| Record::parse(text).ok());
        let is_listed = |f| listed.as_ref().is_some_and(|record| record.entry(f).is_some());
        let is_there = |c: &Certificate| found.contains(c) && is_listed(c.fingerprint());
        let known = |entry: &Entry| {
            let known = record.as_ref().and_then(|record| record.entry(entry.sha256));
            known.copied().filter(|known| known == entry)
        };
        let (wanted, record_after) = self.decided(view, ca_crt, record.as_ref(), settings, now);
        let wanted = bundle(&wanted);
        let entries = carried_entries(&wanted, record_after.as_ref());
        let carried = wanted.certificates().iter().zip(entries);
        let lost = carried
            .filter_map(|(certificate, entry)| Some((certificate, entry?)))
            .filter(|(certificate, _)| !is_there(certificate))
            .map(|(certificate, entry)| Repaired {
                der: certificate.der().to_vec(),
                entry: known(&entry),
            })
            .take(MAX_REPAIRED);
        taken(view, listed.as_ref(), settings, lost.collect(), now)
    }

    /// The `ca.crt` and the record that the webhook would have stored.
    fn decided(
        &self,
        view: &PublicSecret<'_>,
        ca_crt: &[u8],
        record: Option<&Record>,
        settings: &Settings,
        now: Timestamp,
    ) -> (Vec<u8>, Option<Record>) {
        if ca_crt == &*self.ca_crt {
            return (ca_crt.to_vec(), record.cloned());
        }
        let decision = overlap::decide(&Write {
            now,
            stored: Contents { ca_crt: Some(&self.ca_crt), tls_crt: self.tls_crt.as_deref() },
            incoming: Contents { ca_crt: Some(ca_crt), tls_crt: view.tls_crt },
            record,
            settings,
            may_change_data: true,
            // A rough limit: the webhook computes the real one.
            room: MAX_ONE,
            repair: &[],
            issuers: &Issuers::default(),
        });
        let record = match decision.record {
            RecordAfter::Set(record) => Some(record),
            RecordAfter::AsStored | RecordAfter::Gone => None,
        };
        (decision.ca_crt.unwrap_or_else(|| ca_crt.to_vec()), record)
    }
}

/// Those of `lost` that the webhook would carry if it were asked now. There may be no place: since
/// the repair, or since a rotation that the webhook saw, other CAs are carried.
fn taken(
    view: &PublicSecret<'_>,
    record: Option<&Record>,
    settings: &Settings,
    mut lost: Vec<Repaired>,
    now: Timestamp,
) -> Vec<Repaired> {
    let contents = Contents { ca_crt: view.ca_crt, tls_crt: view.tls_crt };
    let decision = overlap::decide(&Write {
        now,
        stored: contents,
        incoming: contents,
        record,
        settings,
        may_change_data: true,
        // A rough limit: the webhook computes the real one.
        room: MAX_ONE,
        repair: &lost,
        issuers: &Issuers::default(),
    });
    let RecordAfter::Set(after) = decision.record else { return Vec::new() };
    lost.retain(|repaired| after.entry(Fingerprint::of(&repaired.der)).is_some());
    lost
}

/// The settings that a Secret has after the plan, and whether the webhook may then change its data.
fn restored(view: &PublicSecret<'_>, plan: &RepairPlan, rules: &Rules) -> (Settings, bool) {
    let mut labels = view.labels.clone();
    labels.extend(plan.mode.clone().map(|mode| (names::MODE.to_owned(), mode)));
    let mut annotations = view.annotations.clone();
    let added = plan.annotations.iter();
    annotations.extend(added.map(|(key, value)| ((*key).to_owned(), value.clone())));
    let view = PublicSecret { labels: &labels, annotations: &annotations, ..*view };
    let settings = settings(&view, rules);
    let may_change_data = may_change_data(&view, &settings);
    (settings, may_change_data)
}

/// The fingerprints of the annotation `distrust`.
fn fingerprints(text: &str) -> impl Iterator<Item = Fingerprint> {
    text.split(',').filter_map(|item| Fingerprint::parse(item.trim()))
}

/// The last known states of Secrets, limited in size.
#[derive(Debug, Default)]
pub struct Memory {
    secrets: HashMap<Key, MemoryEntry>,
    bytes: usize,
    /// The remembered Secrets that are gone, and since when.
    lost: HashMap<Key, Instant>,
    /// The namespaces that hold a remembered Secret that is not gone.
    namespaces: HashMap<String, NamespaceEntry>,
    /// The Secrets that are not remembered, because they or all together are too large.
    refused: HashSet<Key>,
    /// What was once distrusted in the namespaces that hold, or held, a remembered Secret.
    distrusted: HashMap<String, NamespaceDistrust>,
    /// What was once distrusted in the whole cluster, and is not on the list any more.
    delisted: BTreeSet<Fingerprint>,
}

/// The most fingerprints that are remembered of one namespace, so that no namespace takes the
/// memory of others.
const MAX_DISTRUSTED: usize = 256;

#[derive(Debug, Default)]
struct NamespaceDistrust {
    fingerprints: BTreeSet<Fingerprint>,
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

impl Memory {
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
        let Some(remembered) = Remembered::of(secret) else {
            self.leave(key.namespace());
            self.release(key.namespace());
            return None;
        };
        let size = remembered.size();
        if size > MAX_ONE || self.bytes + size > MAX_ALL {
            self.leave(key.namespace());
            self.release(key.namespace());
            self.refused.insert(key.clone());
            return None;
        }
        self.bytes += size;
        let distrusted: Vec<Fingerprint> = fingerprints(remembered.distrust()).collect();
        self.secrets.insert(key.clone(), MemoryEntry { secret: Arc::new(remembered), namespace });
        self.distrust(key, &distrusted);
        is_new.then(|| Key::new("", key.namespace()))
    }

    /// The last known state of a Secret, unless it has been gone for too long.
    pub fn get(&self, key: &Key, now: Instant) -> Option<Arc<Remembered>> {
        if self.lost.get(key).is_some_and(|since| now - *since >= LOST_FOR) {
            return None;
        }
        self.secrets.get(key).map(|kept| Arc::clone(&kept.secret))
    }

    /// The uid of the namespace that held the Secret.
    pub fn namespace_uid(&self, key: &Key) -> Option<&str> {
        self.secrets.get(key)?.namespace.as_deref()
    }

    /// Sets the present uid of a namespace. Forgets the Secrets that were lost in an earlier
    /// namespace of this name.
    pub fn set_namespace_uid(&mut self, namespace: &str, uid: Option<&str>) {
        let uid: Option<Arc<str>> = uid.map(Arc::from);
        if let Some(entry) = self.namespaces.get_mut(namespace) {
            entry.uid.clone_from(&uid);
        }
        let mut of_another = Vec::new();
        for (key, kept) in self.secrets.iter_mut().filter(|(k, _)| k.namespace() == namespace) {
            if !self.lost.contains_key(key) {
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
        if !self.secrets.contains_key(key) {
            self.refused.remove(key);
            return None;
        }
        if !self.lost.contains_key(key) {
            if self.lost.len() >= MAX_LOST {
                self.expire(now);
            }
            if self.lost.len() >= MAX_LOST {
                self.forget(key);
                return None;
            }
            self.lost.insert(key.clone(), now);
            // The namespace may be deleted too, so its uid is read again for the next Secret in it.
            self.leave(key.namespace());
        }
        let age = self.lost.get(key).map_or(Duration::ZERO, |since| now - *since);
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
        let Some(kept) = self.secrets.get(key) else { return };
        if secret.object_uid() == Some(&kept.secret.uid) && self.lost.remove(key).is_some() {
            let uid = kept.namespace.clone();
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
        let was_lost = self.lost.remove(key).is_some();
        if let Some(kept) = self.secrets.remove(key) {
            self.bytes -= kept.secret.size();
            if !was_lost {
                self.leave(key.namespace());
            }
            self.release(key.namespace());
        }
    }

    /// Notes what a Secret distrusts. No repair in its namespace brings that back for as long as
    /// any Secret of the namespace is remembered, also when the Secret that said so is gone. Other
    /// namespaces may belong to other people, so it says nothing there.
    pub fn distrust(&mut self, key: &Key, distrusted: &[Fingerprint]) {
        let Some(known) = self.distrusted.get_mut(key.namespace()) else { return };
        for fingerprint in distrusted {
            if known.fingerprints.len() < MAX_DISTRUSTED {
                known.fingerprints.insert(*fingerprint);
            }
        }
    }

    /// Notes the list of the cluster that another one replaces. No repair brings back what it lists
    /// for as long as any Secret is remembered.
    pub fn delist(&mut self, list: &DistrustList) {
        let room = MAX_LISTED.saturating_sub(self.delisted.len());
        if !self.is_empty() {
            self.delisted.extend(list.fingerprints().take(room));
        }
    }

    /// What no repair in this namespace brings back, besides the list of the cluster.
    pub fn distrusted(&self, namespace: &str) -> Vec<Fingerprint> {
        let known = self.distrusted.get(namespace);
        let known = known.into_iter().flat_map(|known| &known.fingerprints);
        known.chain(&self.delisted).copied().collect()
    }

    /// Forgets what was distrusted in a namespace with its last remembered Secret.
    fn release(&mut self, namespace: &str) {
        let Some(known) = self.distrusted.get_mut(namespace) else { return };
        known.remembered -= 1;
        if known.remembered == 0 {
            self.distrusted.remove(namespace);
        }
        if self.distrusted.is_empty() {
            self.delisted.clear();
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
