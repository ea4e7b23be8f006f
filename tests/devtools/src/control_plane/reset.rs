//! One control plane for many tests, one after another: to start one takes seconds of CPU.

use std::fs;

use serde_json::{Value, json};

use super::{ControlPlane, Error, send};
use crate::names;

/// What a program that looks at all namespaces would find there.
const IN_NAMESPACES_OF_TESTS: [&str; 6] = [
    "api/v1 secrets",
    "api/v1 pods",
    "apis/apps/v1 deployments",
    "apis/apps/v1 statefulsets",
    "apis/apps/v1 daemonsets",
    "apis/events.k8s.io/v1 events",
];
/// What the manifests install there and the program writes; all but `ServiceAccount`s, since one
/// that is made anew is for a moment not the one that its tokens name.
const IN_OURS: [&str; 9] = [
    "api/v1 secrets",
    "api/v1 services",
    "apis/apps/v1 deployments",
    "apis/coordination.k8s.io/v1 leases",
    "apis/events.k8s.io/v1 events",
    "apis/networking.k8s.io/v1 networkpolicies",
    "apis/policy/v1 poddisruptionbudgets",
    "apis/rbac.authorization.k8s.io/v1 roles",
    "apis/rbac.authorization.k8s.io/v1 rolebindings",
];
const OF_THE_CLUSTER: [&str; 3] = [
    "apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "apis/rbac.authorization.k8s.io/v1/clusterroles",
    "apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
];

impl ControlPlane {
    /// Makes it like new for another test, once all programs of the last one have ended: without
    /// the namespaces that carry the label `of_tests`, without the installation, without logs.
    pub async fn reset(&self, of_tests: &str) -> Result<(), Error> {
        // First of all, so that nothing below is reviewed.
        for kind in OF_THE_CLUSTER {
            self.delete(&format!("/{kind}?labelSelector=app.kubernetes.io/name%3Dca-overlap"))
                .await?;
        }
        let labelled = format!("/api/v1/namespaces?labelSelector={of_tests}");
        let labelled = self.json("GET", &labelled, &Value::Null).await?;
        for namespace in labelled["items"].as_array().into_iter().flatten() {
            let name = namespace["metadata"]["name"].as_str().unwrap_or_default();
            self.empty(name, &IN_NAMESPACES_OF_TESTS).await?;
            // No controller is there to end it.
            let path = format!("/api/v1/namespaces/{name}");
            self.delete(&path).await?;
            let end = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            self.json("PUT", &format!("{path}/finalize"), &end).await?;
        }
        self.empty(names::NAMESPACE, &IN_OURS).await?;
        for file in fs::read_dir(self.scratch.path()).into_iter().flatten().flatten() {
            let (path, name) = (file.path(), file.file_name());
            let is_of_the_plane = name == "etcd.log" || name.to_string_lossy().starts_with("kube-");
            if path.extension().is_some_and(|it| it == "log") && !is_of_the_plane {
                fs::remove_file(&path).map_err(Error::file(&path))?;
            }
        }
        Ok(())
    }

    async fn empty(&self, namespace: &str, kinds: &[&str]) -> Result<(), Error> {
        for (group, kind) in kinds.iter().filter_map(|kind| kind.split_once(' ')) {
            self.delete(&format!("/{group}/namespaces/{namespace}/{kind}")).await?;
        }
        Ok(())
    }

    /// What is not there need not go.
    async fn delete(&self, path: &str) -> Result<(), Error> {
        let answer = send(&self.client().await?, "DELETE", path, None, Vec::new()).await?;
        let status = answer.status();
        if status.is_success() || status == http::StatusCode::NOT_FOUND {
            return Ok(());
        }
        Err(Error::Unexpected(format!("DELETE {path}: {}", answer.body()["message"])))
    }
}
