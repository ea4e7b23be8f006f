//! Whether every reader accepts a certificate.
//!
//! Some readers reject a whole file for one certificate in it: OpenSSL for a number or a text that
//! is not encoded as DER asks, programs that call Go's `x509.ParseCertificate`, Java's
//! `CertificateFactory` or rustls for each block, for more. The generator's new CA stands in the
//! same file, so nothing that one of them refuses is carried. The rules are those of DER (X.690
//! §8, §10, §11), of RFC 5280 §4, and of these readers.

use std::fmt;
use std::iter::Peekable;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1,
    EcdsaVerificationAlgorithm, ParsedPublicKey,
};
use der::asn1::{AnyRef, BitStringRef, IntRef};
use der::{Decode, Reader, SliceReader, Tag, TagNumber, Tagged};
use jiff::civil::DateTime;

/// Why a reader rejects a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Default, strum::VariantArray))]
pub enum Flaw {
    /// A length, a number or a flag is not encoded as DER asks, a part is missing, or it is larger
    /// than 64 KiB.
    #[cfg_attr(test, default)]
    NotDer,
    /// A name is empty, or a text has characters that its type does not have.
    InvalidText,
    /// The serial number is negative.
    NegativeSerial,
    /// An extension occurs twice.
    DuplicateExtension,
    /// A date does not exist, or is not written as RFC 5280 §4.1.2.5 asks.
    InvalidDate,
    /// The public key is damaged, or of a kind that some readers know and refuse.
    UnreadableKey,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotDer => "it is not exact DER, or too large",
            Self::InvalidText => "a name is empty or malformed",
            Self::NegativeSerial => "its serial number is negative",
            Self::DuplicateExtension => "it has an extension twice",
            Self::InvalidDate => "a date is malformed",
            Self::UnreadableKey => "its public key is damaged or unusual",
        })
    }
}

/// The first flaw of a certificate; `None` if every reader accepts it.
pub fn flaw(der: &[u8]) -> Option<Flaw> {
    check(der).err()
}

type Checked<T = ()> = Result<T, Flaw>;

fn check(der: &[u8]) -> Checked {
    /// In bytes. rustls reads lengths of at most two bytes.
    const MAX_SIZE: usize = 0xffff + 4;
    is(der.len() <= MAX_SIZE, Flaw::NotDer)?;
    let certificate = AnyRef::from_der(der).map_err(not_der)?;
    is(certificate.tag() == Tag::Sequence, Flaw::NotDer)?;
    let [tbs, algorithm, signature] = parts(certificate)?;
    let mut fields = children(expect(tbs, Tag::Sequence)?)?.peekable();
    let version = match next_context(&mut fields, 0) {
        None => 1,
        Some(number) => {
            let [number] = parts(number)?;
            match expect(number, Tag::Integer)?.value() {
                [number @ 0..=2] => number + 1,
                _ => return Err(Flaw::NotDer),
            }
        }
    };
    let mut field = |tag| expect(fields.next().ok_or(Flaw::NotDer)??, tag);
    let serial = field(Tag::Integer)?;
    check_value(serial, 0)?;
    is(serial.value().first().is_some_and(|byte| byte & 0x80 == 0), Flaw::NegativeSerial)?;
    is(field(Tag::Sequence)? == algorithm, Flaw::NotDer)?;
    check_algorithm(algorithm)?;
    bit_string(expect(signature, Tag::BitString)?)?;
    let issuer = field(Tag::Sequence)?;
    check_name(issuer)?;
    let times: [AnyRef<'_>; 2] = parts(field(Tag::Sequence)?)?;
    let is_time = |time: &AnyRef<'_>| matches!(time.tag(), Tag::UtcTime | Tag::GeneralizedTime);
    is(times.iter().all(is_time), Flaw::InvalidDate)?;
    times.into_iter().try_for_each(|time| check_value(time, 0))?;
    let subject = field(Tag::Sequence)?;
    if subject != issuer {
        check_name(subject)?;
    }
    check_key(field(Tag::Sequence)?)?;
    // Unique identifiers (RFC 5280 §4.1.2.8) are refused: rustls does not know them.
    let extensions = if version == 3 { next_context(&mut fields, 3) } else { None };
    is(fields.next().is_none(), Flaw::NotDer)?;
    extensions.map_or(Ok(()), check_extensions)
}

/// Checks a value and everything in it, by tags.
fn check_value(value: AnyRef<'_>, depth: usize) -> Checked {
    /// Far more than a certificate has.
    const MAX_DEPTH: usize = 16;
    let bytes = value.value();
    match value.tag() {
        Tag::Boolean => value.decode_as::<bool>().map(drop).map_err(not_der),
        Tag::Integer => value.decode_as::<IntRef<'_>>().map(drop).map_err(not_der),
        Tag::BitString => bit_string(value).map(drop),
        Tag::Null => is(bytes.is_empty(), Flaw::NotDer),
        Tag::ObjectIdentifier => is(is_object_identifier(bytes), Flaw::NotDer),
        Tag::Utf8String => is(str::from_utf8(bytes).is_ok(), Flaw::InvalidText),
        Tag::Ia5String => is(bytes.is_ascii(), Flaw::InvalidText),
        Tag::PrintableString => is(bytes.iter().copied().all(is_printable), Flaw::InvalidText),
        Tag::NumericString => {
            is(bytes.iter().all(|b| b.is_ascii_digit() || *b == b' '), Flaw::InvalidText)
        }
        Tag::BmpString => is(is_bmp(bytes), Flaw::InvalidText),
        Tag::UtcTime => is(is_date(bytes, 2), Flaw::InvalidDate),
        Tag::GeneralizedTime => is(is_date(bytes, 4), Flaw::InvalidDate),
        tag if tag.is_constructed() => {
            is(depth < MAX_DEPTH, Flaw::NotDer)?;
            children(value)?.try_for_each(|child| check_value(child?, depth + 1))
        }
        _ => Ok(()),
    }
}

/// Reads a bit string whose unused bits are zero (X.690 §11.2).
fn bit_string(value: AnyRef<'_>) -> Checked<BitStringRef<'_>> {
    let bits = value.decode_as::<BitStringRef<'_>>().map_err(not_der)?;
    let unused = (1_u8 << bits.unused_bits()) - 1;
    is(bits.raw_bytes().last().is_none_or(|last| last & unused == 0), Flaw::NotDer)?;
    Ok(bits)
}

/// Whether groups of seven bits have no leading zeros, and the last one is complete (X.690 §8.19).
/// Go reads numbers below 2³¹ only.
fn is_object_identifier(bytes: &[u8]) -> bool {
    let mut numbers = bytes.split_inclusive(|byte| byte & 0x80 == 0);
    let is_below_limit =
        |number: &[u8]| number.len() < 5 || (number.len() == 5 && number[0] < 0x88);
    bytes.last().is_some_and(|last| last & 0x80 == 0)
        && numbers.all(|number| number[0] != 0x80 && is_below_limit(number))
}

/// Whether X.680 §41.4 allows this character. `*` and `&` pass, too: many CAs write them, and all
/// readers accept them.
fn is_printable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" '()+,-./:=?*&".contains(&byte)
}

/// Whether these are characters of two bytes, without halves of surrogate pairs and what Unicode
/// reserves as no character.
fn is_bmp(bytes: &[u8]) -> bool {
    let (units, rest) = bytes.as_chunks::<2>();
    let is_none = |unit| matches!(unit, 0xd800..=0xdfff | 0xfdd0..=0xfdef | 0xfffe..);
    rest.is_empty() && !units.iter().any(|unit| is_none(u16::from_be_bytes(*unit)))
}

/// Whether this is `YYMMDDhhmmssZ`, or the same with a year of four digits.
fn is_date(bytes: &[u8], year_digits: usize) -> bool {
    let Some(digits) = bytes.strip_suffix(b"Z") else { return false };
    if digits.len() != year_digits + 10 || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |sum, d| sum * 10 + i16::from(d - b'0'));
    let (year, rest) = digits.split_at(year_digits);
    let part = |index: usize| i8::try_from(number(&rest[2 * index..][..2])).unwrap_or(-1);
    DateTime::new(number(year), part(0), part(1), part(2), part(3), part(4), 0).is_ok()
}

/// Reads an identifier and its parameters, if any (RFC 5280 §4.1.1.2).
fn check_algorithm(algorithm: AnyRef<'_>) -> Checked<(AnyRef<'_>, Option<AnyRef<'_>>)> {
    check_value(algorithm, 0)?;
    let mut parts = children(expect(algorithm, Tag::Sequence)?)?;
    let id = expect(parts.next().ok_or(Flaw::NotDer)??, Tag::ObjectIdentifier)?;
    let parameters = parts.next().transpose()?;
    is(parts.next().is_none(), Flaw::NotDer)?;
    Ok((id, parameters))
}

/// Checks the issuer or the subject: sets of pairs of an identifier and a text (RFC 5280
/// §4.1.2.4). Java rejects an empty one.
fn check_name(name: AnyRef<'_>) -> Checked {
    /// The types that Go reads.
    const TEXTS: [Tag; 6] = [
        Tag::Utf8String,
        Tag::PrintableString,
        Tag::Ia5String,
        Tag::NumericString,
        Tag::TeletexString,
        Tag::BmpString,
    ];
    is(!name.value().is_empty(), Flaw::InvalidText)?;
    for set in children(name)? {
        for pair in children(expect(set?, Tag::Set)?)? {
            let [id, text] = parts(expect(pair?, Tag::Sequence)?)?;
            check_value(expect(id, Tag::ObjectIdentifier)?, 0)?;
            is(TEXTS.contains(&text.tag()), Flaw::InvalidText)?;
            check_value(text, 0)?;
        }
    }
    Ok(())
}

/// Checks the public key. Go and Java read keys of the kinds that they know together with the
/// certificate.
fn check_key(key: AnyRef<'_>) -> Checked {
    /// 1.2.840.113549.1.1.1
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    /// 1.2.840.10045.2.1
    const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    /// 1.2.840.10040.4.1
    const DSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01];
    /// 1.3.101.112 and 1.3.101.113
    const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
    const ED448: &[u8] = &[0x2b, 0x65, 0x71];
    let [algorithm, bits] = parts(key)?;
    let (id, parameters) = check_algorithm(algorithm)?;
    let bits = bit_string(expect(bits, Tag::BitString)?)?;
    let bytes = bits.as_bytes().ok_or(Flaw::UnreadableKey)?;
    let is_readable = match id.value() {
        RSA => parameters == Some(AnyRef::NULL) && is_rsa_key(bytes),
        EC => parameters.is_some_and(|curve| {
            curve.tag() == Tag::ObjectIdentifier && is_point(curve.value(), bytes)
        }),
        DSA => {
            let key = AnyRef::from_der(bytes).map_err(not_der)?;
            parameters.is_some_and(|p| numbers::<3>(p).is_some()) && is_number(&key)
        }
        ED25519 => parameters.is_none() && bytes.len() == 32,
        ED448 => parameters.is_none() && bytes.len() == 57,
        _ => true,
    };
    is(is_readable, Flaw::UnreadableKey)
}

/// Whether these are the modulus and the exponent of an RSA key (RFC 8017 §A.1.1), of sizes that
/// Java and Go accept.
fn is_rsa_key(bytes: &[u8]) -> bool {
    let key = AnyRef::from_der(bytes).ok().and_then(numbers::<2>);
    key.is_some_and(|[modulus, exponent]| {
        (64..=2049).contains(&modulus.len())
            && is_positive(exponent, 8)
            && !matches!(exponent, [0..=2])
    })
}

/// Whether this is an uncompressed point of a curve that Go and Java have.
fn is_point(curve: &[u8], bytes: &[u8]) -> bool {
    let is_on =
        |curve: &'static EcdsaVerificationAlgorithm| ParsedPublicKey::new(curve, bytes).is_ok();
    bytes.first() == Some(&4)
        && match curve {
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07] => is_on(&ECDSA_P256_SHA256_ASN1),
            [0x2b, 0x81, 0x04, 0x00, 0x22] => is_on(&ECDSA_P384_SHA384_ASN1),
            [0x2b, 0x81, 0x04, 0x00, 0x23] => is_on(&ECDSA_P521_SHA512_ASN1),
            // P-224, which aws-lc-rs does not have.
            [0x2b, 0x81, 0x04, 0x00, 0x21] => bytes.len() == 57,
            _ => false,
        }
}

/// The contents of `N` positive integers in a sequence.
fn numbers<const N: usize>(value: AnyRef<'_>) -> Option<[&[u8]; N]> {
    let numbers = parts::<N>(expect(value, Tag::Sequence).ok()?).ok()?;
    numbers.iter().all(is_number).then(|| numbers.map(AnyRef::value))
}

fn is_number(value: &AnyRef<'_>) -> bool {
    let content = value.value();
    value.decode_as::<IntRef<'_>>().is_ok() && is_positive(content, content.len()) && content != [0]
}

fn check_extensions(extensions: AnyRef<'_>) -> Checked {
    let [extensions] = parts(extensions)?;
    let mut seen = Vec::new();
    for extension in children(expect(extensions, Tag::Sequence)?)? {
        let mut parts = children(expect(extension?, Tag::Sequence)?)?.peekable();
        let id = expect(parts.next().ok_or(Flaw::NotDer)??, Tag::ObjectIdentifier)?;
        check_value(id, 0)?;
        let id = id.value();
        let flag = parts.next_if(|part| part.is_ok_and(|part| part.tag() == Tag::Boolean));
        let flag = flag.transpose()?;
        flag.map_or(Ok(()), |flag| check_value(flag, 0))?;
        let is_critical = flag.is_some_and(|flag| flag.value() != [0]);
        let value = expect(parts.next().ok_or(Flaw::NotDer)??, Tag::OctetString)?;
        is(parts.next().is_none(), Flaw::NotDer)?;
        is(!seen.contains(&id), Flaw::DuplicateExtension)?;
        seen.push(id);
        if let [0x55, 0x1d, _] | AUTHORITY_INFO_ACCESS = id {
            check_extension(id[id.len() - 1], value.value(), is_critical)?;
        }
    }
    Ok(())
}

/// 1.3.6.1.5.5.7.1.1
const AUTHORITY_INFO_ACCESS: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, ACCESS];
const ACCESS: u8 = 1;
const SUBJECT_KEY_ID: u8 = 14;
const KEY_USAGE: u8 = 15;
const ALTERNATIVE_NAME: u8 = 17;
const BASIC_CONSTRAINTS: u8 = 19;
const NAME_CONSTRAINTS: u8 = 30;
const DISTRIBUTION_POINTS: u8 = 31;
const POLICIES: u8 = 32;
const POLICY_MAPPINGS: u8 = 33;
const AUTHORITY_KEY_ID: u8 = 35;
const POLICY_CONSTRAINTS: u8 = 36;
const EXTENDED_KEY_USAGE: u8 = 37;
const INHIBIT_ANY_POLICY: u8 = 54;

/// Checks an extension of RFC 5280 §4.2, known by the last part of its identifier, as far as Go
/// reads it.
fn check_extension(number: u8, value: &[u8], is_critical: bool) -> Checked {
    let value = AnyRef::from_der(value).map_err(not_der)?;
    // Texts of policies have more types than those of names.
    if number != POLICIES {
        check_value(value, 0)?;
    }
    let tag = match number {
        KEY_USAGE => Tag::BitString,
        SUBJECT_KEY_ID => Tag::OctetString,
        INHIBIT_ANY_POLICY => Tag::Integer,
        ACCESS | ALTERNATIVE_NAME | BASIC_CONSTRAINTS | NAME_CONSTRAINTS | DISTRIBUTION_POINTS
        | POLICIES | POLICY_MAPPINGS | AUTHORITY_KEY_ID | POLICY_CONSTRAINTS
        | EXTENDED_KEY_USAGE => Tag::Sequence,
        // Java reads more extensions, and refuses a critical one that it cannot read.
        _ => return is(!is_critical, Flaw::NotDer),
    };
    expect(value, tag)?;
    let is_never_critical = matches!(number, ACCESS | SUBJECT_KEY_ID | AUTHORITY_KEY_ID);
    is(!is_critical || !is_never_critical, Flaw::NotDer)?;
    match number {
        ALTERNATIVE_NAME => children(value)?.try_for_each(|name| check_general_name(name?, false)),
        BASIC_CONSTRAINTS => {
            let mut parts = children(value)?.peekable();
            parts.next_if(|part| part.is_ok_and(|part| part.tag() == Tag::Boolean));
            let length = parts.next().transpose()?;
            let is_length = |l: AnyRef<'_>| l.tag() == Tag::Integer && is_positive(l.value(), 4);
            is(length.is_none_or(is_length) && parts.next().is_none(), Flaw::NotDer)
        }
        NAME_CONSTRAINTS => {
            is(!value.value().is_empty(), Flaw::NotDer)?;
            let mut kinds = children(value)?.peekable();
            let (permitted, excluded) = (next_context(&mut kinds, 0), next_context(&mut kinds, 1));
            is(kinds.next().is_none(), Flaw::NotDer)?;
            [permitted, excluded].into_iter().flatten().try_for_each(|subtrees| {
                children(subtrees)?.try_for_each(|subtree| {
                    let subtree = expect(subtree?, Tag::Sequence)?;
                    check_general_name(children(subtree)?.next().ok_or(Flaw::NotDer)??, true)
                })
            })
        }
        DISTRIBUTION_POINTS => children(value)?.try_for_each(|point| {
            let mut point = children(expect(point?, Tag::Sequence)?)?.peekable();
            let Some(name) = next_context(&mut point, 0) else { return Ok(()) };
            is(next_context(&mut children(name)?.peekable(), 0).is_some(), Flaw::NotDer)
        }),
        EXTENDED_KEY_USAGE => {
            children(value)?.try_for_each(|use_| expect(use_?, Tag::ObjectIdentifier).map(drop))
        }
        ACCESS | POLICIES => {
            let mut seen = Vec::new();
            children(value)?.try_for_each(|one| {
                let id = children(expect(one?, Tag::Sequence)?)?.next().ok_or(Flaw::NotDer)??;
                is(number != POLICIES || !seen.contains(&id), Flaw::NotDer)?;
                seen.push(id);
                check_value(expect(id, Tag::ObjectIdentifier)?, 0)
            })
        }
        POLICY_MAPPINGS => children(value)?.try_for_each(|pair| {
            let ids: [AnyRef<'_>; 2] = parts(expect(pair?, Tag::Sequence)?)?;
            ids.into_iter().try_for_each(|id| expect(id, Tag::ObjectIdentifier).map(drop))
        }),
        POLICY_CONSTRAINTS => children(value)?.try_for_each(|skip| {
            let skip = skip?;
            let tag = |n| Tag::ContextSpecific { constructed: false, number: TagNumber(n) };
            let is_known = skip.tag() == tag(0) || skip.tag() == tag(1);
            is(is_known && is_positive(skip.value(), 4), Flaw::NotDer)
        }),
        INHIBIT_ANY_POLICY => is(is_positive(value.value(), 4), Flaw::NotDer),
        _ => Ok(()),
    }
}

/// Checks a name of a host, a mail address, a URI or an IP address, or a constraint of such names
/// (RFC 5280 §4.2.1.6, §4.2.1.10).
fn check_general_name(name: AnyRef<'_>, is_constraint: bool) -> Checked {
    let Tag::ContextSpecific { number, .. } = name.tag() else { return Err(Flaw::NotDer) };
    let text = name.value();
    let is_valid = match (number.value(), is_constraint) {
        (1 | 2, false) => text.is_ascii(),
        (6, false) => is_uri(text),
        (1 | 2 | 6, true) => is_host(text.strip_prefix(b".").unwrap_or(text)),
        (7, false) => matches!(text.len(), 4 | 16),
        (7, true) => matches!(text.len(), 8 | 32) && is_mask(&text[text.len() / 2..]),
        (0 | 4, _) => name.tag().is_constructed(),
        (number, _) => number == 8,
    };
    is(is_valid, Flaw::InvalidText)
}

fn is_host(text: &[u8]) -> bool {
    let is_label = |label: &[u8]| {
        !label.is_empty() && label.iter().all(|b| b.is_ascii_alphanumeric() || b"-_*".contains(b))
    };
    text.is_empty() || text.split(|byte| *byte == b'.').all(is_label)
}

/// Whether this is a plain URI with a scheme (RFC 3986 §3). Go rejects what it cannot split.
fn is_uri(text: &[u8]) -> bool {
    let Some(colon) = text.iter().position(|byte| *byte == b':') else { return false };
    let (scheme, rest) = (&text[..colon], &text[colon + 1..]);
    let after_slashes = rest.strip_prefix(b"//").unwrap_or_default();
    let host = after_slashes.split(|byte| b"/?#".contains(byte)).next().unwrap_or_default();
    scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
        && is_host(host)
        && rest.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'%')
}

/// Whether a mask has all its ones first.
fn is_mask(mask: &[u8]) -> bool {
    let rest: Vec<u8> = mask.iter().copied().skip_while(|byte| *byte == 0xff).collect();
    rest.split_first().is_none_or(|(first, zeros)| {
        first.leading_ones() + first.trailing_zeros() >= 8 && zeros.iter().all(|byte| *byte == 0)
    })
}

/// Whether this is the content of an integer that is not negative and has at most so many bytes.
fn is_positive(content: &[u8], most: usize) -> bool {
    content.len() <= most && content.first().is_some_and(|byte| byte & 0x80 == 0)
}

/// The values in a constructed one.
#[derive(Clone)]
struct Children<'a>(SliceReader<'a>);

impl<'a> Iterator for Children<'a> {
    type Item = Checked<AnyRef<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_finished()).then(|| AnyRef::decode(&mut self.0).map_err(not_der))
    }
}

fn children(value: AnyRef<'_>) -> Checked<Children<'_>> {
    is(value.tag().is_constructed(), Flaw::NotDer)?;
    SliceReader::new(value.value()).map(Children).map_err(not_der)
}

/// The `N` values in a constructed one.
fn parts<const N: usize>(value: AnyRef<'_>) -> Checked<[AnyRef<'_>; N]> {
    let (mut parts, mut children) = ([AnyRef::NULL; N], children(value)?);
    for part in &mut parts {
        *part = children.next().ok_or(Flaw::NotDer)??;
    }
    is(children.next().is_none(), Flaw::NotDer)?;
    Ok(parts)
}

/// The next value if it is constructed and has the context-specific tag of this number.
fn next_context<'a>(values: &mut Peekable<Children<'a>>, number: u32) -> Option<AnyRef<'a>> {
    let tag = Tag::ContextSpecific { constructed: true, number: TagNumber(number) };
    values.next_if(|value| value.is_ok_and(|value| value.tag() == tag))?.ok()
}

fn expect(value: AnyRef<'_>, tag: Tag) -> Checked<AnyRef<'_>> {
    is(value.tag() == tag, Flaw::NotDer)?;
    Ok(value)
}

fn is(good: bool, flaw: Flaw) -> Checked {
    if good { Ok(()) } else { Err(flaw) }
}

fn not_der(_: der::Error) -> Flaw {
    Flaw::NotDer
}
