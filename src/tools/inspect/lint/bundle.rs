//! Rules for the contents of `ca.crt`, and for PEM blocks and sizes.

use std::collections::BTreeMap;

use super::{Finding, Rule, numbered};
use crate::names;
use crate::overlap::exempt::Exemption;
use crate::tools::inspect::facts::{Facts, LeftAlone, in_full};
use crate::tools::text::{day, printable, subject};
use crate::x509::certs::Certificate;
use crate::x509::pem;
use crate::x509::strict::{self, Flaw};

/// The API server's limit for the decoded values of a Secret, in bytes.
const MAX_DATA: usize = 1_048_576;

pub(super) fn check(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    let object = facts.object;
    for (key, text) in [
        (names::CA_CRT, &object.ca_crt),
        (names::TLS_CRT, &object.tls_crt),
        (names::PENDING_TLS_CRT, &object.pending_tls_crt),
    ] {
        findings.extend(text.as_deref().into_iter().flat_map(|text| blocks(key, text)));
    }
    for (index, certificate) in facts.ca.certificates().iter().enumerate() {
        findings.extend(dates(index, certificate, facts));
    }
    findings.extend(no_ca(facts));
    findings.extend(same_subject(facts.ca.certificates()));
    findings.extend(reused_serials(facts));
    findings.extend(in_signer(facts));
    if object.size > MAX_DATA / 10 * 9 {
        let text = format!(
            "The values have {} bytes together, and a Secret may have {MAX_DATA}: a previous CA \
             may not fit.",
            object.size
        );
        findings.push(Finding::new(Rule::NearSizeLimit, text));
    }
}

/// Finds private keys, and blocks that some readers cannot read.
fn blocks(key: &str, text: &[u8]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, block) in pem::blocks(text).enumerate() {
        let number = index + 1;
        let label = printable(&String::from_utf8_lossy(block.label));
        if block.label.ends_with(b"PRIVATE KEY") {
            let text = format!(
                "Block {number} of {key} is a private key ({label}), and every client gets {key}: \
                 remove the key, and replace it and every certificate that was issued with it."
            );
            findings.push(Finding::new(Rule::PrivateKeyInBundle, text));
        } else if !block.is_certificate() {
            let text = format!(
                "Block {number} of {key} is labelled {label}, not CERTIFICATE: some readers skip \
                 it, others reject the whole file."
            );
            findings.push(Finding::new(Rule::UnreadableBlock, text));
        } else {
            findings.extend(refused(key, number, block.contents()));
        }
    }
    findings.extend(after_mark(key, text));
    if findings.is_empty() && !text.is_empty() && pem::blocks(text).next().is_none() {
        let text = format!("{key} has no PEM block: readers find no certificate.");
        findings.push(Finding::new(Rule::UnreadableBlock, text));
    }
    findings
}

/// Finds what some readers reject in a `CERTIFICATE` block.
fn refused(key: &str, number: usize, contents: Option<Vec<u8>>) -> Option<Finding> {
    let flaw = contents.as_deref().map_or(Some(Flaw::NotDer), strict::flaw);
    match (flaw, contents.and_then(Certificate::from_der)) {
        (None, Some(_)) => None,
        (None | Some(Flaw::NotDer), None) => {
            let text = format!(
                "Block {number} of {key} is not a readable certificate (truncated, with headers, \
                 or not X.509): some readers skip it, others reject the whole file."
            );
            Some(Finding::new(Rule::UnreadableBlock, text))
        }
        (Some(flaw), certificate) => {
            let text = format!(
                "Some readers reject the certificate in block {number} of {key}, or the whole \
                 file: {flaw}. Such a CA is not carried; make the generator issue another one."
            );
            Some(Finding::new(Rule::of_flaw(flaw), text).about(&certificate))
        }
    }
}

/// Finds a byte order mark before a block.
fn after_mark(key: &str, text: &[u8]) -> Option<Finding> {
    let begin = [pem::BYTE_ORDER_MARK, b"-----BEGIN "].concat();
    memchr::memmem::find(text, &begin)?;
    let text = format!(
        "A byte order mark is before a block of {key}. Go does not find that block, Java rejects \
         the whole file, and OpenSSL finds it only at the start of the text or right after another \
         block: write UTF-8 without the mark."
    );
    Some(Finding::new(Rule::UnreadableBlock, text))
}

fn dates(index: usize, certificate: &Certificate, facts: &Facts<'_>) -> Option<Finding> {
    let begin = certificate.parsed().map(|parsed| parsed.validity().not_before.timestamp());
    let who = format!("Certificate {} of ca.crt", index + 1);
    let (rule, text) = if certificate.is_expired(facts.now) {
        let goes = if facts.is_carried(certificate) {
            "it is carried, and is dropped at the next write of the Secret"
        } else {
            "only the generator can remove it"
        };
        let end = day(certificate.not_after());
        let text = format!("{who} expired on {end}. Some readers reject the whole file; {goes}.");
        (Rule::CaExpired, text)
    } else if begin.is_some_and(|begin| begin > facts.now.as_second()) {
        let begin = day(begin.unwrap_or_default());
        (Rule::CaNotYetValid, format!("{who} is not valid before {begin}: readers reject it."))
    } else {
        return None;
    };
    Some(Finding::new(rule, text).about([certificate]))
}

fn no_ca(facts: &Facts<'_>) -> Option<Finding> {
    let certificates = facts.ca.certificates();
    let no_ca = |index: &usize| !is_ca(&certificates[*index]);
    let which: Vec<usize> = (0..certificates.len()).filter(no_ca).collect();
    if which.is_empty() {
        return None;
    }
    let text = format!(
        "In ca.crt, {} may not sign certificates (basic constraints, key usage). Readers reject \
         the leaves of such a CA; only some readers trust a self-signed leaf.",
        numbered(&which)
    );
    Some(Finding::new(Rule::NotACa, text).about(which.iter().map(|&index| &certificates[index])))
}

/// Whether a certificate may sign others, by its basic constraints and its key usage, if present.
fn is_ca(certificate: &Certificate) -> bool {
    let may_sign = in_full(certificate).and_then(|parsed| {
        let usage = parsed.key_usage().ok().flatten()?;
        Some(usage.value.key_cert_sign())
    });
    certificate.is_ca() && may_sign != Some(false)
}

fn same_subject(certificates: &[Certificate]) -> Vec<Finding> {
    let mut by_subject: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
    for (index, certificate) in certificates.iter().enumerate() {
        by_subject.entry(certificate.subject()).or_default().push(index);
    }
    let key = |index: &usize| {
        certificates[*index].parsed().map(|parsed| parsed.public_key().raw.to_vec())
    };
    let differ = |indexes: &Vec<usize>| indexes.iter().any(|i| key(i) != key(&indexes[0]));
    let namesakes = by_subject.into_values().filter(differ);
    namesakes.flat_map(|indexes| namesakes_findings(&indexes, certificates)).collect()
}

fn namesakes_findings(indexes: &[usize], certificates: &[Certificate]) -> Vec<Finding> {
    let all = || indexes.iter().map(|&index| &certificates[index]);
    let (which, subject) = (numbered(indexes), subject(&certificates[indexes[0]]));
    let text = format!(
        "In ca.crt, {which} have the subject {subject} and different keys. Readers that choose the \
         issuer by name take the wrong one; those that file CAs under their subject keep only the \
         last. Make the generator put a number or date into the subject, or set the label \
         ca-overlap.dev/mode=off."
    );
    let mut findings = vec![Finding::new(Rule::SameSubject, text).about(all())];
    if all().any(|certificate| certificate.subject_key_id().is_none()) {
        let text = format!(
            "In ca.crt, {which} have the subject {subject}, different keys and no key ids. OpenSSL \
             uses only the first of them: the overlap has no effect there. Make the generator \
             write key identifiers."
        );
        findings.push(Finding::new(Rule::SameSubjectWithoutKeyIds, text).about(all()));
    }
    findings
}

fn reused_serials(facts: &Facts<'_>) -> Vec<Finding> {
    let mut all: Vec<&Certificate> = Vec::new();
    for bundle in [&facts.ca, &facts.chain, &facts.pending] {
        let new = bundle.certificates().iter().filter(|c| !all.contains(c)).collect::<Vec<_>>();
        all.extend(new);
    }
    let mut by_serial: BTreeMap<(&[u8], Vec<u8>), Vec<&Certificate>> = BTreeMap::new();
    for certificate in all {
        let Some(parsed) = certificate.parsed() else { continue };
        let serial = parsed.raw_serial().to_vec();
        by_serial.entry((certificate.issuer(), serial)).or_default().push(certificate);
    }
    let reused = by_serial.into_iter().filter(|(_, which)| which.len() > 1);
    let finding = |((_, serial), which): ((&[u8], Vec<u8>), Vec<&Certificate>)| {
        let text = format!(
            "{} certificates have the same issuer name and the serial number {}. Firefox and other \
             NSS clients reject them (SEC_ERROR_REUSED_ISSUER_AND_SERIAL). Make the generator use \
             random serial numbers.",
            which.len(),
            hexadecimal(&serial)
        );
        Finding::new(Rule::ReusedSerial, text).about(which)
    };
    reused.map(finding).collect()
}

/// Bytes as openssl prints serial numbers.
pub(in crate::tools::inspect) fn hexadecimal(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(":")
}

fn in_signer(facts: &Facts<'_>) -> Option<Finding> {
    let is_signer = facts.left_alone == Some(LeftAlone::Data(Exemption::Signer));
    if !is_signer || facts.ca.certificates().len() < 2 {
        return None;
    }
    let text = "This is the signing Secret of a CA, and its ca.crt holds more than one \
                certificate. Readers of such Secrets take either the first or the last one as the \
                root that they distribute: keep only the certificate that belongs to the key.";
    Some(Finding::new(Rule::BundleInSigner, text).about(facts.ca.certificates()))
}
