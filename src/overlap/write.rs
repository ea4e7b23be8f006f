//! One write of a Secret, and the decision about it: the types that all decisions share.
//!
//! The terms are those of the glossary in docs/design.md. *Incoming* certificates are in the
//! `ca.crt` that is written, and *stored* ones are in the `ca.crt` before the write. A stored
//! certificate is *carried* if we appended it, and *own* if the generator wrote it. The *active*
//! ones issued the outgoing leaf: the leaf in the stored `tls.crt`.

use jiff::Timestamp;
use strum::{IntoStaticStr, VariantNames};

use super::announcement::Announcing;
use super::ask::Repaired;
use super::record::{Entry, Record};
use super::settings::Settings;
use super::warning::Warning;
use crate::x509::certs::{Bundle, Certificate};
use crate::x509::issuer::{Issuers, MAX_CHAIN};

/// One update of a Secret: the input of a decision.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// The time of the write.
    pub now: Timestamp,
    /// The Secret before the write.
    pub stored: Contents<'a>,
    /// The Secret as the writer wants it.
    pub incoming: Contents<'a>,
    /// The stored record, if there is one and it parses.
    pub record: Option<&'a Record>,
    /// The settings of the Secret.
    pub settings: &'a Settings,
    /// Whether data may be changed: `false` for an exempt Secret.
    pub may_change_data: bool,
    /// By how many bytes `ca.crt` may grow.
    pub room: usize,
    /// The certificates that the keeper asks to carry. Used only if `ca.crt` does not change.
    pub repair: &'a [Repaired],
    /// What the keeper announces.
    pub announcing: Announcing<'a>,
    /// Finds issuers. Decisions about one request share it, and with it the limit of its work.
    pub issuers: &'a Issuers,
}

/// The two values of a Secret that a decision reads, decoded.
#[derive(Clone, Copy, Default)]
pub struct Contents<'a> {
    /// `data["ca.crt"]`
    pub ca_crt: Option<&'a [u8]>,
    /// `data["tls.crt"]`
    pub tls_crt: Option<&'a [u8]>,
}

/// Shows only whether the values are there, because a caller may pass values that are not public.
impl std::fmt::Debug for Contents<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contents")
            .field("ca_crt", &self.ca_crt.is_some())
            .field("tls_crt", &self.tls_crt.is_some())
            .finish()
    }
}

/// What to store.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision {
    /// The rule that applied.
    pub case: Case,
    /// The `ca.crt` to store; `None` for the incoming bytes.
    pub ca_crt: Option<Vec<u8>>,
    /// The record to store.
    pub record: RecordAfter,
    /// How many certificates were appended.
    pub appended: usize,
    /// How many CAs were newly announced.
    pub announced: usize,
    /// How many carried certificates were removed.
    pub cut: usize,
    /// The warnings for the writer.
    pub warnings: Vec<Warning>,
}

/// The rule that a decision applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Case {
    /// The Secret is created. The state that it brings is not believed.
    Created,
    /// There is no record yet, and the write introduces no new certificate.
    FirstContact,
    /// The stored or the incoming Secret has no `ca.crt`.
    NoCa,
    /// The incoming `ca.crt` holds no readable certificate.
    NotReadable,
    /// The generator dropped one of its own certificates.
    Retirement,
    /// The generator went back to a CA that is carried.
    Rollback,
    /// A new CA replaces the active one.
    Rotation,
    /// All own certificates stay: a re-apply, a write-back of the stored bundle, or a generator
    /// that makes its own bundle.
    Same,
    /// There are more own certificates than [`MAX_OWN`](super::MAX_OWN).
    TrustStore,
    /// The write does not change `ca.crt`.
    Unchanged,
}

/// The record after a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordAfter {
    /// The stored record, restored if the write dropped it.
    AsStored,
    /// No record.
    Gone,
    /// This record.
    Set(Record),
}

impl Decision {
    /// Stores the incoming bytes, with nothing appended or removed.
    pub(super) fn as_written(case: Case, record: RecordAfter) -> Self {
        Self { case, ca_crt: None, record, appended: 0, announced: 0, cut: 0, warnings: Vec::new() }
    }
}

/// The entry in the record of each stored certificate; `None` for one that is not carried. An entry
/// for the first certificate does not count, because a bundle always begins with an own
/// certificate.
pub(crate) fn carried_entries(stored: &Bundle, record: Option<&Record>) -> Vec<Option<Entry>> {
    let record = record.filter(|record| !record.is_empty());
    let entry = |(index, certificate): (usize, &Certificate)| {
        record.filter(|_| index > 0)?.entry(certificate.fingerprint()).copied()
    };
    stored.certificates().iter().enumerate().map(entry).collect()
}

/// Whether a carried certificate has ended: expired, past its deadline, or distrusted.
pub(super) fn has_ended(certificate: &Certificate, entry: &Entry, write: &Write<'_>) -> bool {
    certificate.is_expired(write.now)
        || entry.is_past_deadline(write.now, write.settings.window.length())
        || is_distrusted(certificate, write.settings)
}

/// Whether the Secret's setting `distrust` lists this certificate.
pub(super) fn is_distrusted(certificate: &Certificate, settings: &Settings) -> bool {
    !settings.distrust.is_empty() && settings.distrust.contains(&certificate.fingerprint())
}

/// The certificates of `tls.crt`: the leaf and its chain. Empty if none is readable.
pub(super) fn chain(tls_crt: Option<&[u8]>) -> Bundle {
    tls_crt.and_then(|text| Bundle::parse(text, MAX_CHAIN).ok()).unwrap_or_default()
}
