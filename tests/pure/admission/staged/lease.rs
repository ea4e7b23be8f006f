//! The endpoint stages only while its watch shows a fresh Lease, and its answer reveals no other key.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use base64::prelude::*;
use ca_overlap::admission::handler::{Admission, router};
use ca_overlap::admission::keeper_lease::KeeperLease;
use http::Request;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt;

use super::super::endpoint::{self, review};
use super::secret::{TlsSecret, fresh, leaf};

/// The endpoint's answer to a rotation.
async fn answer(keeper: watch::Receiver<KeeperLease>) -> Value {
    let usual = endpoint::admission(ca_overlap::overlap::settings::Defaults::default());
    let admission = Admission {
        installation: usual.installation.clone(),
        keeper,
        max_body: usual.max_body,
        body_timeout: usual.body_timeout,
        metrics: usual.metrics.clone(),
    };
    let body = review(&TlsSecret::new(leaf(1)).stored, &fresh(&[2], leaf(2))).to_string();
    let request = Request::post("/mutate")
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap();
    let response = router(Arc::new(admission)).oneshot(request).await.unwrap();
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test]
async fn the_watch_of_the_lease_decides_whether_a_pair_waits() {
    let now = Instant::now();
    let (sender, receiver) = watch::channel(KeeperLease::AwaitedUntil(now));
    let text = answer(receiver.clone()).await.to_string();
    assert!(text.contains("Lease") && !text.contains("\"staged\""), "{text}");
    sender.send_replace(KeeperLease::ValidUntil(now + Duration::from_secs(3600)));
    let mut answer = answer(receiver).await;
    assert_eq!(answer["response"]["auditAnnotations"]["staged"], "begun");
    let patch = answer["response"]["patch"].take();
    let patch = BASE64_STANDARD.decode(patch.as_str().unwrap()).unwrap();
    let patch: Value = serde_json::from_slice(&patch).unwrap();
    endpoint::only_our_paths(patch.as_array().unwrap(), true);
    let held = BASE64_STANDARD.encode("CANARY key of leaf 3");
    let value = |path: &str| {
        let found = patch.as_array().unwrap().iter().find(|op| op["path"] == path);
        found.map(|op| op["value"].clone())
    };
    assert_eq!(value("/data/tls.key"), Some(held.clone().into()));
    assert!(value("/data/pending.tls.key").is_some());
    // The key is nowhere else, neither as text nor as base64.
    let rest = answer.to_string();
    assert!(!rest.contains("CANARY") && !rest.contains(&held) && !rest.contains("Q0FOQVJZ"));
}
