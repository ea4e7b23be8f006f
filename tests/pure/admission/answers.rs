//! The answers to readable and unreadable requests.

use std::io::{self, BufRead as _};
use std::process::Command;
use std::sync::Mutex;

use axum::body::Body;
use base64::prelude::*;
use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use super::endpoint::{MAX_BODY, admit, annotate, post, review, secret, send};
use devtools::certs;

#[tokio::test]
async fn a_rotation_is_bundled_recorded_and_explained() {
    let (old, new) = (certs::ca(), certs::ca());
    let outcome = admit(&review(&secret(&old.pem), &secret(&new.pem))).await;
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&new, &old]));
    assert_eq!(outcome.label("phase"), Some("overlap"));
    let record: Value = serde_json::from_str(outcome.annotation("carried").unwrap()).unwrap();
    assert_eq!(record[0]["sha256"], old.sha256());
    assert!(
        record[0].get("until").is_none() && record[0]["since"].as_str().unwrap().ends_with('Z')
    );
    assert_eq!(outcome.decision(), "rotation");
    assert_eq!(outcome.response["auditAnnotations"]["carried"], old.sha256());
    assert!(outcome.warnings().is_empty());
    // A dry run gets the same answer.
    let mut dry = review(&secret(&old.pem), &secret(&new.pem));
    dry["request"]["dryRun"] = true.into();
    assert_eq!(admit(&dry).await.ca_crt(), outcome.ca_crt());
}

#[tokio::test]
async fn a_person_is_told_how_to_remove_a_ca_that_was_added_back() {
    let mut review = review(&secret(&certs::ca().pem), &secret(&certs::ca().pem));
    review["request"]["userInfo"]["username"] = "kubernetes-admin".into();
    let warnings = admit(&review).await;
    assert!(
        warnings.warnings()[0].contains("ca-overlap.dev/distrust"),
        "{:?}",
        warnings.warnings()
    );
    // A write that adds nothing back gets no warning.
    review["request"]["object"] = review["request"]["oldObject"].clone();
    assert!(admit(&review).await.warnings().is_empty());
}

#[tokio::test]
async fn one_log_line_names_the_decision_and_the_warnings() {
    // A logger of one thread can miss lines while other threads log, and a logger of the process
    // serves all its tests, so this test runs in a process of its own.
    if !is_alone(concat!(module_path!(), "::one_log_line_names_the_decision_and_the_warnings")) {
        return;
    }
    let (read, write) = io::pipe().unwrap();
    let logger = tracing_subscriber::fmt().json().with_writer(Mutex::new(write)).finish();
    tracing::subscriber::set_global_default(logger).unwrap();
    let unreadable = annotate(secret(&certs::ca().pem), "keep", "many");
    let unreadable = annotate(unreadable, "window", "long");
    admit(&review(&secret(&certs::ca().pem), &unreadable)).await;
    let mut line = String::new();
    io::BufReader::new(read).read_line(&mut line).unwrap();
    let line: Value = serde_json::from_str(&line).expect("one line");
    let fields = &line["fields"];
    assert_eq!((&fields["namespace"], &fields["name"]), (&json!("gateway"), &json!("envoy")));
    assert_eq!((&fields["decision"], &fields["appended"]), (&json!("rotation"), &json!(1)));
    assert_eq!(fields["warnings"], "keep_unreadable,window_unreadable");
}

/// Whether `test` is the only one of this process. If not, runs it in a new process.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "CA_OVERLAP_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let (_, test) = test.split_once("::").unwrap();
    let mut again = Command::new(std::env::current_exe().unwrap());
    let output = again.args([test, "--exact"]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

#[tokio::test]
async fn a_write_without_a_ca_on_either_side_is_unchanged() {
    let hmac = json!({"metadata": {"name": "hmac"}, "data": {"hmac-secret": "c2VjcmV0"}});
    let outcome = admit(&review(&hmac, &hmac)).await;
    assert_eq!((outcome.decision(), outcome.operations.len()), ("no_ca", 0));
    for missing in [json!({"metadata": {}}), json!({"metadata": null, "data": null}), json!({})] {
        assert!(admit(&review(&missing, &missing)).await.operations.is_empty());
    }
}

#[tokio::test]
async fn a_request_without_a_review_gets_the_fitting_status() {
    for body in ["", "not json", "{}", "[1]", "null", "{\"kind\":\"AdmissionReview\"}"] {
        let (status, answer) = post(body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(!answer.is_empty());
    }
    let good = serde_json::to_vec(&review(&json!({}), &json!({}))).unwrap();
    let as_type = |content_type: Option<&str>| {
        let request = Request::post("/mutate");
        content_type.into_iter().fold(request, |r, t| r.header("content-type", t))
    };
    for refused in [None, Some("text/plain"), Some("application/json-patch+json"), Some("")] {
        let request = as_type(refused).body(Body::from(good.clone())).unwrap();
        assert_eq!(send(request).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{refused:?}");
    }
    for taken in ["application/json", "Application/JSON; charset=utf-8"] {
        let request = as_type(Some(taken)).body(Body::from(good.clone())).unwrap();
        assert_eq!(send(request).await.0, StatusCode::OK, "{taken}");
    }
    let get = Request::get("/mutate").body(Body::empty()).unwrap();
    assert_eq!(send(get).await.0, StatusCode::METHOD_NOT_ALLOWED);
    let elsewhere = Request::post("/").body(Body::empty()).unwrap();
    assert_eq!(send(elsewhere).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_body_over_the_limit_gets_413_and_one_at_the_limit_is_read() {
    let mut padded = serde_json::to_vec(&review(&json!({}), &json!({}))).unwrap();
    padded.resize(MAX_BODY, b' ');
    assert_eq!(post(padded.clone()).await.0, StatusCode::OK);
    padded.push(b' ');
    assert_eq!(post(padded).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_body_of_unknown_length_is_limited_and_a_broken_one_is_refused() {
    let status = async |chunks: Vec<Result<Bytes, io::Error>>| {
        post(Body::from_stream(futures::stream::iter(chunks))).await.0
    };
    let megabyte = Bytes::from(vec![b' '; 1024 * 1024]);
    let flood: Vec<_> = (0..9).map(|_| Ok(megabyte.clone())).collect();
    assert_eq!(status(flood).await, StatusCode::PAYLOAD_TOO_LARGE);
    let good = serde_json::to_vec(&review(&json!({}), &json!({}))).unwrap();
    assert_eq!(status(vec![Ok(good.clone().into())]).await, StatusCode::OK);
    let broken = vec![Ok(good.into()), Err(io::Error::other("reset"))];
    assert_eq!(status(broken).await, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_review_of_two_secrets_near_the_size_limit_is_answered() {
    let (old, new) = (certs::ca(), certs::ca());
    let filler = |ca: &str| {
        let mut secret = secret(ca);
        secret["data"]["blob"] = "A".repeat(1_390_000).into();
        secret
    };
    let outcome = admit(&review(&filler(&old.pem), &filler(&new.pem))).await;
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&new, &old]));
}

#[tokio::test]
async fn a_write_to_a_full_secret_is_admitted_unchanged() {
    let (old, new) = (certs::ca(), certs::ca());
    let mut full = secret(&new.pem);
    let used = new.pem.len() + "CANARY-tls-key".len();
    let blob = 1_048_576 - used - 10;
    full["data"]["blob"] = BASE64_STANDARD.encode(vec![0; blob]).into();
    let outcome = admit(&review(&secret(&old.pem), &full)).await;
    assert_eq!(outcome.ca_crt(), new.pem);
    assert!(outcome.warnings()[0].contains("no room"));
    assert_eq!(outcome.annotation("carried"), Some("[]"));
}

#[tokio::test]
async fn no_answer_contains_the_private_key() {
    let canary = "CANARY";
    let mut bad = secret(&certs::ca().pem);
    bad["data"]["tls.key"] = format!("%%{canary}%%").into();
    bad["data"][format!("extra-{canary}")] = json!({"not": [canary]});
    let reviews = [
        review(&secret(&certs::ca().pem), &secret(&certs::ca().pem)),
        review(&bad, &bad),
        review(&json!({"data": [canary]}), &bad),
        json!({"request": {"uid": [canary]}}),
    ];
    for review in reviews {
        let (_, body) = post(serde_json::to_vec(&review).unwrap()).await;
        assert!(!String::from_utf8_lossy(&body).contains(canary));
    }
}
