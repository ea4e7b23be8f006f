//! A source: a Secret whose CAs the readers of other Secrets trust as well (docs/design.md,
//! "Sources").

use std::fmt;

use base64::prelude::*;
use jiff::Timestamp;

use super::record::{self, Entry, Record};
use super::settings::Settings;
use super::write::{self, Contents};
use super::{MAX_OWN, MAX_STORED_BLOCKS};
use crate::names;
use crate::x509::certs::{Bundle, Certificate};
use crate::x509::issuer::{self, IssuerGraph, Issuers};

/// Whether a Secret with this value of the label `source` is a source.
pub fn is_source(label: Option<&str>) -> bool {
    label.is_some_and(|value| [names::SOURCE_TRUE, names::SOURCE_ISSUER].contains(&value))
}

/// The CAs that a source passes on. `record` is that of its `ca.crt`.
///
/// For a signing source these are the CAs that its leaves verify against. For any other they are
/// the own and the carried CAs of its `ca.crt`. Announced ones are left out, or they would be
/// announced forever between two Secrets that trust each other.
pub fn held(contents: Contents<'_>, record: Option<&Record>) -> Vec<Certificate> {
    held_within(contents, record, &Issuers::default())
}

/// As [`held`], within the budget of `issuers`.
pub(crate) fn held_within(
    contents: Contents<'_>,
    record: Option<&Record>,
    issuers: &Issuers,
) -> Vec<Certificate> {
    let chain = write::chain(contents.tls_crt);
    let anchors = contents.ca_crt.and_then(|text| Bundle::parse(text, MAX_STORED_BLOCKS).ok());
    let anchors = anchors.unwrap_or_default();
    let mut held = if chain.certificates().first().is_some_and(Certificate::is_ca) {
        anchors_of_leaves(&chain, &anchors, issuers)
    } else {
        passed_on(&anchors, record)
    };
    held.retain(Certificate::is_ca);
    held
}

/// The CAs that a leaf of the first certificate of `chain` verifies against: the root of its chain,
/// else the highest issuer. The chain ends in the first certificate of `ca.crt`. This is what
/// cert-manager writes into `ca.crt` of the leaves.
fn anchors_of_leaves(chain: &Bundle, anchors: &Bundle, issuers: &Issuers) -> Vec<Certificate> {
    let mut all = chain.certificates().to_vec();
    all.extend(anchors.certificates().first().filter(|first| !chain.contains(first)).cloned());
    let up = IssuerGraph::new(&all, Vec::new(), issuers).chain_of(0, |_| true);
    // Cross-signed CAs can lead to more than one root.
    let mut roots: Vec<_> =
        up.iter().map(|&index| &all[index]).filter(|one| issuer::is_root(one)).collect();
    if roots.is_empty() {
        roots.extend(up.last().map(|&highest| &all[highest]));
    }
    roots.into_iter().cloned().collect()
}

/// The own and carried certificates of `ca.crt`; none of a trust store.
fn passed_on(anchors: &Bundle, record: Option<&Record>) -> Vec<Certificate> {
    let entries = write::carried_entries(anchors, record);
    if entries.iter().filter(|entry| entry.is_none()).count() > MAX_OWN {
        return Vec::new();
    }
    let is_passed_on = |entry: &Option<Entry>| entry.is_none_or(|entry| entry.announced.is_none());
    let all = anchors.certificates().iter().zip(&entries);
    all.filter(|(_, entry)| is_passed_on(entry))
        .map(|(certificate, _)| certificate.clone())
        .collect()
}

/// The most previous CAs of a source.
pub const MAX_PREVIOUS: usize = 2;

/// A CA that a source held before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// The certificate.
    pub der: Vec<u8>,
    /// Since when the source no longer holds it.
    pub since: Timestamp,
}

impl Previous {
    /// Reads the annotation `previous`, newest first. What does not parse is left out.
    pub fn parse_list(text: &str) -> Vec<Self> {
        if !names::is_restored(names::PREVIOUS, text) {
            return Vec::new();
        }
        text.split(',').filter_map(Self::parse).take(MAX_PREVIOUS).collect()
    }

    /// The previous CAs of a source that held the CAs `before`, and holds those `after` a write,
    /// newest first. `stored` are those before the write.
    pub(crate) fn after(
        before: Vec<Certificate>,
        after: &[Certificate],
        stored: &[Self],
        settings: &Settings,
        now: Timestamp,
    ) -> Vec<Self> {
        let since = record::whole_seconds(now);
        let known = stored
            .iter()
            .filter_map(|one| Some((Certificate::from_der(one.der.clone())?, one.since)));
        let mut all: Vec<(Certificate, Timestamp)> = Vec::new();
        for (certificate, since) in before.into_iter().map(|gone| (gone, since)).chain(known) {
            let is_back = after.contains(&certificate);
            let is_over =
                certificate.is_expired(now) || write::is_distrusted(&certificate, settings);
            let is_listed = all.iter().any(|(listed, _)| *listed == certificate);
            if !is_back && !is_over && !is_listed {
                all.push((certificate, since));
            }
        }
        let previous =
            |(certificate, since): (Certificate, _)| Self { der: certificate.into_der(), since };
        all.into_iter().take(MAX_PREVIOUS).map(previous).collect()
    }

    /// The annotation with as many of `list` as it has room for; `None` for none.
    pub(crate) fn to_annotation(list: &[Self]) -> Option<String> {
        let text = list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match list {
            [] => None,
            [shorter @ .., _] if !names::is_restored(names::PREVIOUS, &text) => {
                Self::to_annotation(shorter)
            }
            _ => Some(text),
        }
    }

    fn parse(word: &str) -> Option<Self> {
        let (der, since) = word.trim().split_once('@')?;
        let der = BASE64_STANDARD.decode(der).ok().filter(|der| !der.is_empty())?;
        Some(Self { der, since: since.parse().ok()? })
    }
}

impl fmt::Display for Previous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", BASE64_STANDARD.encode(&self.der), self.since)
    }
}

#[cfg(test)]
mod tests {
    use devtools::certs::{self, CA, Identity, Spec};

    use super::*;
    use crate::overlap::record::Announcer;

    fn ders(held: &[Certificate]) -> Vec<&[u8]> {
        held.iter().map(Certificate::der).collect()
    }

    /// Asserts what a Secret with these certificates passes on.
    fn passes_on(tls_crt: &[&Identity], ca_crt: &[&Identity], expected: &[&Identity]) {
        let pem = |list: &[&Identity]| list.iter().map(|one| one.pem.as_str()).collect::<String>();
        let (tls_crt, ca_crt) = (pem(tls_crt), pem(ca_crt));
        let contents = Contents {
            ca_crt: (!ca_crt.is_empty()).then_some(ca_crt.as_bytes()),
            tls_crt: (!tls_crt.is_empty()).then_some(tls_crt.as_bytes()),
        };
        let held = held(contents, None);
        assert_eq!(ders(&held), expected.iter().map(|one| &*one.der).collect::<Vec<_>>());
    }

    #[test]
    fn a_signing_source_passes_on_the_root_that_its_leaves_verify_against() {
        let [root, other] = [CA.self_signed(), Spec { subject: "Other", ..CA }.self_signed()];
        let high = Spec { subject: "High", ..CA }.signed_by(&root);
        let low = Spec { subject: "Low", ..CA }.signed_by(&high);
        passes_on(&[&root], &[&root], &[&root]);
        // A user's CA Secret has no ca.crt.
        passes_on(&[&root], &[], &[&root]);
        passes_on(&[&low, &high], &[&root], &[&root]);
        passes_on(&[&low, &high, &root], &[], &[&root]);
        // Without the root, the highest.
        passes_on(&[&low, &high], &[], &[&high]);
        passes_on(&[&low], &[], &[&low]);
        // Only the first certificate of ca.crt counts, and only if the chain leads to it.
        passes_on(&[&low, &high], &[&other, &root], &[&high]);
        passes_on(&[&root], &[&other], &[&root]);
    }

    #[test]
    fn any_other_source_passes_on_its_ca_crt() {
        let [ca, other] = [CA.self_signed(), Spec { subject: "Other", ..CA }.self_signed()];
        let leaf = certs::leaf(&ca, false);
        passes_on(&[&leaf], &[&ca, &other], &[&ca, &other]);
        passes_on(&[], &[&ca], &[&ca]);
        passes_on(&[], &[&ca, &leaf], &[&ca]);
        passes_on(&[&leaf], &[], &[]);
    }

    #[test]
    fn what_is_announced_is_not_passed_on() {
        let [own, carried, announced] = std::array::from_fn(|_| CA.self_signed());
        let read = |one: &Identity| Certificate::from_der(one.der.to_vec()).unwrap().fingerprint();
        let record = Record::new(vec![
            Entry::starting(read(&carried), certs::now(), None),
            Entry::announced(read(&announced), certs::now(), None, Announcer::Keeper),
        ]);
        let ca_crt = [&*own.pem, &carried.pem, &announced.pem].concat();
        let contents = Contents { ca_crt: Some(ca_crt.as_bytes()), tls_crt: None };
        assert_eq!(ders(&held(contents, Some(&record))), [&*own.der, &*carried.der]);
    }

    #[test]
    fn garbage_and_trust_stores_pass_on_nothing() {
        let contents = Contents { ca_crt: Some(b"x"), tls_crt: Some(b"\xff") };
        assert!(held(contents, None).is_empty());
        assert!(held(Contents::default(), None).is_empty());
        let many: String = (0..=MAX_OWN).map(|_| CA.self_signed().pem).collect();
        assert!(held(Contents { ca_crt: Some(many.as_bytes()), tls_crt: None }, None).is_empty());
    }

    #[test]
    fn previous_cas_parse_back() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let one = Previous { der: b"1".to_vec(), since: at("2026-03-01T10:00:00Z") };
        let two = Previous { der: b"2".to_vec(), since: at("2026-02-01T10:00:00Z") };
        assert_eq!(one.to_string(), "MQ==@2026-03-01T10:00:00Z");
        assert_eq!(Previous::parse_list(&format!("{one},{two}")), [one.clone(), two.clone()]);
        assert_eq!(Previous::parse_list(&format!("{one},{two},{one}")).len(), MAX_PREVIOUS);
        assert_eq!(Previous::parse_list(&format!("x, %@y,MQ==,@{},{two}", one.since)), [two]);
        let long = Previous { der: vec![0; 16 * 1024], since: one.since };
        assert_eq!(Previous::parse_list(&long.to_string()), []);
    }
}
