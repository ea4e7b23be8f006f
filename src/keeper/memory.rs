//! What Secrets were like, for the updates that pass while the webhook is down, and for DELETE and
//! CREATE (DESIGN §8.4).
//!
//! Only what this keeper's own watch has shown comes in here, and only public values. What was
//! dropped is asked of the webhook's own decision: what would it have carried, had it seen the write?

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::api::Key;
use super::due::{Rules, View, settings};
use super::secret_view::SecretView;
use crate::names;
use crate::overlap::ask::MAX_REPAIRED;
use crate::overlap::certs::Bundle;
use crate::overlap::policy::Mode;
use crate::overlap::record::Record;
use crate::overlap::{self, Contents, MAX_STORED_BLOCKS, Write};

/// The annotations of people, and the keeper's own, that come back on a Secret that was re-created.
const SETTINGS: [&str; 6] =
    [names::KEEP, names::WINDOW, names::DISTRUST, names::RESTART, names::GROUP, names::RESTARTED];
/// A Secret with more than this is not remembered, in bytes.
const MAX_ONE: usize = 64 << 10;
/// All together, in bytes.
const MAX_ALL: usize = 32 << 20;
/// For how long a name is looked at after its Secret has gone, and for how many at a time.
const LOST_FOR: Duration = Duration::from_secs(600);
const MAX_LOST: usize = 256;

/// What a Secret was like.
#[derive(Debug)]
pub struct Remembered {
    uid: String,
    ca_crt: Box<[u8]>,
    tls_crt: Option<Box<[u8]>>,
    record: Option<String>,
    settings: BTreeMap<&'static str, String>,
    mode: Option<String>,
}

/// What has to be brought back.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Certificates to be carried, DER.
    pub certificates: Vec<Vec<u8>>,
    /// Annotations to be set.
    pub annotations: BTreeMap<&'static str, String>,
    /// The label `mode` to be set.
    pub mode: Option<String>,
    /// Whether it is another object than the one that is remembered.
    pub is_recreated: bool,
}

impl Remembered {
    /// Of a Secret as it is; none where it is too large, or holds nothing to remember.
    pub fn of(secret: &SecretView) -> Option<Self> {
        let view = secret.view();
        let settings: BTreeMap<&'static str, String> = SETTINGS
            .into_iter()
            .filter_map(|key| Some((key, secret.annotation(key)?.to_owned())))
            .collect();
        let it = Self {
            uid: secret.object_uid()?.to_owned(),
            ca_crt: view.ca_crt?.into(),
            tls_crt: view.tls_crt.map(Into::into),
            record: secret.annotation(names::CARRIED).map(ToOwned::to_owned),
            settings,
            mode: secret.label(names::MODE).map(ToOwned::to_owned),
        };
        (it.size() <= MAX_ONE).then_some(it)
    }

    fn size(&self) -> usize {
        let settings: usize = self.settings.values().map(String::len).sum();
        let tls_crt = self.tls_crt.as_ref().map_or(0, |text| text.len());
        self.ca_crt.len() + tls_crt + settings + self.record.as_ref().map_or(0, String::len)
    }

    /// What the Secret has lost since, by a write that the webhook did not see; none where the
    /// webhook has seen it, or nothing is lost.
    pub fn compare(&self, secret: &SecretView, rules: &Rules, now: Timestamp) -> Option<Plan> {
        let view = secret.view();
        view.ca_crt?;
        let is_recreated = secret.object_uid() != Some(self.uid.as_str());
        let record = secret.annotation(names::CARRIED);
        // The webhook always brings its record back, so whoever wiped it was not seen.
        let is_wiped = self.record.is_some() && record.is_none();
        if !is_recreated && !is_wiped && record != self.record.as_deref() {
            return None;
        }
        let mut plan = Plan { is_recreated, ..Plan::default() };
        if is_recreated || is_wiped {
            let lacks = |key: &&str| secret.annotation(key).is_none();
            let lost = self.settings.iter().filter(|(key, _)| lacks(key));
            plan.annotations = lost.map(|(key, value)| (*key, value.clone())).collect();
            let has_mode = secret.label(names::MODE).is_some();
            plan.mode = self.mode.clone().filter(|_| !has_mode);
        }
        plan.certificates = self.dropped(&view, &plan, rules, now);
        let is_empty = plan.certificates.is_empty();
        (!is_empty || !plan.annotations.is_empty() || plan.mode.is_some()).then_some(plan)
    }

    /// What the webhook would have appended.
    fn dropped(&self, view: &View<'_>, plan: &Plan, rules: &Rules, now: Timestamp) -> Vec<Vec<u8>> {
        let mut labels = view.labels.clone();
        labels.extend(plan.mode.clone().map(|mode| (names::MODE.to_owned(), mode)));
        let mut annotations = view.annotations.clone();
        let restored = plan.annotations.iter();
        annotations.extend(restored.map(|(key, value)| ((*key).to_owned(), value.clone())));
        let settings =
            settings(&View { labels: &labels, annotations: &annotations, ..*view }, rules);
        let may_change_data = settings.mode != Mode::Off && !view.is_immutable;
        if view.ca_crt == Some(&*self.ca_crt) || !may_change_data {
            return Vec::new();
        }
        let record = self.record.as_deref().and_then(|text| Record::parse(text).ok());
        let decision = overlap::decide(&Write {
            now,
            stored: Contents { ca_crt: Some(&self.ca_crt), tls_crt: self.tls_crt.as_deref() },
            incoming: Contents { ca_crt: view.ca_crt, tls_crt: view.tls_crt },
            record: record.as_ref(),
            settings: &settings,
            may_change_data,
            // The webhook knows the room there is.
            room: MAX_ONE,
            repair: &[],
        });
        let (Some(wanted), Some(found)) = (decision.ca_crt, view.ca_crt) else { return Vec::new() };
        let bundle = |text: &[u8]| Bundle::parse(text, MAX_STORED_BLOCKS).unwrap_or_default();
        let (wanted, found) = (bundle(&wanted), bundle(found));
        let dropped = wanted.certificates().iter().filter(|c| !found.contains(c));
        dropped.take(MAX_REPAIRED).map(|c| c.der().to_vec()).collect()
    }
}

/// All that is remembered.
#[derive(Debug, Default)]
pub struct Memory {
    secrets: HashMap<Key, Arc<Remembered>>,
    bytes: usize,
    /// Since when a Secret has gone whose name is looked at.
    lost: HashMap<Key, Instant>,
    /// The uid of each namespace, as it was when a Secret in it was first remembered.
    namespaces: HashMap<String, Option<String>>,
}

impl Memory {
    /// Remembers a Secret as it is. Gives the namespace, if its uid is to be found out.
    pub fn remember(&mut self, key: &Key, secret: &SecretView) -> Option<Key> {
        self.forget(key);
        let remembered = Remembered::of(secret)?;
        if self.bytes + remembered.size() > MAX_ALL {
            return None;
        }
        self.bytes += remembered.size();
        self.secrets.insert(key.clone(), Arc::new(remembered));
        if self.namespaces.contains_key(key.namespace()) {
            return None;
        }
        self.namespaces.insert(key.namespace().to_owned(), None);
        Some(Key::new("", key.namespace()))
    }

    /// What a Secret was like.
    pub fn get(&self, key: &Key) -> Option<Arc<Remembered>> {
        self.secrets.get(key).cloned()
    }

    /// The uid of the namespace in which it was.
    pub fn namespace_uid(&self, namespace: &str) -> Option<&str> {
        self.namespaces.get(namespace)?.as_deref()
    }

    /// Keeps the uid of a namespace. If it is another one, nothing that is lost comes back.
    pub fn set_namespace_uid(&mut self, namespace: &str, uid: Option<String>) {
        let Some(known) = self.namespaces.get_mut(namespace) else { return };
        let is_other = known.is_some() && *known != uid;
        *known = uid;
        if is_other {
            let lost: Vec<Key> =
                self.lost.keys().filter(|key| key.namespace() == namespace).cloned().collect();
            for key in lost {
                self.forget(&key);
            }
        }
    }

    /// A Secret that is remembered has gone. Gives when to look at its name again, if at all.
    pub fn lose(&mut self, key: &Key, now: Instant) -> Option<Instant> {
        if !self.secrets.contains_key(key) {
            return None;
        }
        if !self.lost.contains_key(key) && self.lost.len() >= MAX_LOST {
            self.forget(key);
            return None;
        }
        let age = now - *self.lost.entry(key.clone()).or_insert(now);
        if age >= LOST_FOR {
            self.forget(key);
            return None;
        }
        // Who deletes and creates does so at once, mostly.
        let pause = if age < Duration::from_secs(30) { 1 } else { 10 };
        Some(now + Duration::from_secs(pause))
    }

    /// Remembers nothing of it any more.
    pub fn forget(&mut self, key: &Key) {
        self.lost.remove(key);
        if let Some(remembered) = self.secrets.remove(key) {
            self.bytes -= remembered.size();
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.secrets.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }
}
