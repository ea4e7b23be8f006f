//! Staged mode on a real API server, with a real Lease, asks from the keeper's real
//! `ServiceAccount`, and a generator that applies without force.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::asks::{ask, keeper, owners_of};
use super::setup::{NAME, Setup};
use crate::support::Cluster;
use devtools::certs::Identity;
use devtools::certs::sha256;
use devtools::secrets::{Answer, MERGE};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/ca-overlap/leases";

/// Creates a fresh Lease of a keeper, and the webhook's right to watch it.
pub async fn grant_and_lease(cluster: &Cluster) {
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/ca-overlap";
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "lease"},
        "rules": [{
            "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
            "resourceNames": ["ca-overlap-keeper"], "verbs": ["get", "list", "watch"],
        }],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "lease"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "lease"},
        "subjects": [
            {"kind": "ServiceAccount", "name": "ca-overlap-webhook", "namespace": "ca-overlap"},
        ],
    });
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "ca-overlap-keeper"},
        "spec": {
            "holderIdentity": "one", "leaseDurationSeconds": 3600,
            "renewTime": format!("{:.6}", Timestamp::now()),
        },
    });
    for (path, object) in [
        (format!("{roles}/roles"), role),
        (format!("{roles}/rolebindings"), binding),
        (LEASES.to_owned(), lease),
    ] {
        cluster.plane.json("POST", &path, &object).await.unwrap();
    }
}

/// Applies without force, as Helm 4 does.
pub async fn apply(setup: &Setup, ca: &str, leaf: &Identity) -> Answer {
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": NAME, "labels": {"ca-overlap.dev/mode": "staged"}},
        "data": {
            "ca.crt": BASE64_STANDARD.encode(setup.pem(ca)),
            "tls.crt": BASE64_STANDARD.encode(&leaf.pem),
            "tls.key": BASE64_STANDARD.encode(&leaf.key),
        },
    });
    setup.secrets.apply(NAME, "helm", false, &object).await.ok()
}

pub fn pairs(answer: &Answer) -> [String; 4] {
    ["tls.crt", "tls.key", "pending.tls.crt", "pending.tls.key"].map(|key| answer.pem(key))
}

pub fn values(served: &Identity, waiting: Option<&Identity>) -> [String; 4] {
    let waiting = waiting.map(|leaf| [leaf.pem.clone(), leaf.key.clone()]);
    let [crt, key] = waiting.unwrap_or_default();
    [served.pem.clone(), served.key.clone(), crt, key]
}

/// A Secret with a staged rotation. The webhook stages nothing until it knows the Lease.
pub async fn staged(cluster: &Cluster) -> (Setup, Identity, Identity) {
    loop {
        let setup = Setup::new(cluster.namespace("staged").await);
        let (old, new) = (setup.leaf("CA1"), setup.leaf("CA2"));
        apply(&setup, "CA1", &old).await;
        let answer = apply(&setup, "CA2", &new).await;
        assert_eq!(answer.pem("ca.crt"), setup.pem("CA2 CA1"));
        if answer.label("ca-overlap.dev/phase") == Some("staged") {
            assert_eq!(pairs(&answer), values(&old, Some(&new)));
            return (setup, old, new);
        }
        assert_eq!(pairs(&answer), values(&new, None));
        assert!(answer.warnings.iter().any(|w| w.contains("Lease")), "{:?}", answer.warnings);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_staged_rotation_is_promoted_without_a_conflict_and_ends_with_the_lease() {
    let Some(cluster) = Cluster::without_webhook("staged").await else { return };
    grant_and_lease(&cluster).await;
    cluster.start_webhook("webhook", cluster.port_443(), &["--staged"]).await.unwrap();
    let (setup, _, new) = staged(&cluster).await;
    let keeper = keeper(&cluster, &setup.secrets.namespace).await;

    let before = setup.secrets.get(NAME).await.ok();
    let again = apply(&setup, "CA2", &new).await;
    assert_eq!(again.resource_version(), before.resource_version(), "a re-apply writes nothing");

    let promote = format!("promote {} #1", sha256(new.pem.as_bytes()));
    let answer = ask(&keeper, &promote).await.ok();
    assert_eq!(pairs(&answer), values(&new, None));
    assert_eq!(setup.bundle(&answer), "CA2 CA1*");
    for key in ["f:ca.crt", "f:tls.crt", "f:tls.key"] {
        assert_eq!(owners_of(&answer, key), [Value::from("helm")], "{key}");
    }
    let again = apply(&setup, "CA2", &new).await;
    assert_eq!(again.resource_version(), answer.resource_version(), "a re-apply writes nothing");

    // The next leaf waits until the keeper's Lease is gone.
    let next = setup.leaf("CA3");
    let answer = apply(&setup, "CA3", &next).await;
    assert_eq!(pairs(&answer), values(&new, Some(&next)));
    let lease = format!("{LEASES}/ca-overlap-keeper");
    cluster.plane.json("DELETE", &lease, &Value::Null).await.unwrap();
    let mut number = 0;
    let answer = loop {
        number += 1;
        let touch = json!({"metadata": {"labels": {"touched": number.to_string()}}});
        let answer = setup.secrets.patch(NAME, MERGE, "", &touch).await.ok();
        if answer.label("ca-overlap.dev/phase") != Some("staged") {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(pairs(&answer), values(&next, None));
    assert_eq!(answer.annotation("ca-overlap.dev/staged"), None);
    assert_eq!(setup.bundle(&answer), "CA3 CA2*");
    let key = new.key.lines().nth(1).unwrap();
    let log = cluster.log_with("staged=\"ended\"").await;
    assert!(!log.contains(key), "no key in the log");
}
