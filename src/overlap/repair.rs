//! The ask `repair` (docs/design.md, "Asks"). A write that the webhook did not see has dropped
//! carried certificates. The keeper remembers them and sends them with the ask, and they are
//! carried again.

use std::time::Duration;

use super::MAX_OWN;
use super::ask::Repaired;
use super::record::{Entry, Record};
use super::select::{self, Candidate, Capacity, StoredCertificates};
use super::warning::Warning;
use super::write::{self, Decision, RecordAfter, Write};
use crate::x509::certs::{Bundle, Certificate, Fingerprint};
use crate::x509::issuer::IssuerGraph;
use crate::x509::pem;

/// How long a repaired certificate is carried if no window is set. Nobody knows when the generator
/// replaced it. So it must not stay until the next rotation, which can be years away.
const DEFAULT_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// Adds to `decision` the usable certificates that `write` asks for. `text` is the stored `ca.crt`,
/// and `bundle` holds its certificates. `stays` holds the entry of each one that stays carried.
pub(super) fn append(
    write: &Write<'_>,
    text: &[u8],
    bundle: &Bundle,
    stays: &[Option<Entry>],
    decision: &mut Decision,
) {
    let (asked, is_unreadable) = read(write.repair, bundle);
    let known = bundle.certificates().len();
    let adopted = adopted(write, bundle, stays);
    let adopts = adopted.as_slice() != stays;
    let stays = adopted.as_slice();
    let mut stored = bundle.certificates().to_vec();
    stored.extend(asked);
    let own = known - stays.iter().flatten().count();
    let chosen = if write.may_change_data && own <= MAX_OWN {
        select(write, text.len(), &stored, stays, decision)
    } else {
        Vec::new()
    };
    if is_unreadable || chosen.len() < stored.len() - known {
        decision.warnings.push(Warning::RepairIncomplete);
    }
    if chosen.is_empty() && !adopts {
        return;
    }
    if !chosen.is_empty() {
        let mut bytes = decision.ca_crt.take().unwrap_or_else(|| text.to_vec());
        if !bytes.ends_with(b"\n") {
            bytes.push(b'\n');
        }
        for &index in &chosen {
            pem::encode_certificate(stored[index].der(), &mut bytes);
        }
        decision.ca_crt = Some(bytes);
    }
    let added = chosen.iter().map(|&index| entry(write, &stored[index]));
    let entries = stays.iter().flatten().copied().chain(added).collect();
    decision.record = RecordAfter::Set(Record::new(entries));
    decision.appended = chosen.len();
}

/// Reads the certificates of the ask. Returns those that are not in the bundle, each once, and
/// whether some readers cannot read one.
fn read(repaired: &[Repaired], bundle: &Bundle) -> (Vec<Certificate>, bool) {
    let mut asked: Vec<Certificate> = Vec::new();
    let mut is_unreadable = false;
    for Repaired { der, .. } in repaired {
        match Certificate::from_der(der.clone()).filter(|c| c.flaw().is_none()) {
            None => is_unreadable = true,
            Some(c) if bundle.contains(&c) || asked.contains(&c) => {}
            Some(certificate) => asked.push(certificate),
        }
    }
    (asked, is_unreadable)
}

/// Returns `stays`, and adds the entries of certificates that are still in `ca.crt` but no longer
/// in the record. Without an entry they would count as own and never go. The first certificate is
/// always own, so it gets no entry.
fn adopted(write: &Write<'_>, bundle: &Bundle, stays: &[Option<Entry>]) -> Vec<Option<Entry>> {
    let mut entries = stays.to_vec();
    if !write.may_change_data {
        return entries;
    }
    let is_listed = |f| write.record.is_some_and(|record| record.entry(f).is_some());
    for (certificate, entry) in bundle.certificates().iter().zip(&mut entries).skip(1) {
        let fingerprint = certificate.fingerprint();
        if entry.is_none() && !is_listed(fingerprint) {
            *entry = remembered(write, fingerprint);
        }
    }
    entries
}

/// The entry that the keeper remembers from the lost record.
fn remembered(write: &Write<'_>, fingerprint: Fingerprint) -> Option<Entry> {
    let mut entries = write.repair.iter().filter_map(|repaired| repaired.entry);
    let entry = entries.find(|entry| entry.sha256 == fingerprint)?;
    // The keeper's clock may be ahead, so `since` is limited to now.
    let fresh = Entry::starting(fingerprint, write.now, None);
    Some(Entry { since: entry.since.min(fresh.since), ..entry })
}

/// The entry of a certificate to carry again: from the record, or else as the keeper remembers it.
fn known(write: &Write<'_>, certificate: &Certificate) -> Option<Entry> {
    let fingerprint = certificate.fingerprint();
    let listed = write.record.and_then(|record| record.entry(fingerprint)).copied();
    listed.or_else(|| remembered(write, fingerprint))
}

/// Selects which certificates of the ask are appended. In `stored` they follow those of the bundle,
/// from index `stays.len()` on. The certificates that stay carried count first, and those of the
/// ask get the rest of `keep` and of the free bytes.
fn select(
    write: &Write<'_>,
    text_len: usize,
    stored: &[Certificate],
    stays: &[Option<Entry>],
    decision: &mut Decision,
) -> Vec<usize> {
    let is_usable = |index: usize| match stays.get(index) {
        Some(entry) => entry.is_some_and(|entry| entry.announced.is_none()),
        None => !has_ended(write, &stored[index]),
    };
    let is_there: Vec<_> = (0..stored.len()).map(|index| index < stays.len()).collect();
    let available = StoredCertificates {
        stored,
        issuers: IssuerGraph::new(stored, Vec::new(), write.issuers),
        is_usable: (0..stored.len()).map(is_usable).collect(),
        has_ended: vec![false; stored.len()],
        stays: &is_there,
    };
    let candidates: Vec<_> = (0..stored.len()).map(Candidate::ordinary).collect();
    let size = |index: usize| pem::encoded_len(stored[index].der().len());
    let carried: usize = (0..stays.len()).filter(|&i| is_usable(i)).map(size).sum();
    let cut = decision.ca_crt.as_ref().map_or(0, |bytes| text_len - bytes.len());
    let bytes = write.room.saturating_add(cut).saturating_sub(1);
    let capacity =
        Capacity { chains: write.settings.keep.count(), bytes: bytes.saturating_add(carried) };
    let mut selection = select::select(&candidates, available, capacity);
    selection.indexes.retain(|&index| index >= stays.len());
    // If `keep` was lowered, the selection may lack certificates that stay carried. It has then not
    // counted their bytes, so check the free bytes again.
    if selection.indexes.iter().copied().map(size).sum::<usize>() > bytes {
        selection.indexes.clear();
    }
    selection.indexes
}

/// Whether a certificate must not be carried, because it is expired, distrusted, or past a known
/// deadline.
fn has_ended(write: &Write<'_>, certificate: &Certificate) -> bool {
    match known(write, certificate) {
        Some(entry) => write::has_ended(certificate, &entry, write),
        None => {
            certificate.is_expired(write.now) || write::is_distrusted(certificate, write.settings)
        }
    }
}

/// The new entry of a repaired certificate, always with `until`. A known entry keeps its `since`,
/// and its `until` if that is the earlier one.
fn entry(write: &Write<'_>, certificate: &Certificate) -> Entry {
    let length = write.settings.window.length().unwrap_or(DEFAULT_WINDOW);
    let fresh = Entry::starting(certificate.fingerprint(), write.now, Some(length));
    match known(write, certificate) {
        None => fresh,
        Some(known) => Entry {
            since: known.since,
            until: [known.until, fresh.until].into_iter().flatten().min(),
            ..fresh
        },
    }
}
