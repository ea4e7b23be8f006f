//! Access to the cluster: with kubectl as users do, and with API requests.

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

/// The environment variable with the kubeconfig of the cluster.
const KUBECONFIG: &str = "CA_OVERLAP_TEST_KUBECONFIG";
/// The time limit of each wait.
const LIMIT: Duration = Duration::from_secs(240);

/// The Deployments of the product.
pub const WEBHOOK: &str = "ca-overlap-webhook";
pub const KEEPER: &str = "ca-overlap-keeper";
pub const REGISTRATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/ca-overlap";

/// A cluster that can run pods.
#[derive(Clone)]
pub struct Cluster {
    pub client: kube::Client,
    kubeconfig: PathBuf,
    /// The directories of kubectl and helm, as in PATH.
    tools: String,
}

impl Cluster {
    /// Connects to the cluster that the environment names.
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

    /// Runs a shell line as a user does, in the repository's root, and returns its output.
    pub async fn shell(&self, line: &str, stdin: &str) -> Result<String, String> {
        let path = format!("{}:{}", self.tools, std::env::var("PATH").unwrap_or_default());
        let mut child = tokio::process::Command::new("sh")
            .args(["-ec", line])
            .env("PATH", path)
            .env("KUBECONFIG", &self.kubeconfig)
            .envs(helm_program::clean_environment())
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

    /// Runs `kubectl` with these words. Panics if it fails.
    pub async fn kubectl(&self, words: &str) -> String {
        self.shell(&format!("kubectl {words}"), "").await.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Applies objects server side.
    pub async fn apply(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        let line = "kubectl apply --server-side --force-conflicts --validate=strict -f -";
        self.shell(line, &list).await.unwrap_or_else(|e| panic!("{e}"));
    }

    /// Sends any request, and returns the status and the answer.
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

    /// Sends a request. Panics if it fails.
    pub async fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.request(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {}", answer["message"]);
        answer
    }

    /// GETs an object or a list.
    pub async fn read(&self, path: &str) -> Value {
        self.done("GET", path, &Value::Null).await
    }

    /// GETs text, such as the log of a pod or a proxied answer.
    pub async fn text(&self, path: &str) -> Option<String> {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        self.client.request_text(request).await.ok()
    }

    /// The pods of a namespace with these labels, including those that are terminating.
    pub async fn pods(&self, namespace: &str, labels: &str) -> Vec<Value> {
        let labels = labels.replace('=', "%3D").replace(',', "%2C");
        let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={labels}");
        self.read(&path).await["items"].as_array().cloned().unwrap()
    }

    /// The pods of a component of the product: `webhook` or `keeper`.
    pub async fn our_pods(&self, component: &str) -> Vec<Value> {
        let labels = format!("app.kubernetes.io/component={component}");
        self.pods(names::NAMESPACE, &labels).await
    }

    /// The two ready replicas of a component. Replicas that are terminating do not count.
    pub async fn replicas(&self, component: &str) -> Vec<Value> {
        eventually("two replicas", async || {
            let mut pods = self.our_pods(component).await;
            pods.retain(|pod| !is_ending(pod));
            (pods.len() == 2 && pods.iter().all(is_ready)).then_some(pods)
        })
        .await
    }

    /// Removes the pods of the product at once. Their processes continue draining, for up to 110 s: a
    /// kubelet does not shorten a grace period that has begun.
    pub async fn remove_pods(&self) {
        let line = format!("-n {} delete pods --all --force --grace-period=0", names::NAMESPACE);
        self.kubectl(&line).await;
    }

    /// Uninstalls what `install_all` installs, if it is installed.
    pub async fn uninstall(&self) {
        self.kubectl("delete -k tests/cluster/manifests --ignore-not-found --wait=false").await;
        self.remove_pods().await;
        let line = format!("wait --for=delete namespace/{} --timeout=200s", names::NAMESPACE);
        self.kubectl(&line).await;
    }

    /// Creates a fresh namespace with the strictest Pod Security Standard. Deletes that of an
    /// earlier run.
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

    /// Installs a kustomization as docs/install.md says, and waits until the webhook is called.
    pub async fn install(&self, kustomization: &str) {
        self.kubectl(&format!("apply -k {kustomization}")).await;
        self.rolled_out().await;
        self.registration_in_force().await;
    }

    /// Installs all components, with short waits.
    pub async fn install_all(&self) {
        self.install("tests/cluster/manifests").await;
    }

    /// Waits until the rollouts of the product's Deployments are complete.
    /// The name of the pod that holds the keeper's Lease.
    pub async fn holder(&self) -> String {
        let (namespace, lease) = (names::NAMESPACE, names::KEEPER_LEASE);
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{lease}");
        let lease = self.read(&path).await;
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a replica of the keeper leads. What changes before that has no Event.
    pub async fn keeper_leads(&self) {
        let pods = self.replicas("keeper").await;
        eventually("a keeper that leads", async || {
            let holder = self.holder().await;
            pods.iter().any(|pod| pod["metadata"]["name"] == *holder).then_some(())
        })
        .await;
    }

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

    /// Waits until the API server calls the webhook, by the dry run of a rotation.
    pub async fn registration_in_force(&self) {
        let probe = "registration-probe";
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": probe}});
        // The namespace exists from the second call on.
        self.request("POST", "/api/v1/namespaces", &namespace).await;
        let secrets = Secrets::new(self.client.clone(), probe.to_owned());
        let object = |subject: &str| {
            let mut object =
                secret(probe, "Opaque", &[("ca.crt", certs::ca_named(subject).pem.as_bytes())]);
            // The label satisfies an object selector, too.
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

    /// Sets what the API server does if the webhook does not answer: `Ignore` or `Fail`.
    pub async fn set_failure_policy(&self, policy: &str) {
        let registration = self.read(REGISTRATION).await;
        let entries = registration["webhooks"].as_array().map_or(0, Vec::len);
        let set = |entry| {
            let path = format!("/webhooks/{entry}/failurePolicy");
            json!({"op": "replace", "path": path, "value": policy})
        };
        let patch: Value = (0..entries).map(set).collect();
        self.done("PATCH", REGISTRATION, &patch).await;
    }
}

/// Whether a pod is ready and not terminating.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let is_ready = |one: &Value| one["type"] == "Ready" && one["status"] == "True";
    conditions.is_some_and(|all| all.iter().any(is_ready)) && !is_ending(pod)
}

/// Whether a pod is terminating.
pub fn is_ending(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_string()
}

/// The name of an object.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// Polls until `look` returns a value.
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
