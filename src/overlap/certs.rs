//! The certificates of a PEM bundle.

use std::fmt;
use std::ops::Range;

use jiff::Timestamp;
use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::extensions::{AuthorityKeyIdentifier, BasicConstraints, KeyIdentifier};
use x509_parser::nom::Parser as _;
use x509_parser::oid_registry::{
    OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_BASIC_CONSTRAINTS,
    OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
};
use x509_parser::prelude::FromDer;

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
        let claimed: Vec<_> =
            pem::blocks(text).filter(pem::Block::is_certificate_to_some).take(limit + 1).collect();
        if claimed.len() > limit {
            return Err(TooMany);
        }
        let mut bundle = Self::default();
        for block in claimed {
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
    subject: Range<usize>,
    issuer: Range<usize>,
    subject_key_id: Option<Range<usize>>,
    authority_key_id: Option<Range<usize>>,
    not_after: i64,
    is_ca: bool,
}

impl Certificate {
    /// Reads a certificate; `None` if `der` is not exactly one.
    pub fn from_der(der: Vec<u8>) -> Option<Self> {
        // Extensions are read one by one below: one that this parser dislikes must not make a
        // certificate unreadable that TLS libraries accept.
        let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
        let (rest, parsed) = parser.parse(&der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let mut subject_key_id = None;
        let mut authority_key_id = None;
        let mut is_ca = false;
        for extension in parsed.extensions() {
            if extension.oid == OID_X509_EXT_SUBJECT_KEY_IDENTIFIER {
                subject_key_id = KeyIdentifier::from_der(extension.value).ok().map(|(_, id)| id.0);
            } else if extension.oid == OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER {
                authority_key_id = AuthorityKeyIdentifier::from_der(extension.value)
                    .ok()
                    .and_then(|(_, id)| id.key_identifier)
                    .map(|id| id.0);
            } else if extension.oid == OID_X509_EXT_BASIC_CONSTRAINTS {
                is_ca = BasicConstraints::from_der(extension.value).is_ok_and(|(_, b)| b.ca);
            }
        }
        let subject = range_in(&der, parsed.subject().as_raw())?;
        let issuer = range_in(&der, parsed.issuer().as_raw())?;
        let subject_key_id = subject_key_id.and_then(|id| range_in(&der, id));
        let authority_key_id = authority_key_id.and_then(|id| range_in(&der, id));
        let not_after = parsed.validity().not_after.timestamp();
        Some(Self { der, subject, issuer, subject_key_id, authority_key_id, not_after, is_ca })
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
        &self.der[self.subject.clone()]
    }

    /// The issuer, as encoded.
    pub fn issuer(&self) -> &[u8] {
        &self.der[self.issuer.clone()]
    }

    /// The subject key identifier (RFC 5280 §4.2.1.2).
    pub fn subject_key_id(&self) -> Option<&[u8]> {
        self.subject_key_id.clone().map(|range| &self.der[range])
    }

    /// The key identifier of the issuer (RFC 5280 §4.2.1.1).
    pub fn authority_key_id(&self) -> Option<&[u8]> {
        self.authority_key_id.clone().map(|range| &self.der[range])
    }

    /// Whether basic constraints say that it is a CA (RFC 5280 §4.2.1.9).
    pub fn is_ca(&self) -> bool {
        self.is_ca
    }

    /// When it expires, in seconds since the Unix epoch.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Whether it is expired at `now`: notAfter itself counts as expired.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.not_after <= now.as_second()
    }

    /// Parsed anew, for the rare questions that need more than the fields kept here.
    pub fn parsed(&self) -> Option<X509Certificate<'_>> {
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
            *byte = u8::try_from(high << 4 | low).ok()?;
        }
        digits.next().is_none().then_some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The place of `inner` in `outer`, of which it is a part.
fn range_in(outer: &[u8], inner: &[u8]) -> Option<Range<usize>> {
    let start = (inner.as_ptr() as usize).checked_sub(outer.as_ptr() as usize)?;
    let end = start.checked_add(inner.len())?;
    (end <= outer.len()).then_some(start..end)
}
