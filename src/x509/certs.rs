//! The certificates of a PEM bundle.

use std::fmt;
use std::ops::Range;

use jiff::Timestamp;
use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::nom::Parser as _;

use super::fields::Fields;
use super::pem;

/// The readable certificates of a PEM text, each once, in order.
#[derive(Debug, Default)]
pub struct Bundle {
    certificates: Vec<Certificate>,
    /// The place of every readable block, with the index of its certificate.
    places: Vec<(Range<usize>, usize)>,
    /// Whether a block claims to be a certificate, to some reader, and cannot be read as one here.
    pub has_unreadable: bool,
}

/// More certificate blocks than the limit given to [`Bundle::parse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

impl Bundle {
    /// Reads `text`. Blocks that are no plain `CERTIFICATE` block, or do not hold X.509, are not
    /// certificates of the bundle. Nothing is decoded if more than `limit` blocks claim to be
    /// certificates, so that a large trust store costs one scan.
    pub fn parse(text: &[u8], limit: usize) -> Result<Self, TooMany> {
        let claim = || pem::blocks(text).filter(pem::Block::is_certificate_to_some);
        // A text of fewer bytes cannot hold too many, and need not be read twice.
        if text.len() / pem::MIN_BLOCK > limit && claim().nth(limit).is_some() {
            return Err(TooMany);
        }
        let mut bundle = Self::default();
        for block in claim() {
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

    /// Whether `certificate` is one of these, by its exact DER.
    pub fn contains(&self, certificate: &Certificate) -> bool {
        self.certificates.contains(certificate)
    }

    /// Whether there is no readable certificate.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// `text`, which this bundle was read from, without the blocks of the certificates for which
    /// `cut` is true. Every other byte stays.
    pub fn without(&self, text: &[u8], cut: impl Fn(&Certificate) -> bool) -> Vec<u8> {
        let mut kept = Vec::with_capacity(text.len());
        let mut position = 0;
        for (span, index) in &self.places {
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
        self.places.push((span, index));
    }
}

/// An X.509 certificate (RFC 5280). Two are the same if their DER is: neither subject, serial
/// number nor key identify one, because generators reuse all three.
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    fields: Fields,
}

impl Certificate {
    /// Reads a certificate; `None` if `der` is not exactly one.
    pub fn from_der(der: Vec<u8>) -> Option<Self> {
        let fields = Fields::find(&der)?;
        Some(Self { der, fields })
    }

    /// The exact encoding.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The SHA-256 of the DER.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    /// The subject, as encoded.
    pub fn subject(&self) -> &[u8] {
        &self.der[self.fields.subject.clone()]
    }

    /// The issuer, as encoded.
    pub fn issuer(&self) -> &[u8] {
        &self.der[self.fields.issuer.clone()]
    }

    /// The subject key identifier (RFC 5280 §4.2.1.2).
    pub fn subject_key_id(&self) -> Option<&[u8]> {
        self.fields.subject_key_id.clone().map(|range| &self.der[range])
    }

    /// The key identifier of the issuer (RFC 5280 §4.2.1.1).
    pub fn authority_key_id(&self) -> Option<&[u8]> {
        self.fields.authority_key_id.clone().map(|range| &self.der[range])
    }

    /// Whether basic constraints say that it is a CA (RFC 5280 §4.2.1.9).
    pub fn is_ca(&self) -> bool {
        self.fields.is_ca
    }

    /// When it expires, in seconds since the Unix epoch.
    pub fn not_after(&self) -> i64 {
        self.fields.not_after
    }

    /// Whether it is expired at `now`: notAfter itself counts as expired.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.fields.not_after <= now.as_second()
    }

    /// Whether the library reads all of it, too, not only the fields that are kept here.
    pub fn is_well_formed(&self) -> bool {
        self.parsed().is_some()
    }

    /// Read in full, for the rare questions that need more than the fields kept here.
    pub fn parsed(&self) -> Option<X509Certificate<'_>> {
        // Extensions stay unread: one that this library dislikes must not make a certificate
        // unusable that TLS libraries accept.
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

/// The SHA-256 of a certificate's DER; shown as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate's encoding.
    pub fn of(der: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits of either case; colons are ignored, as tools print them.
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
