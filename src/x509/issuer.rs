//! Finds the issuers of certificates.
//!
//! Names and key identifiers decide (RFC 5280 §4.1.2.4, §4.2.1.1). Some generators give all their
//! CAs the same subject and no key identifier. Only then a signature is checked, because one check
//! costs more than all the rest together.

use std::cell::{Cell, OnceCell};

use super::certs::{Bundle, Certificate};

/// The budget of one request for signature checks, in bytes of certificates: enough for 64 checks
/// of ordinary ones. It limits the work that a hostile bundle of similar certificates can cause to
/// some milliseconds.
const SIGNATURE_BUDGET: usize = 64 * CHECK_COST;

/// The least cost of a check. A check of larger certificates costs their size, because it parses
/// both.
const CHECK_COST: usize = 4096;

/// The most certificates of a leaf's chain that are read.
pub const MAX_CHAIN: usize = 16;

/// Finds issuers within a budget of signature checks. All decisions about one request, or about one
/// Secret, share one: another would begin a new budget.
#[derive(Debug)]
pub struct Issuers {
    budget: Cell<usize>,
    has_refused: Cell<bool>,
}

impl Default for Issuers {
    fn default() -> Self {
        Self { budget: Cell::new(SIGNATURE_BUDGET), has_refused: Cell::new(false) }
    }
}

impl Issuers {
    /// The indexes of those in `among` that issued any certificate of `chain`. Where names and key
    /// identifiers leave more than one candidate in `among` and `others` together, the signature
    /// decides. No certificate may be in both.
    pub fn of_chain<'a>(
        &self,
        chain: &Bundle,
        among: &[Certificate],
        others: &(impl Iterator<Item = &'a Certificate> + Clone),
    ) -> Vec<usize> {
        let mut issued = vec![false; among.len()];
        for child in chain.certificates() {
            let mut candidates = matching(child, among);
            let rivals = others.clone().filter(|c| could_have_issued(c, child)).count();
            if candidates.len() + rivals > 1 {
                candidates.retain(|&index| self.signed(&among[index], child));
            }
            for index in candidates {
                issued[index] = true;
            }
        }
        (0..among.len()).filter(|&index| issued[index]).collect()
    }

    /// The indexes of those in `among` that issued `child`; none for a root. `others` are further
    /// candidates, as in [`Issuers::of_chain`].
    pub fn of(
        &self,
        child: &Certificate,
        among: &[Certificate],
        others: &[&Certificate],
    ) -> Vec<usize> {
        if is_root(child) {
            return Vec::new();
        }
        let mut candidates = matching(child, among);
        let rivals = others.iter().filter(|c| could_have_issued(c, child)).count();
        if candidates.len() + rivals > 1 {
            candidates.retain(|&index| self.signed(&among[index], child));
        }
        candidates
    }

    /// Whether the first certificate of `chain` is one of `anchors`, or verifies against one of
    /// them through the rest of the chain. Every step is checked by its signature.
    pub fn verifies(&self, chain: &[Certificate], anchors: &[Certificate]) -> bool {
        self.links(chain).any(|link| anchors.iter().any(|anchor| self.anchors(anchor, link)))
    }

    /// Which of `anchors` the first certificate of `chain` verifies against: as
    /// [`Issuers::verifies`] for each of them alone, with fewer checks.
    pub fn verifying(&self, chain: &[Certificate], anchors: &[Certificate]) -> Vec<bool> {
        let links: Vec<_> = self.links(chain).collect();
        let is_one = |anchor| links.iter().any(|link| self.anchors(anchor, link));
        anchors.iter().map(is_one).collect()
    }

    /// Whether a check exceeded the budget. Then a negative answer may be wrong.
    pub fn has_refused(&self) -> bool {
        self.has_refused.get()
    }

    /// The first certificate of a chain, the one that issued it, and so on.
    fn links<'a>(&self, chain: &'a [Certificate]) -> impl Iterator<Item = &'a Certificate> {
        let mut rest: Vec<&Certificate> = chain.iter().collect();
        let mut below: Option<&Certificate> = None;
        std::iter::from_fn(move || {
            let is_next = |link: &&Certificate| below.is_none_or(|below| self.issued(link, below));
            let next = rest.iter().position(is_next)?;
            below = Some(rest.remove(next));
            below
        })
    }

    fn anchors(&self, anchor: &Certificate, link: &Certificate) -> bool {
        anchor == link || self.issued(anchor, link)
    }

    fn issued(&self, issuer: &Certificate, child: &Certificate) -> bool {
        could_have_issued(issuer, child) && self.signed(issuer, child)
    }

    fn signed(&self, issuer: &Certificate, child: &Certificate) -> bool {
        let cost = CHECK_COST.max(issuer.der().len() + child.der().len());
        let Some(left) = self.budget.get().checked_sub(cost) else {
            self.has_refused.set(true);
            return false;
        };
        self.budget.set(left);
        #[cfg(test)]
        CHECKS.set(CHECKS.get() + 1);
        let (Some(issuer), Some(child)) = (issuer.parsed(), child.parsed()) else { return false };
        child.verify_signature(Some(issuer.public_key())).is_ok()
    }
}

#[cfg(test)]
thread_local!(static CHECKS: Cell<usize> = const { Cell::new(0) });

/// How many signatures this thread has checked, with whatever budget.
#[cfg(test)]
pub(crate) fn signature_checks() -> usize {
    CHECKS.get()
}

/// The issuers of all certificates of one bundle. Each is found only once, because callers walk the
/// chain of every certificate.
pub struct IssuerGraph<'a> {
    certificates: &'a [Certificate],
    others: Vec<&'a Certificate>,
    issuers: &'a Issuers,
    found: Vec<OnceCell<Vec<usize>>>,
}

impl<'a> IssuerGraph<'a> {
    /// Takes the certificates of one bundle, and `others` that can have issued some of them: the
    /// bundle that they are appended to. Without these the chains would differ from those in the
    /// result.
    pub fn new(
        certificates: &'a [Certificate],
        others: Vec<&'a Certificate>,
        issuers: &'a Issuers,
    ) -> Self {
        let found = certificates.iter().map(|_| OnceCell::new()).collect();
        Self { certificates, others, issuers, found }
    }

    /// The chain of a certificate: the certificate and its issuers up to the root, each once.
    /// Follows only issuers for which `passes` is true.
    pub fn chain_of(&self, first: usize, passes: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut chain = vec![first];
        let mut next = 0;
        while let Some(&index) = chain.get(next) {
            for &issuer in self.issuers_of(index) {
                if passes(issuer) && !chain.contains(&issuer) {
                    chain.push(issuer);
                }
            }
            next += 1;
        }
        chain
    }

    fn issuers_of(&self, index: usize) -> &[usize] {
        self.found[index].get_or_init(|| {
            self.issuers.of(&self.certificates[index], self.certificates, &self.others)
        })
    }
}

/// Whether `certificate` ends a chain: it names itself as its issuer, and no key identifier says
/// that another key signed it. In a cross-signed key rollover under one name, one does.
pub fn is_root(certificate: &Certificate) -> bool {
    certificate.subject() == certificate.issuer()
        && key_ids_agree(certificate.authority_key_id(), certificate.subject_key_id())
}

fn matching(child: &Certificate, among: &[Certificate]) -> Vec<usize> {
    (0..among.len()).filter(|&index| could_have_issued(&among[index], child)).collect()
}

/// Whether names and key identifiers let `issuer` be the issuer of `child`.
pub(crate) fn could_have_issued(issuer: &Certificate, child: &Certificate) -> bool {
    issuer.subject() == child.issuer()
        && key_ids_agree(child.authority_key_id(), issuer.subject_key_id())
}

fn key_ids_agree(authority: Option<&[u8]>, subject: Option<&[u8]>) -> bool {
    match (authority, subject) {
        (Some(authority), Some(subject)) => authority == subject,
        _ => true,
    }
}
