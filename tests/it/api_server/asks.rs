//! Asks from the keeper's real `ServiceAccount`. They do not change who manages the data.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use super::setup::{NAME, Setup};
use crate::support::{Cluster, cluster};
use devtools::secrets::{Answer, MERGE, Secrets};

const KEEPER: &str = "ca-overlap-keeper";

/// Creates the keeper's `ServiceAccount`, which may only patch Secrets, and returns its client.
pub async fn keeper(cluster: &Cluster, namespace: &str) -> Secrets {
    let plane = &cluster.plane;
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": KEEPER}});
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": KEEPER},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["patch"]}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": KEEPER},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": KEEPER},
        "subjects": [{"kind": "ServiceAccount", "name": KEEPER, "namespace": "ca-overlap"}],
    });
    let roles = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
    for (path, object) in [
        ("/api/v1/namespaces/ca-overlap/serviceaccounts".to_owned(), account),
        (format!("{roles}/roles"), role),
        (format!("{roles}/rolebindings"), binding),
    ] {
        // Another test may have created it.
        let made = plane.json("POST", &path, &object).await;
        assert!(made.is_ok() || made.unwrap_err().to_string().contains("409"), "{path}");
    }
    let file = plane.service_account_kubeconfig("ca-overlap", KEEPER).await.unwrap();
    let kubeconfig = Kubeconfig::read_from(file).unwrap();
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    Secrets::new(kube::Client::try_from(config).unwrap(), namespace.to_owned())
}

pub async fn ask(keeper: &Secrets, text: &str) -> Answer {
    let patch = json!({"metadata": {"annotations": {"ca-overlap.dev/ask": text}}});
    keeper.patch(NAME, MERGE, "fieldManager=ca-overlap-keeper", &patch).await
}

/// Applies without force, as Helm 4 does.
async fn apply(setup: &Setup, bundle: &str) -> Answer {
    let leaf = setup.leaf("X");
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}, "type": "Opaque",
        "data": {
            "ca.crt": BASE64_STANDARD.encode(setup.pem(bundle)),
            "tls.crt": BASE64_STANDARD.encode(leaf.pem),
            "tls.key": BASE64_STANDARD.encode(leaf.key),
        },
    });
    setup.secrets.apply(NAME, "helm", false, &object).await
}

fn owners(answer: &Answer) -> Vec<Value> {
    owners_of(answer, "f:ca.crt")
}

/// The field managers of a value in `data`.
pub fn owners_of(answer: &Answer, key: &str) -> Vec<Value> {
    let managers = answer.body["metadata"]["managedFields"].as_array().unwrap();
    let owns = |m: &&Value| m["fieldsV1"]["f:data"].get(key).is_some();
    managers.iter().filter(owns).map(|m| m["manager"].clone()).collect()
}

#[tokio::test]
async fn an_unforced_apply_never_conflicts_after_a_repair_or_a_retirement() {
    let Some(cluster) = cluster("asks").await else { return };
    let setup = Setup::new(cluster.namespace("asks").await);
    let keeper = keeper(cluster, &setup.secrets.namespace).await;
    apply(&setup, "CA2").await.ok();
    let der = BASE64_STANDARD.encode(&setup.ca("CA1").der);
    let answer = ask(&keeper, &format!("repair {der} #1")).await.ok();
    assert_eq!(setup.bundle(&answer), "CA2 CA1*");
    assert_eq!(
        (answer.annotation("ca-overlap.dev/ask"), owners(&answer)),
        (None, vec!["helm".into()])
    );
    assert!(answer.annotation("ca-overlap.dev/carried").unwrap().contains("until"));
    // A re-apply, then a rotation.
    for (bundle, expected) in [("CA2", "CA2 CA1*"), ("CA3", "CA3 CA2*")] {
        assert_eq!(setup.bundle(&apply(&setup, bundle).await.ok()), expected);
    }
    // The window of CA2 ends a second after the rotation. Earlier asks change nothing.
    setup.annotate(json!({"ca-overlap.dev/window": "1s"})).await;
    let mut number = 2;
    let answer = loop {
        let answer = ask(&keeper, &format!("retire #{number}")).await.ok();
        assert_eq!(answer.annotation("ca-overlap.dev/ask"), None);
        if setup.bundle(&answer) != "CA3 CA2*" {
            break answer;
        }
        number += 1;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!((setup.bundle(&answer).as_str(), owners(&answer)), ("CA3", vec!["helm".into()]));
    setup.annotate(json!({"ca-overlap.dev/window": null})).await;
    assert_eq!(setup.bundle(&apply(&setup, "CA4").await.ok()), "CA4 CA3*");
    assert_eq!(setup.bundle(&apply(&setup, "CA4").await.ok()), "CA4 CA3*");
}

#[tokio::test]
async fn an_ask_from_anyone_else_is_removed_with_a_warning() {
    let Some(cluster) = cluster("asks-of-others").await else { return };
    let setup = Setup::new(cluster.namespace("asks-of-others").await);
    apply(&setup, "CA2").await.ok();
    let der = BASE64_STANDARD.encode(&setup.ca("CA1").der);
    let answer = ask(&setup.secrets, &format!("repair {der}")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        (setup.bundle(&answer).as_str(), answer.annotation("ca-overlap.dev/ask")),
        ("CA2", None)
    );
    assert!(
        answer.warnings.iter().any(|w| w.contains("only ca-overlap's keeper")),
        "{:?}",
        answer.warnings
    );
}
