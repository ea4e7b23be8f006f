//! Replicas behind the Service, writers that never pause, and the contents of the CA Secret and the
//! caBundle.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::prelude::*;
use ca_overlap::names;
use ca_overlap::serving_cert::inject;
use devtools::control_plane::{ServiceProxy, Webhook};
use jiff::Timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::api_server::strangers::stranger;
use crate::support::{Cluster, Plane, sum};
use devtools::certs::{self, Identity, bundle};
use devtools::secrets::{Answer, Secrets, tls_secret};

pub const SECRET: &str = "/api/v1/namespaces/ca-overlap/secrets/ca-overlap-ca";
const REGISTRATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/ca-overlap";
const KEY: &str = "authorities.json";

/// A cluster whose API server rejects a write if the webhook does not answer.
pub struct Setup {
    pub cluster: Cluster,
    failed_before: f64,
    pub replicas: Vec<Webhook>,
    arguments: Vec<&'static str>,
    leaving: Vec<Webhook>,
    proxy: ServiceProxy,
}

impl Setup {
    /// `None` if there is no control plane; the test is then reported as skipped.
    pub async fn start(test: &str, replicas: usize, arguments: &[&'static str]) -> Option<Self> {
        // With both entries of the registration.
        let cluster = Cluster::on(Plane::exclusive(test).await?, test, "staged").await?;
        let failed_before = failed_calls(&cluster).await;
        let (proxy, replicas) = cluster.replicas(replicas, arguments).await;
        let setup = Self {
            cluster,
            failed_before,
            replicas,
            arguments: arguments.to_vec(),
            leaving: Vec::new(),
            proxy,
        };
        setup.patch_registration("failurePolicy", &json!("Fail")).await;
        Some(setup)
    }

    /// Forces one rotation: sends several signals to each replica.
    pub fn force_rotation(&mut self) {
        for replica in &mut self.replicas {
            replica.process().signal("HUP");
            replica.process().signal("HUP");
        }
    }

    /// Waits until every replica serves a leaf of the newest CA, and returns that CA.
    pub async fn wait_until_served(&self, before: &Value) -> Value {
        wait_for("a leaf of the newest CA on each replica", async || {
            let newest = self.authorities().await.last().cloned().unwrap_or_default();
            if newest["certificate"] == before["certificate"] {
                return None;
            }
            for replica in &self.replicas {
                if !serves(replica.listen(), &newest).await {
                    return None;
                }
            }
            Some(newest)
        })
        .await
    }

    /// Waits until the newest CA is old enough for a signal to start another rotation.
    pub async fn wait_until_rotatable(&self, trust_settle: Duration) {
        wait_for("the age of the newest CA", async || {
            let newest = self.authorities().await.last().cloned().unwrap_or_default();
            let added: Timestamp = newest["added"].as_str()?.parse().ok()?;
            (Timestamp::now().duration_since(added).unsigned_abs() > trust_settle).then_some(())
        })
        .await;
    }

    /// Replaces a replica as a Deployment with maxSurge 1 does: the new one is ready before the old
    /// one gets SIGTERM, and for a while new connections still reach the old one.
    pub async fn replace_oldest(&mut self, name: &str) {
        let listen = SocketAddr::from((self.cluster.plane.next_cluster_ip().unwrap(), 8443));
        let name = format!("{name}-{}", listen.ip());
        let mut new = self.cluster.replica(&name, listen, &self.arguments).await.unwrap();
        new.ready().await.unwrap();
        let mut old = self.replicas.remove(0);
        self.replicas.push(new);
        let mut backends: Vec<_> = self.replicas.iter().map(Webhook::listen).collect();
        backends.push(old.listen());
        self.proxy.set_backends(backends.clone());
        old.process().signal("TERM");
        // As long as kube-proxy needs on a quiet node. The drain delay of these tests is longer.
        tokio::time::sleep(Duration::from_secs(1)).await;
        backends.pop();
        self.proxy.set_backends(backends);
        // It drains while the API server keeps a connection to it, for up to 90 s.
        self.leaving.push(old);
        for old in &mut self.leaving {
            let ended = old.process().ended();
            assert!(ended.is_none_or(|status| status.success()), "{}", old.log_tail());
        }
    }

    /// Kills the last replica with SIGKILL.
    pub async fn kill(&mut self) {
        let mut killed = self.replicas.pop().unwrap();
        killed.process().signal("KILL");
        wait_for("the end of a killed replica", async || killed.process().ended()).await;
    }

    /// Starts the next process of the same replica.
    pub async fn restart(&mut self, listen: SocketAddr) {
        let mut replica = self.cluster.replica("restarted", listen, &self.arguments).await.unwrap();
        replica.ready().await.unwrap();
        self.replicas.push(replica);
    }

    /// The CAs in the CA Secret, the newest last. Empty if the Secret cannot be read.
    pub async fn authorities(&self) -> Vec<Value> {
        let Ok(secret) = self.cluster.plane.json("GET", SECRET, &Value::Null).await else {
            return Vec::new();
        };
        let value = BASE64_STANDARD.decode(secret["data"][KEY].as_str().unwrap_or_default());
        serde_json::from_slice(&value.unwrap_or_default()).unwrap_or_default()
    }

    /// The certificates of the caBundle, newest first. Both entries have the same, or none counts.
    pub async fn ca_bundle(&self) -> Vec<CertificateDer<'static>> {
        let registration =
            self.cluster.plane.json("GET", REGISTRATION, &Value::Null).await.unwrap();
        let [one, other] = [0, 1].map(|entry| &registration["webhooks"][entry]["clientConfig"]);
        let bundle = one["caBundle"].as_str().filter(|_| one["caBundle"] == other["caBundle"]);
        inject::certificates(bundle.unwrap_or_default())
    }

    /// Replaces the value in the CA Secret.
    pub async fn corrupt(&self, value: &str) {
        let patch = json!([
            {"op": "add", "path": "/data", "value": {KEY: BASE64_STANDARD.encode(value)}},
        ]);
        self.patch(&["secret", "ca-overlap-ca", "-n", names::NAMESPACE], &patch).await;
    }

    /// Sets a field of both entries of the registration.
    pub async fn patch_registration(&self, field: &str, value: &Value) {
        let set = |entry| {
            let path = format!("/webhooks/{entry}/{field}");
            json!({"op": "add", "path": path, "value": value})
        };
        let patch = json!([set(0), set(1)]);
        self.patch(&["mutatingwebhookconfiguration", "ca-overlap"], &patch).await;
    }

    /// Deletes and returns the webhook's role binding. Without it the webhook can neither read nor
    /// write the caBundle.
    pub async fn revoke_rights(&self) -> Value {
        let path = format!("{RBAC}/ca-overlap-webhook");
        let mut binding = self.cluster.plane.json("GET", &path, &Value::Null).await.unwrap();
        self.cluster.plane.json("DELETE", &path, &Value::Null).await.unwrap();
        binding["metadata"] = json!({"name": "ca-overlap-webhook"});
        binding
    }

    pub async fn restore_rights(&self, binding: &Value) {
        self.cluster.plane.json("POST", RBAC, binding).await.unwrap();
    }

    /// Whether the API server has counted a failed call to the webhook since the start.
    pub async fn has_failed_calls(&self) -> bool {
        failed_calls(&self.cluster).await > self.failed_before
    }

    async fn patch(&self, what: &[&str], patch: &Value) {
        let patch = patch.to_string();
        let arguments = [&["patch"], what, &["--type=json", "-p", &patch]].concat();
        self.cluster.plane.kubectl(&arguments, &[]).await.unwrap();
    }
}

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
const OURS: &str = "secrets.ca-overlap.dev";

async fn failed_calls(cluster: &Cluster) -> f64 {
    let metrics = cluster.plane.metrics().await.unwrap();
    ["rejection_count", "fail_open_count"]
        .map(|name| sum(&metrics, &format!("apiserver_admission_webhook_{name}"), &[OURS]))
        .iter()
        .sum()
}

/// Writers that rotate one Secret each, without a pause.
pub struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<usize>>,
}

impl Writers {
    pub async fn start(cluster: &Cluster, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for number in 0..count {
            let secrets = cluster.namespace("writer").await;
            // The last one may not read what it writes, so the API server calls the second entry.
            let secrets =
                if number + 1 == count { stranger(cluster, secrets).await } else { secrets };
            let mut writer = Writer::new(secrets).await;
            let stop = stop.clone();
            tasks.push(tokio::spawn(async move {
                let mut written = 0;
                while !stop.load(Ordering::Relaxed) {
                    writer.write().await.unwrap();
                    written += 1;
                }
                written
            }));
        }
        Self { stop, tasks }
    }

    /// Stops the writers and returns the number of writes. Panics if a write was rejected or not
    /// bundled.
    pub async fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let mut written = 0;
        for task in self.tasks {
            written += task.await.expect("every write passes and is bundled");
        }
        written
    }
}

/// A generator that rotates a Secret with each write.
pub struct Writer {
    secrets: Secrets,
    cas: Vec<(Identity, Identity)>,
    current: usize,
}

impl Writer {
    pub async fn new(secrets: Secrets) -> Self {
        let cas = ["CA1", "CA2", "CA3"].map(certs::ca_named);
        let cas = cas.into_iter().map(|ca| {
            let leaf = ca.leaf("it");
            (ca, leaf)
        });
        let writer = Self { secrets, cas: cas.collect(), current: 0 };
        let (first, leaf) = &writer.cas[0];
        writer.secrets.create(&tls_secret("it", &first.pem, leaf)).await.ok();
        writer
    }

    /// Writes the next CA. An error means that the write was rejected, or stored without the
    /// previous CA.
    pub async fn write(&mut self) -> Result<(), String> {
        let next = (self.current + 1) % self.cas.len();
        let (ca, leaf) = &self.cas[next];
        let Answer { status, body, .. } =
            self.secrets.put("it", &tls_secret("it", &ca.pem, leaf)).await;
        if !status.is_success() {
            return Err(format!("{status}: {}", body["message"]));
        }
        let expected = BASE64_STANDARD.encode(bundle(&[ca, &self.cas[self.current].0]));
        self.current = next;
        if body["data"]["ca.crt"] == expected {
            return Ok(());
        }
        Err("the write was stored without the previous CA".to_owned())
    }
}

/// Whether a new connection to `address` gets a leaf of this CA.
pub async fn serves(address: SocketAddr, authority: &Value) -> bool {
    let pem = authority["certificate"].as_str().unwrap_or_default();
    let Ok(ca) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return false };
    let config = rustls::ClientConfig::builder_with_provider(ca_overlap::server::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(ca_overlap::server::tls::roots(&[ca]).unwrap())
        .with_no_client_auth();
    let Ok(tcp) = TcpStream::connect(address).await else { return false };
    let name = ServerName::try_from("ca-overlap-webhook.ca-overlap.svc").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.is_ok()
}

/// Polls until `look` returns a value.
pub async fn wait_for<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("not within a minute: {what}"))
}
