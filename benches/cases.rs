//! The counted reviews, one for each important path through the hot path. They are the same in every
//! run: fixed certificates (`benches/data`), no randomness, no clock.
//!
//! The certificates are made with `openssl` as generators make them: P-256, all CAs with the same
//! name. `bare_*` have no key identifiers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken case panics with its reason")]

use std::fmt::Write as _;

use base64::prelude::*;
use ca_overlap::x509::certs::Fingerprint;
use serde_json::{Value, json};

/// A body and the expected answer.
pub(crate) struct Case {
    /// The name in the baseline.
    pub(crate) name: &'static str,
    /// The body that the API server sends.
    pub(crate) body: Vec<u8>,
    /// The expected decision. `None` if the body is refused.
    pub(crate) decision: Option<&'static str>,
    /// Whether a patch is expected.
    pub(crate) patches: bool,
}

const CA: [&str; 3] =
    [include_str!("data/ca1.pem"), include_str!("data/ca2.pem"), include_str!("data/ca3.pem")];
const LEAF: [&str; 3] = [
    include_str!("data/leaf1.pem"),
    include_str!("data/leaf2.pem"),
    include_str!("data/leaf3.pem"),
];
const BARE_CA: [&str; 2] = [include_str!("data/bare_ca1.pem"), include_str!("data/bare_ca2.pem")];
const BARE_LEAF: [&str; 2] =
    [include_str!("data/bare_leaf1.pem"), include_str!("data/bare_leaf2.pem")];

const KB: usize = 1000;

/// All cases, in the order of the baseline.
pub(crate) fn cases() -> Vec<Case> {
    let stored = || tls_secret(CA[0], LEAF[0]);
    let rotated = || tls_secret(CA[1], LEAF[1]);
    let blob = 1_043_000;
    vec![
        case("bundle-3k", "rotation", true, &padded(3 * KB, &anchors(CA[0]), &anchors(CA[1]))),
        case("bundle-8k", "rotation", true, &padded(8 * KB, &stored(), &rotated())),
        case("unchanged-8k", "unchanged", false, &padded(8 * KB, &stored(), &stored())),
        case("no-ca-8k", "no_ca", false, &padded(8 * KB, &passwords(), &passwords())),
        case("reapply-8k", "same", true, &padded(8 * KB, &carrying(CA[1], CA[0], 1), &rotated())),
        case("keep-two-8k", "rotation", true, &keep_two()),
        case("signature-8k", "rotation", true, &signature()),
        case(
            "bundle-2.8m",
            "rotation",
            true,
            &review(&large(stored(), blob), &large(rotated(), blob)),
        ),
        case(
            "unchanged-2.8m",
            "unchanged",
            false,
            &review(&large(stored(), blob), &large(stored(), blob)),
        ),
        case("trust-store-538k", "trust_store", true, &trust_store()),
        case("garbage-ca-8k", "not_readable", false, &garbage_ca()),
        cut_short(),
    ]
}

fn case(name: &'static str, decision: &'static str, patches: bool, review: &Value) -> Case {
    Case { name, body: review.to_string().into_bytes(), decision: Some(decision), patches }
}

/// A rotation from CA2, which carries CA1, to CA3, with keep 2.
fn keep_two() -> Value {
    let new = tls_secret(CA[2], LEAF[2]);
    padded(8 * KB, &carrying(CA[1], CA[0], 1), &new)
}

/// Without key identifiers only the signature shows which CA issued the stored leaf.
fn signature() -> Value {
    let [old, new] = [0, 1].map(|which| tls_secret(BARE_CA[which], BARE_LEAF[which]));
    padded(8 * KB, &old, &new)
}

/// 342 CAs on each side: a trust store, not a rotation.
fn trust_store() -> Value {
    let mut numbers = 0..;
    let mut store = || {
        let cas = numbers.by_ref().take(342).map(variant).collect::<String>();
        anchors(&cas)
    };
    padded(538 * KB, &store(), &store())
}

/// The first CA with another signature, which is not checked here.
fn variant(number: u32) -> String {
    let base64: String = CA[0].lines().filter(|line| !line.starts_with('-')).collect();
    let mut der = BASE64_STANDARD.decode(base64).unwrap();
    let end = der.len();
    der[end - 4..].copy_from_slice(&number.to_be_bytes());
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in BASE64_STANDARD.encode(der).as_bytes().chunks(64) {
        writeln!(pem, "{}", str::from_utf8(line).unwrap()).unwrap();
    }
    pem + "-----END CERTIFICATE-----\n"
}

/// The written `ca.crt` has no certificate.
fn garbage_ca() -> Value {
    let text: Vec<_> =
        (0..2100_u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let mut new = tls_secret("", LEAF[1]);
    new["data"]["ca.crt"] = BASE64_STANDARD.encode(text).into();
    padded(8 * KB, &tls_secret(CA[0], LEAF[0]), &new)
}

/// A truncated body: it is read to its end before it is refused.
fn cut_short() -> Case {
    let mut body =
        padded(8 * KB, &tls_secret(CA[0], LEAF[0]), &tls_secret(CA[1], LEAF[1])).to_string();
    body.truncate(body.len() - 3);
    Case { name: "cut-short-8k", body: body.into_bytes(), decision: None, patches: false }
}

/// A TLS Secret as generators write it.
fn tls_secret(ca_crt: &str, tls_crt: &str) -> Value {
    secret(
        "kubernetes.io/tls",
        &json!({
            "ca.crt": BASE64_STANDARD.encode(ca_crt),
            "tls.crt": BASE64_STANDARD.encode(tls_crt),
            "tls.key": BASE64_STANDARD.encode("k".repeat(240)),
        }),
    )
}

/// A Secret with only CAs.
fn anchors(ca_crt: &str) -> Value {
    secret("Opaque", &json!({"ca.crt": BASE64_STANDARD.encode(ca_crt)}))
}

/// A Secret that has nothing to do with certificates.
fn passwords() -> Value {
    secret(
        "Opaque",
        &json!({"username": "YWRtaW4=", "password": BASE64_STANDARD.encode("p".repeat(32))}),
    )
}

/// The result of an earlier rotation: `own` by the generator, `carried` by us.
fn carrying(own: &str, carried: &str, leaf: usize) -> Value {
    let mut secret = tls_secret(&format!("{own}{carried}"), LEAF[leaf]);
    let base64: String = carried.lines().filter(|line| !line.starts_with('-')).collect();
    let sha256 = Fingerprint::of(&BASE64_STANDARD.decode(base64).unwrap());
    let record = json!([{"sha256": sha256.to_string(), "since": "2029-12-01T00:00:00Z"}]);
    secret["metadata"]["labels"]["ca-overlap.dev/phase"] = "overlap".into();
    secret["metadata"]["annotations"]["ca-overlap.dev/carried"] = record.to_string().into();
    secret["metadata"]["annotations"]["ca-overlap.dev/keep"] = "2".into();
    secret
}

fn secret(type_: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": type_,
        "metadata": {"name": "envoy", "namespace": "gateway", "uid": "1"},
        "data": data,
    })
}

/// The Secret with a large value that is not read.
fn large(mut secret: Value, blob: usize) -> Value {
    secret["data"]["blob"] = BASE64_STANDARD.encode("b".repeat(blob)).into();
    secret
}

/// A review of `size` bytes: an annotation that is not ours pads both objects.
fn padded(size: usize, old: &Value, new: &Value) -> Value {
    let with = |secret: &Value, padding: usize| {
        let mut secret = secret.clone();
        secret["metadata"]["annotations"]["example.com/padding"] = "x".repeat(padding).into();
        secret
    };
    let bare = review(&with(old, 0), &with(new, 0)).to_string().len();
    let padding = size.checked_sub(bare).expect("a review smaller than wanted");
    review(&with(old, padding.div_ceil(2)), &with(new, padding / 2))
}

/// An update by a program.
fn review(old: &Value, new: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "operation": "UPDATE",
            "kind": {"group": "", "version": "v1", "kind": "Secret"},
            "resource": {"group": "", "version": "v1", "resource": "secrets"},
            "namespace": "gateway", "name": "envoy", "dryRun": false,
            "userInfo": {"username": "system:serviceaccount:gateway:certgen"},
            "options": {"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1"},
            "object": new, "oldObject": old,
        }
    })
}
