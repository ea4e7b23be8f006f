//! No replica of the webhook: writes pass, and the keeper repairs them afterwards.

use ca_overlap::names;
use serde_json::json;

use crate::cluster::{Cluster, WEBHOOK, eventually};
use devtools::certs::{self, Identity, bundle};
use devtools::secrets::{MERGE, secret, tls_secret};

#[tokio::test]
#[ignore = "needs a cluster: make kind-test"]
async fn writes_pass_without_a_webhook_and_the_keeper_repairs() {
    let cluster = Cluster::connect().await;
    cluster.install_all().await;
    cluster.keeper_leads().await;
    let secrets = cluster.namespace("outage", &json!({})).await;
    let cas = ["one", "two", "three"].map(certs::ca_named);
    let [one, two, three] = &cas;
    let name = "api";
    let object = |ca: &Identity| tls_secret(name, &ca.pem, &ca.leaf("api"));

    secrets.create(&object(one)).await.ok();
    let label = json!({"metadata": {"labels": {names::MODE: "bundle"}}});
    secrets.patch(name, MERGE, "", &label).await.ok();
    secrets.put(name, &object(two)).await.ok();
    assert_eq!(secrets.get(name).await.pem("ca.crt"), bundle(&[two, one]));
    event(&cluster, "outage", name, "Overlapping").await;

    cluster
        .kubectl(&format!("-n {} scale deployment/{WEBHOOK} --replicas=0", names::NAMESPACE))
        .await;
    // The API server keeps its connections, and draining replicas answer until these close.
    let probe = secret("probe", "Opaque", &[("ca.crt", one.pem.as_bytes())]);
    secrets.create(&probe).await.ok();
    let changed = secret("probe", "Opaque", &[("ca.crt", two.pem.as_bytes())]);
    eventually("an API server that reaches no replica", async || {
        let answer = secrets.put_with("probe", "dryRun=All", &changed).await.ok();
        (answer.pem("ca.crt") == two.pem).then_some(())
    })
    .await;

    secrets.put(name, &object(three)).await.ok();
    let stored = secrets.get(name).await;
    assert_eq!(stored.pem("ca.crt"), three.pem, "the write passed unchanged");
    assert_eq!(stored.label(names::MODE), None, "the fresh object has removed the label");

    cluster
        .kubectl(&format!("-n {} scale deployment/{WEBHOOK} --replicas=2", names::NAMESPACE))
        .await;
    cluster.rolled_out().await;
    let repaired = eventually("a repair by the keeper", async || {
        let stored = secrets.get(name).await.ok();
        stored.pem("ca.crt").contains(&two.pem).then_some(stored)
    })
    .await;
    assert_eq!(repaired.pem("ca.crt"), bundle(&[three, two]));
    eventually("the restored label", async || {
        secrets.get(name).await.label(names::MODE).filter(|mode| *mode == "bundle").map(drop)
    })
    .await;
    event(&cluster, "outage", name, "Repaired").await;
    cluster.registration_in_force().await;
}

/// Waits for an Event on a Secret.
async fn event(cluster: &Cluster, namespace: &str, name: &str, reason: &str) {
    let path = format!(
        "/apis/events.k8s.io/v1/namespaces/{namespace}/events?fieldSelector=reason%3D{reason}"
    );
    eventually(&format!("an Event {reason}"), async || {
        let list = cluster.read(&path).await;
        let events = list["items"].as_array().cloned().unwrap_or_default();
        events.iter().any(|event| event["regarding"]["name"] == name).then_some(())
    })
    .await;
}
