//! Damage to the CA Secret and to the caBundle.

use std::time::Duration;

use base64::prelude::*;
use ca_overlap::names;
use serde_json::{Value, json};

use super::setup::{SECRET, Setup, Writer, Writers, wait_for};
use devtools::certs;

const ARGUMENTS: [&str; 4] = [
    "--leaf-lifetime=30s",
    "--ca-lifetime=10m",
    "--trust-settle=500ms",
    "--reconcile-interval=250ms",
];

#[tokio::test]
async fn a_damaged_ca_secret_is_restored_and_rejects_no_write() {
    let Some(mut setup) = Setup::start("damaged", 2, &ARGUMENTS).await else { return };
    setup.wait_until_rotatable(Duration::from_millis(500)).await;
    let first = setup.authorities().await[0].clone();
    setup.force_rotation();
    setup.wait_until_served(&first).await;
    let good = setup.authorities().await;
    assert_eq!(good.len(), 2);
    let bundle = setup.ca_bundle().await;
    let text = serde_json::to_string(&good).unwrap();
    let mut wrong_key = good.clone();
    wrong_key[1]["key"] = good[0]["key"].clone();

    let writers = Writers::start(&setup.cluster, 2).await;
    for damage in [
        "garbage",
        "",
        "[]",
        &text[..text.len() / 2],
        &serde_json::to_string(&wrong_key).unwrap(),
        &serde_json::to_string(&good[..1]).unwrap(),
    ] {
        setup.corrupt(damage).await;
        wait_for("the Secret to be restored", async || {
            (setup.authorities().await == good).then_some(())
        })
        .await;
    }
    // After a deletion the replicas log it and keep serving. They fill the Secret once the
    // manifests are applied again.
    let logs: Vec<_> = setup.replicas.iter().map(|replica| replica.log_text().len()).collect();
    setup.cluster.plane.json("DELETE", SECRET, &Value::Null).await.unwrap();
    wait_for("a log line of each replica", async || {
        // The whole log, because reviews push the line out of its tail.
        let mut since = setup.replicas.iter().zip(&logs);
        since.all(|(r, from)| r.log_text()[*from..].contains("does not exist")).then_some(())
    })
    .await;
    let empty = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": names::CA_SECRET, "namespace": names::NAMESPACE},
    });
    let secrets = format!("/api/v1/namespaces/{}/secrets", names::NAMESPACE);
    setup.cluster.plane.json("POST", &secrets, &empty).await.unwrap();
    wait_for("a filled Secret", async || (setup.authorities().await == good).then_some(())).await;
    assert!(writers.finish().await > 20);
    assert_eq!(setup.ca_bundle().await, bundle);
    assert!(!setup.has_failed_calls().await);
}

/// This is also the negative control of all tests in this directory: the API server counts a failed
/// call.
#[tokio::test]
async fn a_foreign_ca_bundle_makes_writes_fail_until_it_is_restored() {
    let Some(setup) = Setup::start("stranger", 2, &ARGUMENTS).await else { return };
    let good = setup.ca_bundle().await;
    let mut writer = Writer::new(setup.cluster.namespace("stranger").await).await;
    writer.write().await.unwrap();
    let rights = setup.revoke_rights().await;
    let stranger = json!(BASE64_STANDARD.encode(certs::ca_named("stranger").pem));
    // Repeated, because the webhook restores the caBundle until its rights are really gone.
    let error = wait_for("a write that fails", async || {
        setup.patch_registration("clientConfig/caBundle", &stranger).await;
        writer.write().await.err()
    })
    .await;
    assert!(error.contains("failed calling webhook"), "{error}");
    assert!(setup.has_failed_calls().await, "the API server counts it");

    setup.restore_rights(&rights).await;
    wait_for("the caBundle to be restored", async || {
        (setup.ca_bundle().await == good).then_some(())
    })
    .await;
    wait_for("a write that passes", async || writer.write().await.ok()).await;
    for _ in 0..10 {
        writer.write().await.unwrap();
    }
}
