//! The certificates of a simulated generator: each rotation has a new CA, and a new leaf for each
//! Secret.

use base64::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use serde_json::{Value, json};

use crate::names;

/// The namespace of all Secrets.
pub(super) const NAMESPACE: &str = "mesh";
/// Certificates are valid from 1 January of the first year to 1 January of the second, so none
/// expires during a simulation.
const VALID: [i32; 2] = [2020, 2050];

/// The name of a Secret.
pub(super) fn secret_name(secret: usize) -> String {
    format!("server-{}", secret + 1)
}

/// The DNS name in the leaf of a Secret.
pub(super) fn dns_name(secret: usize) -> String {
    format!("{}.{NAMESPACE}.svc", secret_name(secret))
}

/// The data of each Secret in one rotation: `ca.crt`, `tls.crt` and `tls.key`. The last Secret is
/// the issuer's, with the CA itself.
pub(in crate::tools) fn generation(secrets: usize) -> Result<Vec<Value>, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    // The same subject in each rotation, as most generators do.
    params.distinguished_name.push(DnType::CommonName, "Legacy CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params);
    let ca = params.self_signed(&key)?.pem();
    let data = |certificate: &str, key: &KeyPair| {
        let pem = |text: &str| BASE64_STANDARD.encode(text.replace("\r\n", "\n"));
        json!({
            names::CA_CRT: pem(&ca),
            names::TLS_CRT: pem(certificate),
            names::TLS_KEY: pem(&key.serialize_pem()),
        })
    };
    let of_issuer = data(&ca, &key);
    let issuer = Issuer::new(params, key);
    let of_leaf = |secret: usize| {
        let key = KeyPair::generate()?;
        Ok(data(&leaf(secret)?.signed_by(&key, &issuer)?.pem(), &key))
    };
    (0..secrets).map(of_leaf).chain([Ok(of_issuer)]).collect()
}

fn leaf(secret: usize) -> Result<CertificateParams, rcgen::Error> {
    let mut leaf = CertificateParams::new(vec![dns_name(secret)])?;
    leaf.distinguished_name.push(DnType::CommonName, secret_name(secret));
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.use_authority_key_identifier_extension = true;
    leaf.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    validity(&mut leaf);
    Ok(leaf)
}

fn validity(params: &mut CertificateParams) {
    let [begin, end] = VALID.map(|year| date_time_ymd(year, 1, 1));
    (params.not_before, params.not_after) = (begin, end);
}
