//! Workloads that mount a Secret.

use ca_overlap::names::RESTARTED_FOR;
use devtools::control_plane::ControlPlane;
use serde_json::{Value, json};

/// A workload of a namespace.
pub struct Workload<'a> {
    pub plane: &'a ControlPlane,
    pub namespace: &'a str,
    /// Such as `deployment/app`.
    pub name: &'a str,
}

impl Workload<'_> {
    pub fn path(&self) -> String {
        let (kind, name) = self.name.split_once('/').unwrap();
        format!("/apis/apps/v1/namespaces/{}/{kind}s/{name}", self.namespace)
    }

    /// Creates the workload. Its pods mount the Secret `mounts`; `more` is merged into the object.
    pub async fn create(&self, mounts: Option<&str>, more: &Value) {
        let (kind, name) = self.name.split_once('/').unwrap();
        let kind = match kind {
            "deployment" => "Deployment",
            "statefulset" => "StatefulSet",
            _ => "DaemonSet",
        };
        let labels = json!({"app": name});
        let volume = |secret| json!({"name": "v", "secret": {"secretName": secret}});
        let volumes: Vec<Value> = mounts.into_iter().map(volume).collect();
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "c"}], "volumes": volumes},
            }},
        });
        if kind == "StatefulSet" {
            object["spec"]["serviceName"] = json!(name);
        }
        json_patch::merge(&mut object, more);
        let path = self.path();
        let list = path.rsplit_once('/').unwrap().0.to_owned();
        self.plane.json("POST", &list, &object).await.unwrap();
    }

    pub async fn get(&self) -> Value {
        self.plane.json("GET", &self.path(), &Value::Null).await.unwrap()
    }

    /// The trust that it was restarted for, if any.
    pub async fn mark(&self) -> Option<String> {
        let object = self.get().await;
        let annotations = object["spec"]["template"]["metadata"]["annotations"].as_object()?;
        let mark = annotations.iter().find(|(key, _)| key.starts_with(RESTARTED_FOR))?;
        mark.1.as_str().map(ToOwned::to_owned)
    }

    /// How often its spec was written: 1 after the creation.
    pub async fn generation(&self) -> u64 {
        self.get().await["metadata"]["generation"].as_u64().unwrap()
    }

    /// Completes a rollout that is under way: writes the status that kube-controller-manager
    /// writes.
    pub async fn roll_out(&self) {
        let mut object = self.get().await;
        let generation = object["metadata"]["generation"].clone();
        if object["status"]["observedGeneration"] == generation {
            return;
        }
        object["status"] = json!({
            "observedGeneration": generation, "replicas": 1, "updatedReplicas": 1,
            "availableReplicas": 1, "readyReplicas": 1,
        });
        // After a conflict the caller tries again.
        drop(self.plane.json("PUT", &format!("{}/status", self.path()), &object).await);
    }
}
