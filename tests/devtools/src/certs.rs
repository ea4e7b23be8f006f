//! Certificates as generators make them: P-256, with key ids, all with the same subject.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use base64::prelude::*;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// Year, month, day. A certificate begins and ends at midnight UTC.
pub type Day = (i32, u8, u8);

/// The fields of a certificate to make; start from [`CA`] or [`LEAF`].
#[derive(Clone, Copy, Debug)]
pub struct Spec<'a> {
    /// The common name.
    pub subject: &'a str,
    /// DNS names and IP addresses.
    pub names: &'a [&'a str],
    /// The first day of its validity.
    pub not_before: Day,
    /// The day on which it expires.
    pub not_after: Day,
    /// Whether it may sign other certificates.
    pub is_ca: bool,
    /// `None`: a serial number that is unique in this process.
    pub serial: Option<u64>,
    /// Whether it has an authority key identifier.
    pub key_ids: bool,
}

/// A CA as most generators make it, valid from 2020 to 2090.
pub const CA: Spec<'_> = Spec {
    subject: "Legacy CA",
    names: &[],
    not_before: (2020, 1, 1),
    not_after: (2090, 1, 1),
    is_ca: true,
    serial: None,
    key_ids: true,
};

/// A leaf for servers and clients, valid for as long as [`CA`].
pub const LEAF: Spec<'_> = Spec { subject: "leaf", is_ca: false, ..CA };

/// A certificate with its key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, canonical PEM.
    pub pem: String,
    /// The certificate, DER.
    pub der: CertificateDer<'static>,
    /// The private key, PKCS#8 in PEM.
    pub key: String,
    params: CertificateParams,
}

/// A fixed time within the validity of [`CA`], for tests without a clock.
pub fn now() -> Timestamp {
    "2026-03-01T10:00:00Z".parse().unwrap()
}

/// A new CA. All CAs from this function have the same subject and different keys.
pub fn ca() -> Identity {
    CA.self_signed()
}

/// A CA with another subject.
pub fn ca_named(subject: &str) -> Identity {
    Spec { subject, ..CA }.self_signed()
}

/// A leaf of `issuer`, with or without an authority key identifier.
pub fn leaf(issuer: &Identity, key_ids: bool) -> Identity {
    Spec { key_ids, ..LEAF }.signed_by(issuer)
}

/// The concatenated PEM of several certificates.
pub fn bundle(all: &[&Identity]) -> String {
    all.iter().map(|one| one.pem.as_str()).collect()
}

/// The SHA-256 of `bytes` in hexadecimal, computed without the product's code.
pub fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The PEM of a certificate with any line width and line ending.
pub fn pem_of(der: &[u8], columns: usize, line_end: &str) -> String {
    let encoded = BASE64_STANDARD.encode(der);
    let mut pem = format!("-----BEGIN CERTIFICATE-----{line_end}");
    for line in encoded.as_bytes().chunks(columns) {
        write!(pem, "{}{line_end}", str::from_utf8(line).unwrap()).unwrap();
    }
    write!(pem, "-----END CERTIFICATE-----{line_end}").unwrap();
    pem
}

impl Spec<'_> {
    /// A self-signed certificate with a new key.
    pub fn self_signed(&self) -> Identity {
        self.self_signed_with(&new_key())
    }

    /// A self-signed certificate with a given key, in PEM: renews a CA on the same key.
    pub fn self_signed_with(&self, key: &str) -> Identity {
        let pair = KeyPair::from_pem(key).unwrap();
        Identity::new(self.params(), key, &self.params().self_signed(&pair).unwrap())
    }

    /// A certificate with a new key, signed by `issuer`.
    pub fn signed_by(&self, issuer: &Identity) -> Identity {
        self.signed_by_with(issuer, &new_key())
    }

    /// A certificate with a given key, in PEM, signed by `issuer`.
    pub fn signed_by_with(&self, issuer: &Identity, key: &str) -> Identity {
        let (params, pair) = (self.params(), KeyPair::from_pem(key).unwrap());
        let issuer = Issuer::from_params(&issuer.params, KeyPair::from_pem(&issuer.key).unwrap());
        let certificate = params.signed_by(&pair, &issuer).unwrap();
        Identity::new(params, key, &certificate)
    }

    fn params(&self) -> CertificateParams {
        static NEXT: AtomicU64 = AtomicU64::new(1000);
        let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.subject);
        let (begin, end) = (self.not_before, self.not_after);
        params.not_before = date_time_ymd(begin.0, begin.1, begin.2);
        params.not_after = date_time_ymd(end.0, end.1, end.2);
        let serial = self.serial.unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed));
        params.serial_number = Some(serial.into());
        params.use_authority_key_identifier_extension = self.key_ids;
        if self.is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        } else {
            params.is_ca = IsCa::ExplicitNoCa;
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        }
        params
    }
}

impl Identity {
    /// A new CA certificate with the same key and subject.
    pub fn renewed(&self) -> Self {
        Spec { subject: &self.subject(), ..CA }.self_signed_with(&self.key)
    }

    /// An intermediate CA issued by this one.
    pub fn intermediate(&self, subject: &str) -> Self {
        Spec { subject, ..CA }.signed_by(self)
    }

    /// A leaf for `name` and `localhost`.
    pub fn leaf(&self, name: &str) -> Self {
        Spec { subject: name, names: &[name, "localhost"], ..LEAF }.signed_by(self)
    }

    /// The certificate as PEM with any line width and line ending.
    pub fn pem_wrapped(&self, columns: usize, line_end: &str) -> String {
        pem_of(&self.der, columns, line_end)
    }

    /// The SHA-256 fingerprint, in hexadecimal.
    pub fn sha256(&self) -> String {
        sha256(&self.der)
    }

    /// The private key as rustls takes it.
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }

    /// A root store with this certificate alone.
    pub fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        Arc::new(roots)
    }

    /// A client configuration that trusts this certificate alone.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }

    fn new(params: CertificateParams, key: &str, certificate: &Certificate) -> Self {
        let der = certificate.der().clone();
        Self { pem: pem_of(&der, 64, "\n"), der, key: key.to_owned(), params }
    }

    fn subject(&self) -> String {
        match self.params.distinguished_name.get(&DnType::CommonName) {
            Some(rcgen::DnValue::Utf8String(name)) => name.clone(),
            _ => String::new(),
        }
    }
}

/// Omits the private key.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("subject", &self.subject()).finish_non_exhaustive()
    }
}

fn new_key() -> String {
    KeyPair::generate().unwrap().serialize_pem()
}
