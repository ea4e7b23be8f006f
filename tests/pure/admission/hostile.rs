//! Hostile bodies: each gets an answer, within bounds, and none ends the process.

use http::StatusCode;
use serde_json::{Value, json};

use super::endpoint::{admit, post, review, secret};
use super::shapes;
use devtools::certs;

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
async fn floods_of_pem_are_stored_as_written() {
    let old = secret(&certs::ca().pem);
    let tiny = "-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n".repeat(12_000);
    let begins = "-----BEGIN CERTIFICATE-----\n".repeat(26_000);
    let others = "-----BEGIN X-----\nQQ==\n-----END X-----\n".repeat(18_000);
    for (flood, decision) in
        [(tiny, "trust_store"), (begins, "trust_store"), (others, "not_readable")]
    {
        let outcome = admit(&review(&old, &secret(&flood))).await;
        assert_eq!((outcome.decision(), outcome.ca_crt() == flood), (decision, true));
    }
}

#[tokio::test]
async fn many_and_huge_annotations_are_counted() {
    let (old, new) = (certs::ca(), certs::ca());
    let mut incoming = secret(&new.pem);
    for n in 0..10_000 {
        incoming["metadata"]["annotations"][format!("k{n}")] = "v".into();
    }
    let outcome = admit(&review(&secret(&old.pem), &incoming)).await;
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&new, &old]));
    incoming["metadata"]["annotations"]["escaped"] = "\u{e9}\n".repeat(100_000).into();
    let outcome = admit(&review(&secret(&old.pem), &incoming)).await;
    assert_eq!(outcome.ca_crt(), new.pem, "over the limit of the API server");
}

#[tokio::test]
async fn nulls_anywhere_in_the_request_are_answered() {
    let (old, new) = (secret(&certs::ca().pem), secret(&certs::ca().pem));
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
        *review.pointer_mut(pointer).unwrap() = Value::Null;
        assert_eq!(admit(&review).await.decision(), decision, "{pointer}");
    }
}

#[tokio::test]
async fn values_of_the_wrong_type_are_refused_without_echoing_them() {
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

/// The decision about each shape of `benches/hostile.rs`, and how many certificates are carried in a
/// body of 300 kB and in one of 7 MiB, where most values leave no room, and certificates are too
/// large to be carried.
const EXPECTED: [(&str, &str, usize, usize); 46] = [
    ("json arrays in data", "rotation", 1, 0),
    ("json objects in data", "rotation", 1, 0),
    ("json arrays in managed fields", "rotation", 1, 1),
    ("json arrays as body", "400", 0, 0),
    ("json string without end", "400", 0, 0),
    ("json number in data", "rotation", 1, 0),
    ("json white space", "rotation", 1, 1),
    ("json escapes in a data key", "rotation", 1, 1),
    ("many data keys", "rotation", 1, 1),
    ("one data key many times", "rotation", 1, 1),
    ("many annotations", "rotation", 1, 0),
    ("one annotation many times", "rotation", 1, 0),
    ("one label many times", "rotation", 1, 1),
    ("one owner many times", "comparing_writer", 0, 0),
    ("a long owner", "rotation", 1, 1),
    ("escapes in an annotation", "rotation", 1, 0),
    ("a uid of escapes", "rotation", 1, 1),
    ("tiny certificate blocks", "trust_store", 0, 0),
    ("tiny other blocks", "not_readable", 0, 0),
    ("begin lines without end", "trust_store", 0, 0),
    ("begin lines without end, stored", "trust_store", 0, 0),
    ("begin lines of many labels", "rotation", 1, 0),
    ("one begin and many other ends", "rotation", 1, 0),
    ("half boundaries", "rotation", 1, 0),
    ("dashes", "rotation", 1, 0),
    ("empty lines in a block", "rotation", 1, 0),
    ("base64 with white space", "rotation", 1, 0),
    ("base64 that is none", "not_readable", 0, 0),
    ("a large certificate", "rotation", 1, 0),
    ("a large certificate, stored", "rotation", 0, 0),
    ("one certificate many times", "rotation", 1, 0),
    ("many extensions", "rotation", 1, 0),
    ("many parts of a name", "rotation", 1, 0),
    ("asn.1 nested 64 times", "rotation", 1, 0),
    ("asn.1 nested in a name", "rotation", 1, 0),
    ("look-alike authorities", "rotation", 8, 8),
    ("authorities that issue each other", "rotation", 8, 0),
    ("a long chain of authorities", "rotation", 60, 0),
    ("a long record", "rotation", 1, 1),
    ("a full record, and white space", "rotation", 1, 1),
    ("a long list of distrust", "unchanged", 60, 60),
    ("a list of commas", "unchanged", 60, 60),
    ("a list of colons", "unchanged", 60, 60),
    ("a long window", "unchanged", 60, 60),
    ("a flood of leaf certificates", "rotation", 1, 0),
    ("a third pair while one waits", "rotation", 8, 0),
];

#[tokio::test]
async fn every_hostile_shape_is_answered_at_any_size() {
    let names: Vec<_> = shapes::cases().iter().map(|(name, _)| *name).collect();
    assert_eq!(names, EXPECTED.map(|(name, ..)| name));
    for ((name, generate), (_, decision, small, large)) in shapes::cases().into_iter().zip(EXPECTED)
    {
        for (size, carried) in [(300_000, small), (7 << 20, large)] {
            let body = generate(size);
            assert!((size / 2..size * 3 / 2).contains(&body.len()), "{name}: {}", body.len());
            let (status, answer) = post(body).await;
            if decision == "400" {
                assert_eq!(status, StatusCode::BAD_REQUEST, "{name} of {size} bytes");
                continue;
            }
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            let audit = &answer["response"]["auditAnnotations"];
            let fingerprints = audit["carried"].as_str().unwrap_or_default().split_terminator(',');
            let outcome = (audit["decision"].as_str().unwrap(), fingerprints.count());
            assert_eq!(outcome, (decision, carried), "{name} of {size} bytes");
            assert_eq!(answer["response"]["allowed"], true, "{name} of {size} bytes");
        }
    }
}
