//! Starts the API server, the webhook and keepers, each as a real process with its real
//! `ServiceAccount` and RBAC.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ca_overlap::names;
use devtools::control_plane::{ControlPlane, Supervised, http_get};
use serde_json::{Value, json};

use super::promote::wait_for_lease;
use crate::support::{Cluster, Plane, binary, sample, sum};
use devtools::certs::{self, Identity};
use devtools::secrets::{Answer, MERGE, Secrets, tls_secret};

pub const LEASE: &str =
    "/apis/coordination.k8s.io/v1/namespaces/ca-overlap/leases/ca-overlap-keeper";
pub const ROLE: &str =
    "/apis/rbac.authorization.k8s.io/v1/namespaces/ca-overlap/roles/ca-overlap-keeper";

/// A cluster with the overlay `keeper` and a running webhook.
pub struct Setup {
    pub cluster: Cluster,
    /// Additional arguments of the webhook.
    arguments: Vec<&'static str>,
}

impl Setup {
    /// `None` if there is no control plane; the test is then reported as skipped.
    pub async fn start(test: &str) -> Option<Self> {
        Self::with(test, "keeper", &[]).await
    }

    /// With another overlay and additional arguments for the webhook.
    pub async fn with(test: &str, overlay: &str, arguments: &[&'static str]) -> Option<Self> {
        Self::on(Plane::exclusive(test).await?, test, overlay, arguments).await
    }

    /// With staged mode and a keeper that promotes nothing within a test. Leaves wait from now on.
    pub async fn at_rest(test: &str) -> Option<(Self, Keeper)> {
        let setup = Self::with(test, "staged", &["--staged", "--settle", "1h"]).await?;
        let keeper = setup.keeper_at_rest().await;
        Some((setup, keeper))
    }

    /// Starts the keeper of [`Self::at_rest`].
    pub async fn keeper_at_rest(&self) -> Keeper {
        let keeper = self.leading_keeper(&["--settle", "1h"]).await;
        wait_for_lease(&self.cluster.namespace("trial").await).await;
        keeper
    }

    /// With another control plane.
    pub async fn on(
        plane: Plane,
        test: &str,
        overlay: &str,
        arguments: &[&'static str],
    ) -> Option<Self> {
        let cluster = Cluster::on(plane, test, overlay).await?;
        let setup = Self { cluster, arguments: arguments.to_vec() };
        setup.start_webhook().await;
        Some(setup)
    }

    pub async fn start_webhook(&self) {
        let listen = self.cluster.port_443();
        self.cluster.start_webhook("webhook", listen, &self.arguments).await.unwrap();
    }

    pub async fn stop_webhook(&self) {
        let mut webhook = self.cluster.webhook.lock().await.take().expect("a webhook");
        webhook.process().signal("KILL");
        drop(webhook);
    }

    /// Starts a keeper and does not wait. Its Lease lasts three seconds, so that a crash is noticed
    /// soon.
    pub async fn keeper(&self, identity: &str, arguments: &[&str]) -> Keeper {
        let kubeconfig = self.keeper_kubeconfig().await;
        self.keeper_with(&kubeconfig, identity, arguments)
    }

    /// Writes a kubeconfig of the keeper's `ServiceAccount`.
    pub async fn keeper_kubeconfig(&self) -> PathBuf {
        let (namespace, name) = (names::NAMESPACE, names::KEEPER_SERVICE_ACCOUNT);
        self.cluster.plane.service_account_kubeconfig(namespace, name).await.unwrap()
    }

    /// Starts a keeper with another kubeconfig.
    pub fn keeper_with(&self, kubeconfig: &Path, identity: &str, arguments: &[&str]) -> Keeper {
        let program = binary::path();
        Keeper::start(&self.cluster.plane, &program, kubeconfig, identity, arguments)
    }

    /// Starts a keeper and waits until it is ready and leads.
    pub async fn leading_keeper(&self, arguments: &[&str]) -> Keeper {
        let mut keeper = self.keeper("keeper-0", arguments).await;
        keeper.ready().await;
        keeper.leads(true).await;
        keeper
    }

    /// The holder of the Lease.
    pub async fn holder(&self) -> Option<String> {
        let lease = self.cluster.plane.json("GET", LEASE, &Value::Null).await.ok()?;
        lease["spec"]["holderIdentity"].as_str().map(ToOwned::to_owned)
    }

    /// Deletes a namespace in place of the namespace controller, and creates it again.
    pub async fn recreate_namespace(&self, secrets: &Secrets) {
        let plane = &self.cluster.plane;
        let path = format!("/api/v1/namespaces/{}", secrets.namespace);
        plane.json("DELETE", &path, &Value::Null).await.unwrap();
        let mut namespace = plane.json("GET", &path, &Value::Null).await.unwrap();
        namespace["spec"]["finalizers"] = json!([]);
        plane.json("PUT", &format!("{path}/finalize"), &namespace).await.unwrap();
        let again = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": secrets.namespace},
        });
        plane.json("POST", "/api/v1/namespaces", &again).await.unwrap();
    }

    /// The Events on a Secret with this reason.
    pub async fn events(&self, rotation: &Rotation, reason: &str) -> Vec<Value> {
        let path = format!(
            "/apis/events.k8s.io/v1/namespaces/{}/events?fieldSelector=reason%3D{reason}",
            rotation.secrets.namespace
        );
        let list = self.cluster.plane.json("GET", &path, &Value::Null).await.unwrap();
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.into_iter().filter(|event| event["regarding"]["name"] == rotation.name).collect()
    }

    pub async fn event(&self, rotation: &Rotation, reason: &str) -> Value {
        eventually(&format!("an Event {reason}"), async || {
            self.events(rotation, reason).await.into_iter().next()
        })
        .await
    }
}

/// A running keeper. It is killed when this value is dropped.
pub struct Keeper {
    pub process: Supervised,
    pub identity: String,
    admin: SocketAddr,
}

impl Keeper {
    /// Starts a keeper of this build of the program, and does not wait.
    pub fn start(
        plane: &ControlPlane,
        program: &Path,
        kubeconfig: &Path,
        identity: &str,
        arguments: &[&str],
    ) -> Self {
        let admin = SocketAddr::from((plane.next_cluster_ip().unwrap(), 8082));
        let listen = admin.to_string();
        let fixed = ["--log-level", "debug", "keeper", "--namespace", names::NAMESPACE];
        let own = ["--admin-listen", &listen, "--identity", identity];
        let is_given = arguments.contains(&"--lease-duration");
        let duration: &[&str] = if is_given { &[] } else { &["--lease-duration", "3s"] };
        let scratch = plane.scratch().path();
        let process = Supervised::start(
            identity,
            program,
            [&fixed[..], &own[..], duration, arguments].concat(),
            &[("KUBECONFIG", kubeconfig.as_os_str()), ("NO_COLOR", OsStr::new("1"))],
            scratch,
            scratch.join(format!("{identity}.log")),
        )
        .unwrap();
        Self { process, admin, identity: identity.to_owned() }
    }

    pub async fn ready(&mut self) {
        eventually("a keeper that is ready", async || {
            self.process.still_running().unwrap();
            let (status, _) = http_get(self.admin, "/readyz").await.ok()?;
            status.is_success().then_some(())
        })
        .await;
    }

    pub async fn metrics(&self) -> String {
        http_get(self.admin, "/metrics").await.unwrap().1
    }

    pub async fn is_leader(&self) -> bool {
        let metrics = http_get(self.admin, "/metrics").await;
        metrics.is_ok_and(|(_, text)| sample(&text, "ca_overlap_keeper_leader") > 0.0)
    }

    pub async fn leads(&self, leads: bool) {
        eventually(&format!("{} leads: {leads}", self.identity), async || {
            (self.is_leader().await == leads).then_some(())
        })
        .await;
    }

    pub async fn asks(&self, ask: &str, result: &str) -> f64 {
        let labels = [format!("ask=\"{ask}\""), format!("result=\"{result}\"")];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        sum(&self.metrics().await, "ca_overlap_keeper_asks_total", &labels)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.process.log()).unwrap()
    }
}

/// A Secret whose generator applies server side and without force, as Helm 4 does.
pub struct Rotation {
    pub secrets: Secrets,
    pub name: String,
    pub generation: Vec<Identity>,
}

impl Rotation {
    /// Creates the Secret with a first CA, and sets `annotations` as a person does.
    pub async fn begin(secrets: &Secrets, name: &str, annotations: Value) -> Self {
        let mut it = Self { secrets: secrets.clone(), name: name.into(), generation: Vec::new() };
        it.rotate().await;
        let patch = json!({"metadata": {"annotations": annotations}});
        it.secrets.patch(name, MERGE, "fieldManager=person", &patch).await.ok();
        it
    }

    /// Applies a new CA and a new leaf. Panics on a conflict.
    pub async fn rotate(&mut self) -> Answer {
        self.generation.push(certs::ca_named(&format!("CA{}", self.generation.len() + 1)));
        let ca = self.generation.last().unwrap();
        let secret = tls_secret(&self.name, &ca.pem, &ca.leaf("envoy"));
        self.secrets.apply(&self.name, "helm", false, &secret).await.ok()
    }

    pub async fn stored(&self) -> Answer {
        self.secrets.get(&self.name).await.ok()
    }

    pub async fn retired(&self) -> Option<Answer> {
        let stored = self.stored().await;
        let own = &self.generation.last().unwrap().pem;
        (stored.pem("ca.crt") == *own).then_some(stored)
    }

    /// Waits until `ca.crt` holds only the generator's own bytes.
    pub async fn wait_until_retired(&self) -> Answer {
        let what = format!("only the generator's bytes in {}", self.name);
        let answer = eventually(&what, async || self.retired().await).await;
        assert_eq!(answer.label(names::PHASE), None);
        assert_eq!(answer.annotation(names::CARRIED), Some("[]"));
        answer
    }

    /// The field managers of `data`, sorted.
    pub async fn data_managers(&self) -> Vec<String> {
        let stored = self.stored().await;
        let fields = stored.body["metadata"]["managedFields"].as_array().cloned();
        let of_data = fields.unwrap_or_default().into_iter().filter(|field| {
            field["fieldsV1"].as_object().is_some_and(|fields| fields.contains_key("f:data"))
        });
        let mut managers: Vec<String> =
            of_data.map(|field| field["manager"].as_str().unwrap().to_owned()).collect();
        managers.sort_unstable();
        managers
    }
}

/// Polls until `look` returns a value. The limit is far above the time on a busy machine.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let limit = tokio::time::Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < limit, "not within two minutes: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the wall clock has passed `time`.
pub async fn past(time: &str) {
    let time: jiff::Timestamp = time.parse().unwrap();
    let now = async || (jiff::Timestamp::now() > time).then_some(());
    eventually("a time that comes", now).await;
}
