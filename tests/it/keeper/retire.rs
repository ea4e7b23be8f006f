//! Retirement, and what must hold before it.

use std::collections::BTreeMap;

use ca_overlap::names;
use devtools::control_plane::send;
use http::StatusCode;
use serde_json::{Value, json};

use super::setup::{Rotation, Setup, eventually, past};
use super::steady_state::versions;
use crate::support::sum;
use devtools::secrets::{MERGE, tls_secret};

fn until(answer: &devtools::secrets::Answer) -> String {
    let record: Value = serde_json::from_str(answer.annotation(names::CARRIED).unwrap()).unwrap();
    record[0]["until"].as_str().expect("a deadline").to_owned()
}

#[tokio::test]
async fn carried_cas_retire_on_time_without_a_conflict() {
    let test = "carried_cas_retire_on_time_without_a_conflict";
    let Some(setup) = Setup::start(test).await else { return };
    let keeper = setup.leading_keeper(&[]).await;
    let secrets = setup.cluster.namespace(test).await;
    let mut rotation =
        Rotation::begin(&secrets, "envoy", json!({names::WINDOW: "2s", names::KEEP: "3"})).await;
    for _ in 0..3 {
        let rotated = rotation.rotate().await;
        assert_eq!(rotated.label(names::PHASE), Some("overlap"));
        let deadline = until(&rotated);
        let before = rotated.pem("tls.key");
        let retired_secret = rotation.wait_until_retired().await;
        assert!(jiff::Timestamp::now() >= deadline.parse().unwrap(), "before its deadline");
        assert_eq!(retired_secret.pem("tls.key"), before);
        assert_eq!(retired_secret.annotation(names::ASK), None);
        assert_eq!(retired_secret.annotation(names::KEEP), Some("3"), "a person's settings stay");
    }
    // All rotations were unforced applies, and no other manager owns any data.
    assert_eq!(rotation.data_managers().await, ["helm"]);
    let retired = setup.event(&rotation, "Retired").await;
    assert_eq!(retired["reportingController"], "ca-overlap-keeper");
    assert_eq!(retired["type"], "Normal");
    assert_eq!(retired["regarding"]["uid"], rotation.stored().await.body["metadata"]["uid"]);
    setup.event(&rotation, "Overlapping").await;
    assert!(keeper.asks("retire", "done").await >= 3.0);
    let metrics = keeper.metrics().await;
    let lateness = sum(&metrics, "ca_overlap_keeper_lateness_seconds_sum", &[]);
    let count = sum(&metrics, "ca_overlap_keeper_lateness_seconds_count", &[]);
    println!("retired {count} times, on average {:.3} s after it was due", lateness / count);
    // The private key is in no log and no Event.
    let key = rotation.stored().await.pem("tls.key");
    let line = key.lines().nth(1).unwrap();
    assert!(!keeper.log().contains(line) && !retired.to_string().contains(line));
}

#[tokio::test]
async fn a_ca_that_the_leaf_needs_is_reported_and_retires_with_the_leaf() {
    let test = "a_ca_that_the_leaf_needs_is_reported_and_retires_with_the_leaf";
    let Some(setup) = Setup::start(test).await else { return };
    let keeper = setup.leading_keeper(&[]).await;
    let secrets = setup.cluster.namespace(test).await;
    let mut rotation = Rotation::begin(&secrets, "envoy", json!({names::WINDOW: "1s"})).await;
    // The CA is renewed before the leaf.
    let leaf = rotation.generation[0].leaf("envoy");
    rotation.rotate().await;
    let ca = &rotation.generation[1].pem;
    let early = secrets.apply("envoy", "helm", false, &tls_secret("envoy", ca, &leaf)).await.ok();
    past(&until(&early)).await;
    let event = setup.event(&rotation, "RetireBlocked").await;
    assert_eq!(event["type"], "Warning");
    eventually("the problem is counted", async || {
        let metrics = keeper.metrics().await;
        let label = ["problem=\"retire_blocked\""];
        (sum(&metrics, "ca_overlap_keeper_problems", &label) > 0.0).then_some(())
    })
    .await;
    assert!(rotation.retired().await.is_none());
    assert!(keeper.asks("retire", "done").await < 1.0);

    let leaf = rotation.generation[1].leaf("envoy");
    let ca = &rotation.generation[1].pem;
    secrets.apply("envoy", "helm", false, &tls_secret("envoy", ca, &leaf)).await.ok();
    rotation.wait_until_retired().await;
}

#[tokio::test]
async fn the_keeper_repeats_an_ask_until_the_webhook_is_back() {
    let test = "the_keeper_repeats_an_ask_until_the_webhook_is_back";
    let Some(setup) = Setup::start(test).await else { return };
    let keeper = setup.leading_keeper(&[]).await;
    let secrets = setup.cluster.namespace(test).await;
    let mut rotation = Rotation::begin(&secrets, "envoy", json!({names::WINDOW: "5s"})).await;
    rotation.rotate().await;
    setup.stop_webhook().await;
    let unseen = eventually("an ask", async || {
        let stored = rotation.stored().await;
        stored.annotation(names::ASK).is_some().then_some(stored)
    })
    .await;
    eventually("three tries", async || {
        (keeper.asks("retire", "not_seen").await >= 3.0).then_some(())
    })
    .await;
    let still = rotation.stored().await;
    assert_eq!(still.resource_version(), unseen.resource_version(), "a try writes nothing");
    assert!(rotation.retired().await.is_none(), "the ask has no effect yet");
    let event = setup.event(&rotation, "AskFailed").await;
    assert_eq!(event["type"], "Warning");

    setup.start_webhook().await;
    let retired_secret = rotation.wait_until_retired().await;
    assert_eq!(retired_secret.annotation(names::ASK), None);
    assert_eq!(rotation.data_managers().await, ["helm"]);

    // The keeper withdraws an ask that an earlier keeper left behind.
    let stale = json!({"metadata": {"annotations": {names::ASK: "retire #7"}}});
    setup.stop_webhook().await;
    secrets.patch("envoy", MERGE, "", &stale).await.ok();
    let labelled = json!({"metadata": {"labels": {names::MODE: "bundle"}}});
    secrets.patch("envoy", MERGE, "", &labelled).await.ok();
    eventually("the end of the stale ask", async || {
        rotation.stored().await.annotation(names::ASK).is_none().then_some(())
    })
    .await;
    assert!(keeper.asks("withdraw", "done").await >= 1.0);
}

#[tokio::test]
async fn the_keeper_writes_nothing_while_nothing_is_due() {
    let test = "the_keeper_writes_nothing_while_nothing_is_due";
    let Some(setup) = Setup::start(test).await else { return };
    let keeper = setup.leading_keeper(&[]).await;
    let secrets = setup.cluster.namespace(test).await;
    let mut rotations = Vec::new();
    for number in 0..20 {
        let name = format!("quiet-{number}");
        let mut rotation = Rotation::begin(&secrets, &name, json!({names::WINDOW: "1h"})).await;
        rotation.rotate().await;
        rotations.push(rotation);
    }
    eventually("all are watched", async || {
        let metrics = keeper.metrics().await;
        let watched = sum(&metrics, "ca_overlap_keeper_secrets", &["phase=\"overlap\""]);
        (watched >= 20.0).then_some(())
    })
    .await;
    let mut before = BTreeMap::new();
    // A generator that repeats its write. The first write makes it a manager of its fields.
    for round in 0..10 {
        if round == 1 {
            before = versions(&secrets).await;
        }
        for rotation in &rotations {
            let mut stored = rotation.stored().await.body;
            let own = &rotation.generation.last().unwrap().pem;
            let metadata = json!({"name": rotation.name});
            stored["data"]["ca.crt"] = json!(base64(own));
            stored["metadata"] = metadata;
            secrets.put(&rotation.name, &stored).await.ok();
        }
    }
    assert_eq!(versions(&secrets).await, before);
    let asked = sum(&keeper.metrics().await, "ca_overlap_keeper_asks_total", &[]);
    assert!(asked < 1.0, "{asked} asks");
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(text)
}

#[tokio::test]
async fn the_keeper_has_access_to_secrets_only() {
    let test = "the_keeper_has_access_to_secrets_only";
    let Some(setup) = Setup::start(test).await else { return };
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let may = async |verb: &str, group: &str, resource: &str| {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": "system:serviceaccount:ca-overlap:ca-overlap-keeper",
                "resourceAttributes": {
                    "verb": verb, "group": group, "resource": resource, "namespace": "default",
                },
            },
        });
        let answer = setup.cluster.plane.json("POST", path, &review).await.unwrap();
        answer["status"]["allowed"] == true
    };
    assert!(may("patch", "", "secrets").await);
    for (verb, group, resource) in [
        ("create", "", "secrets"),
        ("update", "", "secrets"),
        ("delete", "", "secrets"),
        ("create", "", "pods"),
        ("get", "", "configmaps"),
        ("update", "apps", "deployments"),
        ("patch", "coordination.k8s.io", "leases"),
        ("patch", "admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ] {
        assert!(!may(verb, group, resource).await, "{verb} {resource}");
    }
    let client = setup.cluster.plane.client().await.unwrap();
    let answer = send(&client, "GET", "/livez", None, Vec::new()).await;
    // The answer is not JSON, but it arrives.
    assert!(answer.is_err_and(|e| e.to_string().contains(StatusCode::OK.as_str())));
}
