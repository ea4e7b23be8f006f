//! A proxy between a keeper and the API server. It shows the keeper one namespace alone, counts its
//! requests, and stops forwarding at the request that the test names, like a crash.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use devtools::control_plane::ControlPlane;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::setup::{Keeper, Setup};

/// The longest accepted head of a request, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// Speaks plain HTTP/1.1 to the keeper and TLS to the API server. Stops when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    upstream: SocketAddr,
    connector: TlsConnector,
    namespace: String,
    is_armed: AtomicBool,
    /// The number of requests that count, since it was armed.
    seen: AtomicUsize,
    /// The number of the first request that is not forwarded.
    last: usize,
    /// The changes of Secrets and workloads that were forwarded.
    changes: Mutex<Vec<String>>,
    has_stopped: watch::Sender<bool>,
}

impl Proxy {
    /// `last` counts from 1 after the proxy is armed. `usize::MAX` is never reached.
    pub async fn start(plane: &ControlPlane, namespace: &str, last: usize) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(plane.ca().as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream: plane.address(),
            connector: TlsConnector::from(Arc::new(config)),
            namespace: namespace.to_owned(),
            is_armed: AtomicBool::new(false),
            seen: AtomicUsize::new(0),
            last,
            changes: Mutex::default(),
            has_stopped: watch::Sender::new(false),
        });
        let accepting = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(stream));
            }
        });
        Self { address, shared, task }
    }

    /// Starts a keeper behind the proxy, and does not wait.
    pub async fn keeper(&self, setup: &Setup, identity: &str, arguments: &[&str]) -> Keeper {
        let content = std::fs::read(setup.keeper_kubeconfig().await).unwrap();
        let mut kubeconfig: Value = serde_json::from_slice(&content).unwrap();
        let server = format!("http://{}", self.address);
        kubeconfig["clusters"][0]["cluster"]["server"] = json!(server);
        let file = format!("{identity}.kubeconfig");
        let scratch = setup.cluster.plane.scratch();
        let file = scratch.write(&file, kubeconfig.to_string()).unwrap();
        setup.keeper_with(&file, identity, arguments)
    }

    /// Counts requests from now on.
    pub fn arm(&self) {
        self.shared.is_armed.store(true, Ordering::SeqCst);
    }

    /// How many requests it has counted.
    pub fn seen(&self) -> usize {
        self.shared.seen.load(Ordering::SeqCst)
    }

    /// Whether the request `last` has arrived. From then on nothing is forwarded.
    pub fn has_stopped(&self) -> bool {
        *self.shared.has_stopped.borrow()
    }

    /// The path of each change that was forwarded.
    pub fn changes(&self) -> Vec<String> {
        self.shared.changes.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.has_stopped.send_replace(true);
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, mut near: TcpStream) {
        let mut has_stopped = self.has_stopped.subscribe();
        let exchange = async {
            let far = TcpStream::connect(self.upstream).await?;
            let name = ServerName::from(self.upstream.ip());
            let far = self.connector.connect(name, far).await?;
            let (mut from_far, mut to_far) = tokio::io::split(far);
            let (mut from_near, mut to_near) = near.split();
            let requests = self.requests(&mut from_near, &mut to_far);
            tokio::select! {
                ended = requests => ended,
                ended = tokio::io::copy(&mut from_far, &mut to_near) => ended.map(drop),
            }
        };
        // Broken connections are expected.
        tokio::select! {
            _ = exchange => {}
            _ = has_stopped.wait_for(|has_stopped| *has_stopped) => {}
        }
    }

    /// Forwards the requests of a connection one after the other.
    async fn requests(
        &self,
        from: &mut (impl AsyncReadExt + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<()> {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                assert!(head.len() < MAX_HEAD, "a head that does not end");
                head.push(from.read_u8().await?);
            }
            let head = String::from_utf8(head).unwrap();
            let mut body = vec![0; length(&head)];
            from.read_exact(&mut body).await?;
            if !self.may_pass(head.lines().next().unwrap_or_default()) {
                self.has_stopped.send_replace(true);
                return Ok(());
            }
            to.write_all(self.narrow(&head).as_bytes()).await?;
            to.write_all(&body).await?;
            to.flush().await?;
        }
    }

    /// Whether to forward a request. Those that repeat all the time do not count: the Lease, the
    /// watches and their lists. Events do not count either, because nothing waits for them.
    fn may_pass(&self, line: &str) -> bool {
        let path = line.split(' ').nth(1).unwrap_or_default();
        let is_aside = path.contains("/leases") || path.contains("/events");
        let counts = !is_aside && !path.starts_with("/api/v1/secrets?");
        if !counts || !self.is_armed.load(Ordering::SeqCst) {
            return true;
        }
        if self.seen.fetch_add(1, Ordering::SeqCst) + 1 >= self.last {
            return false;
        }
        if line.starts_with("PATCH ") && !path.contains("dryRun=") {
            let path = path.split('?').next().unwrap_or_default();
            self.changes.lock().unwrap().push(path.to_owned());
        }
        true
    }

    /// Replaces a request for all Secrets by one for the Secrets of the namespace.
    fn narrow(&self, head: &str) -> String {
        let narrowed = format!(" /api/v1/namespaces/{}/secrets?", self.namespace);
        head.replacen(" /api/v1/secrets?", &narrowed, 1)
    }
}

fn length(head: &str) -> usize {
    let value = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
    };
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding");
    assert!(!is_chunked, "bodies are small and whole");
    head.lines().find_map(value).unwrap_or_default()
}
