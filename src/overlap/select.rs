//! Selects which candidates are carried. It takes usable ones in order, with their chains, within
//! `keep` and within the free bytes of the Secret.

use super::warning::Warning;
use crate::x509::certs::Certificate;
use crate::x509::issuer::IssuerGraph;
use crate::x509::pem;

/// A stored certificate that could be carried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    index: usize,
    /// Whether the incoming leaf needs it, even past its deadline.
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

/// The limits of a selection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    /// The most chains. A chain is an intermediate with its issuers, or a root alone.
    pub(super) chains: usize,
    /// The most bytes of PEM.
    pub(super) bytes: usize,
}

/// The certificates to carry, as indexes into the stored ones, in the order of selection.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub(super) indexes: Vec<usize>,
    pub(super) warnings: Vec<Warning>,
    /// Those that would have been selected if every reader accepted them.
    pub(super) refused: Vec<usize>,
    /// The first certificate of each chain, by which chains are counted. To count the certificates
    /// that issued no other would be wrong: cross-signed certificates can issue each other, and a
    /// link of a chain can be missing.
    starts: Vec<usize>,
}

/// The certificates to select from; all lists have the same indexes.
pub(super) struct StoredCertificates<'a> {
    pub(super) stored: &'a [Certificate],
    pub(super) issuers: IssuerGraph<'a>,
    /// Whether it can be carried, if deadlines do not count.
    pub(super) is_usable: Vec<bool>,
    /// Whether it was carried and has ended.
    pub(super) has_ended: Vec<bool>,
    /// Whether it is already in the bundle that the selection is appended to.
    pub(super) stays: &'a [bool],
}

impl StoredCertificates<'_> {
    /// Whether a certificate may be appended as part of the chain of `candidate`.
    fn fits(&self, index: usize, candidate: &Candidate) -> bool {
        self.is_usable[index] && (candidate.needed || !self.has_ended[index])
    }
}

/// Selects the first candidates that fit, with their chains, and that every reader accepts. This is
/// judged last, because it costs more than the rest, and most candidates are never selected.
pub(super) fn select(
    candidates: &[Candidate],
    mut available: StoredCertificates<'_>,
    capacity: Capacity,
) -> Selection {
    let mut refused = Vec::new();
    loop {
        let mut selection = fitting(candidates, &available, capacity);
        let appended = selection.indexes.iter().filter(|&&index| !available.stays[index]);
        let flaws = appended.filter_map(|&index| Some((index, available.stored[index].flaw()?)));
        let flaws: Vec<_> = flaws.collect();
        for &(index, flaw) in &flaws {
            available.is_usable[index] = false;
            refused.push((index, flaw));
        }
        if flaws.is_empty() {
            selection.warnings.extend(refused.first().map(|(_, flaw)| Warning::Flawed(*flaw)));
            selection.refused = refused.into_iter().map(|(index, _)| index).collect();
            return selection;
        }
    }
}

fn fitting(
    candidates: &[Candidate],
    available: &StoredCertificates<'_>,
    capacity: Capacity,
) -> Selection {
    if capacity.chains == 0 {
        return Selection::default();
    }
    // If all candidates together make no more chains than allowed, take them all, whatever their
    // order. Taken one by one, they can make too many chains for a while, until the chain of a
    // later candidate joins two earlier ones. The limit would then leave out what another order
    // lets in, and a repeated write would change the bundle.
    let all = take(candidates, available, Capacity { chains: usize::MAX, ..capacity });
    if all.starts.len() <= capacity.chains { all } else { take(candidates, available, capacity) }
}

/// Takes candidates in order. One that does not fit is skipped, because a later one can belong to a
/// chain that is already taken.
fn take(
    candidates: &[Candidate],
    available: &StoredCertificates<'_>,
    capacity: Capacity,
) -> Selection {
    let mut chosen = Selection::default();
    let mut bytes = 0;
    for candidate in candidates {
        let first = candidate.index;
        if !available.fits(first, candidate) || chosen.indexes.contains(&first) {
            continue;
        }
        // Follow only links whose certificates the result holds. The next write sees no others, and
        // it must count the same chains.
        let passes = |i: usize| available.stays[i] || available.fits(i, candidate);
        let chain = available.issuers.chain_of(first, passes);
        let stands = |start: &usize| !chain.contains(start);
        let mut begun: Vec<_> = chosen.starts.iter().copied().filter(stands).collect();
        if begun.len() == capacity.chains {
            continue;
        }
        let is_new = |&i: &usize| available.fits(i, candidate) && !chosen.indexes.contains(&i);
        let more: Vec<_> = chain.into_iter().filter(is_new).collect();
        let size = |&index: &usize| pem::encoded_len(available.stored[index].der().len());
        let with_these = bytes + more.iter().map(size).sum::<usize>();
        if with_these > capacity.bytes {
            chosen.warnings = vec![Warning::DataFull];
            continue;
        }
        begun.push(first);
        (chosen.starts, bytes) = (begun, with_these);
        chosen.indexes.extend(more);
    }
    chosen
}
