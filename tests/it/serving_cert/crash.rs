//! A single replica is killed between any two steps of a rotation, and the next process continues.

use std::time::Duration;

use base64::prelude::*;
use ca_overlap::serving_cert::inject;
use rustls_pki_types::CertificateDer;
use serde_json::Value;

use super::setup::{Setup, Writer, wait_for};

#[tokio::test]
async fn a_rotation_completes_after_a_crash_at_any_step() {
    let arguments = [
        "--leaf-lifetime=3s",
        "--ca-lifetime=10m",
        "--trust-settle=2s",
        "--reconcile-interval=250ms",
    ];
    let Some(mut setup) = Setup::start("crash", 1, &arguments).await else { return };
    let listen = setup.replicas[0].listen();
    let mut writer = Writer::new(setup.cluster.namespace("crash").await).await;
    let first = setup.wait_until_served(&Value::Null).await;
    setup.wait_until_rotatable(Duration::from_secs(2)).await;

    // Crash while the new CA is in the Secret, but not in the caBundle.
    let (count, bundle) = (setup.authorities().await.len(), setup.ca_bundle().await);
    assert_eq!((count, bundle.len()), (1, 1));
    setup.force_rotation();
    wait_for("a second CA", async || (setup.authorities().await.len() == 2).then_some(())).await;
    setup.kill().await;
    setup.patch_registration("clientConfig/caBundle", &encoded(&bundle)).await;
    setup.restart(listen).await;
    let second = setup.wait_until_served(&first).await;
    wait_for("a write that passes", async || writer.write().await.ok()).await;

    // Crash while the new CA is in the caBundle, but has not settled.
    setup.force_rotation();
    wait_for("the caBundle to hold the new CA", async || {
        let newest = setup.authorities().await.last().cloned().unwrap_or_default();
        let added = newest["certificate"] != second["certificate"];
        let held = setup.ca_bundle().await.first().map(pem);
        (added && held.as_deref() == newest["certificate"].as_str()).then_some(())
    })
    .await;
    setup.kill().await;
    setup.restart(listen).await;
    let third = setup.wait_until_served(&second).await;
    wait_for("a write that passes", async || writer.write().await.ok()).await;

    // Crash while the new CA is active; its leaf may be served already.
    wait_for("fewer than 3 CAs", async || (setup.authorities().await.len() < 3).then_some(()))
        .await;
    setup.force_rotation();
    wait_for("the new CA to be active", async || {
        let newest = setup.authorities().await.last().cloned().unwrap_or_default();
        let added = newest["certificate"] != third["certificate"];
        (added && newest["active"].is_string()).then_some(())
    })
    .await;
    setup.kill().await;
    setup.restart(listen).await;
    let fourth = setup.wait_until_served(&third).await;
    wait_for("a write that passes", async || writer.write().await.ok()).await;

    // Crash while an old CA is removed from the Secret, but still in the caBundle.
    let before = setup.ca_bundle().await;
    wait_for("an old CA to be dropped", async || {
        (setup.authorities().await.len() < before.len()).then_some(())
    })
    .await;
    setup.kill().await;
    setup.patch_registration("clientConfig/caBundle", &encoded(&before)).await;
    setup.restart(listen).await;
    wait_for("one CA in the Secret and in the caBundle", async || {
        let left = setup.authorities().await;
        let settled = left.len() == 1 && setup.ca_bundle().await.len() == 1;
        settled.then(|| assert_eq!(left[0]["certificate"], fourth["certificate"]))
    })
    .await;
    for _ in 0..5 {
        wait_for("a write that passes", async || writer.write().await.ok()).await;
    }
}

fn encoded(cas: &[CertificateDer<'static>]) -> Value {
    Value::from(BASE64_STANDARD.encode(inject::bundle(cas)))
}

fn pem(ca: &CertificateDer<'static>) -> String {
    inject::bundle([ca])
}
