//! A Secret in the notation of the design's table: `"CA2 CA1*"` is a bundle that carries CA1. In
//! `"CA1 CA2+"` the keeper announces CA2.

use devtools::certs::{self, CA, Identity, Spec};
use std::collections::BTreeMap;
use std::sync::Arc;

use ca_overlap::overlap::announcement::{Announcement, Announcing};
use ca_overlap::overlap::ask::Repaired;
use ca_overlap::overlap::record::{Announcer, Entry, Record};
use ca_overlap::overlap::settings::{Defaults, RawSettings, Settings};
use ca_overlap::overlap::{Contents, Decision, RecordAfter, Write, decide};
use ca_overlap::x509::certs::Fingerprint;
use ca_overlap::x509::issuer::Issuers;
use jiff::Timestamp;

/// One Secret and the certificates, by name, that are written to it.
pub struct TestSecret {
    identities: BTreeMap<&'static str, Arc<Identity>>,
    pub now: Timestamp,
    pub ca_crt: Option<Vec<u8>>,
    pub tls_crt: Option<Vec<u8>>,
    pub record: Option<Record>,
    pub keep: &'static str,
    pub window: &'static str,
    pub distrust: Vec<&'static str>,
    pub may_change_data: bool,
    pub room: usize,
    pub repair: Vec<Repaired>,
    /// The annotation `announce`.
    pub announce: Vec<Announcement>,
}

/// A Secret that stores this bundle.
pub fn secret(bundle: &str) -> TestSecret {
    TestSecret::new().stored(bundle)
}

impl TestSecret {
    /// CA1 to CA4 and X have the same subject and algorithm, as legacy generators make them.
    pub fn new() -> Self {
        let mut identities = BTreeMap::new();
        for name in ["CA1", "CA2", "CA3", "CA4", "X"] {
            identities.insert(name, certs::ca());
        }
        for (root, intermediate) in [("Root1", "Int1"), ("Root2", "Int2")] {
            let root_ca = Spec { subject: root, ..CA }.self_signed();
            let int = Spec { subject: intermediate, ..CA }.signed_by(&root_ca);
            identities.insert(root, root_ca);
            identities.insert(intermediate, int);
        }
        identities.insert("Expired", Spec { not_after: (2025, 1, 1), ..CA }.self_signed());
        let renewed =
            Spec { not_after: (2091, 1, 1), ..CA }.self_signed_with(&identities["CA1"].key);
        identities.insert("CA1renewed", renewed);
        Self::with(identities.into_iter().map(|(name, identity)| (name, Arc::new(identity))))
    }

    /// An empty Secret with these certificates.
    pub fn with(identities: impl Iterator<Item = (&'static str, Arc<Identity>)>) -> Self {
        Self {
            identities: identities.collect(),
            now: certs::now(),
            ca_crt: None,
            tls_crt: None,
            record: None,
            keep: "1",
            window: "none",
            distrust: Vec::new(),
            may_change_data: true,
            room: usize::MAX,
            repair: Vec::new(),
            announce: Vec::new(),
        }
    }

    pub fn add(&mut self, name: &'static str, identity: Identity) {
        self.identities.insert(name, Arc::new(identity));
    }

    pub fn get(&self, name: &str) -> &Identity {
        &self.identities[name]
    }

    /// The keeper asks to repair these certificates, in a write that changes nothing else.
    pub fn repair(&mut self, names: &str) -> Decision {
        let repaired = |name| self.get(name).der.to_vec().into();
        let repair = names.split_whitespace().map(repaired).collect();
        self.ask(repair)
    }

    /// The same with dates.
    pub fn ask(&mut self, repair: Vec<Repaired>) -> Decision {
        self.repair = repair;
        let (ca_crt, tls_crt) = (self.ca_crt.clone().unwrap_or_default(), self.tls_crt.clone());
        let decision = self.write_bytes(&ca_crt, tls_crt.as_deref());
        self.repair.clear();
        decision
    }

    /// Stores this bundle; its carried certificates are carried since a day ago.
    pub fn stored(mut self, bundle: &str) -> Self {
        self.ca_crt = Some(self.pem(bundle).into_bytes());
        if bundle.contains(['*', '+']) {
            self.record = Some(Record::new(self.entries(bundle)));
        }
        self
    }

    /// Adds an empty record if there is none.
    pub fn recorded(mut self) -> Self {
        self.record.get_or_insert_default();
        self
    }

    pub fn leaf_by(mut self, issuer: &str) -> Self {
        self.tls_crt = Some(self.leaf(issuer));
        self
    }

    pub fn leaf(&self, issuer: &str) -> Vec<u8> {
        certs::leaf(self.get(issuer), true).pem.clone().into_bytes()
    }

    pub fn entries(&self, bundle: &str) -> Vec<Entry> {
        let day_before = self.now - jiff::SignedDuration::from_hours(24);
        bundle
            .split_whitespace()
            .filter(|name| name.ends_with(['*', '+']))
            .map(|name| Entry {
                sha256: Fingerprint::of(&self.get(bare(name)).der),
                since: day_before,
                until: None,
                announced: name.ends_with('+').then_some(Announcer::Keeper),
                not_staged: None,
                successor_since: None,
            })
            .collect()
    }

    pub fn pem(&self, bundle: &str) -> String {
        bundle.split_whitespace().map(|name| self.get(bare(name)).pem.as_str()).collect()
    }

    pub fn settings(&self) -> Settings {
        let distrust: Vec<_> = self.distrust.iter().map(|name| self.get(name).sha256()).collect();
        let distrust = distrust.join(",");
        let raw = RawSettings {
            keep: Some(self.keep),
            window: Some(self.window),
            distrust: Some(&distrust),
            mode: None,
            announce: Some(
                &self.announce.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            ),
            trust: None,
        };
        Settings::read(raw, &Defaults::default())
    }

    /// Decides about a write without storing the result.
    pub fn decide(&self, incoming: Option<&[u8]>, leaf: Option<&[u8]>) -> Decision {
        self.decide_with(incoming, leaf, None)
    }

    fn decide_with(
        &self,
        incoming: Option<&[u8]>,
        leaf: Option<&[u8]>,
        announce: Option<&[Announcement]>,
    ) -> Decision {
        let settings = self.settings();
        decide(&Write {
            now: self.now,
            stored: Contents { ca_crt: self.ca_crt.as_deref(), tls_crt: self.tls_crt.as_deref() },
            incoming: Contents { ca_crt: incoming, tls_crt: leaf },
            record: self.record.as_ref(),
            settings: &settings,
            may_change_data: self.may_change_data,
            room: self.room,
            repair: &self.repair,
            issuers: &Issuers::default(),
            announcing: announce.map_or(Announcing::AsBefore, Announcing::Asked),
        })
    }

    /// Writes bytes and stores the result.
    pub fn write_bytes(&mut self, incoming: &[u8], leaf: Option<&[u8]>) -> Decision {
        let decision = self.decide(Some(incoming), leaf);
        self.store(incoming, leaf, &decision);
        decision
    }

    /// The keeper asks to announce these CAs and no others.
    pub fn ask_announce(&mut self, names: &str) -> Decision {
        let list: Vec<_> = names.split_whitespace().map(|name| self.announcement(name)).collect();
        let (ca_crt, leaf) = (self.ca_crt.clone().unwrap_or_default(), self.tls_crt.clone());
        let decision = self.decide_with(Some(&ca_crt), leaf.as_deref(), Some(&list));
        self.store(&ca_crt, leaf.as_deref(), &decision);
        decision
    }

    /// The announcement of a CA, without an end.
    pub fn announcement(&self, name: &str) -> Announcement {
        Announcement { der: self.get(name).der.to_vec(), until: None }
    }

    /// Writes what is stored, as someone does who changes an annotation.
    pub fn touch(&mut self) -> Decision {
        let (ca_crt, leaf) = (self.ca_crt.clone().unwrap_or_default(), self.tls_crt.clone());
        self.write_bytes(&ca_crt, leaf.as_deref())
    }

    fn store(&mut self, incoming: &[u8], leaf: Option<&[u8]>, decision: &Decision) {
        self.ca_crt = Some(decision.ca_crt.clone().unwrap_or_else(|| incoming.to_vec()));
        if let Some(leaf) = leaf {
            self.tls_crt = Some(leaf.to_vec());
        }
        match &decision.record {
            RecordAfter::AsStored => {}
            RecordAfter::Gone => self.record = None,
            RecordAfter::Set(record) => self.record = Some(record.clone()),
        }
    }

    /// Writes a bundle with the stored leaf, and stores the result.
    pub fn write(&mut self, bundle: &str) -> Decision {
        let leaf = self.tls_crt.clone();
        self.write_bytes(self.pem(bundle).as_bytes(), leaf.as_deref())
    }

    /// The stored bundle by names, with `*` or `+` for the certificates in the record.
    pub fn shows(&self) -> String {
        let text = String::from_utf8(self.ca_crt.clone().unwrap_or_default()).unwrap();
        let mut shown = Vec::new();
        for block in text.split_inclusive("-----END CERTIFICATE-----\n") {
            let found = self.identities.iter().find(|(_, identity)| block.contains(&identity.pem));
            let Some((name, identity)) = found else { continue };
            let record = self.record.as_ref();
            let entry = record.and_then(|record| record.entry(Fingerprint::of(&identity.der)));
            let mark = entry.map_or("", |e| if e.announced.is_some() { "+" } else { "*" });
            shown.push(format!("{name}{mark}"));
        }
        shown.join(" ")
    }
}

/// The name without its mark.
fn bare(name: &str) -> &str {
    name.trim_end_matches(['*', '+'])
}
