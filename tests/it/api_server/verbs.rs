//! The same rotation by every way to write a Secret.

use base64::prelude::*;
use serde_json::{Value, json};

use super::setup::{NAME, Setup};
use crate::support::{Cluster, cluster};
use devtools::secrets::{APPLY, JSON_PATCH, MERGE, STRATEGIC};

fn ca_crt(setup: &Setup, bundle: &str) -> String {
    BASE64_STANDARD.encode(setup.pem(bundle))
}

async fn setup(cluster: &Cluster, test: &str) -> Setup {
    let setup = Setup::new(cluster.namespace(test).await);
    setup.create("CA1", None).await;
    setup
}

#[tokio::test]
async fn patches_of_every_kind_are_bundled() {
    let Some(cluster) = cluster("patches").await else { return };
    for kind in [MERGE, STRATEGIC, JSON_PATCH] {
        // A leaf of another CA, because the issuer of the leaf would be carried first.
        let setup = Setup::new(cluster.namespace("patches").await);
        setup.create("CA1", Some("X")).await;
        for (bundle, expected) in [("CA2", "CA2 CA1*"), ("CA3", "CA3 CA2*")] {
            let value = ca_crt(&setup, bundle);
            let patch = if kind == JSON_PATCH {
                json!([{"op": "replace", "path": "/data/ca.crt", "value": value}])
            } else {
                json!({"data": {"ca.crt": value}})
            };
            setup.secrets.patch(NAME, kind, "", &patch).await.ok();
            assert_eq!(setup.stored().await, expected, "{kind}");
        }
        let string_data = json!({"stringData": {"ca.crt": setup.pem("CA4")}});
        if kind != JSON_PATCH {
            setup.secrets.patch(NAME, kind, "", &string_data).await.ok();
            assert_eq!(setup.stored().await, "CA4 CA3*", "stringData by {kind}");
        }
    }
}

#[tokio::test]
async fn string_data_by_put_is_bundled() {
    let Some(cluster) = cluster("string-data").await else { return };
    let setup = setup(cluster, "string-data").await;
    let leaf = setup.leaf("CA2");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME},
        "type": "kubernetes.io/tls",
        "stringData": {"ca.crt": setup.pem("CA2"), "tls.crt": leaf.pem, "tls.key": leaf.key},
    });
    setup.secrets.put(NAME, &secret).await.ok();
    assert_eq!(setup.stored().await, "CA2 CA1*");
}

fn applied(setup: &Setup, bundle: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME},
        "type": "Opaque",
        "data": {"ca.crt": ca_crt(setup, bundle)},
    })
}

#[tokio::test]
async fn server_side_apply_never_conflicts_with_the_webhook() {
    // Without force, as Helm 4 applies. An admission patch does not change field managers.
    let Some(cluster) = cluster("apply").await else { return };
    let setup = Setup::new(cluster.namespace("apply").await);
    setup.secrets.apply(NAME, "helm", false, &applied(&setup, "CA1")).await.ok();
    assert_eq!(setup.stored().await, "CA1", "the webhook is not called for a create");
    for (bundle, expected) in [("CA2", "CA2 CA1*"), ("CA2", "CA2 CA1*"), ("CA3", "CA3 CA2*")] {
        setup.secrets.apply(NAME, "helm", false, &applied(&setup, bundle)).await.ok();
        assert_eq!(setup.stored().await, expected);
    }
    let stored = setup.secrets.get(NAME).await.ok();
    let managers = stored.body["metadata"]["managedFields"].as_array().unwrap().clone();
    let owners: Vec<_> = managers
        .iter()
        .filter(|m| m["fieldsV1"]["f:data"].get("f:ca.crt").is_some())
        .map(|m| m["manager"].as_str().unwrap())
        .collect();
    assert_eq!(owners, ["helm"]);
}

#[tokio::test]
async fn a_person_who_adds_the_old_ca_by_patch_breaks_the_next_apply() {
    // The negative control of the test above: this is why admission adds the overlap.
    let Some(cluster) = cluster("conflict").await else { return };
    let setup = Setup::new(cluster.namespace("conflict").await);
    setup.secrets.apply(NAME, "helm", false, &applied(&setup, "CA2")).await.ok();
    let by_hand = json!({"data": {"ca.crt": ca_crt(&setup, "CA2 CA1")}});
    setup.secrets.patch(NAME, MERGE, "fieldManager=person", &by_hand).await.ok();
    let answer = setup.secrets.apply(NAME, "helm", false, &applied(&setup, "CA3")).await;
    assert_eq!(answer.status, 409);
}

#[tokio::test]
async fn kubectl_apply_with_last_applied_is_bundled_and_idempotent() {
    let Some(cluster) = cluster("kubectl-apply").await else { return };
    let setup = Setup::new(cluster.namespace("kubectl-apply").await);
    let namespace = setup.secrets.namespace.clone();
    for (bundle, expected) in
        [("CA1", "CA1"), ("CA2", "CA2 CA1*"), ("CA2", "CA2 CA1*"), ("CA3", "CA3 CA2*")]
    {
        let manifest = applied(&setup, bundle).to_string();
        let arguments = ["apply", "-n", &namespace, "-f", "-"];
        cluster.plane.kubectl(&arguments, manifest.as_bytes()).await.unwrap();
        assert_eq!(setup.stored().await, expected);
    }
    // `kubectl annotate key-` removes a setting, because it sends a PATCH.
    for arguments in [["annotate", "ca-overlap.dev/keep=2"], ["annotate", "ca-overlap.dev/keep-"]] {
        let [verb, setting] = arguments;
        cluster
            .plane
            .kubectl(&[verb, "-n", &namespace, "secret", NAME, setting], &[])
            .await
            .unwrap();
    }
    let stored = setup.secrets.get(NAME).await.ok();
    assert_eq!(stored.annotation("ca-overlap.dev/keep"), None);
    assert_eq!(setup.bundle(&stored), "CA3 CA2*");
}

#[tokio::test]
async fn a_dry_run_shows_what_the_real_write_stores() {
    let Some(cluster) = cluster("dry-run").await else { return };
    let setup = setup(cluster, "dry-run").await;
    let before = setup.secrets.get(NAME).await.ok();
    let fresh = setup.fresh("CA2", &setup.leaf("CA2"));
    let dry = setup.secrets.put_with(NAME, "dryRun=All", &fresh).await.ok();
    assert_eq!(setup.bundle(&dry), "CA2 CA1*");
    assert_eq!(setup.secrets.get(NAME).await.resource_version(), before.resource_version());
    let real = setup.secrets.put(NAME, &fresh).await.ok();
    assert_eq!(real.body["data"], dry.body["data"]);
    assert_eq!(real.body["metadata"]["labels"], dry.body["metadata"]["labels"]);
    let patch = json!({"data": {"ca.crt": ca_crt(&setup, "CA3")}});
    let dry = setup
        .secrets
        .patch(NAME, APPLY, "dryRun=All&fieldManager=a&force=true", &applied(&setup, "CA3"))
        .await;
    assert_eq!(dry.status, 422, "a dry run is validated: the type of a Secret cannot change");
    let dry = setup.secrets.patch(NAME, MERGE, "dryRun=All", &patch).await.ok();
    let real = setup.secrets.patch(NAME, MERGE, "", &patch).await.ok();
    assert_eq!(real.body["data"], dry.body["data"]);
}

#[tokio::test]
async fn a_put_keeps_settings_and_a_patch_can_remove_them() {
    let Some(cluster) = cluster("settings").await else { return };
    let setup = setup(cluster, "settings").await;
    setup.annotate(json!({"ca-overlap.dev/keep": "2", "ca-overlap.dev/window": "7d"})).await;
    let answer = setup.put("CA2").await;
    assert_eq!(answer.annotation("ca-overlap.dev/keep"), Some("2"));
    assert!(answer.annotation("ca-overlap.dev/carried").unwrap().contains("until"));
    let answer = setup.annotate(json!({"ca-overlap.dev/keep": null})).await;
    assert_eq!(answer.annotation("ca-overlap.dev/keep"), None);
    // A writer cannot remove or forge our own state.
    let record = answer.annotation("ca-overlap.dev/carried").unwrap().to_owned();
    for forged in [json!(null), json!("[]"), json!("nonsense")] {
        let answer = setup.annotate(json!({"ca-overlap.dev/carried": forged})).await;
        assert_eq!(answer.annotation("ca-overlap.dev/carried"), Some(record.as_str()));
    }
}
