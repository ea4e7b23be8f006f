//! The decision about a write that does not change `ca.crt` (docs/design.md, "Decide"). It removes
//! the carried certificates that have ended, so `distrust` and a shorter `window` act at once.

use std::iter;

use super::announce::{self, Wanted};
use super::announcement::Announcing;
use super::record::{Entry, Record};
use super::warning::Warning;
use super::write::{self, Case, Decision, RecordAfter, Write, carried_entries};
use super::{MAX_STORED_BLOCKS, repair};
use crate::x509::certs::{Bundle, Certificate};

/// Decides about a write that leaves `ca.crt` as it is stored. `text` is that `ca.crt`.
pub(super) fn decide(write: &Write<'_>, text: &[u8]) -> Decision {
    let as_stored = if write.record.is_some() { RecordAfter::AsStored } else { RecordAfter::Gone };
    let mut decision = Decision::as_written(Case::Unchanged, as_stored);
    let nothing_carried = write.record.is_none_or(Record::is_empty);
    let asks = !write.repair.is_empty() || matches!(write.announcing, Announcing::Asked(_));
    let is_set = !write.settings.distrust.is_empty() || !write.settings.announce.is_empty();
    if nothing_carried && !is_set && !asks {
        return decision;
    }
    // Where `ca.crt` is not readable, the record stays until the next readable write.
    let bundle = Bundle::parse(text, MAX_STORED_BLOCKS).unwrap_or_default();
    if bundle.is_empty() {
        if !write.repair.is_empty() {
            decision.warnings.push(Warning::RepairIncomplete);
        }
        return decision;
    }
    let mut carried = carried_entries(&bundle, write.record);
    let mut own = bundle.certificates().iter().zip(&carried).filter(|(_, entry)| entry.is_none());
    if own.any(|(certificate, _)| write::is_distrusted(certificate, write.settings)) {
        decision.warnings.push(Warning::DistrustedOwn);
    }
    let wanted = Wanted::after(write, bundle.certificates(), &carried);
    if let Some(record) = write.record.filter(|_| write.may_change_data) {
        cut(write, text, &bundle, &mut carried, record, &wanted, &mut decision);
    }
    if !write.repair.is_empty() {
        repair::append(write, text, &bundle, &carried, &mut decision);
    }
    announce::append(write, text, &wanted, &mut decision);
    decision
}

/// Removes the carried certificates that have ended, and updates the record and the entries.
fn cut(
    write: &Write<'_>,
    text: &[u8],
    bundle: &Bundle,
    carried: &mut [Option<Entry>],
    record: &Record,
    wanted: &Wanted,
    decision: &mut Decision,
) {
    let goes = cuttable(write, bundle, carried, wanted);
    for ((certificate, entry), goes) in bundle.certificates().iter().zip(&mut *carried).zip(&goes) {
        let stays = entry.filter(|_| !goes);
        *entry = stays.map(|entry| wanted.staying(certificate, entry, write));
    }
    let left: Vec<Entry> = carried.iter().flatten().copied().collect();
    if left != record.entries() {
        decision.record = RecordAfter::Set(Record::new(left));
    }
    decision.cut = goes.iter().filter(|&&goes| goes).count();
    if decision.cut > 0 {
        let is_cut = |certificate: &Certificate| {
            bundle.certificates().iter().zip(&goes).any(|(c, goes)| *goes && c == certificate)
        };
        decision.ca_crt = Some(bundle.without(text, is_cut));
    }
}

/// Says for each certificate whether it goes. Carried ones that have ended go, and announced ones
/// that are taken back. Of these, one that the Secret's own leaf needs stays, unless it is
/// distrusted.
fn cuttable(
    write: &Write<'_>,
    bundle: &Bundle,
    carried: &[Option<Entry>],
    wanted: &Wanted,
) -> Vec<bool> {
    let certificates = bundle.certificates();
    let mut goes: Vec<bool> = certificates
        .iter()
        .zip(carried)
        .map(|(c, entry)| entry.is_some_and(|entry| wanted.ends(c, &entry, write)))
        .collect();
    if !goes.contains(&true) {
        return goes;
    }
    let leaf = write::chain(write.incoming.tls_crt);
    let mut anchors = write.issuers.of_chain(&leaf, certificates, &iter::empty());
    let mut seen = vec![false; certificates.len()];
    // Go up from the leaf. If all issuers of a certificate would go, they stay, unless they are
    // distrusted.
    while !anchors.is_empty() {
        if anchors.iter().all(|&index| goes[index]) {
            for &index in &anchors {
                goes[index] = write::is_distrusted(&certificates[index], write.settings);
            }
        }
        let mut next = Vec::new();
        for index in anchors {
            if !goes[index] && !seen[index] {
                seen[index] = true;
                next.extend(write.issuers.of(&certificates[index], certificates, &[]));
            }
        }
        anchors = next;
    }
    goes
}
