//! Secrets that the guards leave alone, even if the match conditions let them through.

use serde_json::{Value, json};

use super::endpoint::{Outcome, admit, label, review, secret};
use devtools::certs::{self, CA, Spec};

fn rotation() -> (Value, Value) {
    (secret(&certs::ca().pem), secret(&certs::ca().pem))
}

fn is_untouched(outcome: &Outcome, decision: &str) {
    assert_eq!(outcome.decision(), decision);
    assert!(outcome.operations.is_empty(), "{:?}", outcome.operations);
}

#[tokio::test]
async fn only_updates_and_creations_of_core_secrets_are_decided() {
    let (old, new) = rotation();
    for (pointer, value) in [
        ("/request/operation", json!("DELETE")),
        ("/request/operation", json!("")),
        ("/request/kind/kind", json!("ConfigMap")),
        ("/request/kind/group", json!("example.com")),
        ("/request/kind/version", json!("v2")),
        ("/request/kind", Value::Null),
        ("/request/object", Value::Null),
        ("/request/oldObject", Value::Null),
    ] {
        let mut review = review(&old, &new);
        *review.pointer_mut(pointer).unwrap() = value.clone();
        is_untouched(&admit(&review).await, "not_a_secret_update");
    }
    let mut status = review(&old, &new);
    status["request"]["subResource"] = "status".into();
    is_untouched(&admit(&status).await, "not_a_secret_update");
}

#[tokio::test]
async fn our_own_namespace_tokens_and_immutable_secrets_are_untouched() {
    let (old, new) = rotation();
    let mut own = review(&old, &new);
    own["request"]["namespace"] = "ca-overlap".into();
    is_untouched(&admit(&own).await, "own_namespace");
    for side in ["object", "oldObject"] {
        let mut token = review(&old, &new);
        token["request"][side]["type"] = "kubernetes.io/service-account-token".into();
        is_untouched(&admit(&token).await, "service_account_token");
        let mut immutable = review(&old, &new);
        immutable["request"][side]["immutable"] = true.into();
        is_untouched(&admit(&immutable).await, "immutable");
        immutable["request"][side]["immutable"] = false.into();
        assert_eq!(admit(&immutable).await.decision(), "rotation");
    }
}

#[tokio::test]
async fn a_signing_secret_is_left_alone_and_one_with_a_leaf_is_bundled() {
    let signer = |ca: &certs::Identity| {
        let mut signer = secret(&ca.pem);
        signer["data"].as_object_mut().unwrap().remove("tls.crt");
        signer["data"]["ca.key"] = "Q0FOQVJZ".into();
        signer
    };
    let (old, new) = (certs::ca(), certs::ca());
    let outcome = admit(&review(&signer(&old), &signer(&new))).await;
    is_untouched(&outcome, "signer");
    assert_eq!(outcome.ca_crt(), new.pem);
    let explicit = label(signer(&new), "mode", "bundle");
    assert_eq!(
        admit(&review(&signer(&old), &explicit)).await.ca_crt(),
        certs::bundle(&[&new, &old])
    );
    let mut beside = (signer(&old), signer(&new));
    beside.0["data"]["tls.crt"] = "".into();
    beside.1["data"]["tls.crt"] = "".into();
    assert_eq!(admit(&review(&beside.0, &beside.1)).await.ca_crt(), certs::bundle(&[&new, &old]));
}

#[tokio::test]
async fn a_ca_that_is_its_own_leaf_is_left_alone() {
    let tls = |identity: &certs::Identity| {
        let mut both = secret(&identity.pem);
        both["data"]["tls.crt"] = both["data"]["ca.crt"].clone();
        both
    };
    let (old, new) = (certs::ca(), certs::ca());
    is_untouched(&admit(&review(&tls(&old), &tls(&new))).await, "signer");
    // cert-manager's self-signed serving certificates look the same but are not CAs.
    let serving = || Spec { is_ca: false, subject: "serving", ..CA }.self_signed();
    let (old, new) = (serving(), serving());
    let outcome = admit(&review(&tls(&old), &tls(&new))).await;
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&new, &old]));
}

#[tokio::test]
async fn mode_off_stops_only_changes_of_data() {
    let (old, new) = rotation();
    let outcome = admit(&review(&label(old.clone(), "mode", "off"), &new)).await;
    assert_eq!((outcome.decision(), outcome.label("mode")), ("off", Some("off")));
    assert_eq!(outcome.stored["data"], new["data"]);
    // Mode off gives no warnings.
    let garbage = label(secret("garbage"), "mode", "off");
    assert!(admit(&review(&old, &garbage)).await.warnings().is_empty());
}

/// A Secret as a writer stores it that compares what is stored with its own bytes.
fn compared(mark: &str, secret: &Value) -> Value {
    let mut secret = secret.clone();
    match mark {
        "issuer.key" => {
            let data = secret["data"].as_object_mut().unwrap();
            data.remove("tls.crt");
            data.insert(mark.into(), "Q0FOQVJZ".into());
        }
        "secret-data-hash" => secret["metadata"]["annotations"][mark] = "17".into(),
        group => {
            let owner = json!({"apiVersion": format!("{group}/v1"), "kind": "K", "name": "n"});
            secret["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1"}, owner]);
        }
    }
    secret
}

#[tokio::test]
async fn secrets_whose_writer_compares_its_bytes_are_left_alone_unless_the_mode_is_bundle() {
    for (mark, decision) in [
        ("issuer.key", "signer"),
        ("secrets.hashicorp.com", "comparing_writer"),
        ("database.arangodb.com", "comparing_writer"),
        ("secret-data-hash", "comparing_writer"),
    ] {
        let (old, new) = (certs::ca(), certs::ca());
        let (stored, written) =
            (compared(mark, &secret(&old.pem)), compared(mark, &secret(&new.pem)));
        let outcome = admit(&review(&stored, &written)).await;
        is_untouched(&outcome, decision);
        assert_eq!(outcome.ca_crt(), new.pem, "{mark}");
        let staged = label(written.clone(), "mode", "staged");
        assert_eq!(admit(&review(&stored, &staged)).await.ca_crt(), new.pem, "{mark}");
        let explicit = label(written, "mode", "bundle");
        let outcome = admit(&review(&stored, &explicit)).await;
        assert_eq!(outcome.ca_crt(), certs::bundle(&[&new, &old]), "{mark}");
    }
}

#[tokio::test]
async fn a_ca_that_was_carried_before_the_guard_knew_its_writer_goes_with_his_next_write() {
    let (old, new) = (certs::ca(), certs::ca());
    let bundled = admit(&review(&secret(&old.pem), &secret(&new.pem))).await;
    assert_eq!(bundled.ca_crt(), certs::bundle(&[&new, &old]));
    let mark = "secrets.hashicorp.com";
    let mut stored = bundled.stored.clone();
    stored["metadata"]["ownerReferences"] = json!([{"apiVersion": format!("{mark}/v1beta1")}]);
    let outcome = admit(&review(&stored, &compared(mark, &secret(&new.pem)))).await;
    assert_eq!((outcome.decision(), outcome.ca_crt()), ("comparing_writer", new.pem));
}

#[tokio::test]
async fn systems_with_an_overlap_of_their_own_are_left_alone() {
    let (old, mut new) = rotation();
    new["metadata"]["labels"]["strimzi.io/kind"] = "Kafka".into();
    is_untouched(&admit(&review(&old, &new)).await, "foreign_overlap");
    let (old, mut new) = rotation();
    new["data"]["old-ca.crt"] = "".into();
    is_untouched(&admit(&review(&old, &new)).await, "foreign_overlap");
    let (old, mut new) = rotation();
    new["metadata"]["ownerReferences"] = json!([{"apiVersion": "psmdb.percona.com/v1"}]);
    is_untouched(&admit(&review(&old, &new)).await, "foreign_overlap");
}
