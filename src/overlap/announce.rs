//! Announced CAs: trusted ahead of time, before anybody shows a leaf of them (docs/design.md,
//! "Announce").
//!
//! In mutual TLS the previous CA alone helps no pair of peers: the one with new files shows a new
//! leaf to the one with old files, and is refused. If the next CA stands in `ca.crt` early enough,
//! both accept each other. A person announces CAs by an annotation, and the keeper by an ask.

use super::announcement::{Announcement, Announcing, MAX_ANNOUNCED};
use super::record::{Announcer, Entry, Record};
use super::warning::{Warning, push_once};
use super::write::{self, Decision, RecordAfter, Write};
use super::{MAX_OWN, MAX_STORED_BLOCKS};
use crate::x509::certs::{Bundle, Certificate, Fingerprint};
use crate::x509::pem;

/// The CAs that are to be announced after a write.
#[derive(Debug)]
pub(super) struct Wanted {
    announced: Vec<(Certificate, Entry)>,
    /// Whether what is announced and not among these is taken back.
    takes_back: bool,
    /// Whether one cannot be announced: it is not a usable CA, or there are too many.
    is_refused: bool,
}

impl Wanted {
    /// Finds what is to be announced after `write`: what the keeper asks for now, or has asked for,
    /// and what the annotation lists. `carried` holds the entries of the `stored` certificates.
    ///
    /// The keeper comes first: what both announce then stays when either takes it back.
    pub(super) fn after(
        write: &Write<'_>,
        stored: &[Certificate],
        carried: &[Option<Entry>],
    ) -> Self {
        let takes_back = !matches!(write.announcing, Announcing::Nothing);
        let mut wanted = Self { announced: Vec::new(), takes_back, is_refused: false };
        if !takes_back || !write.may_change_data {
            return wanted;
        }
        if let Announcing::Asked(list) = write.announcing {
            for one in list {
                wanted.add(write, carried, one, Announcer::Keeper);
            }
        } else {
            for (certificate, entry) in stored.iter().zip(carried) {
                if let Some(entry) = entry.filter(|e| e.announced == Some(Announcer::Keeper))
                    && is_usable(certificate, &entry, write)
                {
                    wanted.announced.push((certificate.clone(), entry));
                }
            }
        }
        for one in &write.settings.announce {
            wanted.add(write, carried, one, Announcer::Person);
        }
        // A repeated write gives the same bytes.
        let place = |certificate: &Certificate| stored.iter().position(|c| c == certificate);
        wanted.announced.sort_by_key(|(certificate, _)| place(certificate).unwrap_or(usize::MAX));
        wanted
    }

    fn add(
        &mut self,
        write: &Write<'_>,
        carried: &[Option<Entry>],
        Announcement { der, until }: &Announcement,
        by: Announcer,
    ) {
        if until.is_some_and(|until| until <= write.now) {
            return;
        }
        let Some(certificate) = Certificate::from_der(der.clone()) else {
            self.is_refused = true;
            return;
        };
        if self.entry(&certificate).is_some() {
            return;
        }
        let sha256 = certificate.fingerprint();
        let known = carried.iter().flatten().find(|entry| entry.sha256 == sha256);
        let since = known.map_or(write.now, |entry| entry.since);
        let entry = Entry::announced(sha256, since, *until, by);
        if self.announced.len() < MAX_ANNOUNCED && is_usable(&certificate, &entry, write) {
            self.announced.push((certificate, entry));
        } else {
            self.is_refused = true;
        }
    }

    /// Whether nothing is to be announced.
    pub(super) fn is_empty(&self) -> bool {
        self.announced.is_empty()
    }

    /// The entry of a certificate that is to be announced.
    pub(super) fn entry(&self, certificate: &Certificate) -> Option<Entry> {
        self.announced.iter().find(|(known, _)| known == certificate).map(|(_, entry)| *entry)
    }

    /// Whether a carried certificate goes, unless the leaf needs it.
    pub(super) fn ends(&self, certificate: &Certificate, entry: &Entry, write: &Write<'_>) -> bool {
        let is_taken_back = self.takes_back && entry.announced.is_some();
        (is_taken_back || write::has_ended(certificate, entry, write))
            && self.entry(certificate).is_none()
    }

    /// The new entry of a carried certificate that stays. What ends as a previous CA can stay
    /// announced. What is taken back but needed by the leaf is carried as a previous CA.
    pub(super) fn staying(
        &self,
        certificate: &Certificate,
        entry: Entry,
        write: &Write<'_>,
    ) -> Entry {
        let is_announced = entry.announced.is_some();
        if !is_announced && self.is_empty() {
            return entry;
        }
        match self.entry(certificate) {
            Some(wanted) if is_announced || write::has_ended(certificate, &entry, write) => wanted,
            None if is_announced && self.takes_back => {
                Entry::starting(entry.sha256, write.now, write.settings.window.length())
            }
            _ => entry,
        }
    }
}

/// Whether a CA may be announced: no reader rejects it, and it has not ended.
fn is_usable(certificate: &Certificate, entry: &Entry, write: &Write<'_>) -> bool {
    certificate.is_ca()
        && !write::has_ended(certificate, entry, write)
        && certificate.flaw().is_none()
}

/// Adds to `decision` what is `wanted` and not in `ca.crt` yet. `text` is the `ca.crt` that is
/// written.
pub(super) fn append(write: &Write<'_>, text: &[u8], wanted: &Wanted, decision: &mut Decision) {
    if wanted.is_refused {
        push_once(&mut decision.warnings, Warning::AnnounceRefused);
    }
    if wanted.is_empty() {
        return;
    }
    let before = match &decision.record {
        RecordAfter::Set(record) => record.entries(),
        RecordAfter::AsStored => write.record.map(Record::entries).unwrap_or_default(),
        RecordAfter::Gone => &[],
    };
    let mut bytes = decision.ca_crt.take().unwrap_or_else(|| text.to_vec());
    let present = Bundle::parse(&bytes, MAX_STORED_BLOCKS).unwrap_or_default();
    let mut entries = before.to_vec();
    let own = present.certificates().len().saturating_sub(before.len());
    let limit = text.len().saturating_add(write.room);
    for (certificate, entry) in &wanted.announced {
        if present.contains(certificate) {
            continue;
        }
        if own > MAX_OWN {
            push_once(&mut decision.warnings, Warning::AnnounceRefused);
            break;
        }
        let separator = usize::from(!bytes.ends_with(b"\n"));
        let size = separator + pem::encoded_len(certificate.der().len());
        if bytes.len().saturating_add(size) > limit {
            push_once(&mut decision.warnings, Warning::AnnounceFull);
            continue;
        }
        bytes.extend_from_slice(&b"\n"[..separator]);
        pem::encode_certificate(certificate.der(), &mut bytes);
        let stored = write.record.and_then(|record| record.entry(entry.sha256));
        decision.announced += usize::from(stored.is_none_or(|entry| entry.announced.is_none()));
        entries.push(*entry);
    }
    decision.ca_crt = (bytes != text).then_some(bytes);
    if entries.len() > before.len() {
        decision.record = RecordAfter::Set(Record::new(entries));
    }
}

/// The fingerprints of what this record announces.
pub(super) fn fingerprints(record: Option<&Record>) -> Vec<Fingerprint> {
    let entries = record.map(Record::entries).unwrap_or_default();
    entries.iter().filter(|entry| entry.announced.is_some()).map(|entry| entry.sha256).collect()
}
