//! Finds the few fields of a certificate that the decision needs, without reading the rest.
//!
//! A parser of whole certificates spends most of its time on fields that the decision does not
//! need, four times for each review. This one walks the structure of RFC 5280 §4.1 (DER, X.690 §8
//! and §10), checks the type of every field, and decodes only the needed ones. It accepts every
//! certificate that `x509-parser` accepts, and finds the same fields: a fuzz target and the tests
//! of its corpus compare the two.

use std::ops::Range;

use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

/// The positions of the fields in a certificate's DER, and some of their values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    /// The subject, with its tag.
    pub(super) subject: Range<usize>,
    /// The issuer, with its tag.
    pub(super) issuer: Range<usize>,
    /// The subject key identifier (RFC 5280 §4.2.1.2).
    pub(super) subject_key_id: Option<Range<usize>>,
    /// The authority key identifier (RFC 5280 §4.2.1.1).
    pub(super) authority_key_id: Option<Range<usize>>,
    /// notAfter, in seconds since the Unix epoch.
    pub(super) not_after: i64,
    /// Whether basic constraints say CA:TRUE (RFC 5280 §4.2.1.9).
    pub(super) is_ca: bool,
}

impl Fields {
    /// Finds the fields. `None` if `der` is not exactly one certificate.
    pub(super) fn find(der: &[u8]) -> Option<Self> {
        let mut outer = Cursor::all(der);
        let mut certificate = outer.inside(SEQUENCE)?;
        if !outer.is_at_end() {
            return None;
        }
        let fields = Self::in_tbs(certificate.inside(SEQUENCE)?)?;
        certificate.algorithm()?;
        certificate.inside(BIT_STRING)?;
        Some(fields)
    }

    fn in_tbs(mut tbs: Cursor<'_>) -> Option<Self> {
        tbs.skip_if(VERSION)?;
        tbs.inside(INTEGER)?;
        tbs.algorithm()?;
        let issuer = tbs.expect(SEQUENCE)?.whole;
        let mut validity = tbs.inside(SEQUENCE)?;
        validity.next()?;
        let not_after = validity.next()?.whole;
        let subject = tbs.expect(SEQUENCE)?.whole;
        // A damaged key makes the certificate unreadable here: some readers reject a whole bundle
        // for it, so it must not be carried.
        let mut key = tbs.inside(SEQUENCE)?;
        key.next()?;
        key.inside(BIT_STRING)?;
        for unique_id in UNIQUE_IDS {
            tbs.skip_if(unique_id)?;
        }
        let (_, not_after) = ASN1Time::from_der(&tbs.der[not_after]).ok()?;
        let mut fields = Self {
            subject,
            issuer,
            subject_key_id: None,
            authority_key_id: None,
            not_after: not_after.timestamp(),
            is_ca: false,
        };
        if !tbs.is_at_end() {
            fields.read_extensions(tbs.inside(EXTENSIONS)?.inside(SEQUENCE)?)?;
        }
        Some(fields)
    }

    /// Reads the needed extensions. One that cannot be read counts as absent, because TLS libraries
    /// accept certificates with broken extensions.
    fn read_extensions(&mut self, mut extensions: Cursor<'_>) -> Option<()> {
        while !extensions.is_at_end() {
            let mut extension = extensions.inside(SEQUENCE)?;
            let id = extension.expect(OBJECT_IDENTIFIER)?.content;
            extension.skip_if(BOOLEAN)?;
            let mut value = extension.inside(OCTET_STRING)?;
            match &extension.der[id] {
                SUBJECT_KEY_IDENTIFIER => {
                    self.subject_key_id = value.expect(OCTET_STRING).map(|id| id.content);
                }
                AUTHORITY_KEY_IDENTIFIER => {
                    self.authority_key_id = value
                        .inside(SEQUENCE)
                        .and_then(|mut names| names.expect(KEY_IDENTIFIER))
                        .map(|id| id.content);
                }
                BASIC_CONSTRAINTS => {
                    let flag = value
                        .inside(SEQUENCE)
                        .and_then(|mut constraints| constraints.expect(BOOLEAN))
                        .map(|flag| &value.der[flag.content]);
                    self.is_ca = flag.is_some_and(|flag| flag.len() == 1 && flag[0] != 0);
                }
                _ => {}
            }
        }
        Some(())
    }
}

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// `[0]` around the version.
const VERSION: u8 = 0xa0;
/// `[1]` and `[2]`, implicit bit strings.
const UNIQUE_IDS: [u8; 2] = [0x81, 0x82];
/// `[3]` around the extensions.
const EXTENSIONS: u8 = 0xa3;
/// `[0]` of an authority key identifier, an implicit octet string.
const KEY_IDENTIFIER: u8 = 0x80;

/// 2.5.29.14
const SUBJECT_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 14];
/// 2.5.29.19
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
/// 2.5.29.35
const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 35];

/// Reads DER elements in order.
#[derive(Clone)]
struct Cursor<'a> {
    /// The whole certificate. Positions are relative to its start.
    der: &'a [u8],
    /// The range that is not read yet.
    left: Range<usize>,
}

/// A DER element: tag, length and content.
struct Element {
    tag: u8,
    content: Range<usize>,
    whole: Range<usize>,
}

impl<'a> Cursor<'a> {
    fn all(der: &'a [u8]) -> Self {
        Self { der, left: 0..der.len() }
    }

    fn is_at_end(&self) -> bool {
        self.left.is_empty()
    }

    /// Reads the next element, which must have this tag.
    fn expect(&mut self, tag: u8) -> Option<Element> {
        self.next().filter(|element| element.tag == tag)
    }

    /// A cursor over the content of the next element, which must have this tag.
    fn inside(&mut self, tag: u8) -> Option<Self> {
        Some(Self { der: self.der, left: self.expect(tag)?.content })
    }

    /// Skips an `AlgorithmIdentifier` (RFC 5280 §4.1.1.2). Its content is not checked: other
    /// readers accept unusual ones, and a CA that a peer can read must be carried.
    fn algorithm(&mut self) -> Option<()> {
        self.expect(SEQUENCE).map(drop)
    }

    /// Skips the next element if it has this tag.
    fn skip_if(&mut self, tag: u8) -> Option<()> {
        if self.der[self.left.clone()].first() == Some(&tag) {
            self.next()?;
        }
        Some(())
    }

    /// Reads the next element. Lengths are definite (X.690 §10.1). Tags of more than one byte do
    /// not occur in the fields that are read here.
    fn next(&mut self) -> Option<Element> {
        let (tag, rest) = self.der[self.left.clone()].split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, header) = match usize::from(*first) {
            short @ 0..0x80 => (short, 2),
            long => {
                let bytes =
                    rest.get(..long - 0x80).filter(|bytes| (1..=4).contains(&bytes.len()))?;
                let length = bytes.iter().fold(0, |sum, &byte| sum * 256 + usize::from(byte));
                (length, 2 + bytes.len())
            }
        };
        let start = self.left.start;
        let content = start + header..(start + header).checked_add(length)?;
        if content.end > self.left.end {
            return None;
        }
        self.left.start = content.end;
        Some(Element { tag: *tag, whole: start..content.end, content })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, IsCa, Issuer, KeyIdMethod, KeyPair,
        date_time_ymd,
    };
    use x509_parser::certificate::X509Certificate;
    use x509_parser::extensions::ParsedExtension;

    use super::*;

    fn certificates() -> Vec<Vec<u8>> {
        let mut params = CertificateParams::new(vec!["a.example".into()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        // From 2050 on dates have another type, GeneralizedTime (RFC 5280 §4.1.2.5).
        let key = KeyPair::generate().unwrap();
        let mut all = Vec::new();
        for year in [2030, 2060] {
            params.not_after = date_time_ymd(year, 3, 1);
            all.push(params.self_signed(&key).unwrap().der().to_vec());
        }
        let mut leaf = CertificateParams::new(vec!["b.example".into()]).unwrap();
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_identifier_method = KeyIdMethod::PreSpecified(vec![7; 300]);
        leaf.is_ca = IsCa::ExplicitNoCa;
        let nonsense = CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![0xff; 3]);
        leaf.custom_extensions.push(nonsense);
        let issuer = Issuer::new(params, key);
        let leaf_key = KeyPair::generate().unwrap();
        all.push(leaf.signed_by(&leaf_key, &issuer).unwrap().der().to_vec());
        all
    }

    fn id<'a>(range: Option<&Range<usize>>, der: &'a [u8]) -> Option<&'a [u8]> {
        range.map(|range| &der[range.clone()])
    }

    #[test]
    fn the_fields_are_those_that_x509_parser_finds() {
        for der in certificates() {
            let fields = Fields::find(&der).unwrap();
            let (_, full) = X509Certificate::from_der(&der).unwrap();
            assert_eq!(&der[fields.subject.clone()], full.subject().as_raw());
            assert_eq!(&der[fields.issuer.clone()], full.issuer().as_raw());
            assert_eq!(fields.not_after, full.validity().not_after.timestamp());
            assert_eq!(fields.is_ca, full.is_ca());
            let (mut subject, mut authority) = (None, None);
            for extension in full.extensions() {
                match extension.parsed_extension() {
                    ParsedExtension::SubjectKeyIdentifier(id) => subject = Some(id.0),
                    ParsedExtension::AuthorityKeyIdentifier(ids) => {
                        authority = ids.key_identifier.as_ref().map(|id| id.0);
                    }
                    _ => {}
                }
            }
            assert_eq!(id(fields.subject_key_id.as_ref(), &der), subject);
            assert_eq!(id(fields.authority_key_id.as_ref(), &der), authority);
        }
    }

    #[test]
    fn fields_that_are_not_needed_may_be_malformed() {
        let der = certificates().remove(0);
        let whole = Fields::find(&der).unwrap();
        let not_before = whole.issuer.end + 2;
        // A key follows the subject: the tag of its algorithm.
        let algorithm = whole.subject.end + 2;
        for (place, tag) in [(not_before, 0x17), (algorithm, SEQUENCE)] {
            let mut odd = der.clone();
            assert_eq!(odd[place], tag);
            odd[place] ^= 0x80;
            assert_eq!(Fields::find(&odd).unwrap().subject, whole.subject, "{place}");
        }
    }

    #[test]
    fn a_truncated_or_extended_certificate_is_rejected() {
        for der in certificates() {
            for end in 0..der.len() {
                assert_eq!(Fields::find(&der[..end]), None, "{end} of {} bytes", der.len());
            }
            assert_eq!(Fields::find(&[&der[..], &[0]].concat()), None);
        }
    }

    #[test]
    fn a_length_beyond_the_input_is_rejected() {
        let hostile: [&[u8]; 6] = [
            &[0x30, 0x80, 0, 0],
            &[0x30, 0xff],
            &[0x30, 0x85, 1, 0, 0, 0, 0],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x30],
        ];
        for der in hostile {
            assert_eq!(Fields::find(der), None, "{der:?}");
        }
    }

    #[test]
    fn a_changed_byte_never_causes_a_panic() {
        for der in certificates() {
            for at in 0..der.len() {
                for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                    let mut damaged = der.clone();
                    damaged[at] = value;
                    if let Some(fields) = Fields::find(&damaged) {
                        assert!(fields.subject.end <= der.len());
                    }
                }
            }
        }
    }
}
