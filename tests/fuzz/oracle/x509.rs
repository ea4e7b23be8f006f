//! Certificates as other libraries read them: PEM by rustls-pki-types, dates by x509-parser, trust
//! anchors by webpki.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The contents of the readable `CERTIFICATE` blocks.
pub fn certificates(text: &[u8]) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(text).flatten().map(|der| der.to_vec()).collect()
}

/// The certificates that all readers find. rustls-pki-types skips a BEGIN line inside a block, and
/// accepts a boundary in the middle of a line; Go and the product do not.
pub fn undisputed(text: &[u8]) -> Vec<Vec<u8>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let text = String::from_utf8_lossy(text);
    let begins_line = |before: &str| before.is_empty() || before.ends_with('\n');
    let blocks = text.split_inclusive(END).filter_map(|part| {
        let begin = part.rfind(BEGIN)?;
        let is_whole =
            begins_line(&part[..begin]) && part.strip_suffix(END).is_some_and(begins_line);
        is_whole.then(|| format!("{}\n", &part[begin..]))
    });
    blocks.flat_map(|block| certificates(block.as_bytes())).collect()
}

pub fn sha256(der: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    digest.as_ref().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The expiry, in seconds since the Unix epoch.
pub fn not_after(der: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// Whether webpki, the verifier of rustls, accepts it as a trust anchor.
pub fn is_anchor(der: &[u8]) -> bool {
    RootCertStore::empty().add(CertificateDer::from(der)).is_ok()
}

/// PEM with lines of `columns`.
pub fn pem(label: &str, der: &[u8], columns: usize, line_end: &str) -> String {
    let encoded = BASE64_STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----{line_end}");
    for line in encoded.as_bytes().chunks(columns.max(1)) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push_str(line_end);
    }
    pem + &format!("-----END {label}-----{line_end}")
}

/// PEM as RFC 7468 §3 recommends it.
pub fn canonical(der: &[u8]) -> String {
    pem("CERTIFICATE", der, 64, "\n")
}
