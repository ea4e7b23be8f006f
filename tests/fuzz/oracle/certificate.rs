//! Compares our reader of certificates with x509-parser.
//!
//! Where both read a certificate, the fields must be equal. One that only x509-parser reads, which
//! hardly checks tags, must not be a trust anchor for webpki. One that only we read is accepted: TLS
//! libraries skip extensions and keys that they do not know, so these must not hide a certificate.

use ca_overlap::x509::certs::{Certificate, Fingerprint};
use x509_parser::asn1_rs::Any;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use super::rule::Checked;
use super::x509;

/// Which of the two read a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    None,
    Both,
    OursAlone,
}

/// The fields that the decision uses.
#[derive(Debug, PartialEq, Eq)]
pub struct Fields {
    pub subject: Vec<u8>,
    pub issuer: Vec<u8>,
    pub subject_key_id: Option<Vec<u8>>,
    pub authority_key_id: Option<Vec<u8>>,
    pub not_after: i64,
    pub is_ca: bool,
}

pub fn check(der: &[u8]) -> Checked<Readers> {
    let ours = Certificate::from_der(der.to_vec());
    if let Some(certificate) = &ours {
        in_range(der, certificate)?;
    }
    let theirs = X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty());
    match (ours, theirs) {
        (None, None) => Ok(Readers::None),
        (Some(_), None) => Ok(Readers::OursAlone),
        (None, Some((_, theirs))) => {
            rule!(!x509::is_anchor(der) || !has_key(&theirs), "all but ours read it");
            Ok(Readers::None)
        }
        (Some(ours), Some((_, theirs))) => same(&fields(&ours), &theirs).map(|()| Readers::Both),
    }
}

pub fn fields(certificate: &Certificate) -> Fields {
    Fields {
        subject: certificate.subject().to_vec(),
        issuer: certificate.issuer().to_vec(),
        subject_key_id: certificate.subject_key_id().map(<[u8]>::to_vec),
        authority_key_id: certificate.authority_key_id().map(<[u8]>::to_vec),
        not_after: certificate.not_after(),
        is_ca: certificate.is_ca(),
    }
}

/// Whether the key is a bit string. x509-parser also accepts a tag of another class, and webpki does
/// not read the key of an anchor.
fn has_key(certificate: &X509Certificate<'_>) -> bool {
    let Ok((_, info)) = Any::from_der(certificate.public_key().raw) else { return false };
    let Ok((key, _)) = Any::from_der(info.data) else { return false };
    key.first() == Some(&0x03)
}

/// Compares the fields with those of x509-parser. An extension that it finds twice or malformed is
/// not compared.
pub fn same(ours: &Fields, theirs: &X509Certificate<'_>) -> Checked {
    rule!(is_name(&ours.subject, theirs.subject().as_raw()), "another subject");
    rule!(is_name(&ours.issuer, theirs.issuer().as_raw()), "another issuer");
    let not_after = theirs.validity().not_after.timestamp();
    rule!(ours.not_after == not_after, "notAfter {} and {not_after}", ours.not_after);

    let (known, id) = extension(theirs, "2.5.29.14", |e| match e {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    let known = known && is_tagged(theirs, "2.5.29.14", 0x04, &[]);
    rule!(!known || ours.subject_key_id == id, "another subject key id than {id:02x?}");
    let (known, id) = extension(theirs, "2.5.29.35", |e| match e {
        ParsedExtension::AuthorityKeyIdentifier(id) => Some(id.key_identifier.as_ref()?.0.to_vec()),
        _ => None,
    });
    let known = known && is_tagged(theirs, "2.5.29.35", 0x30, &[0x80, 0xa1, 0x82]);
    rule!(!known || ours.authority_key_id == id, "another authority key id than {id:02x?}");
    let (known, ca) = extension(theirs, "2.5.29.19", |e| match e {
        ParsedExtension::BasicConstraints(constraints) => Some(constraints.ca),
        _ => None,
    });
    let known = known && is_tagged(theirs, "2.5.29.19", 0x30, &[0x01, 0x02]);
    rule!(!known || ours.is_ca == ca.unwrap_or_default(), "is a CA: {} and {ca:?}", ours.is_ca);
    Ok(())
}

/// x509-parser ends a name at the first part that it cannot read, so only a whole one is compared.
fn is_name(ours: &[u8], theirs: &[u8]) -> bool {
    let is_whole = Any::from_der(theirs).is_ok_and(|(rest, _)| rest.is_empty());
    ours == theirs || (!is_whole && ours.starts_with(theirs))
}

/// The value of an extension, and whether it is certain: it occurs at most once and is well-formed.
fn extension<T>(
    certificate: &X509Certificate<'_>,
    oid: &str,
    read: impl Fn(&ParsedExtension<'_>) -> Option<T>,
) -> (bool, Option<T>) {
    let all = certificate.extensions().iter();
    let found: Vec<_> = all.filter(|e| e.oid.to_id_string() == oid).collect();
    match found.as_slice() {
        [] => (true, None),
        [one] => (one.parsed_extension().error().is_none(), read(one.parsed_extension())),
        _ => (false, None),
    }
}

/// Whether an extension has this tag, and if anything is in it, that its first part has one of these:
/// x509-parser also takes tags of another class, and parts that are not constructed.
fn is_tagged(certificate: &X509Certificate<'_>, oid: &str, outer: u8, first: &[u8]) -> bool {
    let mut extensions = certificate.extensions().iter().filter(|e| e.oid.to_id_string() == oid);
    let Some(extension) = extensions.next() else { return true };
    let Ok((_, content)) = Any::from_der(extension.value) else { return false };
    extension.value[0] == outer
        && (first.is_empty() || content.data.first().is_none_or(|tag| first.contains(tag)))
}

fn in_range(der: &[u8], certificate: &Certificate) -> Checked {
    rule!(certificate.der() == der, "the encoding changed");
    rule!(certificate.fingerprint() == Fingerprint::of(der), "another fingerprint");
    rule!(certificate.fingerprint().to_string() == x509::sha256(der), "not the SHA-256");
    for name in [certificate.subject(), certificate.issuer()] {
        rule!(is_inside(der, name), "a name is a part of the encoding");
    }
    for id in [certificate.subject_key_id(), certificate.authority_key_id()].into_iter().flatten() {
        rule!(id.len() < der.len() && is_inside(der, id), "a key id is a part of the encoding");
    }
    // Dates of four digits: the years 0 to 9999.
    let years = -62_167_219_200..=253_402_300_799;
    rule!(years.contains(&certificate.not_after()), "notAfter is {}", certificate.not_after());
    let same =
        Certificate::from_der(der.to_vec()).is_some_and(|c| fields(&c) == fields(certificate));
    rule!(same, "read in two ways");
    Ok(())
}

fn is_inside(outer: &[u8], inner: &[u8]) -> bool {
    inner.is_empty() || outer.windows(inner.len()).any(|part| part == inner)
}
