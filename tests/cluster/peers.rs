//! Peers that do mutual TLS handshakes as real pods, each with a mounted Secret, and the Job of the
//! generator.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually, is_ending, is_ready, name};
use crate::records::{Record, Rotation, issuer_id, key_ids, streaks};
use devtools::secrets::{Answer, Secrets};

pub const PEER_IMAGE: &str = "ca-overlap-test-peer:dev";
const CERTGEN_IMAGE: &str = "ca-overlap-test-certgen:dev";
/// The Secrets that the generator writes.
pub const SECRETS: [&str; 3] = ["envoy", "envoy-gateway", "envoy-rate-limit"];
/// The number of successful handshakes in a row after which a pair counts as working.
const STEADY: usize = 8;

/// A peer, which has a Deployment with one pod.
pub struct Peer {
    pub name: &'static str,
    /// The Secret that it mounts. The leaf is for the Secret's name.
    pub secret: &'static str,
    /// The files that it reads only at start: empty, `ca`, or `all`.
    pub at_start: &'static str,
}

/// Two peers reload their files, as Envoy does. One reads its CA only at start, as the Rate Limit
/// service does. One reloads nothing.
pub const PEERS: [Peer; 4] = [
    Peer { name: "envoy", secret: "envoy", at_start: "" },
    Peer { name: "envoy-gateway", secret: "envoy-gateway", at_start: "" },
    Peer { name: "envoy-rate-limit", secret: "envoy-rate-limit", at_start: "ca" },
    Peer { name: "pinned", secret: "envoy", at_start: "all" },
];

/// The peers in one namespace.
pub struct Peers {
    pub cluster: Cluster,
    pub secrets: Secrets,
    all_reload: bool,
}

impl Peers {
    /// Runs the generator, starts the peers, and waits until all pairs do handshakes.
    pub async fn start(cluster: &Cluster, namespace: &str, labels: &Value) -> Self {
        let peers = Self::prepare(cluster, namespace, labels, false).await;
        peers.generate().await;
        peers.run().await;
        peers
    }

    /// The same, but the Secrets come from elsewhere: [`Self::run`] does the rest.
    pub async fn prepare(
        cluster: &Cluster,
        namespace: &str,
        labels: &Value,
        all_reload: bool,
    ) -> Self {
        let secrets = cluster.namespace(namespace, labels).await;
        let peers = Self { cluster: cluster.clone(), secrets, all_reload };
        cluster.apply(&peers.fixtures()).await;
        peers
    }

    pub async fn run(&self) {
        self.cluster.apply(&self.deployments()).await;
        self.ready().await;
        self.steady(0).await;
    }

    pub fn namespace(&self) -> &str {
        &self.secrets.namespace
    }

    /// The generator's account and rights, the collector, and a Service for each peer.
    fn fixtures(&self) -> Vec<Value> {
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "certgen", "namespace": self.namespace()},
        });
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "certgen", "namespace": self.namespace()},
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "create", "update"]}],
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "certgen", "namespace": self.namespace()},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "certgen"},
            "subjects": [{"kind": "ServiceAccount", "name": "certgen", "namespace": self.namespace()}],
        });
        let mut spec = pod_spec(PEER_IMAGE, &["collect"]);
        spec["containers"][0]["readinessProbe"] = probe();
        let collector = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "collector", "namespace": self.namespace(), "labels": {"peer": "collector"}},
            "spec": spec,
        });
        let services = PEERS.iter().map(|peer| (peer.name, 9443)).chain([("collector", 8080)]);
        let services = services.map(|(name, port)| self.service(name, port));
        [account, role, binding, collector].into_iter().chain(services).collect()
    }

    fn service(&self, name: &str, port: u16) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": self.namespace()},
            "spec": {"selector": {"peer": name}, "ports": [{"port": port}]},
        })
    }

    /// The Deployments. They find Services by environment variables, because there is no DNS.
    fn deployments(&self) -> Vec<Value> {
        let address = |name: &str| {
            let variable = name.to_uppercase().replace('-', "_");
            format!("$({variable}_SERVICE_HOST):$({variable}_SERVICE_PORT)")
        };
        let deployment = |peer: &Peer| {
            let others = PEERS.iter().filter(|other| other.name != peer.name);
            let targets = others
                .map(|other| format!("{}/{}={}", other.name, other.secret, address(other.name)));
            let targets = targets.collect::<Vec<_>>().join(" ");
            let mut spec = pod_spec(PEER_IMAGE, &["run"]);
            spec["containers"][0]["env"] = json!([
                {"name": "NAME", "value": peer.name},
                {"name": "CERTS", "value": "/certs"},
                {"name": "AT_START", "value": if self.all_reload { "" } else { peer.at_start }},
                {"name": "COLLECTOR", "value": format!("http://{}/records", address("collector"))},
                {"name": "TARGETS", "value": targets},
            ]);
            spec["containers"][0]["readinessProbe"] = probe();
            spec["containers"][0]["volumeMounts"] =
                json!([{"name": "certs", "mountPath": "/certs", "readOnly": true}]);
            spec["volumes"] = json!([{"name": "certs", "secret": {"secretName": peer.secret}}]);
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": peer.name, "namespace": self.namespace()},
                "spec": {
                    "selector": {"matchLabels": {"peer": peer.name}},
                    "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                    "template": {"metadata": {"labels": {"peer": peer.name}}, "spec": spec},
                },
            })
        };
        PEERS.iter().map(deployment).collect()
    }

    /// Runs the generator as a Job, which writes a new CA and new leaves to all Secrets.
    pub async fn generate(&self) {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let job = format!("certgen-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let words = ["--namespace", self.namespace(), "--state", "/state/generations"];
        let mut spec = pod_spec(CERTGEN_IMAGE, &words);
        spec["serviceAccountName"] = json!("certgen");
        spec["automountServiceAccountToken"] = json!(true);
        spec["restartPolicy"] = json!("Never");
        spec["containers"][0]["volumeMounts"] = json!([{"name": "state", "mountPath": "/state"}]);
        spec["volumes"] = json!([{"name": "state", "emptyDir": {}}]);
        let object = json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": job, "namespace": self.namespace()},
            "spec": {"backoffLimit": 0, "template": {"spec": spec}},
        });
        self.cluster.apply(&[object]).await;
        let path = format!("/apis/batch/v1/namespaces/{}/jobs/{job}", self.namespace());
        let failed = eventually("the end of the generator's Job", async || {
            let status = self.cluster.read(&path).await["status"].clone();
            let is = |key: &str| status[key].as_i64().unwrap_or_default() > 0;
            (is("succeeded") || is("failed")).then(|| is("failed"))
        })
        .await;
        if failed {
            let logs = self.kubectl(&format!("logs job/{job}")).await;
            panic!("the generator failed: {logs}");
        }
    }

    /// Runs the generator, and returns the CAs before and after.
    pub async fn rotate(&self) -> Rotation {
        let old = self.own_ca().await;
        self.generate().await;
        Rotation { old, new: self.own_ca().await }
    }

    /// The key id of the first CA, which is the generator's own.
    async fn own_ca(&self) -> String {
        key_ids(&self.secret(SECRETS[0]).await.pem("ca.crt"))[0].clone()
    }

    pub async fn secret(&self, name: &str) -> Answer {
        self.secrets.get(name).await.ok()
    }

    /// The key id of the CA that issued the leaf in service.
    pub async fn leaf_issuer(&self, name: &str) -> String {
        issuer_id(&self.secret(name).await.pem("tls.crt"))
    }

    pub async fn kubectl(&self, words: &str) -> String {
        self.cluster.kubectl(&format!("-n {} {words}", self.namespace())).await
    }

    /// Waits until each peer has exactly one pod, which is ready.
    pub async fn ready(&self) {
        for peer in &PEERS {
            self.kubectl(&format!("rollout status deployment/{} --timeout=120s", peer.name)).await;
        }
        eventually("one ready pod of each peer", async || {
            let pods = self.cluster.pods(self.namespace(), "peer").await;
            let is_one = pods.len() == PEERS.len() + 1;
            (is_one && pods.iter().all(|pod| is_ready(pod) && !is_ending(pod))).then_some(())
        })
        .await;
    }

    /// The name of a peer's pod.
    pub async fn pod(&self, peer: &str) -> String {
        let pods = self.cluster.pods(self.namespace(), &format!("peer={peer}")).await;
        name(&pods[0]).to_owned()
    }

    /// The records of the peers from number `from` on, read from the collector through the API
    /// server.
    pub async fn records(&self, from: usize) -> Vec<Record> {
        let namespace = self.namespace();
        let path =
            format!("/api/v1/namespaces/{namespace}/pods/collector:8080/proxy/records?from={from}");
        let text = eventually("the collector", async || self.cluster.text(&path).await).await;
        text.lines().map(Record::parse).collect()
    }

    /// Waits until `fit` accepts the records, and returns their number.
    pub async fn until(
        &self,
        what: &str,
        from: usize,
        mut fit: impl FnMut(&[Record]) -> bool,
    ) -> usize {
        eventually(what, async || {
            let records = self.records(from).await;
            fit(&records).then_some(from + records.len())
        })
        .await
    }

    /// Waits until each pair has completed several handshakes in a row.
    pub async fn steady(&self, from: usize) -> usize {
        self.until("handshakes of all pairs", from, |records| {
            let streaks = streaks(records);
            streaks.len() == PEERS.len() * (PEERS.len() - 1)
                && streaks.values().all(|n| *n >= STEADY)
        })
        .await
    }
}

/// The spec of a pod that the Pod Security Standard `restricted` admits, with a loaded image.
pub fn pod_spec(image: &str, arguments: &[&str]) -> Value {
    json!({
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 15,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{
            "name": "main", "image": image, "imagePullPolicy": "Never", "args": arguments,
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
        }],
    })
}

fn probe() -> Value {
    json!({"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1})
}
