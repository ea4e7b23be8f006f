//! Which of the candidates are carried: usable ones, in order, with their chains, within `keep`
//! and within the room that the Secret has.

use super::certs::Certificate;
use super::issuer::Issuers;
use super::pem;
use super::warning::Warning;

/// A stored certificate that could be carried, by its index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    index: usize,
    /// The incoming leaf needs it: a deadline does not count.
    needed: bool,
}

impl Candidate {
    pub(super) fn needed(index: usize) -> Self {
        Self { index, needed: true }
    }

    pub(super) fn ordinary(index: usize) -> Self {
        Self { index, needed: false }
    }
}

/// How much may be carried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// How many chains; a chain is an intermediate with its issuers, or a root alone.
    pub(super) chains: usize,
    /// How many bytes of PEM.
    pub(super) bytes: usize,
}

/// What is carried, as indexes into the stored certificates, in the order of the bundle.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub(super) indexes: Vec<usize>,
    pub(super) warnings: Vec<Warning>,
}

/// Takes the first candidates that fit. One that does not fit is passed over, not the end: a
/// later one may belong to a chain that is already taken.
pub(super) fn choose(
    candidates: &[Candidate],
    stored: &[Certificate],
    issuers: &Issuers,
    is_usable: &dyn Fn(usize) -> bool,
    is_over: &dyn Fn(usize) -> bool,
    room: Room,
) -> Chosen {
    let mut chosen = Chosen::default();
    if room.chains == 0 {
        return chosen;
    }
    let mut bytes = 0;
    for candidate in candidates {
        let over = |index| !candidate.needed && is_over(index);
        if !is_usable(candidate.index) || over(candidate.index) {
            continue;
        }
        let mut taken = chosen.indexes.clone();
        for index in with_issuers(candidate.index, stored, issuers) {
            if !taken.contains(&index) && is_usable(index) && !over(index) {
                taken.push(index);
            }
        }
        let more: usize = taken[chosen.indexes.len()..]
            .iter()
            .map(|&index| pem::encoded_len(stored[index].der().len()))
            .sum();
        if chains(&taken, stored, issuers) > room.chains {
            continue;
        }
        if bytes + more > room.bytes {
            chosen.warnings = vec![Warning::DataFull];
            continue;
        }
        bytes += more;
        chosen.indexes = taken;
    }
    chosen
}

/// A certificate and its issuers among the stored ones, up to the root, each once.
pub(super) fn with_issuers(first: usize, stored: &[Certificate], issuers: &Issuers) -> Vec<usize> {
    let mut found = vec![first];
    let mut next = 0;
    while let Some(&index) = found.get(next) {
        for issuer in issuers.of(&stored[index], stored) {
            if !found.contains(&issuer) {
                found.push(issuer);
            }
        }
        next += 1;
    }
    found
}

/// How many chains these certificates form: those that issued no other one of them.
fn chains(taken: &[usize], stored: &[Certificate], issuers: &Issuers) -> usize {
    if taken.len() == 1 {
        return 1;
    }
    let mut is_issuer = vec![false; stored.len()];
    for &index in taken {
        for issuer in issuers.of(&stored[index], stored) {
            is_issuer[issuer] |= issuer != index;
        }
    }
    taken.iter().filter(|&&index| !is_issuer[index]).count()
}
