//! Who issued what.
//!
//! Names and key identifiers decide (RFC 5280 §4.1.2.4, §4.2.1.1). Generators give every CA they
//! make the same subject, some without key identifiers; only then a signature is checked, because
//! one check costs more than everything else together.

use std::cell::Cell;

use super::certs::{Bundle, Certificate};

/// The most signature checks for one decision: bounds the work that a hostile bundle of
/// look-alikes can cause to some milliseconds.
const MAX_SIGNATURE_CHECKS: u32 = 64;

/// The most certificates of an outgoing chain that are looked at.
pub const MAX_CHAIN: usize = 16;

/// Answers who issued what, within a budget of signature checks.
#[derive(Debug)]
pub struct Issuers {
    budget: Cell<u32>,
}

impl Default for Issuers {
    fn default() -> Self {
        Self { budget: Cell::new(MAX_SIGNATURE_CHECKS) }
    }
}

impl Issuers {
    /// Those of `among` that issued any certificate of `chain`, as indexes in order. Where
    /// names and key identifiers leave more than one candidate in `among` and `others` together,
    /// the signature decides.
    pub fn of_chain(
        &self,
        chain: &Bundle,
        among: &[Certificate],
        others: &[Certificate],
    ) -> Vec<usize> {
        let mut issued = vec![false; among.len()];
        for child in chain.certificates() {
            let mut candidates = matching(child, among);
            let rivals =
                others.iter().filter(|c| !among.contains(c) && could_have_issued(c, child)).count();
            if candidates.len() + rivals > 1 {
                candidates.retain(|&index| self.signed(&among[index], child));
            }
            for index in candidates {
                issued[index] = true;
            }
        }
        (0..among.len()).filter(|&index| issued[index]).collect()
    }

    /// Those of `among` that issued `child`, as indexes; none for a root.
    pub fn of(&self, child: &Certificate, among: &[Certificate]) -> Vec<usize> {
        if is_root(child) {
            return Vec::new();
        }
        let mut candidates = matching(child, among);
        if candidates.len() > 1 {
            candidates.retain(|&index| self.signed(&among[index], child));
        }
        candidates
    }

    fn signed(&self, issuer: &Certificate, child: &Certificate) -> bool {
        let Some(left) = self.budget.get().checked_sub(1) else { return false };
        self.budget.set(left);
        let (Some(issuer), Some(child)) = (issuer.parsed(), child.parsed()) else { return false };
        child.verify_signature(Some(issuer.public_key())).is_ok()
    }
}

/// Whether `certificate` ends a chain: it names itself as its issuer, and no key identifier says
/// that another key signed it (as in a cross-signed key rollover under one name).
pub fn is_root(certificate: &Certificate) -> bool {
    certificate.subject() == certificate.issuer()
        && key_ids_agree(certificate.authority_key_id(), certificate.subject_key_id())
}

fn matching(child: &Certificate, among: &[Certificate]) -> Vec<usize> {
    (0..among.len()).filter(|&index| could_have_issued(&among[index], child)).collect()
}

fn could_have_issued(issuer: &Certificate, child: &Certificate) -> bool {
    issuer.subject() == child.issuer()
        && key_ids_agree(child.authority_key_id(), issuer.subject_key_id())
}

fn key_ids_agree(authority: Option<&[u8]>, subject: Option<&[u8]>) -> bool {
    match (authority, subject) {
        (Some(authority), Some(subject)) => authority == subject,
        _ => true,
    }
}
