//! The decision about a write of `ca.crt`: which stored certificates are carried (docs/design.md,
//! "Decide").
//!
//! [`super::write`] defines the terms.

use jiff::Timestamp;

use super::announce::{self, Wanted};
use super::record::{Entry, Record};
use super::select::{self, Candidate, Capacity, StoredCertificates};
use super::warning::Warning;
use super::write::{
    Case, Decision, RecordAfter, Write, carried_entries, chain, has_ended, is_distrusted,
};
use super::{MAX_BLOCKS, MAX_OWN, MAX_STORED_BLOCKS, retire};
use crate::x509::certs::{Bundle, Certificate};
use crate::x509::issuer::IssuerGraph;
use crate::x509::pem;

/// Decides what to store for one write. Deterministic and total: every input has a decision.
pub fn decide(write: &Write<'_>) -> Decision {
    match (write.stored.ca_crt, write.incoming.ca_crt) {
        (_, None) => Decision::as_written(Case::NoCa, RecordAfter::Gone),
        (Some(stored), Some(incoming)) if stored == incoming => retire::decide(write, stored),
        (stored, Some(incoming)) => changed(write, stored, incoming),
    }
}

fn changed(write: &Write<'_>, stored_text: Option<&[u8]>, text: &[u8]) -> Decision {
    let Ok(incoming) = Bundle::parse(text, MAX_BLOCKS) else { return trust_store(write) };
    if incoming.is_empty() {
        let mut decision = Decision::as_written(Case::NotReadable, record_as_stored(write));
        decision.warnings.push(Warning::IncomingUnreadable);
        return decision;
    }
    let Some(stored_text) = stored_text else {
        let mut decision = Decision::as_written(Case::NoCa, new_record(write, Vec::new()));
        announce::append(write, text, &Wanted::after(write, &[], &[]), &mut decision);
        return decision;
    };
    let Ok(stored) = Bundle::parse(stored_text, MAX_STORED_BLOCKS) else {
        return trust_store(write);
    };
    let comparison = Comparison::new(write, incoming, stored);
    if comparison.own().count() > MAX_OWN || comparison.own_incoming() > MAX_OWN {
        return trust_store(write);
    }
    let mut decision = comparison.decide(text);
    // An empty stored value holds nothing to lose: some Secrets are created empty and filled later.
    let was_unreadable = comparison.stored.is_empty() && !stored_text.trim_ascii().is_empty();
    if was_unreadable || comparison.stored.has_unreadable {
        decision.warnings.push(Warning::StoredUnreadable);
    }
    decision
}

fn trust_store(write: &Write<'_>) -> Decision {
    Decision::as_written(Case::TrustStore, new_record(write, Vec::new()))
}

fn record_as_stored(write: &Write<'_>) -> RecordAfter {
    if write.record.is_some() { RecordAfter::AsStored } else { RecordAfter::Gone }
}

/// The record of these entries. An exempt Secret that has a record gets this one. An exempt Secret
/// without a record stays as it is.
fn new_record(write: &Write<'_>, entries: Vec<Entry>) -> RecordAfter {
    if write.record.is_none() && !write.may_change_data {
        return RecordAfter::Gone;
    }
    RecordAfter::Set(Record::new(entries))
}

/// The stored and the incoming certificates of a write that changes `ca.crt`.
struct Comparison<'a> {
    write: &'a Write<'a>,
    incoming: Bundle,
    stored: Bundle,
    carried: Vec<Option<Entry>>,
    wanted: Wanted,
    /// For each incoming certificate, its index among the stored ones. It is found once, because a
    /// comparison reads all bytes of both certificates.
    places: Vec<Option<usize>>,
    /// For each stored certificate, whether it is also incoming.
    is_incoming: Vec<bool>,
}

impl<'a> Comparison<'a> {
    fn new(write: &'a Write<'a>, incoming: Bundle, stored: Bundle) -> Self {
        let carried = carried_entries(&stored, write.record);
        let wanted = Wanted::after(write, stored.certificates(), &carried);
        let place = |c: &Certificate| stored.certificates().iter().position(|s| s == c);
        let places: Vec<_> = incoming.certificates().iter().map(place).collect();
        let mut is_incoming = vec![false; stored.certificates().len()];
        for &place in places.iter().flatten() {
            is_incoming[place] = true;
        }
        Self { write, incoming, stored, carried, wanted, places, is_incoming }
    }

    fn decide(&self, text: &[u8]) -> Decision {
        let active = self.active();
        let case = self.case(&active);
        let selection = self.select(case, &active, text);
        let mut warnings = selection.warnings;
        if self.incoming.certificates().iter().any(|c| self.is_distrusted(c)) {
            warnings.push(Warning::DistrustedOwn);
        }
        let chosen = selection.indexes;
        let is_left_out = |i: &usize| {
            !self.has_ended(*i)
                && self.is_usable(*i)
                && !chosen.contains(i)
                && !selection.refused.contains(i)
        };
        let is_limited_by_keep = self.carries() && !warnings.contains(&Warning::DataFull);
        let replaced: Vec<_> = self.replaced().collect();
        let loses_one = replaced.len() > 1 && replaced.iter().any(is_left_out);
        if case == Case::Rotation && is_limited_by_keep && loses_one {
            warnings.push(Warning::KeepTooSmall);
        }
        let starts_anew = |index| is_turning_point(case) && active.contains(&index);
        let goes_on = self.turns() || case == Case::Rollback;
        let told_since = goes_on.then(|| self.told_since());
        let appended = chosen.iter().map(|&index| {
            let entry = self.previous(index).filter(|_| !starts_anew(index));
            let entry = entry.unwrap_or_else(|| self.new_entry(index));
            Entry { successor_since: told_since.unwrap_or(entry.successor_since), ..entry }
        });
        let entries = self.echoed(case).into_iter().chain(appended).collect();
        let mut decision = Decision {
            case,
            ca_crt: (!chosen.is_empty()).then(|| self.append(text, &chosen)),
            record: new_record(self.write, entries),
            appended: chosen.len(),
            announced: 0,
            cut: 0,
            warnings,
        };
        announce::append(self.write, text, &self.wanted, &mut decision);
        decision
    }

    /// The stored certificates that issued the outgoing leaf or its chain. If there are none: the
    /// own ones whose place a new certificate takes, as when a member of a trust list is replaced.
    /// If there are none of these either: the first own one.
    fn active(&self) -> Vec<usize> {
        let outgoing = chain(self.write.stored.tls_crt);
        let issuers =
            self.write.issuers.of_chain(&outgoing, self.stored.certificates(), &self.introduced());
        if !issuers.is_empty() {
            return issuers;
        }
        let replaced: Vec<_> = self.replaced().collect();
        if replaced.is_empty() { self.own().take(1).collect() } else { replaced }
    }

    /// The own certificates whose place in the file a new certificate takes.
    fn replaced(&self) -> impl Iterator<Item = usize> {
        self.own().filter(|&i| !self.is_incoming[i] && self.places.get(i) == Some(&None))
    }

    fn case(&self, active: &[usize]) -> Case {
        let keeps_own = self.keeps_own();
        let revives_carried =
            self.indexes().any(|i| self.previous(i).is_some() && self.is_incoming[i]);
        if self.write.record.is_none() && !self.introduces() {
            Case::FirstContact
        } else if revives_carried && !keeps_own {
            Case::Rollback
        } else if self.turns()
            && (!keeps_own || !active.iter().any(|&index| self.is_incoming[index]))
        {
            // The leaf may be of an announced CA already. A generator that then moves on to that CA
            // still drops the one that its peers know.
            Case::Rotation
        } else if self.own().all(|index| self.is_incoming[index]) {
            Case::Same
        } else {
            Case::Retirement
        }
    }

    fn select(&self, case: Case, active: &[usize], text: &[u8]) -> select::Selection {
        let mut candidates: Vec<_> = self.needed().into_iter().map(Candidate::needed).collect();
        let ordinary = |index| Candidate::ordinary(index);
        match case {
            Case::FirstContact | Case::Rollback | Case::Rotation => {
                candidates.extend(active.iter().copied().map(ordinary));
                let others = self.indexes().filter(|&index| !self.is_announced(index));
                candidates.extend(others.map(ordinary));
            }
            Case::Same => {
                let carried = self.indexes().filter(|&index| self.previous(index).is_some());
                candidates.extend(carried.map(ordinary));
            }
            _ => {}
        }
        let separator = usize::from(!text.ends_with(b"\n"));
        let capacity = Capacity {
            chains: if self.carries() { self.write.settings.keep.count() } else { 0 },
            bytes: self.write.room.saturating_sub(separator),
        };
        let stored = self.stored.certificates();
        let stays: Vec<bool>;
        let stays = if self.wanted.is_empty() {
            &self.is_incoming
        } else {
            stays =
                self.indexes().map(|i| self.is_incoming[i] || self.stays_announced(i)).collect();
            &stays
        };
        let available = StoredCertificates {
            stored,
            issuers: IssuerGraph::new(stored, self.introduced().collect(), self.write.issuers),
            is_usable: self.indexes().map(|index| self.is_usable(index)).collect(),
            has_ended: self.indexes().map(|index| self.has_ended(index)).collect(),
            stays,
        };
        let mut selection = select::select(&candidates, available, capacity);
        if case == Case::Same {
            // Use the stored order, so that a repeated write gives the same bytes. The order of the
            // candidates can differ then: when certificates of the same name are gone, other
            // issuers are found for the leaf and for the candidates.
            selection.indexes.sort_unstable();
        }
        selection
    }

    /// The stored certificates that issued the *incoming* leaf, if no incoming certificate did: the
    /// CA was renewed before the leaf.
    fn needed(&self) -> Vec<usize> {
        let (stored, incoming) = (self.stored.certificates(), self.incoming.certificates());
        let leaf = chain(self.write.incoming.tls_crt);
        let gone = stored.iter().zip(&self.is_incoming).filter(|(_, stays)| !**stays);
        let gone = gone.map(|(certificate, _)| certificate);
        if leaf.is_empty() || !self.write.issuers.of_chain(&leaf, incoming, &gone).is_empty() {
            return Vec::new();
        }
        self.write.issuers.of_chain(&leaf, stored, &self.introduced())
    }

    /// The entries of carried certificates that the writer only writes back. They stay carried. A
    /// writer that drops one of its own and writes an announced one has adopted it.
    fn echoed(&self, case: Case) -> Vec<Entry> {
        if self.turns() || case == Case::Rollback {
            return Vec::new();
        }
        let echoed = |place: &Option<usize>| {
            let entry = self.carried[(*place)?]?;
            if entry.announced.is_none() {
                return Some(entry);
            }
            let wanted = self.wanted.entry(&self.stored.certificates()[(*place)?]);
            (case != Case::Retirement).then(|| wanted.unwrap_or(entry))
        };
        self.places.iter().skip(1).filter_map(echoed).collect()
    }

    fn append(&self, text: &[u8], chosen: &[usize]) -> Vec<u8> {
        let mut bytes = text.to_vec();
        if !bytes.ends_with(b"\n") {
            bytes.push(b'\n');
        }
        for &index in chosen {
            pem::encode_certificate(self.stored.certificates()[index].der(), &mut bytes);
        }
        bytes
    }

    fn new_entry(&self, index: usize) -> Entry {
        let fingerprint = self.stored.certificates()[index].fingerprint();
        Entry::starting(fingerprint, self.write.now, self.write.settings.window.length())
    }

    /// Whether anything may be carried.
    fn carries(&self) -> bool {
        self.write.may_change_data && self.write.settings.keep.count() > 0
    }

    fn introduces(&self) -> bool {
        self.places.contains(&None)
    }

    fn keeps_own(&self) -> bool {
        self.own().any(|index| self.is_incoming[index])
    }

    /// Whether the generator moves on to another CA: to a new one, or to an announced one while it
    /// keeps none of its own.
    fn turns(&self) -> bool {
        let uses = |index| self.is_announced(index) && self.is_incoming[index];
        self.introduces() || (self.indexes().any(uses) && !self.keeps_own())
    }

    /// Since when the Secret has held what the generator moves on to, if all of it was announced.
    fn told_since(&self) -> Option<Timestamp> {
        let used = self.places.iter().map(|place| self.carried[(*place)?]);
        let since = used.map(|entry| Some(entry.filter(|it| it.announced.is_some())?.since));
        since.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// The entry of a stored certificate that is carried as a previous CA.
    fn previous(&self, index: usize) -> Option<Entry> {
        self.carried[index].filter(|entry| entry.announced.is_none())
    }

    fn is_announced(&self, index: usize) -> bool {
        self.carried[index].is_some_and(|entry| entry.announced.is_some())
    }

    /// Whether a certificate stays announced. Then it does not become a previous CA, whatever leaf
    /// it has issued.
    fn stays_announced(&self, index: usize) -> bool {
        self.is_announced(index) && self.wanted.entry(&self.stored.certificates()[index]).is_some()
    }

    fn introduced(&self) -> impl Iterator<Item = &Certificate> + Clone {
        let pairs = self.incoming.certificates().iter().zip(&self.places);
        pairs.filter(|(_, place)| place.is_none()).map(|(certificate, _)| certificate)
    }

    fn own_incoming(&self) -> usize {
        let carried = self.indexes().filter(|&i| self.carried[i].is_some() && self.is_incoming[i]);
        self.incoming.certificates().len() - carried.count()
    }

    fn indexes(&self) -> std::ops::Range<usize> {
        0..self.carried.len()
    }

    fn own(&self) -> impl Iterator<Item = usize> {
        self.indexes().filter(|&index| self.carried[index].is_none())
    }

    fn is_usable(&self, index: usize) -> bool {
        let certificate = &self.stored.certificates()[index];
        !certificate.is_expired(self.write.now)
            && !self.is_distrusted(certificate)
            && !self.is_incoming[index]
            && !self.stays_announced(index)
    }

    fn has_ended(&self, index: usize) -> bool {
        let Some(entry) = self.carried[index] else { return false };
        has_ended(&self.stored.certificates()[index], &entry, self.write)
    }

    fn is_distrusted(&self, certificate: &Certificate) -> bool {
        is_distrusted(certificate, self.write.settings)
    }
}

fn is_turning_point(case: Case) -> bool {
    matches!(case, Case::FirstContact | Case::Rollback | Case::Rotation)
}
