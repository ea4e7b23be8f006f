//! The keeper asks nothing of exempt Secrets, and reports each overlap that ends.

use ca_overlap::names;
use serde_json::{Value, json};

use super::setup::{Rotation, Setup, eventually};
use devtools::certs;
use devtools::secrets::{MERGE, tls_secret};

#[tokio::test]
async fn the_keeper_asks_nothing_of_exempt_secrets() {
    let test = "the_keeper_asks_nothing_of_exempt_secrets";
    let Some(setup) = Setup::start(test).await else { return };
    let keeper = setup.leading_keeper(&[]).await;
    let secrets = setup.cluster.namespace(test).await;
    // Each Secret becomes exempt while it carries a CA.
    let changes = [
        json!({"data": {"old-ca.crt": ""}}),
        json!({"metadata": {"labels": {"strimzi.io/kind": "Kafka"}}}),
        json!({"metadata": {"ownerReferences": [{
            "apiVersion": "secrets.hashicorp.com/v1beta1", "kind": "VaultPKISecret",
            "name": "envoy", "uid": "5f0c1f4e-7e9c-4d7c-9f55-0c9d2d7c1a11",
        }]}}),
        json!({"metadata": {"annotations": {"secret-data-hash": "17"}}}),
        json!({"data": {"tls.crt": "", "ca.key": ""}, "metadata": {"labels": {names::MODE: "off"}}}),
        json!({"immutable": true}),
    ];
    let mut left = Vec::new();
    for (number, change) in changes.iter().enumerate() {
        let name = format!("left-{number}");
        let mut rotation = Rotation::begin(&secrets, &name, json!({names::WINDOW: "2s"})).await;
        let rotated = rotation.rotate().await;
        assert_eq!(rotated.label(names::PHASE), Some("overlap"));
        let after = secrets.patch(&name, MERGE, "fieldManager=person", change).await.ok();
        left.push((rotation, after));
    }
    // The control retires later. By then the keeper has processed the other Secrets.
    let mut control = Rotation::begin(&secrets, "control", json!({names::WINDOW: "4s"})).await;
    control.rotate().await;
    control.wait_until_retired().await;
    for (rotation, before) in left {
        let stored = rotation.stored().await;
        assert_eq!(stored.resource_version(), before.resource_version(), "{}", rotation.name);
    }
    for result in ["refused", "not_seen", "failed"] {
        assert!(keeper.asks("retire", result).await < 1.0, "{result}");
    }
    assert!(setup.events(&control, "AskFailed").await.is_empty());
}

#[tokio::test]
async fn the_keeper_asks_nothing_in_a_namespace_that_is_opted_out() {
    let test = "the_keeper_asks_nothing_in_a_namespace_that_is_opted_out";
    let Some(setup) = Setup::start(test).await else { return };
    let keeper = setup.leading_keeper(&[]).await;
    let secrets = setup.cluster.namespace(test).await;
    let window = json!({names::WINDOW: "4s"});
    let mut left = Rotation::begin(&secrets, "left", window.clone()).await;
    let rotated = left.rotate().await;
    assert_eq!(rotated.label(names::PHASE), Some("overlap"));
    let namespace = format!("/api/v1/namespaces/{}", secrets.namespace);
    let mut off = setup.cluster.plane.json("GET", &namespace, &Value::Null).await.unwrap();
    off["metadata"]["labels"][names::MODE] = json!("off");
    setup.cluster.plane.json("PUT", &namespace, &off).await.unwrap();
    // The control retires later.
    let mut control =
        Rotation::begin(&setup.cluster.namespace(test).await, "control", window).await;
    control.rotate().await;
    control.wait_until_retired().await;
    eventually("a look at the other one", async || {
        let log = keeper.log();
        log.contains("nothing is asked, because the namespace is opted out").then_some(())
    })
    .await;
    assert_eq!(left.stored().await.resource_version(), rotated.resource_version());
    for result in ["refused", "not_seen", "failed"] {
        assert!(keeper.asks("retire", result).await < 1.0, "{result}");
    }
}

#[tokio::test]
async fn an_overlap_that_another_write_ends_is_reported() {
    let test = "an_overlap_that_another_write_ends_is_reported";
    let Some(setup) = Setup::start(test).await else { return };
    let keeper = setup.leading_keeper(&[]).await;
    let secrets = setup.cluster.namespace(test).await;
    let mut rotation = Rotation::begin(&secrets, "envoy", json!({})).await;
    let mode = json!({"metadata": {"labels": {names::MODE: "bundle"}}});
    secrets.patch("envoy", MERGE, "", &mode).await.ok();
    rotation.rotate().await;
    setup.event(&rotation, "Overlapping").await;
    rotation.rotate().await;
    let first = devtools::certs::sha256(&rotation.generation[0].der);
    let event = setup.event(&rotation, "Retired").await;
    let note = event["note"].as_str().unwrap();
    assert!(note.contains(&first) && note.contains("later rotation"), "{note}");
    assert!(keeper.asks("retire", "done").await < 1.0, "the keeper has not asked");

    // A CA that the generator bundles by itself from now on is not retired.
    let (ca, second) = (certs::ca_named("CA4"), &rotation.generation[1]);
    let both = format!("{}{}{}", ca.pem, rotation.generation[2].pem, second.pem);
    secrets.apply("envoy", "helm", false, &tls_secret("envoy", &both, &ca.leaf("e"))).await.ok();
    let marker = json!({"metadata": {"annotations": {names::DISTRUST: ca.sha256()}}});
    secrets.patch("envoy", MERGE, "", &marker).await.ok();
    // This Event shows that the keeper has seen the write.
    setup.event(&rotation, "Distrusted").await;
    let retired: Vec<Value> = setup.events(&rotation, "Retired").await;
    let second = second.sha256();
    assert!(!retired.iter().any(|event| event["note"].to_string().contains(&second)));
}
