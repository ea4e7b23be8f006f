//! Helpers of all test programs.
//!
//! There are two kinds of control plane. One is *shared*: the webhook is installed, each test has a
//! namespace of its own, and no test stops or reconfigures anything. The others are *exclusive*: a
//! test takes one from a pool and may change all of it; the next test gets it reset. All end with
//! the process, however it ends (`control_plane::supervise`).

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

pub mod binary;
pub mod command;
pub mod helm;
pub mod pages;
pub mod program;
pub mod property;
pub mod server;
pub mod skip;

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use devtools::control_plane::{
    Assets, ControlPlane, Error, Options, Patches, ServiceProxy, Webhook, WebhookOptions,
    can_listen,
};
use serde_json::json;
use tokio::sync::{Mutex, OnceCell, Semaphore, SemaphorePermit};

use devtools::secrets::Secrets;

pub use skip::skip;

/// The manifests that the tests install.
pub const OVERLAY: &str = "kind";
/// The label on a namespace that names its test.
const TEST_LABEL: &str = "ca-overlap-test";

/// The binaries of a control plane. Without them skips the test; fails in CI (`CI=true`).
pub fn assets(test: &str) -> Option<Assets> {
    match Assets::find(None) {
        Ok(assets) => Some(assets),
        Err(e) => skip(test, &e.to_string()),
    }
}

/// The most control planes at one time, including the shared one.
const AT_ONCE: usize = 4;

/// A control plane for one test alone; the next test gets it, reset, when this is dropped.
#[derive(Debug)]
pub struct Plane {
    /// `None` only while it is dropped.
    running: Option<ControlPlane>,
    is_pooled: bool,
    _permit: SemaphorePermit<'static>,
}

static PERMITS: Semaphore = Semaphore::const_new(AT_ONCE);
static IDLE: std::sync::Mutex<Vec<ControlPlane>> = std::sync::Mutex::new(Vec::new());

impl Plane {
    /// An API server with RBAC and nothing installed.
    pub async fn exclusive(test: &str) -> Option<Self> {
        let assets = assets(test)?;
        let permit = PERMITS.acquire().await.unwrap();
        let idle = IDLE.lock().unwrap().pop();
        let plane = match idle {
            Some(plane) => {
                plane.reset(TEST_LABEL).await.unwrap();
                plane
            }
            None => ControlPlane::start(Options::new(assets)).await.unwrap(),
        };
        Some(Self { running: Some(plane), is_pooled: true, _permit: permit })
    }

    /// A control plane with options. It does not return to the pool.
    pub async fn with(options: Options) -> Self {
        let permit = PERMITS.acquire().await.unwrap();
        let plane = ControlPlane::start(options).await.unwrap();
        Self { running: Some(plane), is_pooled: false, _permit: permit }
    }
}

impl Deref for Plane {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        self.running.as_ref().unwrap()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if let Some(plane) = self.running.take().filter(|_| self.is_pooled) {
            IDLE.lock().unwrap().push(plane);
        }
    }
}

/// A control plane with the real manifests, and the real webhook behind its Service.
// Fields are dropped in this order: programs end before another test gets the control plane.
#[derive(Debug)]
pub struct Cluster {
    /// The webhook, unless a test has stopped it.
    pub webhook: Mutex<Option<Webhook>>,
    /// The Service's loopback ClusterIP.
    pub service: Ipv4Addr,
    pub plane: Plane,
}

/// The cluster that the tests share. A test that stops the webhook, or counts its calls, starts one
/// of its own: [`Cluster::start`].
pub async fn cluster(test: &str) -> Option<&'static Cluster> {
    static CLUSTER: OnceCell<Option<Cluster>> = OnceCell::const_new();
    let start = || Cluster::start("the shared cluster", &[]);
    let cluster = CLUSTER.get_or_init(start).await.as_ref();
    cluster.or_else(|| skip(test, "no cluster with a webhook on its Service"))
}

impl Cluster {
    /// A cluster of the pool, with the overlay and with the webhook, run with more `arguments`, whose
    /// registration is in force.
    pub async fn start(test: &str, arguments: &[&str]) -> Option<Self> {
        let cluster = Self::without_webhook(test).await?;
        cluster.start_webhook("webhook", cluster.port_443(), arguments).await.unwrap();
        Some(cluster)
    }

    /// The same with no webhook behind the Service.
    pub async fn without_webhook(test: &str) -> Option<Self> {
        Self::on(Plane::exclusive(test).await?, test, OVERLAY).await
    }

    /// The same on this control plane, with this overlay.
    pub async fn on(plane: Plane, test: &str, overlay: &str) -> Option<Self> {
        let service = plane.next_cluster_ip().unwrap();
        if let Err(e) = can_listen(SocketAddr::from((service, 443))) {
            return skip(test, &format!("cannot listen on {service}:443 (needs root): {e}"));
        }
        let overlay = manifests().join("overlays").join(overlay);
        plane.install(&overlay, Patches { cluster_ip: Some(service), url: None }).await.unwrap();
        Some(Self { plane, service, webhook: Mutex::new(None) })
    }

    /// The address to which the API server sends reviews.
    pub fn port_443(&self) -> SocketAddr {
        (self.service, 443).into()
    }

    /// Starts the webhook on `listen` and waits until it is ready and its registration in force
    /// (the latter only if it listens on the Service itself).
    pub async fn start_webhook(
        &self,
        name: &str,
        listen: SocketAddr,
        arguments: &[&str],
    ) -> Result<(), Error> {
        let mut webhook = self.replica(name, listen, arguments).await?;
        webhook.ready().await?;
        if listen == self.port_443() {
            self.plane.registration_in_force().await?;
        }
        *self.webhook.lock().await = Some(webhook);
        Ok(())
    }

    /// Starts one more webhook process and does not wait for it. Its admin port is 8081 on the same
    /// address.
    pub async fn replica(
        &self,
        name: &str,
        listen: SocketAddr,
        arguments: &[&str],
    ) -> Result<Webhook, Error> {
        self.replica_of(binary::path(), name, listen, arguments).await
    }

    /// The same of another build of the program.
    pub async fn replica_of(
        &self,
        program: PathBuf,
        name: &str,
        listen: SocketAddr,
        arguments: &[&str],
    ) -> Result<Webhook, Error> {
        let options = WebhookOptions {
            program,
            name: name.into(),
            listen,
            admin: (listen.ip(), 8081).into(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
        };
        Webhook::start(&self.plane, options).await
    }

    /// Several replicas behind the Service, all ready, on addresses of their own.
    pub async fn replicas(&self, count: usize, arguments: &[&str]) -> (ServiceProxy, Vec<Webhook>) {
        let mut webhooks = Vec::new();
        for number in 0..count {
            let listen = SocketAddr::from((self.plane.next_cluster_ip().unwrap(), 8443));
            let name = format!("replica-{number}");
            webhooks.push(self.replica(&name, listen, arguments).await.unwrap());
        }
        // The spreader starts first, because readiness may depend on being reached.
        let backends = webhooks.iter().map(Webhook::listen).collect();
        let proxy = ServiceProxy::start(self.port_443(), backends).await.unwrap();
        for webhook in &mut webhooks {
            webhook.ready().await.unwrap();
        }
        self.plane.registration_in_force().await.unwrap();
        (proxy, webhooks)
    }

    /// The webhook's metrics.
    pub async fn metrics(&self) -> String {
        self.webhook.lock().await.as_ref().expect("a webhook").metrics().await.unwrap()
    }

    /// The webhook's log, once it contains `text`: lines are written a little later.
    pub async fn log_with(&self, text: &str) -> String {
        server::within(async {
            loop {
                let log = self.webhook.lock().await.as_ref().expect("a webhook").log_text();
                if log.contains(text) {
                    return log;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await
    }

    /// A fresh namespace for `test`, and its Secrets.
    pub async fn namespace(&self, test: &str) -> Secrets {
        namespace(&self.plane, test, &json!({})).await
    }

    /// The same with labels.
    pub async fn namespace_with(&self, test: &str, labels: &serde_json::Value) -> Secrets {
        namespace(&self.plane, test, labels).await
    }
}

/// A fresh namespace in `plane`. It is not deleted, because without a controller manager nothing
/// would empty it.
pub async fn namespace(plane: &ControlPlane, test: &str, labels: &serde_json::Value) -> Secrets {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("test-{number}");
    let mut labels = labels.clone();
    labels[TEST_LABEL] = json!(test.chars().take(63).collect::<String>());
    let object = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    });
    plane.json("POST", "/api/v1/namespaces", &object).await.unwrap();
    Secrets::new(plane.client().await.unwrap(), name)
}

/// A helper program: an example of devtools, built by `cargo test --workspace`.
pub fn example(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_ca-overlap")).with_file_name("examples").join(name);
    assert!(path.exists(), "no {}: run cargo build -p devtools --examples", path.display());
    path
}

/// The repository's manifests.
pub fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests")
}

/// The file with the CRDs of another project, which `make control-plane` downloads.
pub fn foreign_crds(test: &str, of: &str) -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/control-plane/crds");
    let entries = std::fs::read_dir(&directory).into_iter().flatten();
    let found = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(of)));
    found.or_else(|| skip(test, &format!("no CRDs {of}*: run make control-plane")))
}

/// Installs CRDs and waits until the API server serves them.
pub async fn install_crds(plane: &ControlPlane, crds: &Path) {
    let crds = crds.display().to_string();
    plane.kubectl(&["apply", "--server-side", "-f", &crds], &[]).await.unwrap();
    let established = ["wait", "--for=condition=Established", "--timeout=60s", "-f", &crds];
    plane.kubectl(&established, &[]).await.unwrap();
}

/// The value of one sample in the text format of Prometheus, 0 if absent. `sample` is the name with
/// its labels as printed.
pub fn sample(metrics: &str, sample: &str) -> f64 {
    metrics
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .find(|(name, _)| *name == sample)
        .map_or(0.0, |(_, value)| value.parse().unwrap())
}

/// The sum over all samples of a family that have all of `labels` (such as `decision="x"`).
pub fn sum(metrics: &str, family: &str, labels: &[&str]) -> f64 {
    metrics
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(name, _)| name.split('{').next() == Some(family))
        .filter(|(name, _)| labels.iter().all(|label| name.contains(label)))
        .map(|(_, value)| value.parse::<f64>().unwrap())
        .sum()
}
