//! The keeper's memory: the last known state of Secrets (docs/design.md, "The keeper"). Repairs
//! need it, because CAs and settings can be dropped by a write while the webhook is down, or by a
//! DELETE and a CREATE.
//!
//! It holds only public values, and only what this keeper itself has read from the API server. To
//! find what is missing, it calls the webhook's own decision, which says what the webhook would
//! have carried.

mod store;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use self::store::Memory;
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::announcement::Announcing;
use crate::overlap::ask::{MAX_REPAIRED, Repair, Repaired};
use crate::overlap::distrust::FormerDistrust;
use crate::overlap::outlook::{PublicSecret, Rules, may_change_data, settings};
use crate::overlap::record::{Entry, Record};
use crate::overlap::settings::Settings;
use crate::overlap::write::carried_entries;
use crate::overlap::{self, Contents, MAX_STORED_BLOCKS, RecordAfter, Write};
use crate::x509::certs::{Bundle, Certificate, Fingerprint};
use crate::x509::issuer::Issuers;

/// The most bytes that are remembered of one Secret. A Secret with more is not remembered.
const MAX_ONE: usize = 64 << 10;

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
            let value = secret.annotation(key).filter(|v| names::is_restored(key, v))?;
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

    /// The bytes that it takes, with the maps that lead to it.
    fn size(&self) -> usize {
        const MAPS: usize = 512;
        let settings: usize = self.settings.values().map(String::len).sum();
        let tls_crt = self.tls_crt.as_ref().map_or(0, |text| text.len());
        let record = self.record.as_ref().map_or(0, String::len);
        MAPS + self.ca_crt.len() + tls_crt + settings + record
    }

    /// What the Secret has lost since then, by a write that the webhook did not see; `None` if the
    /// webhook saw the write, or if nothing is lost. A `distrusted` CA is never restored, whatever
    /// the Secret's own settings say ([`Memory::distrusted`]).
    pub fn compare(
        &self,
        secret: &SecretView,
        rules: &Rules,
        distrusted: &FormerDistrust,
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
        settings.distrust.add_former(distrusted);
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
            // An announced CA comes back with its annotation, or by the keeper's next ask.
            .filter(|(certificate, entry)| entry.announced.is_none() && !is_there(certificate))
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
            announcing: Announcing::AsBefore,
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
        announcing: Announcing::AsBefore,
        issuers: &Issuers::default(),
    });
    let RecordAfter::Set(after) = decision.record else { return Vec::new() };
    lost.retain(|repaired| after.entry(Fingerprint::of(&repaired.der)).is_some());
    lost
}

/// The settings that a Secret has after the plan, and whether the webhook may then change its data.
fn restored(view: &PublicSecret<'_>, plan: &RepairPlan, rules: &Rules) -> (Settings, bool) {
    if plan.mode.is_none() && plan.annotations.is_empty() {
        let settings = settings(view, rules);
        let may_change_data = may_change_data(view, &settings);
        return (settings, may_change_data);
    }
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
