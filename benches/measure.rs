//! First figures of the release build: `make measure`. What they mean and how runs are compared
//! stands in docs/performance.md.
//!
//! The server is the program named on the command line, with mounted certificates, one worker
//! thread and, where `taskset` is at hand, a core of its own. Every answer is checked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that cannot go on says why"
)]

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const CONNECTIONS: usize = 25;
const REQUESTS: usize = 40_000;
const STARTS: usize = 50;

fn main() {
    let Some(program) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: measure PROGRAM (such as target/release/ca-overlap)");
        std::process::exit(64);
    };
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(measure(&program));
}

async fn measure(program: &Path) {
    let pki = Pki::new();
    let size = std::fs::metadata(program).unwrap().len();
    println!("binary size                         {size} bytes");

    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(start_to_first_answer(program, &pki).await);
    }
    starts.sort();
    println!(
        "exec to first answer                {:.1} ms median, {:.1} to {:.1} ms, {STARTS} starts",
        millis(starts[STARTS / 2]),
        millis(starts[0]),
        millis(starts[STARTS - 1])
    );

    let server = Server::start(program, &pki);
    for (name, bundles, size) in [
        ("bundling, 3 KB review", true, 3_000),
        ("bundling, 8 KB review", true, 8_000),
        ("nothing to do, 8 KB review", false, 8_000),
    ] {
        let body = review(&pki, bundles, size);
        // Warm up, and the state of "after the first requests".
        load(&server, &pki, &body, bundles, REQUESTS / 10).await;
        let (before, began) = (server.cpu(), Instant::now());
        load(&server, &pki, &body, bundles, REQUESTS).await;
        let (cpu, elapsed) = (server.cpu().saturating_sub(before), began.elapsed());
        println!(
            "{name:<35} {:.1} µs CPU per admission, {:.0}/s closed loop ({} bytes, {REQUESTS} requests)",
            cpu.as_secs_f64() * 1e6 / usize_to_f64(REQUESTS),
            usize_to_f64(REQUESTS) / elapsed.as_secs_f64(),
            body.len()
        );
    }
    println!("memory after these requests         {}", server.memory());
    drop(server);
    let fresh = Server::start(program, &pki);
    load(&fresh, &pki, &review(&pki, true, 8_000), true, 100).await;
    println!("memory after the first 100 requests {}", fresh.memory());
}

async fn start_to_first_answer(program: &Path, pki: &Pki) -> Duration {
    let body = review(pki, true, 3_000);
    let began = Instant::now();
    let server = Server::start(program, pki);
    let mut connection = server.connect(pki).await;
    ask(&mut connection, &body, true).await;
    began.elapsed()
}

/// A closed loop over 25 connections: what the API server keeps open.
async fn load(server: &Server, pki: &Pki, body: &str, bundles: bool, requests: usize) {
    let clients = (0..CONNECTIONS).map(|_| async {
        let mut connection = server.connect(pki).await;
        for _ in 0..requests / CONNECTIONS {
            ask(&mut connection, body, bundles).await;
        }
    });
    futures::future::join_all(clients).await;
}

type Connection = BufReader<TlsStream<TcpStream>>;

async fn ask(connection: &mut Connection, body: &str, bundles: bool) {
    let head = format!(
        "POST /mutate?timeout=3s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
    connection.flush().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let mut answer = vec![0; length.parse().unwrap()];
    connection.read_exact(&mut answer).await.unwrap();
    let answer = str::from_utf8(&answer).unwrap();
    let decision = if bundles { "\"rotation\"" } else { "\"unchanged\"" };
    assert!(answer.contains("\"uid\":\"u1\"") && answer.contains(decision), "{answer}");
    assert_eq!(answer.contains("\"patch\""), bundles, "{answer}");
}

/// The program under measurement; ended when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(program: &Path, pki: &Pki) -> Self {
        // Free a moment ago; nothing else here takes ports.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let pinned = Command::new("taskset").arg("-V").stdout(Stdio::null()).status().is_ok();
        let mut command = if pinned { Command::new("taskset") } else { Command::new(program) };
        if pinned {
            command.args(["-c", "0"]).arg(program);
        }
        let child = command
            .args(["--log-level", "warn", "webhook", "--admin-listen", "127.0.0.1:0"])
            .args(["--listen", &address.to_string()])
            .arg("--tls-cert")
            .arg(pki.directory.path().join("tls.crt"))
            .arg("--tls-key")
            .arg(pki.directory.path().join("tls.key"))
            .env("TOKIO_WORKER_THREADS", "1")
            .spawn()
            .unwrap();
        Self { child, address }
    }

    /// Dials until the server answers.
    async fn connect(&self, pki: &Pki) -> Connection {
        let name = ServerName::from(self.address.ip());
        loop {
            if let Ok(stream) = TcpStream::connect(self.address).await {
                stream.set_nodelay(true).unwrap();
                let connector = TlsConnector::from(pki.client.clone());
                return BufReader::new(connector.connect(name, stream).await.unwrap());
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }

    /// User and system time so far (`proc(5)`), in steps of 10 ms.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    fn memory(&self) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let lines = status.lines().filter(|l| l.starts_with("VmRSS") || l.starts_with("RssAnon"));
        lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Two CAs of one name with a leaf each, and the server's own certificate.
struct Pki {
    directory: tempfile::TempDir,
    client: Arc<ClientConfig>,
    cas: [String; 2],
    leafs: [String; 2],
}

impl Pki {
    fn new() -> Self {
        let [(first, (first_leaf, _)), (second, (second_leaf, _))] =
            [authority("Legacy CA"), authority("Legacy CA")];
        let (cas, leafs) = ([first, second], [first_leaf, second_leaf]);
        let (ca, (certificate, key)) = authority("measure");
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let mut file = std::fs::File::create(directory.path().join(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        write("tls.crt", &certificate);
        write("tls.key", &key);
        let mut roots = RootCertStore::empty();
        let ca = rustls_pki_types::pem::PemObject::from_pem_slice(ca.as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self { directory, client: Arc::new(client), cas, leafs }
    }
}

/// A CA in PEM, with a leaf for 127.0.0.1 and its key.
fn authority(name: &str) -> (String, (String, String)) {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2090, 1, 1));
    let mut leaf = params.clone();
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap().pem();
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.use_authority_key_identifier_extension = true;
    leaf.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(params, key)).unwrap();
    (ca, (leaf.pem(), leaf_key.serialize_pem()))
}

/// A review of about `size` bytes: what a PUT of a TLS Secret gives, padded with other metadata.
fn review(pki: &Pki, bundles: bool, size: usize) -> String {
    let secret = |which: usize, padding: usize| {
        let encode = |text: &str| BASE64_STANDARD.encode(text);
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "envoy", "namespace": "gateway", "uid": "1",
                "annotations": {"example.com/padding": "x".repeat(padding)}},
            "data": {"ca.crt": encode(&pki.cas[which]), "tls.crt": encode(&pki.leafs[which]),
                "tls.key": encode(&"k".repeat(240))},
        })
    };
    let build = |padding: usize| -> Value {
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {"uid": "u1", "operation": "UPDATE", "namespace": "gateway", "name": "envoy",
                "kind": {"group": "", "version": "v1", "kind": "Secret"},
                "userInfo": {"username": "system:serviceaccount:gateway:certgen"},
                "options": {"kind": "UpdateOptions"},
                "object": secret(usize::from(bundles), padding), "oldObject": secret(0, padding)}
        })
    };
    let bare = build(0).to_string().len();
    build(size.saturating_sub(bare) / 2).to_string()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn usize_to_f64(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap())
}
