//! Starts etcd and the API server.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use tokio::runtime;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::access::Access;
use super::network::{ClusterIps, free_port};
use super::{Assets, Error, Scratch, Supervised, controllers, hex, log_tail, pki, random};

/// How many ports are tried if another program takes them first.
const PORT_ATTEMPTS: usize = 5;
/// Starting usually takes 3 s, and longer on a machine that compiles at the same time.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// The pause between two requests to `/readyz`.
const POLL: Duration = Duration::from_millis(50);
const ETCD_SOCKET: &str = "unix://etcd.sock:1";
const PEER_SOCKET: &str = "unix://peer.sock:1";

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The binaries.
    pub assets: Assets,
    /// Additional flags for the API server, such as `--audit-policy-file={dir}/audit.yaml`. `{dir}`
    /// stands for the scratch directory.
    pub api_server_flags: Vec<String>,
    /// Files (name, content) to write to the scratch directory first. `{dir}` in the content stands
    /// for the scratch directory.
    pub files: Vec<(String, String)>,
    /// Whether to start kube-controller-manager too.
    pub controllers: bool,
}

impl Options {
    /// An API server with its defaults and RBAC.
    pub fn new(assets: Assets) -> Self {
        Self { assets, api_server_flags: Vec::new(), files: Vec::new(), controllers: false }
    }

    /// Adds kube-controller-manager: workloads get Pods, which stay unscheduled.
    #[must_use]
    pub fn with_controllers(mut self) -> Self {
        self.controllers = true;
        self
    }

    /// Adds a flag for the API server.
    #[must_use]
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.api_server_flags.push(flag.into());
        self
    }

    /// Adds a file in the scratch directory.
    #[must_use]
    pub fn file(mut self, name: impl Into<String>, content: impl Into<String>) -> Self {
        self.files.push((name.into(), content.into()));
        self
    }
}

/// A running API server with its etcd. Both end, and their directory is removed, when this value is
/// dropped or this process ends for any reason.
// The fields are dropped in this order.
pub struct ControlPlane {
    controllers: Option<Supervised>,
    api_server: Supervised,
    etcd: Supervised,
    pub(crate) access: Access,
    pub(crate) clients: Mutex<HashMap<runtime::Id, kube::Client>>,
    pub(crate) cluster_ips: ClusterIps,
    pub(crate) assets: Assets,
    pub(crate) scratch: Scratch,
}

impl ControlPlane {
    /// Starts etcd and the API server, waits until `/readyz` returns 200, and then starts the
    /// controllers if the options ask for them.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let scratch = Scratch::create()?;
        let cluster_ips = ClusterIps::claim()?;
        let secrets = Credentials::write(&scratch)?;
        let directory = scratch.path().display().to_string();
        for (name, content) in &options.files {
            scratch.write(name, content.replace("{dir}", &directory))?;
        }
        let deadline = Instant::now() + READY_TIMEOUT;
        let mut etcd = start_etcd(&options.assets, scratch.path())?;
        for attempt in 1.. {
            let address =
                SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST.into())?));
            let access = secrets.access(address);
            let mut api_server = start_api_server(&options, &scratch, address, &cluster_ips)?;
            match wait_ready(&access, &mut api_server, &mut etcd, deadline).await {
                Ok(()) => {
                    scratch.write("admin.kubeconfig", access.kubeconfig().to_string())?;
                    let assets = options.assets;
                    let mut plane = Self {
                        controllers: None,
                        api_server,
                        etcd,
                        access,
                        clients: Mutex::default(),
                        cluster_ips,
                        assets,
                        scratch,
                    };
                    if options.controllers {
                        plane.controllers = Some(controllers::start(&plane).await?);
                    }
                    return Ok(plane);
                }
                Err(Error::Ended { log, .. })
                    if attempt < PORT_ATTEMPTS && log.contains("address already in use") => {}
                Err(e) => return Err(e),
            }
        }
        Err(Error::Unexpected("the API server was not started".into()))
    }

    /// An unused address from the API server's range of ClusterIPs. A program can listen on it if
    /// [`Self::has_loopback_cluster_ips`] is true.
    pub fn next_cluster_ip(&self) -> Result<Ipv4Addr, Error> {
        self.cluster_ips
            .next()
            .ok_or_else(|| Error::Unexpected("all 253 ClusterIPs are used up".into()))
    }

    /// Whether ClusterIPs are loopback addresses, on which programs can listen.
    pub fn has_loopback_cluster_ips(&self) -> bool {
        self.cluster_ips.on_loopback()
    }

    /// The range of ClusterIPs, in CIDR notation.
    pub fn cluster_ip_range(&self) -> String {
        self.cluster_ips.range()
    }

    /// The directory for logs and kubeconfig files; it is removed with the control plane.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The kubeconfig file of the administrator (`system:masters`).
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.scratch.path().join("admin.kubeconfig")
    }

    /// The kubectl of the same version as the API server.
    pub fn kubectl_path(&self) -> &Path {
        &self.assets.kubectl
    }

    /// The process ids of the API server and etcd.
    pub fn pids(&self) -> [u32; 2] {
        [self.api_server.pid(), self.etcd.pid()]
    }

    /// The last lines of the API server's log, for error messages.
    pub fn api_server_log_tail(&self) -> String {
        log_tail(self.api_server.log())
    }
}

impl std::fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlPlane").field("access", &self.access).finish_non_exhaustive()
    }
}

/// The administrator's token and the CA of the API server.
struct Credentials {
    ca: String,
    admin_token: String,
}

impl Credentials {
    /// Creates keys, certificates and the administrator's token, and writes the files that the API
    /// server reads.
    fn write(scratch: &Scratch) -> Result<Self, Error> {
        let serving = pki::serving(&pki::api_server_names(IpAddr::V4(Ipv4Addr::LOCALHOST)))?;
        let (signing, public) = pki::token_keys()?;
        let admin_token = hex(&random::<32>()?);
        scratch.write("apiserver.crt", &serving.certificate)?;
        scratch.write("apiserver.key", &serving.key)?;
        scratch.write("ca.crt", &serving.ca)?;
        scratch.write("sa.key", signing)?;
        scratch.write("sa.pub", public)?;
        scratch.write("tokens.csv", format!("{admin_token},admin,admin,\"system:masters\"\n"))?;
        Ok(Self { ca: serving.ca, admin_token })
    }

    fn access(&self, address: SocketAddr) -> Access {
        Access { address, ca: self.ca.clone(), token: self.admin_token.clone() }
    }
}

/// Starts etcd on Unix sockets in the scratch directory, which need no ports and are private.
fn start_etcd(assets: &Assets, directory: &Path) -> Result<Supervised, Error> {
    let cluster = format!("default={PEER_SOCKET}");
    let arguments = [
        "--data-dir",
        "etcd",
        "--listen-client-urls",
        ETCD_SOCKET,
        // Only for clients that list the members, which the API server does not do.
        "--advertise-client-urls",
        "http://127.0.0.1:1",
        "--listen-peer-urls",
        PEER_SOCKET,
        "--initial-advertise-peer-urls",
        PEER_SOCKET,
        "--initial-cluster",
        &cluster,
        "--unsafe-no-fsync",
        "--log-level",
        "warn",
    ];
    Supervised::start("etcd", &assets.etcd, arguments, &[], directory, directory.join("etcd.log"))
}

fn start_api_server(
    options: &Options,
    scratch: &Scratch,
    address: SocketAddr,
    cluster_ips: &ClusterIps,
) -> Result<Supervised, Error> {
    let directory = scratch.path();
    let mut flags = vec![
        format!("--etcd-servers={ETCD_SOCKET}"),
        format!("--bind-address={}", address.ip()),
        format!("--advertise-address={}", address.ip()),
        format!("--secure-port={}", address.port()),
        format!("--service-cluster-ip-range={}", cluster_ips.range()),
        "--tls-cert-file=apiserver.crt".into(),
        "--tls-private-key-file=apiserver.key".into(),
        "--token-auth-file=tokens.csv".into(),
        "--authorization-mode=RBAC".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        "--service-account-signing-key-file=sa.key".into(),
        "--service-account-key-file=sa.pub".into(),
        // The API server must not publish itself: loopback addresses are invalid endpoints.
        "--endpoint-reconciler-type=none".into(),
        "--profiling=false".into(),
    ];
    let directory_name = directory.display().to_string();
    flags.extend(options.api_server_flags.iter().map(|f| f.replace("{dir}", &directory_name)));
    // One log for each attempt, so that the tail in an error is of this attempt.
    let log = directory.join(format!("kube-apiserver-{}.log", address.port()));
    Supervised::start("kube-apiserver", &options.assets.kube_apiserver, flags, &[], directory, log)
}

async fn wait_ready(
    access: &Access,
    api_server: &mut Supervised,
    etcd: &mut Supervised,
    deadline: Instant,
) -> Result<(), Error> {
    loop {
        // Checked after the answer: it counts only if the server still runs.
        let answer = tokio::time::timeout_at(deadline, access.readiness()).await;
        etcd.still_running()?;
        api_server.still_running()?;
        match answer {
            Ok(Ok((StatusCode::OK, _))) => return Ok(()),
            Ok(_) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
            other => {
                return Err(Error::NotReady {
                    component: "kube-apiserver".into(),
                    seconds: READY_TIMEOUT.as_secs(),
                    last: match other {
                        Ok(Ok((status, body))) => format!("{status} {}", body.trim()),
                        Ok(Err(e)) => e.to_string(),
                        Err(_) => "no answer".into(),
                    },
                    log: log_tail(api_server.log()),
                });
            }
        }
    }
}
