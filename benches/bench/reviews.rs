//! The reviews, with fields in the order of the API server, and the expected outcome of each.

use std::fmt::Write as _;

use anyhow::Result;
use base64::prelude::*;
use serde_json::{Value, json};

use crate::pki::Authority;

/// The annotations and labels of the product.
pub const CARRIED: &str = "ca-overlap.dev/carried";
pub const PHASE: &str = "ca-overlap.dev/phase";

/// A request as sent, and its expected outcome.
pub struct Review {
    /// The index among all reviews.
    pub index: usize,
    pub uid: String,
    /// Head and body.
    pub wire: Vec<u8>,
    /// Bytes of the body.
    pub size: usize,
    /// The incoming object.
    pub object: Value,
    pub outcome: Outcome,
}

/// The expected outcome of a review.
pub enum Outcome {
    /// No patch.
    Untouched,
    /// This `ca.crt`, in which the certificate with this fingerprint is carried.
    Bundled { ca_crt: String, carried: String },
    /// As written, but with an empty record: too many certificates for a rotation.
    Recorded,
}

/// All reviews of a session.
pub struct Reviews {
    pub bundle_3k: Review,
    pub bundle_8k: Review,
    pub bundle_8k_signature: Review,
    pub bundle_2m8: Review,
    pub nothing_3k: Review,
    pub nothing_8k: Review,
    pub nothing_2m8: Review,
    pub store_538k: Review,
    pub nothing_538k: Review,
}

impl Reviews {
    pub fn new() -> Result<Self> {
        // Both CAs have the same name, as generators write them.
        let (old, new) = (Authority::new("Legacy CA")?, Authority::new("Legacy CA")?);
        let leaves = (old.leaf(true)?.certificate, new.leaf(true)?.certificate);
        let anonymous = (old.leaf(false)?.certificate, new.leaf(false)?.certificate);
        let trust = |ca: &Authority| Data::new(&ca.pem, None);
        let (small_old, small_new) = (trust(&old), trust(&new));
        let tls = |ca: &Authority, leaf: &String| Data::new(&ca.pem, Some(leaf));
        let (tls_old, tls_new) = (tls(&old, &leaves.0), tls(&new, &leaves.1));
        let (anon_old, anon_new) = (tls(&old, &anonymous.0), tls(&new, &anonymous.1));
        let large = |data: &Data| data.clone().with("keystore.p12", &noise(1_036_000));
        let (large_old, large_new) = (large(&tls_old), large(&tls_new));
        let many: Vec<String> = (0..343)
            .map(|n| Ok(Authority::new(&format!("Public Root {n:03}"))?.pem))
            .collect::<Result<_>>()?;
        let store = |range: std::ops::Range<usize>| Data::new(&many[range].concat(), None);
        let (store_old, store_new) = (store(0..342), store(1..343));
        let bundled = || Outcome::Bundled {
            ca_crt: format!("{}{}", new.pem, old.pem),
            carried: fingerprint(&old.pem),
        };
        let mut index = 0;
        let mut build = |old: &Data, new: &Data, size: usize, outcome: Outcome| {
            index += 1;
            review(index - 1, old, new, size, outcome)
        };
        Ok(Self {
            bundle_3k: build(&small_old, &small_new, 3_000, bundled())?,
            bundle_8k: build(&tls_old, &tls_new, 8_000, bundled())?,
            bundle_8k_signature: build(&anon_old, &anon_new, 8_000, bundled())?,
            bundle_2m8: build(&large_old, &large_new, 0, bundled())?,
            nothing_3k: build(&small_old, &small_old, 3_000, Outcome::Untouched)?,
            nothing_8k: build(&tls_old, &tls_old, 8_000, Outcome::Untouched)?,
            nothing_2m8: build(&large_old, &large_old, 0, Outcome::Untouched)?,
            store_538k: build(&store_old, &store_new, 0, Outcome::Recorded)?,
            nothing_538k: build(&store_old, &store_old, 0, Outcome::Untouched)?,
        })
    }

    pub fn all(&self) -> [&Review; 9] {
        [
            &self.bundle_3k,
            &self.bundle_8k,
            &self.bundle_8k_signature,
            &self.bundle_2m8,
            &self.nothing_3k,
            &self.nothing_8k,
            &self.nothing_2m8,
            &self.store_538k,
            &self.nothing_538k,
        ]
    }
}

/// The data of a Secret, by key, base64.
#[derive(Clone)]
struct Data(std::collections::BTreeMap<&'static str, String>);

impl Data {
    fn new(ca_crt: &str, leaf: Option<&String>) -> Self {
        let data = Self(std::collections::BTreeMap::new()).with("ca.crt", ca_crt.as_bytes());
        match leaf {
            None => data,
            Some(leaf) => data.with("tls.crt", leaf.as_bytes()).with("tls.key", &[b'k'; 240]),
        }
    }

    fn with(mut self, key: &'static str, value: &[u8]) -> Self {
        self.0.insert(key, BASE64_STANDARD.encode(value));
        self
    }

    fn object(&self, resource_version: u32, padding: usize) -> String {
        let kind = if self.0.contains_key("tls.crt") { "kubernetes.io/tls" } else { "Opaque" };
        let fields: serde_json::Map<_, _> =
            self.0.keys().map(|key| (format!("f:{key}"), json!({}))).collect();
        let managed = json!([{"apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": fields}, "manager": "certgen", "operation": "Update",
            "time": "2026-03-01T10:00:00Z"}]);
        let annotations = json!({"example.com/owner": "x".repeat(padding)});
        format!(
            r#"{{"kind":"Secret","apiVersion":"v1","metadata":{{"name":"envoy","namespace":"gateway","uid":"2cbb6919-190f-4361-b969-f3235c9905b9","resourceVersion":"{resource_version}","creationTimestamp":"2026-03-01T10:00:00Z","annotations":{annotations},"managedFields":{managed}}},"data":{},"type":"{kind}"}}"#,
            json!(self.0)
        )
    }
}

fn review(
    index: usize,
    stored: &Data,
    incoming: &Data,
    size: usize,
    outcome: Outcome,
) -> Result<Review> {
    let uid = format!("705ab4f5-6393-11e8-b7cc-42010a80{index:04}");
    let body = |padding| {
        format!(
            r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"{uid}","kind":{{"group":"","version":"v1","kind":"Secret"}},"resource":{{"group":"","version":"v1","resource":"secrets"}},"requestKind":{{"group":"","version":"v1","kind":"Secret"}},"requestResource":{{"group":"","version":"v1","resource":"secrets"}},"name":"envoy","namespace":"gateway","operation":"UPDATE","userInfo":{{"username":"system:serviceaccount:gateway:certgen","uid":"0b2e60b0-8d6e-4f39-8c6a-0ce62ef0a4b7","groups":["system:serviceaccounts","system:serviceaccounts:gateway","system:authenticated"]}},"object":{},"oldObject":{},"dryRun":false,"options":{{"kind":"UpdateOptions","apiVersion":"meta.k8s.io/v1","fieldManager":"certgen"}}}}}}"#,
            incoming.object(0, padding),
            stored.object(224, padding)
        )
    };
    let body = body(size.saturating_sub(body(0).len()) / 2);
    let object = serde_json::from_str::<Value>(&body)?["request"]["object"].take();
    Ok(Review { index, uid, wire: wire(body.as_bytes()), size: body.len(), object, outcome })
}

/// A body with its head.
pub fn wire(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /mutate?timeout=3s HTTP/1.1\r\nHost: ca-overlap-webhook.ca-overlap.svc:443\r\nUser-Agent: kube-apiserver-admission\r\nContent-Length: {}\r\nAccept: application/json, */*\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn fingerprint(pem: &str) -> String {
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = BASE64_STANDARD.decode(base64).unwrap_or_default();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    digest.as_ref().iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes without a pattern, the same in every run (xorshift).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}
