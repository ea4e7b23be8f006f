//! Deployments and `StatefulSet`s that mount a Secret, as far as tests look at them.

use ca_overlap::names::RESTARTED_FOR;
use devtools::control_plane::ControlPlane;
use serde_json::{Value, json};

/// A workload of the namespace.
pub struct Workload<'a> {
    pub plane: &'a ControlPlane,
    pub namespace: &'a str,
    /// Such as `deployment/app`.
    pub name: &'a str,
}

impl Workload<'_> {
    fn path(&self) -> String {
        let (kind, name) = self.name.split_once('/').unwrap();
        format!("/apis/apps/v1/namespaces/{}/{kind}s/{name}", self.namespace)
    }

    /// Its pods mount the Secret.
    pub async fn create(&self, secret: &str, replicas: u32) {
        let (kind, name) = self.name.split_once('/').unwrap();
        let labels = json!({"app": name});
        let mut object = json!({
            "apiVersion": "apps/v1", "metadata": {"name": name},
            "kind": if kind == "deployment" { "Deployment" } else { "StatefulSet" },
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [{"name": "c", "image": "c"}],
                    "volumes": [{"name": "v", "secret": {"secretName": secret}}],
                },
            }},
        });
        if kind == "statefulset" {
            object["spec"]["serviceName"] = json!(name);
        }
        let path = self.path();
        let list = path.rsplit_once('/').unwrap().0.to_owned();
        self.plane.json("POST", &list, &object).await.unwrap();
    }

    pub async fn get(&self) -> Value {
        self.plane.json("GET", &self.path(), &Value::Null).await.unwrap()
    }

    /// The trust that it was restarted for, if it was.
    pub async fn mark(&self) -> Option<String> {
        let object = self.get().await;
        let annotations = object["spec"]["template"]["metadata"]["annotations"].as_object()?;
        let mark = annotations.iter().find(|(key, _)| key.starts_with(RESTARTED_FOR))?;
        mark.1.as_str().map(ToOwned::to_owned)
    }

    /// How often its spec was written: 1 after its creation.
    pub async fn generation(&self) -> u64 {
        self.get().await["metadata"]["generation"].as_u64().unwrap()
    }

    /// What kube-controller-manager writes at the end of a rollout, if a rollout is under way.
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
        // Somebody may have written it meanwhile: then the next look does it.
        drop(self.plane.json("PUT", &format!("{}/status", self.path()), &object).await);
    }
}
