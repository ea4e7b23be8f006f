//! Certificates for tests: small CAs as generators make them.
#![allow(dead_code)]

use std::fmt::Write as _;

use base64::prelude::*;
use ca_overlap::x509::certs::Fingerprint;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, SerialNumber,
};

/// The time of most tests: between the validity limits below.
pub fn now() -> Timestamp {
    "2026-03-01T10:00:00Z".parse().unwrap()
}

/// A certificate with its key.
pub struct Identity {
    params: CertificateParams,
    key: KeyPair,
    der: Vec<u8>,
}

/// How a CA is made; the default is what most generators do: the same subject each time.
pub struct Spec<'a> {
    pub subject: &'a str,
    pub not_after: (i32, u8, u8),
    pub is_ca: bool,
    pub serial: Option<u64>,
    /// Whether the certificates it issues name its key.
    pub key_ids: bool,
}

impl Default for Spec<'_> {
    fn default() -> Self {
        Self {
            subject: "Legacy CA",
            not_after: (2030, 1, 1),
            is_ca: true,
            serial: None,
            key_ids: true,
        }
    }
}

impl Spec<'_> {
    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.subject);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after =
            rcgen::date_time_ymd(self.not_after.0, self.not_after.1, self.not_after.2);
        params.serial_number = self.serial.map(SerialNumber::from);
        params.key_identifier_method = KeyIdMethod::Sha256;
        params.use_authority_key_identifier_extension = self.key_ids;
        if self.is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }

    /// A self-signed certificate with a new key.
    pub fn self_signed(&self) -> Identity {
        self.self_signed_with(KeyPair::generate().unwrap())
    }

    /// A self-signed certificate with a given key: the renewal of another one.
    pub fn self_signed_with(&self, key: KeyPair) -> Identity {
        let params = self.params();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Identity { params, key, der }
    }

    /// A certificate that `issuer` signed.
    pub fn signed_by(&self, issuer: &Identity) -> Identity {
        self.signed_by_with(issuer, KeyPair::generate().unwrap())
    }

    /// The same of a given key: the renewal of another one.
    pub fn signed_by_with(&self, issuer: &Identity, key: KeyPair) -> Identity {
        let params = self.params();
        let issuer = Issuer::from_params(&issuer.params, &issuer.key);
        let der = params.signed_by(&key, &issuer).unwrap().der().to_vec();
        Identity { params, key, der }
    }
}

/// A CA with the usual subject and key ids.
pub fn ca() -> Identity {
    Spec::default().self_signed()
}

/// A leaf of `issuer`; with `key_ids` it names the issuer's key.
pub fn leaf(issuer: &Identity, key_ids: bool) -> Identity {
    Spec { subject: "leaf", is_ca: false, key_ids, ..Spec::default() }.signed_by(issuer)
}

impl Identity {
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    /// Canonical PEM, written independently of the product.
    pub fn pem(&self) -> String {
        pem_of(&self.der, 64, "\n")
    }

    /// The same certificate as another program may write it.
    pub fn pem_wrapped(&self, columns: usize, line_end: &str) -> String {
        pem_of(&self.der, columns, line_end)
    }

    pub fn key_copy(&self) -> KeyPair {
        KeyPair::try_from(self.key.serialize_der()).unwrap()
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

pub fn pem_of(der: &[u8], columns: usize, line_end: &str) -> String {
    let encoded = BASE64_STANDARD.encode(der);
    let mut pem = format!("-----BEGIN CERTIFICATE-----{line_end}");
    for line in encoded.as_bytes().chunks(columns) {
        write!(pem, "{}{line_end}", str::from_utf8(line).unwrap()).unwrap();
    }
    write!(pem, "-----END CERTIFICATE-----{line_end}").unwrap();
    pem
}
