//! The webhook is down, runs in several replicas, or its configuration is damaged.

use std::time::Duration;

use base64::prelude::*;
use serde_json::{Value, json};

use super::setup::Setup;
use crate::support::Cluster;

const CONFIGURATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/ca-overlap";

async fn ca_bundle(cluster: &Cluster) -> String {
    let configuration = cluster.plane.json("GET", CONFIGURATION, &Value::Null).await.unwrap();
    let bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap_or("");
    String::from_utf8(BASE64_STANDARD.decode(bundle).unwrap()).unwrap()
}

#[tokio::test]
async fn writes_pass_while_the_webhook_is_down_and_are_bundled_once_it_is_back() {
    let Some(cluster) = Cluster::without_webhook("down").await else { return };
    let setup = Setup::new(cluster.namespace("down").await);
    setup.create("CA1", None).await;
    setup.put("CA2").await;
    assert_eq!(setup.stored().await, "CA2", "failurePolicy: Ignore");
    cluster.start_webhook("first", cluster.port_443(), &[]).await.unwrap();
    setup.put("CA3").await;
    assert_eq!(setup.stored().await, "CA3 CA2*");
    // Dropping the webhook stops it.
    *cluster.webhook.lock().await = None;
    setup.put("CA4").await;
    assert_eq!(setup.stored().await, "CA4", "the fresh object has removed the record");
    // A new process uses the webhook CA of the previous one.
    let before = ca_bundle(&cluster).await;
    cluster.start_webhook("second", cluster.port_443(), &[]).await.unwrap();
    assert_eq!(ca_bundle(&cluster).await, before);
    setup.put("CA1").await;
    assert_eq!(setup.stored().await, "CA1 CA4*");
}

#[tokio::test]
async fn replicas_that_start_together_agree_on_one_ca() {
    let Some(cluster) = Cluster::without_webhook("replicas").await else { return };
    let (_proxy, replicas) = cluster.replicas(3, &[]).await;
    assert_eq!(ca_bundle(&cluster).await.matches("BEGIN CERTIFICATE").count(), 1);
    let setup = Setup::new(cluster.namespace("replicas").await);
    setup.create("CA1", None).await;
    let bundles = ["CA2", "CA3", "CA4", "CA1"];
    for (bundle, before) in bundles.iter().zip(["CA1", "CA2", "CA3", "CA4"]) {
        setup.put(bundle).await;
        assert_eq!(setup.stored().await, format!("{bundle} {before}*"));
    }
    drop(replicas);
}

#[tokio::test]
async fn a_wiped_ca_bundle_is_restored() {
    let arguments = ["--reconcile-interval", "1s"];
    let Some(cluster) = Cluster::start("healed", &arguments).await else { return };
    let before = ca_bundle(&cluster).await;
    for wiped in ["", &BASE64_STANDARD.encode(devtools::certs::ca_named("foreign").pem)] {
        let mut configuration =
            cluster.plane.json("GET", CONFIGURATION, &Value::Null).await.unwrap();
        configuration["webhooks"][0]["clientConfig"]["caBundle"] = json!(wiped);
        cluster.plane.json("PUT", CONFIGURATION, &configuration).await.unwrap();
        tokio::time::timeout(Duration::from_secs(60), async {
            while ca_bundle(&cluster).await != before {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await
        .expect("the caBundle is restored");
    }
}

#[tokio::test]
async fn the_webhook_has_no_access_to_users_secrets() {
    let Some(cluster) = Cluster::without_webhook("rbac").await else { return };
    let can = |verb: &'static str, what: &'static str| {
        let account = "--as=system:serviceaccount:ca-overlap:ca-overlap-webhook";
        let plane = &cluster.plane;
        async move {
            let arguments = ["auth", "can-i", verb, what, "-n", "ca-overlap", account];
            plane.kubectl(&arguments, &[]).await.is_ok_and(|answer| answer.trim() == "yes")
        }
    };
    assert!(
        can("get", "secret/ca-overlap-ca").await && can("update", "secret/ca-overlap-ca").await
    );
    let configuration = "mutatingwebhookconfigurations.admissionregistration.k8s.io/ca-overlap";
    assert!(can("get", configuration).await && can("patch", configuration).await);
    for (verb, what) in [
        ("get", "secret/other"),
        ("list", "secrets"),
        ("watch", "secrets"),
        ("create", "secrets"),
        ("delete", "secret/ca-overlap-ca"),
        ("create", "serviceaccounts/token"),
        ("patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io/other"),
        ("list", "configmaps"),
    ] {
        assert!(!can(verb, what).await, "{verb} {what}");
    }
}
