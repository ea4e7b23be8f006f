//! Which of the candidates are carried: usable ones, in order, with their chains, within `keep`
//! and within the room that the Secret has.

use super::warning::Warning;
use crate::x509::certs::Certificate;
use crate::x509::issuer::Family;
use crate::x509::pem;

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

/// What is carried, as indexes into the stored certificates, in the order of choice.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub(super) indexes: Vec<usize>,
    pub(super) warnings: Vec<Warning>,
    /// Where the chains begin. Counted by these, not by who issued no other: cross-signed
    /// certificates can issue each other in a circle, and a link of a chain can be missing.
    starts: Vec<usize>,
}

/// What the choice is made from: for each stored certificate, by its index, what is known of it.
pub(super) struct Pool<'a> {
    pub(super) stored: &'a [Certificate],
    pub(super) family: Family<'a>,
    /// Could be carried, whatever its deadline.
    pub(super) is_usable: Vec<bool>,
    /// Was carried, and has to go.
    pub(super) is_over: Vec<bool>,
    /// Is in the bundle already that the choice is appended to.
    pub(super) stays: &'a [bool],
}

impl Pool<'_> {
    /// Whether this one may be appended for `candidate`.
    fn fits(&self, index: usize, candidate: &Candidate) -> bool {
        self.is_usable[index] && (candidate.needed || !self.is_over[index])
    }
}

/// Takes the first candidates that fit, with their chains.
pub(super) fn choose(candidates: &[Candidate], pool: &Pool<'_>, room: Room) -> Chosen {
    if room.chains == 0 {
        return Chosen::default();
    }
    // All of them together have as many chains in any order. One after the other they can have more
    // on the way, where one comes later whose chain holds two that came before: what was chosen
    // once would then not be chosen again by a write that finds it in another order.
    let all = take(candidates, pool, Room { chains: usize::MAX, ..room });
    if all.starts.len() <= room.chains { all } else { take(candidates, pool, room) }
}

/// One that does not fit is passed over, not the end: a later one may belong to a chain that is
/// already taken.
fn take(candidates: &[Candidate], pool: &Pool<'_>, room: Room) -> Chosen {
    let mut chosen = Chosen::default();
    let mut bytes = 0;
    for candidate in candidates {
        let first = candidate.index;
        if !pool.fits(first, candidate) || chosen.indexes.contains(&first) {
            continue;
        }
        // Only through what the result holds: the next write sees no other links, and has to
        // count the same chains.
        let passes = |i: usize| pool.stays[i] || pool.fits(i, candidate);
        let chain = pool.family.chain_of(first, passes);
        let stands = |start: &usize| !chain.contains(start);
        let mut begun: Vec<_> = chosen.starts.iter().copied().filter(stands).collect();
        if begun.len() == room.chains {
            continue;
        }
        let is_new = |&i: &usize| pool.fits(i, candidate) && !chosen.indexes.contains(&i);
        let more: Vec<_> = chain.into_iter().filter(is_new).collect();
        let size = |&index: &usize| pem::encoded_len(pool.stored[index].der().len());
        let with_these = bytes + more.iter().map(size).sum::<usize>();
        if with_these > room.bytes {
            chosen.warnings = vec![Warning::DataFull];
            continue;
        }
        begun.push(first);
        (chosen.starts, bytes) = (begun, with_these);
        chosen.indexes.extend(more);
    }
    chosen
}
