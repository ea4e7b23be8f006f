//! The rule for keystores and truststores: they must hold what the PEM files hold.
//!
//! A Java keystore holds its certificates unencrypted, so they are compared. PKCS#12 usually
//! encrypts them with a password, which we do not have; then the times of the writes are compared.

use memchr::memmem;

use super::{Finding, Rule, numbered};
use crate::names;
use crate::tools::inspect::facts::Facts;
use crate::tools::text::printable;
use crate::x509::certs::Certificate;

/// The first bytes of a Java keystore: JKS and JCEKS.
const JAVA: [[u8; 4]; 2] = [[0xfe, 0xed, 0xfe, 0xed], [0xce, 0xce, 0xce, 0xce]];
/// The object identifiers of PKCS#7 data and encrypted data (RFC 2315 §14).
const DATA: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
const ENCRYPTED_DATA: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x06];

pub(super) fn check(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for (key, content) in &facts.object.stores {
        if content.is_empty() {
            continue;
        }
        // A truststore has `trust` in its key; any other store is for the leaf and its private key.
        let is_for_trust = key.to_ascii_lowercase().contains("trust");
        let (of, expected) = if is_for_trust {
            (names::CA_CRT, facts.ca.certificates())
        } else {
            let leaf = facts.chain.certificates();
            (names::TLS_CRT, leaf.get(..1).unwrap_or_default())
        };
        let why = if is_in_clear(content) {
            missing(content, of, expected)
        } else {
            older(facts, key, of).or_else(|| without_carried(facts, is_for_trust))
        };
        let Some(why) = why else { continue };
        let text = format!(
            "{key} does not match {of}: {why}. Readers of {key} get no overlap; make its generator \
             build it again from {of}."
        );
        findings.push(Finding::new(Rule::StaleTruststore, text).about(expected));
    }
}

/// Whether a store holds its certificates unencrypted.
fn is_in_clear(content: &[u8]) -> bool {
    let has = |what: &[u8]| memmem::find(content, what).is_some();
    let is_java = JAVA.iter().any(|magic| content.starts_with(magic));
    // With indefinite length (BER) a certificate can be split into pieces, so it is not comparable.
    let is_der = content.first() == Some(&0x30) && content.get(1) != Some(&0x80);
    is_java || (is_der && has(&DATA) && !has(&ENCRYPTED_DATA))
}

fn missing(content: &[u8], of: &str, expected: &[Certificate]) -> Option<String> {
    let is_missing = |i: &usize| memmem::find(content, expected[*i].der()).is_none();
    let missing: Vec<usize> = (0..expected.len()).filter(is_missing).collect();
    (!missing.is_empty()).then(|| format!("it lacks {} of {of}", numbered(&missing)))
}

fn older(facts: &Facts<'_>, key: &str, of: &str) -> Option<String> {
    let written = &facts.object.written;
    let (store, pem) = (written.get(key)?, written.get(of)?);
    (store.at < pem.at).then(|| {
        format!("it was last written at {}, {of} at {} by {}", store.at, pem.at, printable(&pem.by))
    })
}

/// A generator builds a truststore from the CAs that it writes, so it lacks the carried ones.
fn without_carried(facts: &Facts<'_>, is_for_trust: bool) -> Option<String> {
    let mut known = facts.outlook.certificates.iter();
    let carries = is_for_trust && known.any(|known| known.carried.is_some());
    carries.then(|| {
        "it is encrypted and cannot be compared, but its generator does not know the carried CA"
            .to_owned()
    })
}
