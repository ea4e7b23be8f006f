//! A write that leaves `ca.crt` alone: what is over is cut out, so that `distrust` or a shorter
//! `window` acts at once (DESIGN §4.1).

use std::iter;

use super::certs::{Bundle, Certificate};
use super::decide::{self, Case, Decision, RecordAfter, Write};
use super::issuer::Issuers;
use super::record::{Entry, Record};
use super::warning::Warning;
use super::{MAX_STORED_BLOCKS, decide::carried_entries};

/// Decides about a write whose `ca.crt` is the stored one, `text`.
pub(super) fn decide(write: &Write<'_>, text: &[u8]) -> Decision {
    let Some(record) = write.record else {
        let mut decision = Decision::as_written(Case::Unchanged, RecordAfter::Gone);
        warn_of_distrusted_own(write, text, &mut decision);
        return decision;
    };
    let mut decision = Decision::as_written(Case::Unchanged, RecordAfter::AsStored);
    if !write.may_change_data || (record.is_empty() && write.settings.distrust.is_empty()) {
        return decision;
    }
    let Ok(bundle) = Bundle::parse(text, MAX_STORED_BLOCKS) else { return decision };
    // Over something unreadable the record waits for the next readable write.
    if bundle.is_empty() {
        return decision;
    }
    let carried = carried_entries(&bundle, Some(record));
    let over = cuttable(write, &bundle, &carried);
    let left: Vec<Entry> =
        carried.iter().zip(&over).filter(|(_, over)| !**over).filter_map(|(e, _)| *e).collect();
    if left != record.entries() {
        decision.record = RecordAfter::Set(Record::new(left));
    }
    decision.cut = over.iter().filter(|&&over| over).count();
    if decision.cut > 0 {
        let cut = |certificate: &Certificate| {
            bundle.certificates().iter().zip(&over).any(|(c, over)| *over && c == certificate)
        };
        decision.ca_crt = Some(bundle.without(text, cut));
    }
    warn_of_distrusted_own(write, text, &mut decision);
    decision
}

/// Which carried certificates go: those that are over, save what the Secret's own leaf needs.
fn cuttable(write: &Write<'_>, bundle: &Bundle, carried: &[Option<Entry>]) -> Vec<bool> {
    let certificates = bundle.certificates();
    let mut over: Vec<bool> = certificates
        .iter()
        .zip(carried)
        .map(|(c, entry)| entry.is_some_and(|entry| decide::is_over(c, &entry, write)))
        .collect();
    if !over.contains(&true) {
        return over;
    }
    let issuers = Issuers::default();
    let leaf = decide::chain(write.incoming.tls_crt);
    let mut anchors = issuers.of_chain(&leaf, certificates, &iter::empty());
    let mut seen = vec![false; certificates.len()];
    // Upwards from the leaf: where only certificates that are over issued it, they stay; and so
    // for their own issuers.
    while !anchors.is_empty() {
        if anchors.iter().all(|&index| over[index]) {
            for &index in &anchors {
                over[index] = decide::is_distrusted(&certificates[index], write.settings);
            }
        }
        anchors.retain(|&index| !std::mem::replace(&mut seen[index], true) && !over[index]);
        anchors =
            anchors.iter().flat_map(|&i| issuers.of(&certificates[i], certificates)).collect();
    }
    over
}

fn warn_of_distrusted_own(write: &Write<'_>, text: &[u8], decision: &mut Decision) {
    if write.settings.distrust.is_empty() {
        return;
    }
    let Ok(bundle) = Bundle::parse(text, MAX_STORED_BLOCKS) else { return };
    let carried = carried_entries(&bundle, write.record);
    let own = bundle.certificates().iter().zip(&carried).filter(|(_, entry)| entry.is_none());
    if own.into_iter().any(|(c, _)| decide::is_distrusted(c, write.settings)) {
        decision.warnings.push(Warning::DistrustedOwn);
    }
}
