//! One write of a Secret, and what is decided about it: the words that all decisions share.
//!
//! Words, as in the design: *incoming* are the certificates of the write, *stored* those of the
//! Secret as it is. Of the stored ones, *carried* are those that we put there and *own* those that
//! the generator wrote. *Active* are the stored ones that issued the outgoing leaf.

use jiff::Timestamp;
use strum::{IntoStaticStr, VariantNames};

use super::ask::Repaired;
use super::policy::Settings;
use super::record::{Entry, Record};
use super::warning::Warning;
use crate::x509::certs::{Bundle, Certificate};
use crate::x509::issuer::MAX_CHAIN;

/// One update of a Secret, as far as the decision looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// The time of the write.
    pub now: Timestamp,
    /// The Secret as it is.
    pub stored: Contents<'a>,
    /// The Secret as the writer wants it.
    pub incoming: Contents<'a>,
    /// The stored record, if there is one that can be read.
    pub record: Option<&'a Record>,
    /// What counts for this Secret.
    pub settings: &'a Settings,
    /// Whether data may be changed: not in mode `off`, and not for a CA signing Secret.
    pub may_change_data: bool,
    /// How many bytes `ca.crt` may grow.
    pub room: usize,
    /// What the keeper asks to be carried beside an unchanged `ca.crt`.
    pub repair: &'a [Repaired],
}

/// The two values of a Secret that matter here, decoded.
#[derive(Clone, Copy, Default)]
pub struct Contents<'a> {
    /// `data["ca.crt"]`
    pub ca_crt: Option<&'a [u8]>,
    /// `data["tls.crt"]`
    pub tls_crt: Option<&'a [u8]>,
}

/// Only whether the values are there: what a caller passes is not known to be public.
impl std::fmt::Debug for Contents<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contents")
            .field("ca_crt", &self.ca_crt.is_some())
            .field("tls_crt", &self.tls_crt.is_some())
            .finish()
    }
}

/// What is to be stored.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision {
    /// Which of the rules applied.
    pub case: Case,
    /// The bytes of `ca.crt` to store, where they are not the incoming ones.
    pub ca_crt: Option<Vec<u8>>,
    /// What becomes of the record.
    pub record: RecordAfter,
    /// How many certificates were appended.
    pub appended: usize,
    /// How many carried certificates were cut out.
    pub cut: usize,
    /// What the writer is told.
    pub warnings: Vec<Warning>,
}

/// Which rule applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Case {
    /// There is no record yet and nothing new is introduced.
    FirstContact,
    /// One side has no `ca.crt`.
    NoCa,
    /// The incoming `ca.crt` holds no readable certificate.
    NotReadable,
    /// The generator dropped one of its own.
    Retirement,
    /// The generator went back to a CA that is carried.
    Rollback,
    /// A new CA takes the place of the active one.
    Rotation,
    /// A re-apply, an echo of what is stored, or a generator that bundles by itself.
    Same,
    /// Too many certificates for a rotation.
    TrustStore,
    /// The bytes of `ca.crt` are not changed.
    Unchanged,
}

/// What becomes of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordAfter {
    /// It stays, or comes back, as it is stored.
    AsStored,
    /// There is none.
    Gone,
    /// This one.
    Set(Record),
}

impl Decision {
    /// The incoming bytes, with nothing added or cut.
    pub(super) fn as_written(case: Case, record: RecordAfter) -> Self {
        Self { case, ca_crt: None, record, appended: 0, cut: 0, warnings: Vec::new() }
    }
}

/// Which stored certificates we put there: the entry for each. An entry for the first stored
/// certificate does not count, because a bundle always begins with the generator's own.
pub(crate) fn carried_entries(stored: &Bundle, record: Option<&Record>) -> Vec<Option<Entry>> {
    let record = record.filter(|record| !record.is_empty());
    let entry = |(index, certificate): (usize, &Certificate)| {
        record.filter(|_| index > 0)?.entry(certificate.fingerprint()).copied()
    };
    stored.certificates().iter().enumerate().map(entry).collect()
}

/// Whether a carried certificate has to go.
pub(super) fn is_over(certificate: &Certificate, entry: &Entry, write: &Write<'_>) -> bool {
    certificate.is_expired(write.now)
        || entry.is_past_deadline(write.now, write.settings.window.length())
        || is_distrusted(certificate, write.settings)
}

/// Whether the Secret says that this certificate must not be trusted.
pub(super) fn is_distrusted(certificate: &Certificate, settings: &Settings) -> bool {
    !settings.distrust.is_empty() && settings.distrust.contains(&certificate.fingerprint())
}

/// The certificates of a leaf and its chain; none where there is nothing readable.
pub(super) fn chain(tls_crt: Option<&[u8]>) -> Bundle {
    tls_crt.and_then(|text| Bundle::parse(text, MAX_CHAIN).ok()).unwrap_or_default()
}
