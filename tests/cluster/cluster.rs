//! The cluster, and the ways to it: kubectl as users have it, and requests.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ca_overlap::names;
use devtools::control_plane::{Assets, send};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use crate::helm_program;
use devtools::certs;
use devtools::secrets::{Secrets, secret};

/// Names the kubeconfig of the cluster.
const KUBECONFIG: &str = "CA_OVERLAP_TEST_KUBECONFIG";
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(240);

/// Our Deployments.
pub const WEBHOOK: &str = "ca-overlap-webhook";
pub const KEEPER: &str = "ca-overlap-keeper";
pub const REGISTRATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/ca-overlap";

/// A cluster that can run pods.
#[derive(Clone)]
pub struct Cluster {
    pub client: kube::Client,
    kubeconfig: PathBuf,
    /// Where kubectl and helm are.
    tools: String,
}

impl Cluster {
    /// The one that the environment names.
    pub async fn connect() -> Self {
        let kubeconfig = std::env::var_os(KUBECONFIG).map(PathBuf::from);
        let kubeconfig = kubeconfig.expect("CA_OVERLAP_TEST_KUBECONFIG names no cluster");
        let kubeconfig = std::path::absolute(kubeconfig).unwrap();
        let read = Kubeconfig::read_from(&kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(read, &options).await.unwrap();
        let client = kube::Client::try_from(config).unwrap();
        let helm = helm_program::find().expect("no helm");
        let tools = [Assets::find(None).unwrap().kubectl, helm];
        let tools = tools.map(|tool| tool.parent().unwrap().display().to_string()).join(":");
        Self { client, kubeconfig, tools }
    }

    /// Runs a shell line as a user would, from the repository's root. Gives its output.
    pub async fn shell(&self, line: &str, stdin: &str) -> Result<String, String> {
        let path = format!("{}:{}", self.tools, std::env::var("PATH").unwrap_or_default());
        let mut child = tokio::process::Command::new("sh")
            .args(["-ec", line])
            .env("PATH", path)
            .env("KUBECONFIG", &self.kubeconfig)
            .envs(helm_program::nowhere())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(stdin.as_bytes()).await.unwrap();
        drop(input);
        let output = child.wait_with_output().await.unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(stdout)
        } else {
            Err(format!("{line}\n{stdout}{}", String::from_utf8_lossy(&output.stderr)))
        }
    }

    /// `kubectl` with these words, which must succeed.
    pub async fn kubectl(&self, words: &str) -> String {
        self.shell(&format!("kubectl {words}"), "").await.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Applies objects.
    pub async fn apply(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        let line = "kubectl apply --server-side --force-conflicts --validate=strict -f -";
        self.shell(line, &list).await.unwrap_or_else(|e| panic!("{e}"));
    }

    /// Any request; the answer with its status.
    pub async fn request(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let kind = match method {
            "PATCH" if body.is_array() => Some("application/json-patch+json"),
            "PATCH" => Some("application/merge-patch+json"),
            _ => Some("application/json"),
        };
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = send(&self.client, method, path, kind, body).await.unwrap();
        (answer.status().as_u16(), answer.into_body())
    }

    /// A request that must succeed.
    pub async fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.request(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {}", answer["message"]);
        answer
    }

    /// What is there.
    pub async fn read(&self, path: &str) -> Value {
        self.done("GET", path, &Value::Null).await
    }

    /// Text, such as the log of a pod or an answer through the API server.
    pub async fn text(&self, path: &str) -> Option<String> {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        self.client.request_text(request).await.ok()
    }

    /// The pods of a namespace that have these labels, those that are ending too.
    pub async fn pods(&self, namespace: &str, labels: &str) -> Vec<Value> {
        let labels = labels.replace('=', "%3D").replace(',', "%2C");
        let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={labels}");
        self.read(&path).await["items"].as_array().cloned().unwrap()
    }

    /// Our pods of a component: `webhook` or `keeper`.
    pub async fn our_pods(&self, component: &str) -> Vec<Value> {
        let labels = format!("app.kubernetes.io/component={component}");
        self.pods(names::NAMESPACE, &labels).await
    }

    /// A fresh namespace, under the strictest Pod Security Standard. One of an earlier run goes.
    pub async fn namespace(&self, name: &str, labels: &Value) -> Secrets {
        self.kubectl(&format!("delete namespace {name} --ignore-not-found")).await;
        let mut labels = labels.clone();
        labels["pod-security.kubernetes.io/enforce"] = json!("restricted");
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
        });
        self.done("POST", "/api/v1/namespaces", &object).await;
        Secrets::new(self.client.clone(), name.to_owned())
    }

    /// Installs a kustomization as docs/install.md says, and waits until it is at work.
    pub async fn install(&self, kustomization: &str) {
        self.kubectl(&format!("apply -k {kustomization}")).await;
        self.rolled_out().await;
        self.registration_in_force().await;
    }

    /// Everything, with short waits.
    pub async fn install_all(&self) {
        self.install("tests/cluster/manifests").await;
    }

    /// Waits until our Deployments are complete.
    pub async fn rolled_out(&self) {
        let namespace = names::NAMESPACE;
        for deployment in [WEBHOOK, KEEPER] {
            let find =
                format!("-n {namespace} get deployment {deployment} --ignore-not-found -o name");
            if !self.kubectl(&find).await.is_empty() {
                let line =
                    format!("-n {namespace} rollout status deployment/{deployment} --timeout=120s");
                self.kubectl(&line).await;
            }
        }
    }

    /// Waits until the API server asks the webhook: the dry run of a rotation is mutated.
    pub async fn registration_in_force(&self) {
        let probe = "registration-probe";
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": probe}});
        // It exists already when this is asked for the second time.
        self.request("POST", "/api/v1/namespaces", &namespace).await;
        let secrets = Secrets::new(self.client.clone(), probe.to_owned());
        let object = |subject: &str| {
            let mut object =
                secret(probe, "Opaque", &[("ca.crt", certs::ca_named(subject).pem.as_bytes())]);
            // By an object selector too.
            object["metadata"]["labels"] = json!({names::MODE: "bundle"});
            object
        };
        secrets.create(&object("one")).await;
        let two = object("two");
        eventually("a registration that is in force", async || {
            let answer = secrets.put_with(probe, "dryRun=All", &two).await;
            answer.annotation(names::CARRIED).map(drop)
        })
        .await;
    }

    /// What the API server does where the webhook does not answer: `Ignore` or `Fail`.
    pub async fn set_failure_policy(&self, policy: &str) {
        let patch =
            json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": policy}]);
        self.done("PATCH", REGISTRATION, &patch).await;
    }
}

/// Waits until a pod is ready, and gives it.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let is_ready = |one: &Value| one["type"] == "Ready" && one["status"] == "True";
    conditions.is_some_and(|all| all.iter().any(is_ready)) && !is_ending(pod)
}

/// Whether a pod was told to end.
pub fn is_ending(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_string()
}

/// The name of an object.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// Looks again until there is something.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let limit = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < limit, "not within {} s: {what}", LIMIT.as_secs());
        sleep(Duration::from_millis(100)).await;
    }
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
