//! A control plane with the product, and cert-manager's controllers with its CRDs.

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
    _controllers: Supervised,
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
        let setup = Setup::on(plane, test, "keeper", &[]).await?;
        let plane = &setup.cluster.plane;
        let controllers = start(plane, &program).await;
        let spec = json!({"selfSigned": {}});
        create(plane, &issuer(None, SELF_SIGNED, &spec)).await;
        Some(Self { _controllers: controllers, setup })
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

    /// Waits until a certificate has been issued that often, and nothing more is under way.
    pub async fn issued(&self, namespace: &str, name: &str, times: usize) {
        let what = format!("{namespace}/{name} issued, {times}");
        eventually(&what, async || {
            let status = self.certificate(namespace, name).await["status"].take();
            let is_done = status["revision"] == times
                && condition(&status, "Ready") == Some("True")
                && condition(&status, "Issuing") != Some("True");
            is_done.then_some(())
        })
        .await;
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

    /// How often a certificate was requested. Its history keeps all requests.
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

/// Starts the controllers as a `ServiceAccount` with all rights.
async fn start(plane: &ControlPlane, program: &Path) -> Supervised {
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
