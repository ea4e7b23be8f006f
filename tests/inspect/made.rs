//! Certificates and Secrets of the examples.

use std::sync::atomic::{AtomicU64, Ordering};

use base64::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    SerialNumber,
};
use serde_json::{Map, Value, json};

use super::CANARY;
use super::support::command::sha256;

pub type Day = (i32, u8, u8);

/// How a certificate is to be.
pub struct Spec<'a> {
    pub subject: &'a str,
    pub begin: Day,
    pub end: Day,
    pub is_ca: bool,
    pub serial: Option<u64>,
    pub names: &'a [&'a str],
}

/// A CA that is sound.
pub const CA: Spec<'_> = Spec {
    subject: "Root",
    begin: (2025, 1, 1),
    end: (2035, 1, 1),
    is_ca: true,
    serial: None,
    names: &[],
};

/// A leaf that is sound.
pub const LEAF: Spec<'_> = Spec {
    subject: "leaf",
    begin: (2026, 1, 1),
    end: (2027, 1, 1),
    is_ca: false,
    serial: None,
    names: &["leaf.gateway.svc"],
};

/// A certificate with its key.
pub struct Made {
    params: CertificateParams,
    key: KeyPair,
    pub der: Vec<u8>,
    pub pem: String,
}

impl Spec<'_> {
    fn params(&self) -> CertificateParams {
        static NEXT: AtomicU64 = AtomicU64::new(1000);
        let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.subject);
        params.not_before = rcgen::date_time_ymd(self.begin.0, self.begin.1, self.begin.2);
        params.not_after = rcgen::date_time_ymd(self.end.0, self.end.1, self.end.2);
        let serial = self.serial.unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed));
        params.serial_number = Some(SerialNumber::from(serial));
        params.use_authority_key_identifier_extension = true;
        if self.is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }

    pub fn self_signed(&self) -> Made {
        self.self_signed_with(KeyPair::generate().unwrap())
    }

    fn self_signed_with(&self, key: KeyPair) -> Made {
        let params = self.params();
        let certificate = params.self_signed(&key).unwrap();
        Made { der: certificate.der().to_vec(), pem: unix(&certificate.pem()), params, key }
    }

    pub fn signed_by(&self, issuer: &Made) -> Made {
        let (params, key) = (self.params(), KeyPair::generate().unwrap());
        let issuer = Issuer::from_params(&issuer.params, &issuer.key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Made { der: certificate.der().to_vec(), pem: unix(&certificate.pem()), params, key }
    }
}

impl Made {
    /// Another certificate for the same key.
    pub fn renewed(&self, spec: &Spec<'_>) -> Made {
        spec.self_signed_with(KeyPair::try_from(self.key.serialize_der()).unwrap())
    }

    pub fn leaf(&self) -> Made {
        LEAF.signed_by(self)
    }

    pub fn sha256(&self) -> String {
        sha256(&self.der)
    }
}

/// A CA of this name, sound.
pub fn ca(subject: &str) -> Made {
    Spec { subject, ..CA }.self_signed()
}

fn unix(pem: &str) -> String {
    pem.replace("\r\n", "\n")
}

/// A Secret with these values (given decoded), and a private key that must never be shown.
pub fn secret(data: &[(&str, &[u8])]) -> Value {
    let encoded =
        data.iter().map(|(key, value)| ((*key).to_owned(), json!(BASE64_STANDARD.encode(value))));
    let mut data: Map<String, Value> = encoded.collect();
    data.insert("tls.key".into(), json!(BASE64_STANDARD.encode(CANARY)));
    json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "data": data,
           "metadata": {"name": "envoy", "namespace": "gateway", "labels": {}, "annotations": {}}})
}

/// A Secret with the PEM of these.
pub fn tls(ca_crt: &[&Made], tls_crt: &[&Made]) -> Value {
    let pem = |all: &[&Made]| all.iter().map(|made| made.pem.as_str()).collect::<String>();
    secret(&[("ca.crt", pem(ca_crt).as_bytes()), ("tls.crt", pem(tls_crt).as_bytes())])
}

/// The same with an annotation.
pub fn annotated(mut secret: Value, key: &str, value: &str) -> Value {
    secret["metadata"]["annotations"][format!("ca-overlap.dev/{key}")] = value.into();
    secret
}

/// The same with a record by which `carried` is carried, until `until` if that is given.
pub fn carrying(mut secret: Value, carried: &Made, until: Option<&str>) -> Value {
    let mut entry = json!({"sha256": carried.sha256(), "since": "2026-02-01T00:00:00Z"});
    if let Some(until) = until {
        entry["until"] = until.into();
    }
    secret["metadata"]["labels"]["ca-overlap.dev/phase"] = "overlap".into();
    annotated(secret, "carried", &json!([entry]).to_string())
}
