//! A bundle: the certificates of a PEM text.

use std::fmt;
use std::ops::Range;

use jiff::Timestamp;
use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::nom::Parser as _;

use super::fields::Fields;
use super::pem;
use super::strict::{self, Flaw};

/// The readable certificates of a PEM text, each once, in order.
#[derive(Debug, Default)]
pub struct Bundle {
    certificates: Vec<Certificate>,
    /// The span of every readable block, with the index of its certificate.
    spans: Vec<(Range<usize>, usize)>,
    /// Whether a block claims to be a certificate for some reader, but cannot be read as one here.
    pub has_unreadable: bool,
}

/// The error for more certificate blocks than the limit given to [`Bundle::parse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyBlocks;

impl Bundle {
    /// Reads `text`. A block counts only if it is a plain `CERTIFICATE` block that holds X.509. If
    /// more than `limit` blocks claim to be certificates, none is decoded, so that a large trust
    /// store costs only one scan.
    pub fn parse(text: &[u8], limit: usize) -> Result<Self, TooManyBlocks> {
        let claimed = || pem::blocks(text).filter(pem::Block::is_certificate_to_some);
        // A shorter text cannot hold too many blocks, so it need not be scanned twice.
        if text.len() / pem::MIN_BLOCK > limit && claimed().nth(limit).is_some() {
            return Err(TooManyBlocks);
        }
        let mut bundle = Self::default();
        for block in claimed() {
            let contents = block.is_certificate().then(|| block.contents()).flatten();
            match contents.and_then(Certificate::from_der) {
                Some(certificate) => bundle.push(block.span, certificate),
                None => bundle.has_unreadable = true,
            }
        }
        Ok(bundle)
    }

    /// The certificates, each once, in the order of their first appearance.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Whether the bundle holds `certificate`, by exact DER.
    pub fn contains(&self, certificate: &Certificate) -> bool {
        self.certificates.contains(certificate)
    }

    /// Whether there is no readable certificate.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// The text without the blocks of the certificates for which `cut` is true. Every other byte
    /// stays. `text` must be the text that this bundle was read from.
    pub fn without(&self, text: &[u8], cut: impl Fn(&Certificate) -> bool) -> Vec<u8> {
        let mut kept = Vec::with_capacity(text.len());
        let mut position = 0;
        for (span, index) in &self.spans {
            if cut(&self.certificates[*index]) {
                kept.extend_from_slice(&text[position..span.start]);
                position = span.end;
            }
        }
        kept.extend_from_slice(&text[position..]);
        kept
    }

    fn push(&mut self, span: Range<usize>, certificate: Certificate) {
        let known = self.certificates.iter().position(|c| *c == certificate);
        let index = known.unwrap_or_else(|| {
            self.certificates.push(certificate);
            self.certificates.len() - 1
        });
        self.spans.push((span, index));
    }
}

/// An X.509 certificate (RFC 5280). Two are equal if their DER is. Subject, serial number and key
/// do not identify a certificate, because generators reuse all three.
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    fields: Fields,
}

impl Certificate {
    /// Reads a certificate. `None` if `der` is not exactly one certificate.
    pub fn from_der(der: Vec<u8>) -> Option<Self> {
        let fields = Fields::find(&der)?;
        Some(Self { der, fields })
    }

    /// The DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The DER, without a copy.
    pub fn into_der(self) -> Vec<u8> {
        self.der
    }

    /// The SHA-256 of the DER.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    /// The DER of the subject.
    pub fn subject(&self) -> &[u8] {
        &self.der[self.fields.subject.clone()]
    }

    /// The DER of the issuer's name.
    pub fn issuer(&self) -> &[u8] {
        &self.der[self.fields.issuer.clone()]
    }

    /// The subject key identifier (RFC 5280 §4.2.1.2).
    pub fn subject_key_id(&self) -> Option<&[u8]> {
        self.fields.subject_key_id.clone().map(|range| &self.der[range])
    }

    /// The authority key identifier: that of the issuer's key (RFC 5280 §4.2.1.1).
    pub fn authority_key_id(&self) -> Option<&[u8]> {
        self.fields.authority_key_id.clone().map(|range| &self.der[range])
    }

    /// Whether its basic constraints say CA:TRUE (RFC 5280 §4.2.1.9).
    pub fn is_ca(&self) -> bool {
        self.fields.is_ca
    }

    /// notAfter, in seconds since the Unix epoch.
    pub fn not_after(&self) -> i64 {
        self.fields.not_after
    }

    /// Whether it has expired at `now`. At notAfter itself it has.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.fields.not_after <= now.as_second()
    }

    /// Why some readers would reject it, and the whole file that it is in; `None` if all accept it.
    pub fn flaw(&self) -> Option<Flaw> {
        strict::flaw(&self.der)
    }

    /// Parses the whole certificate, for the few callers that need more than the stored fields.
    pub fn parsed(&self) -> Option<X509Certificate<'_>> {
        // Extensions are not parsed: x509-parser rejects some that TLS libraries accept.
        let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
        parser.parse(&self.der).ok().map(|(_, parsed)| parsed)
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.fingerprint())
    }
}

/// The SHA-256 of a certificate's DER. Prints as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Computes the fingerprint of a certificate's DER.
    pub fn of(der: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// Parses 64 hexadecimal digits of either case. Ignores colons, which many tools print.
    pub fn parse(text: &str) -> Option<Self> {
        let mut digits = text.bytes().filter(|&b| b != b':').map(|b| char::from(b).to_digit(16));
        let mut bytes = [0; 32];
        for byte in &mut bytes {
            let high = digits.next()??;
            let low = digits.next()??;
            *byte = u8::try_from(high * 16 + low).ok()?;
        }
        digits.next().is_none().then_some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        let digits = self.0.map(|byte| [byte >> 4, byte & 15].map(|n| DIGITS[usize::from(n)]));
        f.write_str(str::from_utf8(digits.as_flattened()).unwrap_or_default())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
