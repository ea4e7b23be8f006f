//! Resets a control plane so that the next test can use it: starting one takes seconds of CPU time.

use std::fs;

use serde_json::{Value, json};

use super::{ControlPlane, Error, send};
use crate::names;

/// The kinds that a program which reads all namespaces would find in those of tests.
const IN_NAMESPACES_OF_TESTS: [&str; 6] = [
    "api/v1 secrets",
    "api/v1 pods",
    "apis/apps/v1 deployments",
    "apis/apps/v1 statefulsets",
    "apis/apps/v1 daemonsets",
    "apis/events.k8s.io/v1 events",
];
/// The kinds that the manifests install and the program writes in its namespace. `ServiceAccount`s
/// stay: a recreated one does not at once accept its new tokens.
const IN_OURS: [&str; 12] = [
    "api/v1 secrets",
    "api/v1 pods",
    "api/v1 services",
    "apis/discovery.k8s.io/v1 endpointslices",
    "apis/apps/v1 deployments",
    "api/v1 configmaps",
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
    /// Removes the namespaces with the label `of_tests`, the installation, and the logs. All
    /// programs of the last test must have ended.
    pub async fn reset(&self, of_tests: &str) -> Result<(), Error> {
        // The registration goes first, so that the webhook is not called for what follows.
        for kind in OF_THE_CLUSTER {
            self.delete(&format!("/{kind}?labelSelector=app.kubernetes.io/name%3Dca-overlap"))
                .await?;
        }
        let labelled = format!("/api/v1/namespaces?labelSelector={of_tests}");
        let labelled = self.json("GET", &labelled, &Value::Null).await?;
        for namespace in labelled["items"].as_array().into_iter().flatten() {
            let name = namespace["metadata"]["name"].as_str().unwrap_or_default();
            self.empty(name, &IN_NAMESPACES_OF_TESTS).await?;
            // There is no namespace controller to finish the deletion.
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

    /// Deletes `path`. A missing object is not an error.
    async fn delete(&self, path: &str) -> Result<(), Error> {
        let answer = send(&self.client().await?, "DELETE", path, None, Vec::new()).await?;
        let status = answer.status();
        if status.is_success() || status == http::StatusCode::NOT_FOUND {
            return Ok(());
        }
        Err(Error::Unexpected(format!("DELETE {path}: {}", answer.body()["message"])))
    }
}
