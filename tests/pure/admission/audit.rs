//! With `--audit` a write is decided as without, and stored as it was written.

use std::sync::Arc;

use axum::body::Body;
use ca_overlap::admission::handler::{Admission, render, router};
use ca_overlap::admission::respond::{Answer, Installation, NO_CHANGE, WOULD_CHANGE, respond};
use ca_overlap::admission::review::AdmissionRequest;
use ca_overlap::overlap::settings::Defaults;
use ca_overlap::overlap::staged::KeeperHealth;
use http::Request;
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

use super::endpoint::{admission, review, secret};
use devtools::certs;

/// Compares the answer to a request with the one under `--audit`. Every review of the property tests
/// beside this file passes through here.
pub fn compare(
    request: &AdmissionRequest<'_>,
    installation: &Installation,
    keeper: KeeperHealth,
    now: Timestamp,
    answer: &Answer,
) {
    let trial = Installation { audit: true, ..installation.clone() };
    let audited = respond(request, &trial, keeper, now);
    let is_changed = answer.patch.is_some();
    assert!(audited.patch.is_none());
    assert_eq!(audited.audit, Some(if is_changed { WOULD_CHANGE } else { NO_CHANGE }));
    let parts = |answer: &Answer| {
        (
            (answer.decision, answer.warnings.clone(), answer.record.clone(), answer.appended),
            (answer.announced, answer.cut, answer.asked, answer.staged),
        )
    };
    assert_eq!(parts(&audited), parts(answer));
    let rendered: Value = serde_json::from_slice(&render("7", &audited)).unwrap();
    let response = &rendered["response"];
    assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None));
    for warning in response["warnings"].as_array().into_iter().flatten() {
        assert!(warning.as_str().unwrap().starts_with("ca-overlap (audit): would "), "{warning}");
    }
}

#[tokio::test]
async fn the_writer_is_told_what_would_have_been_done() {
    let (old, new) = (certs::ca(), certs::ca());
    let usual = admission(Defaults::default());
    let trial = Installation { audit: true, ..usual.installation.borrow().clone() };
    let admission = Arc::new(Admission {
        installation: watch::channel(trial).1,
        keeper: usual.keeper.clone(),
        max_body: usual.max_body,
        body_timeout: usual.body_timeout,
        metrics: usual.metrics.clone(),
    });
    let mut flawed = secret(&new.pem);
    flawed["metadata"]["annotations"]["ca-overlap.dev/keep"] = "many".into();
    let body = serde_json::to_vec(&review(&secret(&old.pem), &flawed)).unwrap();
    let request = Request::post("/mutate").header("content-type", "application/json");
    let response =
        router(admission).oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let expected = json!({
        "uid": answer["response"]["uid"], "allowed": true,
        "warnings": [
            "ca-overlap (audit): would keep 1 CA; the write is stored as it is",
            "ca-overlap (audit): would warn: ca-overlap.dev/keep: expected a number from 0 to 8; \
             the default is used",
        ],
        "auditAnnotations": {
            "decision": "rotation", "carried": old.sha256(), "audit": "would_change",
        },
    });
    assert_eq!(answer["response"], expected);
}
