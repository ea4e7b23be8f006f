//! Inspects processes on the node, with a pod that shares the node's process ids.

use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually};
use crate::peers::PEER_IMAGE;
use crate::rollouts::container;

const NAMESPACE: &str = "node-agent";

/// Runs such pods, in a namespace that allows them.
pub struct Agent {
    cluster: Cluster,
}

impl Agent {
    pub async fn of(cluster: &Cluster) -> Self {
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"},
            },
        });
        cluster.apply(&[object]).await;
        Self { cluster: cluster.clone() }
    }

    /// Runs `peer COMMAND CONTAINER` on the node of this pod and returns its output.
    pub async fn run(&self, command: &str, pod: &Value) -> String {
        let (node, container) = (&pod["spec"]["nodeName"], container(pod));
        let name = format!("{command}-{}", &container[..12]);
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "nodeName": node, "hostPID": true, "restartPolicy": "Never", "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "main", "image": PEER_IMAGE, "imagePullPolicy": "Never",
                    "args": [command, container],
                    "securityContext": {"runAsUser": 0, "capabilities": {"add": ["KILL", "SYS_PTRACE"]}},
                }],
            },
        });
        self.cluster.apply(&[pod]).await;
        let phase = eventually("the agent's end", async || {
            let phase = self.cluster.read(&path).await["status"]["phase"].clone();
            (phase == "Succeeded" || phase == "Failed").then_some(phase)
        })
        .await;
        let log = self.cluster.text(&format!("{path}/log")).await.unwrap_or_default();
        assert_eq!(phase, "Succeeded", "{log}");
        self.cluster.kubectl(&format!("-n {NAMESPACE} delete pod {name} --now")).await;
        log
    }
}
