//! A control plane with the product, and cert-manager's controllers with its CRDs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use devtools::control_plane::{ControlPlane, Options, Supervised, send};
use serde_json::{Value, json};

use crate::keeper::setup::{Setup, eventually};
use crate::support::{self, Plane, skip};

/// The default of cert-manager's flag `--cluster-resource-namespace`.
pub const NAMESPACE: &str = "cert-manager";
/// The `ClusterIssuer` of all roots.
pub const SELF_SIGNED: &str = "self-signed";
const GROUP: &str = "/apis/cert-manager.io/v1";

pub struct Rig {
    // Programs end before their control plane.
    controllers: Supervised,
    program: PathBuf,
    pub setup: Setup,
}

impl Rig {
    pub async fn start(test: &str) -> Option<Self> {
        let assets = support::assets(test)?;
        let program = built(test, "cert-manager/cert-manager")?;
        let crds = support::foreign_crds(test, "cert-manager-")?;
        // Not from the pool: the CRDs would stay for the next test.
        let plane = Plane::with(Options::new(assets)).await;
        support::install_crds(&plane, &crds).await;
        let setup = Setup::on(plane, test, "../../tests/data/renewals", &[]).await?;
        let plane = &setup.cluster.plane;
        create_account(plane).await;
        let controllers = start(plane, &program).await;
        let spec = json!({"selfSigned": {}});
        create(plane, &issuer(None, SELF_SIGNED, &spec)).await;
        Some(Self { controllers, program, setup })
    }

    pub async fn restart_controllers(&mut self) {
        self.controllers.signal("KILL");
        self.controllers = start(&self.setup.cluster.plane, &self.program).await;
    }

    /// The `resourceVersion` of each Secret that cert-manager has issued.
    pub async fn versions(&self) -> BTreeMap<String, String> {
        let path = "/api/v1/secrets?labelSelector=controller.cert-manager.io/fao%3Dtrue";
        let list = self.setup.cluster.plane.json("GET", path, &Value::Null).await.unwrap();
        let issued = list["items"].as_array().unwrap().iter().filter(|item| {
            item["metadata"]["annotations"]["cert-manager.io/certificate-name"].is_string()
        });
        let version = |item: &Value| {
            let text = |key: &str| item["metadata"][key].as_str().unwrap().to_owned();
            (format!("{}/{}", text("namespace"), text("name")), text("resourceVersion"))
        };
        issued.map(version).collect()
    }

    /// Creates a CA issuer. Without a namespace it is a `ClusterIssuer`.
    pub async fn create_issuer(&self, namespace: Option<&str>, name: &str, secret: &str) {
        let spec = json!({"ca": {"secretName": secret}});
        create(&self.setup.cluster.plane, &issuer(namespace, name, &spec)).await;
    }

    pub async fn create_certificate(&self, namespace: &str, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "cert-manager.io/v1",
            "kind": "Certificate",
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        });
        create(&self.setup.cluster.plane, &object).await;
    }

    /// Waits until a certificate has been issued at least that often, and nothing more is under way.
    /// On a busy machine cert-manager can see its new Secret late, and then issues again.
    pub async fn issued(&self, namespace: &str, name: &str, times: u64) -> u64 {
        eventually(&format!("{namespace}/{name} issued, {times}"), async || {
            let status = self.certificate(namespace, name).await["status"].take();
            let is_done = condition(&status, "Ready") == Some("True") && !is_under_way(&status);
            status["revision"].as_u64().filter(|revision| is_done && *revision >= times)
        })
        .await
    }

    pub async fn is_under_way(&self, namespace: &str, name: &str) -> bool {
        is_under_way(&self.certificate(namespace, name).await["status"])
    }

    /// Asks for a new certificate as `cmctl renew` does.
    pub async fn renew(&self, namespace: &str, name: &str) {
        let client = self.setup.cluster.plane.client().await.unwrap();
        let path = format!("{GROUP}/namespaces/{namespace}/certificates/{name}/status");
        eventually(&format!("{namespace}/{name} marked"), async || {
            let mut object = self.certificate(namespace, name).await;
            let generation = object["metadata"]["generation"].clone();
            let conditions = object["status"]["conditions"].as_array_mut()?;
            conditions.retain(|condition| condition["type"] != "Issuing");
            conditions.push(json!({
                "type": "Issuing",
                "status": "True",
                "reason": "ManuallyTriggered",
                "message": "Certificate re-issuance manually triggered",
                "lastTransitionTime": jiff::Timestamp::now().strftime("%FT%TZ").to_string(),
                "observedGeneration": generation,
            }));
            let body = object.to_string().into_bytes();
            // A controller may have written in the meantime.
            let answer = send(&client, "PUT", &path, Some("application/json"), body).await.unwrap();
            answer.status().is_success().then_some(())
        })
        .await;
    }

    pub async fn delete_certificate(&self, namespace: &str, name: &str) {
        let path = format!("{GROUP}/namespaces/{namespace}/certificates/{name}");
        self.setup.cluster.plane.json("DELETE", &path, &Value::Null).await.unwrap();
    }

    /// How often a certificate was requested. The history keeps all requests.
    pub async fn requests(&self, namespace: &str, certificate: &str) -> usize {
        let path = format!("{GROUP}/namespaces/{namespace}/certificaterequests");
        let list = self.setup.cluster.plane.json("GET", &path, &Value::Null).await.unwrap();
        let of = |item: &&Value| {
            item["metadata"]["annotations"]["cert-manager.io/certificate-name"] == certificate
        };
        list["items"].as_array().unwrap().iter().filter(of).count()
    }

    async fn certificate(&self, namespace: &str, name: &str) -> Value {
        let path = format!("{GROUP}/namespaces/{namespace}/certificates/{name}");
        self.setup.cluster.plane.json("GET", &path, &Value::Null).await.unwrap()
    }
}

fn is_under_way(status: &Value) -> bool {
    condition(status, "Issuing") == Some("True")
}

fn condition<'v>(status: &'v Value, kind: &str) -> Option<&'v str> {
    let mut conditions = status["conditions"].as_array()?.iter();
    conditions.find(|condition| condition["type"] == kind)?["status"].as_str()
}

fn issuer(namespace: Option<&str>, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "cert-manager.io/v1",
        "kind": if namespace.is_some() { "Issuer" } else { "ClusterIssuer" },
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
}

/// Creates an object of cert-manager.
async fn create(plane: &ControlPlane, object: &Value) {
    let kinds = format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
    let path = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{GROUP}/namespaces/{namespace}/{kinds}"),
        None => format!("{GROUP}/{kinds}"),
    };
    plane.json("POST", &path, object).await.unwrap();
}

/// Creates the `ServiceAccount` of the controllers, with all rights.
async fn create_account(plane: &ControlPlane) {
    let named = |version: &str, kind: &str| json!({"apiVersion": version, "kind": kind, "metadata": {"name": NAMESPACE}});
    let namespace = named("v1", "Namespace");
    plane.json("POST", "/api/v1/namespaces", &namespace).await.unwrap();
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    plane.json("POST", &path, &named("v1", "ServiceAccount")).await.unwrap();
    let rbac = "rbac.authorization.k8s.io";
    let mut binding = named(&format!("{rbac}/v1"), "ClusterRoleBinding");
    binding["roleRef"] = json!({"apiGroup": rbac, "kind": "ClusterRole", "name": "cluster-admin"});
    binding["subjects"] =
        json!([{"kind": "ServiceAccount", "name": NAMESPACE, "namespace": NAMESPACE}]);
    plane.json("POST", &format!("/apis/{rbac}/v1/clusterrolebindings"), &binding).await.unwrap();
}

async fn start(plane: &ControlPlane, program: &Path) -> Supervised {
    let kubeconfig = plane.service_account_kubeconfig(NAMESPACE, NAMESPACE).await.unwrap();
    let scratch = plane.scratch().path();
    let arguments = ["--kubeconfig".into(), kubeconfig.into_os_string()];
    let log = scratch.join("cert-manager.log");
    Supervised::start(NAMESPACE, program, arguments, &[], scratch, log).unwrap()
}

/// A program that `make control-plane` builds.
fn built(test: &str, name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/control-plane").join(name);
    path.is_file()
        .then_some(())
        .or_else(|| skip(test, "no cert-manager: run make control-plane"))?;
    Some(path)
}
