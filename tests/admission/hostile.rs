//! Hostile bodies: answered, bounded, and never the end of the process.

use http::StatusCode;
use serde_json::json;

use crate::pki;
use crate::rig::{ask, post, review, secret};

#[tokio::test]
async fn deep_nesting_and_floods_are_answered() {
    let nested = format!("{}{}", "[".repeat(3_500_000), "]".repeat(3_500_000));
    let as_data = format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","object":{{"data":{{"x":{nested}}}}}}}}}"#
    );
    assert_eq!(post(nested).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(post(as_data).await.0, StatusCode::OK);
}

#[tokio::test]
async fn floods_of_pem_are_written_as_they_are() {
    let old = secret(&pki::ca().pem());
    let tiny = "-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n".repeat(12_000);
    let begins = "-----BEGIN CERTIFICATE-----\n".repeat(26_000);
    let others = "-----BEGIN X-----\nQQ==\n-----END X-----\n".repeat(18_000);
    for (flood, decision) in
        [(tiny, "trust_store"), (begins, "trust_store"), (others, "not_readable")]
    {
        let outcome = ask(&review(&old, &secret(&flood))).await;
        assert_eq!((outcome.decision(), outcome.ca_crt() == flood), (decision, true));
    }
}

#[tokio::test]
async fn many_and_huge_annotations_are_measured_not_kept() {
    let (old, new) = (pki::ca(), pki::ca());
    let mut incoming = secret(&new.pem());
    for n in 0..10_000 {
        incoming["metadata"]["annotations"][format!("k{n}")] = "v".into();
    }
    let outcome = ask(&review(&secret(&old.pem()), &incoming)).await;
    assert_eq!(outcome.ca_crt(), new.pem() + &old.pem());
    incoming["metadata"]["annotations"]["escaped"] = "\u{e9}\n".repeat(100_000).into();
    let outcome = ask(&review(&secret(&old.pem()), &incoming)).await;
    assert_eq!(outcome.ca_crt(), new.pem(), "over the limit of the API server");
}

#[tokio::test]
async fn nulls_anywhere_in_the_request_are_answered() {
    let (old, new) = (secret(&pki::ca().pem()), secret(&pki::ca().pem()));
    for (pointer, decision) in [
        ("/request/operation", "not_a_secret_update"),
        ("/request/kind/kind", "not_a_secret_update"),
        ("/request/kind/version", "not_a_secret_update"),
        ("/request/kind/group", "rotation"),
        ("/request/options/kind", "rotation"),
        ("/request/userInfo/username", "rotation"),
        ("/request/userInfo", "rotation"),
        ("/request/dryRun", "rotation"),
        ("/request/name", "rotation"),
        ("/request/object/type", "rotation"),
        ("/request/object/metadata/name", "rotation"),
        ("/request/object/data/tls.key", "rotation"),
        ("/request/object/data/tls.crt", "rotation"),
        ("/request/oldObject/metadata", "rotation"),
        ("/request/oldObject/data", "no_ca"),
    ] {
        let mut review = review(&old, &new);
        *review.pointer_mut(pointer).unwrap() = serde_json::Value::Null;
        assert_eq!(ask(&review).await.decision(), decision, "{pointer}");
    }
}

#[tokio::test]
async fn values_of_the_wrong_type_under_our_names_are_refused_without_their_content() {
    for object in [
        json!({"metadata": {"annotations": {"ca-overlap.dev/keep": ["CANARY"]}}}),
        json!({"data": {"ca.crt": {"CANARY": 1}}}),
        json!({"metadata": "CANARY"}),
    ] {
        let (status, body) = post(serde_json::to_vec(&review(&object, &object)).unwrap()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(!String::from_utf8_lossy(&body).contains("CANARY"));
    }
}
