//! The API server's certificate and the key that signs `ServiceAccount` tokens.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::Error;

/// A certificate with its key and the CA that issued it, all in PEM.
#[derive(Clone)]
pub struct Serving {
    /// The CA.
    pub ca: String,
    /// The leaf.
    pub certificate: String,
    /// The leaf's private key.
    pub key: String,
}

/// Issues a serving certificate for `names` (DNS names or IP addresses) with rcgen's default
/// validity.
pub fn serving(names: &[String]) -> Result<Serving, Error> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.distinguished_name.push(DnType::CommonName, "throw-away control plane");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_pem = ca.self_signed(&ca_key)?.pem();

    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(names.to_vec())?;
    leaf.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = leaf.signed_by(&key, &Issuer::new(ca, ca_key))?.pem();
    Ok(Serving { ca: ca_pem, certificate, key: key.serialize_pem() })
}

/// The names under which clients reach the API server.
pub(crate) fn api_server_names(address: IpAddr) -> Vec<String> {
    vec![address.to_string(), "localhost".into(), "kubernetes.default.svc".into()]
}

/// The key pair for `ServiceAccount` tokens: private and public PEM.
pub(crate) fn token_keys() -> Result<(String, String), Error> {
    let key = KeyPair::generate()?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}
