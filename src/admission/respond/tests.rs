//! The work that one review can cause.

use base64::prelude::*;
use devtools::certs::{self, CA, Spec};
use devtools::reviews;
use serde_json::{Value, json};

use super::*;
use crate::admission::review;
use crate::overlap::settings::Defaults;
use crate::x509::certs::Fingerprint;
use crate::x509::issuer::signature_checks;

/// How many signatures are checked for the answer to this review.
fn checks(review: &Value) -> usize {
    let body = serde_json::to_vec(review).unwrap();
    let request = review::read(&body).ok().unwrap();
    let installation = Installation::new(Defaults::default(), "ca-overlap");
    let before = signature_checks();
    respond(&request, &installation, KeeperHealth::Alive, certs::now());
    signature_checks() - before
}

/// Any of these CAs could have issued any of the leaves, by its name.
struct LookAlikes {
    stored: String,
    incoming: String,
    held: String,
    waiting: String,
}

impl LookAlikes {
    fn new() -> Self {
        let ca = || Spec { key_ids: false, ..CA }.self_signed();
        let bundle = |count| (0..count).map(|_| ca().pem).collect::<String>();
        let foreign = ca();
        let leaf = || certs::leaf(&foreign, false).pem;
        Self { stored: bundle(12), incoming: bundle(12), held: leaf(), waiting: leaf() }
    }

    /// An update of a Secret in which a leaf waits, with annotations of this size.
    fn staged(&self, annotations: usize) -> Value {
        let Self { stored, incoming, held, waiting } = self;
        let fingerprint = |text: &str| Fingerprint::of(text.as_bytes()).to_string();
        let stage = json!({
            "since": "2026-03-01T00:00:00Z", "moved": 0,
            "held": fingerprint(held), "pending": fingerprint(waiting),
        });
        let own =
            json!({"ca-overlap.dev/staged": stage.to_string(), "ca-overlap.dev/carried": "[]"});
        let mut old = secret(stored, held, &own);
        old["data"]["pending.tls.crt"] = encode(waiting);
        old["data"]["pending.tls.key"] = encode("key");
        let fill = json!({"fill": "x".repeat(annotations)});
        reviews::update(&old, &secret(incoming, held, &fill), "generator")
    }
}

fn encode(text: &str) -> Value {
    BASE64_STANDARD.encode(text).into()
}

fn secret(ca_crt: &str, leaf: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {
            "name": "envoy", "namespace": "gateway", "managedFields": [{}],
            "labels": {"ca-overlap.dev/mode": "staged"}, "annotations": annotations,
        },
        "data": {"ca.crt": encode(ca_crt), "tls.crt": encode(leaf), "tls.key": encode("key")},
    })
}

#[test]
fn one_review_causes_at_most_64_signature_checks_however_often_it_is_decided() {
    let forged = LookAlikes::new();
    let (old, new) = (&forged.stored, &forged.incoming);
    let begun = reviews::update(
        &secret(old, &forged.held, &json!({})),
        &secret(new, &forged.waiting, &json!({})),
        "generator",
    );
    let mut copied = secret(old, &forged.held, &json!({}));
    copied["data"]["pending.tls.crt"] = encode(&forged.waiting);
    copied["data"]["pending.tls.key"] = encode("key");
    for (name, review) in [
        ("a stage that may begin", begun),
        ("a stage that ends", forged.staged(0)),
        ("annotations without room for a record", forged.staged(262_140)),
        ("a copy of a stage", reviews::create(&copied, "copier")),
    ] {
        let checks = checks(&review);
        assert!((12..=64).contains(&checks), "{name}: {checks}");
    }
}
