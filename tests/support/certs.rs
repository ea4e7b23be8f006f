//! CAs and leaf certificates, made as generators make them: P-256, with key ids.

use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};

/// A CA with its key.
pub struct Ca {
    params: CertificateParams,
    key: KeyPair,
    /// The certificate, canonical PEM.
    pub pem: String,
    /// The certificate, DER.
    pub der: Vec<u8>,
}

/// A leaf certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub certificate: String,
    pub key: String,
}

/// The years in which a certificate is valid: from 1 January to 1 January.
pub type Years = (i32, i32);
/// Valid now and for long.
pub const VALID: Years = (2020, 2090);
/// Over.
pub const EXPIRED: Years = (2020, 2021);

impl Ca {
    /// A CA of its own. Give the same `subject` twice for CAs that differ in their keys only.
    pub fn new(subject: &str) -> Self {
        Self::with(subject, VALID, true)
    }

    /// An expired CA.
    pub fn expired(subject: &str) -> Self {
        Self::with(subject, EXPIRED, true)
    }

    /// A CA with given dates, with or without a subject key id (leaves then carry none either).
    pub fn with(subject: &str, years: Years, key_ids: bool) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca_params(subject, years, key_ids);
        let certificate = params.self_signed(&key).unwrap();
        Self::from_parts(params, key, &certificate)
    }

    /// Another certificate for the same key and subject.
    pub fn renewed(&self) -> Self {
        let mut params = self.params.clone();
        params.serial_number = Some(serial());
        let key = KeyPair::from_pem(&self.key.serialize_pem()).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self::from_parts(params, key, &certificate)
    }

    /// An intermediate CA issued by this one.
    pub fn intermediate(&self, subject: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca_params(subject, VALID, true);
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        Self::from_parts(params, key, &certificate)
    }

    /// A leaf for `name` (and localhost), for servers and clients.
    pub fn leaf(&self, name: &str) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(vec![name.to_owned(), "localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = self.has_key_ids();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(serial());
        (params.not_before, params.not_after) =
            (date_time_ymd(VALID.0, 1, 1), date_time_ymd(VALID.1, 1, 1));
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        Leaf { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// The key, in PEM.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    fn has_key_ids(&self) -> bool {
        matches!(self.params.key_identifier_method, KeyIdMethod::Sha256)
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    fn from_parts(params: CertificateParams, key: KeyPair, certificate: &Certificate) -> Self {
        // rcgen ends lines as the platform does; generators and we write LF.
        let pem = certificate.pem().replace("\r\n", "\n");
        Self { params, key, pem, der: certificate.der().to_vec() }
    }
}

/// The PEM of several CAs, one after another.
pub fn bundle(cas: &[&Ca]) -> String {
    cas.iter().map(|ca| ca.pem.as_str()).collect()
}

fn ca_params(subject: &str, years: Years, key_ids: bool) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, subject);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial());
    (params.not_before, params.not_after) =
        (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
    if !key_ids {
        params.key_identifier_method = KeyIdMethod::PreSpecified(Vec::new());
    }
    params
}

fn serial() -> SerialNumber {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed).into()
}
