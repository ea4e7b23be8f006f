//! Builds reviews, posts them to the router, and applies the patch.

use devtools::reviews;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::prelude::*;
use ca_overlap::admission::handler::{Admission, router};
use ca_overlap::admission::keeper_lease::KeeperLease;
use ca_overlap::admission::metrics::AdmissionMetrics;
use ca_overlap::admission::respond::{Installation, respond};
use ca_overlap::admission::review;
use ca_overlap::overlap::settings::{Defaults, Mode};
use ca_overlap::overlap::staged::KeeperHealth;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

use super::audit;

pub const MAX_BODY: usize = 8 * 1024 * 1024;

pub fn admission(defaults: Defaults) -> Arc<Admission> {
    Arc::new(Admission {
        installation: watch::channel(Installation::new(defaults, "ca-overlap")).1,
        keeper: KeeperLease::not_watched(),
        max_body: MAX_BODY,
        body_timeout: Duration::from_secs(10),
        metrics: AdmissionMetrics::default(),
    })
}

/// Sends a body as the API server does.
pub async fn post(body: impl Into<Body>) -> (StatusCode, Vec<u8>) {
    let request = Request::post("/mutate?timeout=3s")
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap();
    send(request).await
}

pub async fn send(request: Request<Body>) -> (StatusCode, Vec<u8>) {
    let response = router(admission(Defaults::default())).oneshot(request).await.unwrap();
    let status = response.status();
    assert!(!response.headers().contains_key("retry-after"));
    (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

/// An update of a Secret by a program's PUT.
pub fn review(old: &Value, new: &Value) -> Value {
    reviews::update(old, new, "system:serviceaccount:gateway:certgen")
}

pub fn as_patch(mut review: Value) -> Value {
    review["request"]["options"]["kind"] = "PatchOptions".into();
    review
}

/// A TLS Secret with this `ca.crt`.
pub fn secret(ca_crt: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "envoy", "namespace": "gateway", "resourceVersion": "7"},
        "data": {
            "ca.crt": BASE64_STANDARD.encode(ca_crt),
            "tls.crt": "", "tls.key": BASE64_STANDARD.encode("CANARY-tls-key"),
        }
    })
}

pub fn annotate(mut secret: Value, key: &str, value: &str) -> Value {
    secret["metadata"]["annotations"][format!("ca-overlap.dev/{key}")] = value.into();
    secret
}

pub fn label(mut secret: Value, key: &str, value: &str) -> Value {
    secret["metadata"]["labels"][format!("ca-overlap.dev/{key}")] = value.into();
    secret
}

/// The response to a review, the object as the API server would store it, and the patch.
pub struct Outcome {
    pub response: Value,
    pub stored: Value,
    pub operations: Vec<Value>,
}

/// The decisions that leave the data alone, whatever the default mode is.
const LEFT_ALONE: [&str; 8] = [
    "comparing_writer",
    "foreign_overlap",
    "immutable",
    "not_a_secret_update",
    "off",
    "own_namespace",
    "service_account_token",
    "signer",
];

pub async fn admit(review: &Value) -> Outcome {
    let sent = serde_json::to_vec(review).unwrap();
    let (status, body) = post(sent.clone()).await;
    let (request, now) = (review::read(&sent).ok().unwrap(), Timestamp::now());
    let installation = Installation::new(Defaults::default(), "ca-overlap");
    let answer = respond(&request, &installation, KeeperHealth::Absent, now);
    audit::compare(&request, &installation, KeeperHealth::Absent, now, &answer);
    if LEFT_ALONE.contains(&answer.decision.as_str()) {
        let defaults = Defaults { mode: Mode::Staged, ..Defaults::default() };
        let full = Installation::new(defaults, "ca-overlap");
        let with_full = respond(&request, &full, KeeperHealth::Alive, now);
        assert_eq!(with_full.patch, answer.patch, "a default reaches what is left alone");
    }
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
    outcome(review, &body)
}

/// Applies the patch of an answer.
pub fn outcome(review: &Value, body: &[u8]) -> Outcome {
    let answer: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    let response = answer["response"].clone();
    assert_eq!(response["uid"], review["request"]["uid"]);
    assert_eq!(response["allowed"], true);
    assert_eq!(response.get("patch").is_some(), response.get("patchType").is_some());
    let mut stored = review["request"]["object"].clone();
    let mut operations = Vec::new();
    if let Some(patch) = response["patch"].as_str() {
        assert_eq!(response["patchType"], "JSONPatch");
        let bytes = BASE64_STANDARD.decode(patch).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&bytes).unwrap();
        json_patch::patch(&mut stored, &patch).expect("the patch applies");
        operations = serde_json::from_slice(&bytes).unwrap();
        only_our_paths(&operations, false);
    }
    for warning in response["warnings"].as_array().into_iter().flatten() {
        assert!(warning.as_str().unwrap().len() <= 120);
    }
    Outcome { response, stored, operations }
}

/// Fails if a patch touches a path that is not ours. The pairs are ours in staged mode only.
pub fn only_our_paths(operations: &[Value], is_staged: bool) {
    for operation in operations {
        let (op, path) = (operation["op"].as_str().unwrap(), operation["path"].as_str().unwrap());
        let ours = path.starts_with("/metadata/labels/ca-overlap.dev~1")
            || path.starts_with("/metadata/annotations/ca-overlap.dev~1");
        let makes_map = op == "add"
            && (path == "/metadata/labels" || path == "/metadata/annotations")
            && operation["value"]
                .as_object()
                .unwrap()
                .keys()
                .all(|k| k.starts_with("ca-overlap.dev/"));
        let pending = matches!(path, "/data/pending.tls.crt" | "/data/pending.tls.key");
        let served = op == "add" && matches!(path, "/data/tls.crt" | "/data/tls.key");
        assert!(
            (op == "add" && path == "/data/ca.crt")
                || (is_staged && (served || (pending && matches!(op, "add" | "remove"))))
                || (matches!(op, "add" | "remove") && ours)
                || makes_map,
            "{op} {path}"
        );
    }
}

impl Outcome {
    pub fn ca_crt(&self) -> String {
        let text = self.stored["data"]["ca.crt"].as_str().unwrap();
        String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap()
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.stored["metadata"]["annotations"][format!("ca-overlap.dev/{key}")].as_str()
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.stored["metadata"]["labels"][format!("ca-overlap.dev/{key}")].as_str()
    }

    pub fn decision(&self) -> &str {
        self.response["auditAnnotations"]["decision"].as_str().unwrap()
    }

    pub fn warnings(&self) -> Vec<&str> {
        self.response["warnings"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|w| w.as_str().unwrap())
            .collect()
    }
}
