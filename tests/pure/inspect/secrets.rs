//! Certificates and Secrets of the examples.

use base64::prelude::*;
use devtools::certs::{self, Identity, Spec};
use serde_json::{Map, Value, json};

use super::CANARY;

/// A sound CA.
pub const CA: Spec<'_> =
    Spec { subject: "Root", not_before: (2025, 1, 1), not_after: (2035, 1, 1), ..certs::CA };

/// A sound leaf.
pub const LEAF: Spec<'_> = Spec {
    names: &["leaf.gateway.svc"],
    not_before: (2026, 1, 1),
    not_after: (2027, 1, 1),
    ..certs::LEAF
};

/// A sound CA of this name.
pub fn ca(subject: &str) -> Identity {
    Spec { subject, ..CA }.self_signed()
}

/// A Secret with these decoded values, and a private key that must never be shown.
pub fn secret(data: &[(&str, &[u8])]) -> Value {
    let encoded =
        data.iter().map(|(key, value)| ((*key).to_owned(), json!(BASE64_STANDARD.encode(value))));
    let mut data: Map<String, Value> = encoded.collect();
    data.insert("tls.key".into(), json!(BASE64_STANDARD.encode(CANARY)));
    json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "data": data,
           "metadata": {"name": "envoy", "namespace": "gateway", "labels": {}, "annotations": {}}})
}

/// A Secret with the PEM of these certificates.
pub fn tls(ca_crt: &[&Identity], tls_crt: &[&Identity]) -> Value {
    let pem = |all: &[&Identity]| all.iter().map(|made| made.pem.as_str()).collect::<String>();
    secret(&[("ca.crt", pem(ca_crt).as_bytes()), ("tls.crt", pem(tls_crt).as_bytes())])
}

/// The Secret with this annotation.
pub fn annotated(mut secret: Value, key: &str, value: &str) -> Value {
    secret["metadata"]["annotations"][format!("ca-overlap.dev/{key}")] = value.into();
    secret
}

/// The Secret with a record that carries `carried`, until `until` if given.
pub fn carrying(mut secret: Value, carried: &Identity, until: Option<&str>) -> Value {
    let mut entry = json!({"sha256": carried.sha256(), "since": "2026-02-01T00:00:00Z"});
    if let Some(until) = until {
        entry["until"] = until.into();
    }
    secret["metadata"]["labels"]["ca-overlap.dev/phase"] = "overlap".into();
    annotated(secret, "carried", &json!([entry]).to_string())
}
