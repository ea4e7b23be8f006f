//! `ca-overlap distrust -A`: the list of the cluster, and the report of all other places.

use base64::prelude::*;
use ca_overlap::names;
use devtools::certs;
use devtools::control_plane::{Options, Patches};
use devtools::secrets::{Secrets, tls_secret};
use serde_json::{Value, json};

use crate::support::command::run;
use crate::support::{self, Plane};

const LIST: &str = "/api/v1/namespaces/ca-overlap/configmaps/ca-overlap-distrusted";

#[tokio::test]
async fn every_kind_of_place_is_reported_and_the_list_is_kept() {
    let test = "every_kind_of_place_is_reported_and_the_list_is_kept";
    let Some(assets) = support::assets(test) else { return };
    // Not from the pool: an APIService would stay for the next test.
    let plane = Plane::with(Options::new(assets)).await;
    let base = support::manifests().join("base");
    plane.install(&base, Patches::default()).await.unwrap();
    let stolen = certs::ca_named("stolen");
    let kubeconfig = plane.admin_kubeconfig();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &stolen.pem).unwrap();
    let file = file.path().to_str().unwrap();

    // Nowhere: a dry run stores nothing.
    let dry = run(&kubeconfig, &["distrust", file, "-A", "--dry-run"]);
    assert!(dry.with_code(0).contains("would list it"), "{}", dry.stdout);
    let list = async || plane.json("GET", LIST, &Value::Null).await.unwrap()["data"].clone();
    assert_eq!(list().await, Value::Null);
    let clean = run(&kubeconfig, &["distrust", file, "-A"]);
    assert!(clean.with_code(0).contains("No replica of webhook or keeper runs"));
    let note = list().await[stolen.sha256()].as_str().unwrap().to_owned();
    assert!(note.contains("stolen") && note.contains("distrusted 20"), "{note}");

    let secrets = Secrets::new(plane.client().await.unwrap(), "default".into());
    secrets.create(&tls_secret("owns", &stolen.pem, &stolen.leaf("it"))).await.ok();
    let bundle = BASE64_STANDARD.encode(&stolen.pem);
    let service = json!({"name": "none", "namespace": "default"});
    let client = json!({"service": service, "caBundle": bundle});
    let webhook = json!([{
        "name": "it.example.com", "clientConfig": client, "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "rules": [],
    }]);
    let version = json!({"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object"}}});
    let names = json!({"plural": "things", "singular": "thing", "kind": "Thing"});
    let conversion = json!({"strategy": "Webhook", "webhook": {
        "clientConfig": client, "conversionReviewVersions": ["v1"]}});
    for (path, object) in [
        (
            "/api/v1/namespaces/default/configmaps",
            json!({"metadata": {"name": "trust"}, "data": {"any.key": stolen.pem}}),
        ),
        (
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
            json!({"metadata": {"name": "mutating"}, "webhooks": webhook}),
        ),
        (
            "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
            json!({"metadata": {"name": "validating"}, "webhooks": webhook}),
        ),
        (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            json!({"metadata": {"name": "things.it.example.com"}, "spec": {
                "group": "it.example.com", "scope": "Namespaced", "names": names,
                "versions": [version], "conversion": conversion}}),
        ),
        (
            "/apis/apiregistration.k8s.io/v1/apiservices",
            json!({"metadata": {"name": "v1.it.example.org"}, "spec": {
                "group": "it.example.org", "version": "v1", "groupPriorityMinimum": 100,
                "versionPriority": 10, "service": service, "caBundle": bundle}}),
        ),
    ] {
        plane.json("POST", path, &object).await.unwrap();
    }

    let found = run(&kubeconfig, &["distrust", file, "-A", "-o", "json"]);
    found.with_code(1);
    let report = found.json();
    let places: Vec<String> = report["elsewhere"]
        .as_array()
        .unwrap()
        .iter()
        .map(|place| {
            let word = |key: &str| place[key].as_str().unwrap_or("-").to_owned();
            ["kind", "namespace", "name", "field"].map(word).join(" ")
        })
        .collect();
    assert_eq!(
        places,
        [
            "ConfigMap default trust data.any.key",
            "MutatingWebhookConfiguration - mutating webhooks[0].clientConfig.caBundle",
            "ValidatingWebhookConfiguration - validating webhooks[0].clientConfig.caBundle",
            "CustomResourceDefinition - things.it.example.com \
             spec.conversion.webhook.clientConfig.caBundle",
            "APIService - v1.it.example.org spec.caBundle",
        ]
    );
    assert_eq!(report["secrets"][0]["results"][0]["result"], "own", "{report}");
    let shown = run(&kubeconfig, &["distrust", file, "-A"]).with_code(1).to_owned();
    assert!(shown.contains("ConfigMap default/trust") && shown.contains("Elsewhere: 5 places"));

    // Entries of others stay, and so does the list when the manifests are applied again.
    let by_hand =
        json!({"data": {"by-hand": format!("{} # stolen, too\n", "5e".repeat(32))}}).to_string();
    let patch = ["-n", names::NAMESPACE, "patch", "configmap", names::DISTRUSTED_CONFIG_MAP];
    let arguments = [&patch[..], &["--type=merge", "-p", &by_hand]].concat();
    plane.kubectl(&arguments, &[]).await.unwrap();
    let other = certs::ca_named("other");
    run(&kubeconfig, &["distrust", &other.sha256(), "-A"]).with_code(0);
    let base = base.display().to_string();
    for apply in [&["apply", "-k", &base][..], &["apply", "--server-side", "-k", &base]] {
        plane.kubectl(apply, &[]).await.unwrap();
        let kept = list().await;
        assert_eq!(kept.as_object().unwrap().len(), 3, "{kept}");
    }
}

#[tokio::test]
async fn a_replica_that_does_not_use_the_list_is_named() {
    let test = "a_replica_that_does_not_use_the_list_is_named";
    let Some(plane) = Plane::exclusive(test).await else { return };
    plane.install(&support::manifests().join("base"), Patches::default()).await.unwrap();
    let deployment = "/apis/apps/v1/namespaces/ca-overlap/deployments/ca-overlap-webhook";
    let deployment = plane.json("GET", deployment, &Value::Null).await.unwrap();
    let mut pod = deployment["spec"]["template"].clone();
    pod["metadata"]["name"] = json!("webhook-0");
    pod["spec"]["nodeName"] = json!("no-such-node");
    let pods = "/api/v1/namespaces/ca-overlap/pods";
    plane.json("POST", pods, &pod).await.unwrap();
    let status = format!("{pods}/webhook-0/status");
    let mut pod = plane.json("GET", &status, &Value::Null).await.unwrap();
    pod["status"]["phase"] = json!("Running");
    plane.json("PUT", &status, &pod).await.unwrap();

    let kubeconfig = plane.admin_kubeconfig();
    let arguments = ["distrust", &"5e".repeat(32), "-A", "--timeout", "0s"];
    let shown = run(&kubeconfig, &arguments).with_code(2).to_owned();
    assert!(shown.contains("The log of pod webhook-0 could not be read"), "{shown}");
    plane
        .json("DELETE", &format!("{pods}/webhook-0?gracePeriodSeconds=0"), &Value::Null)
        .await
        .unwrap();

    // Without the ConfigMap there is no such list.
    plane.json("DELETE", LIST, &Value::Null).await.unwrap();
    let shown = run(&kubeconfig, &arguments).with_code(2).to_owned();
    assert!(shown.contains("there is no ConfigMap ca-overlap-distrusted"), "{shown}");
}
