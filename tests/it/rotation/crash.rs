//! One replica alone, killed between any two steps of a rotation: the next process goes on.

use std::time::Duration;

use base64::prelude::*;
use ca_overlap::serving_cert::inject;
use rustls_pki_types::CertificateDer;
use serde_json::Value;

use super::scene::{Scene, Writer, wait_for};

#[tokio::test]
async fn a_rotation_survives_its_replica_at_every_step() {
    let arguments = [
        "--leaf-lifetime=3s",
        "--ca-lifetime=10m",
        "--trust-settle=2s",
        "--reconcile-interval=250ms",
    ];
    let Some(mut scene) = Scene::start("crash", 1, &arguments).await else { return };
    let listen = scene.replicas[0].listen();
    let mut writer = Writer::new(scene.cluster.namespace("crash").await).await;
    let first = scene.served(&Value::Null).await;
    scene.can_rotate(Duration::from_secs(2)).await;

    // The new CA stands in the Secret, but not in the caBundle.
    let (count, bundle) = (scene.authorities().await.len(), scene.ca_bundle().await);
    assert_eq!((count, bundle.len()), (1, 1));
    scene.force();
    wait_for("a CA is added", async || (scene.authorities().await.len() == 2).then_some(())).await;
    scene.kill().await;
    scene.patch_registration("clientConfig/caBundle", &encoded(&bundle)).await;
    scene.restart(listen).await;
    let second = scene.served(&first).await;
    wait_for("writes pass", async || writer.write().await.ok()).await;

    // It is in the caBundle, but has not settled.
    scene.force();
    wait_for("the caBundle holds it", async || {
        let newest = scene.authorities().await.last().cloned().unwrap_or_default();
        let added = newest["certificate"] != second["certificate"];
        let held = scene.ca_bundle().await.first().map(pem);
        (added && held.as_deref() == newest["certificate"].as_str()).then_some(())
    })
    .await;
    scene.kill().await;
    scene.restart(listen).await;
    let third = scene.served(&second).await;
    wait_for("writes pass", async || writer.write().await.ok()).await;

    // It is active, and perhaps served.
    wait_for("there is room", async || (scene.authorities().await.len() < 3).then_some(())).await;
    scene.force();
    wait_for("it is active", async || {
        let newest = scene.authorities().await.last().cloned().unwrap_or_default();
        let added = newest["certificate"] != third["certificate"];
        (added && newest["active"].is_string()).then_some(())
    })
    .await;
    scene.kill().await;
    scene.restart(listen).await;
    let fourth = scene.served(&third).await;
    wait_for("writes pass", async || writer.write().await.ok()).await;

    // The old ones are dropped from the Secret, but stand in the caBundle.
    let before = scene.ca_bundle().await;
    wait_for("one is dropped", async || {
        (scene.authorities().await.len() < before.len()).then_some(())
    })
    .await;
    scene.kill().await;
    scene.patch_registration("clientConfig/caBundle", &encoded(&before)).await;
    scene.restart(listen).await;
    wait_for("all is as it should be", async || {
        let left = scene.authorities().await;
        let settled = left.len() == 1 && scene.ca_bundle().await.len() == 1;
        settled.then(|| assert_eq!(left[0]["certificate"], fourth["certificate"]))
    })
    .await;
    for _ in 0..5 {
        wait_for("writes pass", async || writer.write().await.ok()).await;
    }
}

fn encoded(cas: &[CertificateDer<'static>]) -> Value {
    Value::from(BASE64_STANDARD.encode(inject::bundle(cas)))
}

fn pem(ca: &CertificateDer<'static>) -> String {
    inject::bundle([ca])
}
