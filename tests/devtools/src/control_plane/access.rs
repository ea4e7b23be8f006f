//! Clients, kubeconfig files, `ServiceAccount` tokens, kubectl.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{ControlPlane, Error};

/// The lifetime of a `ServiceAccount` token in seconds, longer than any test or demo takes.
const TOKEN_SECONDS: u32 = 4 * 60 * 60;
/// The time limit of kubectl and of requests to admin endpoints.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest answer that is read from an admin endpoint, in bytes.
const MAX_ANSWER: u64 = 4 << 20;

/// The address and credentials of the API server's administrator.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) address: SocketAddr,
    pub(crate) ca: String,
    pub(crate) token: String,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Access {
    pub(crate) fn kubeconfig(&self) -> Value {
        kubeconfig(self.address, &self.ca, &self.token)
    }

    /// Requests `/readyz` over TLS. The Kubernetes client would log every failed attempt while the
    /// API server starts.
    pub(crate) async fn readiness(&self) -> Result<(StatusCode, String), Error> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.ca.as_bytes()).flatten() {
            // If a root is rejected, the handshake below fails.
            let _ = roots.add(certificate);
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::from(self.address.ip());
        let exchange = async {
            let stream = TcpStream::connect(self.address).await?;
            let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
            let bearer = format!("Authorization: Bearer {}\r\n", self.token);
            exchange(stream, self.address, "/readyz", &bearer).await
        };
        answer(&format!("https://{}/readyz", self.address), exchange).await
    }
}

impl ControlPlane {
    /// The administrator's client. There is one for each runtime, because a client's connections
    /// belong to the runtime that created it.
    pub async fn client(&self) -> Result<kube::Client, Error> {
        let runtime = tokio::runtime::Handle::current().id();
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(&runtime) {
            return Ok(client.clone());
        }
        let client = client(self.access.kubeconfig()).await?;
        clients.insert(runtime, client.clone());
        Ok(client)
    }

    /// The address on which the API server listens.
    pub fn address(&self) -> SocketAddr {
        self.access.address
    }

    /// The CA of the API server's certificate, in PEM.
    pub fn ca(&self) -> &str {
        &self.access.ca
    }

    /// Writes a kubeconfig file for a `ServiceAccount`, with a token from the `TokenRequest` API.
    pub async fn service_account_kubeconfig(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<PathBuf, Error> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let wanted = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": TOKEN_SECONDS},
        });
        let answer = self.json("POST", &path, &wanted).await?;
        let token = answer["status"]["token"]
            .as_str()
            .ok_or_else(|| Error::Unexpected(format!("{path}: no token in the answer")))?;
        let content = kubeconfig(self.access.address, &self.access.ca, token).to_string();
        self.scratch.write(&format!("{namespace}.{name}.kubeconfig"), content)
    }

    /// Sends JSON as the administrator and returns the JSON answer. A status other than 2xx is an
    /// error.
    pub async fn json(&self, method: &str, path: &str, body: &Value) -> Result<Value, Error> {
        let response = send(
            &self.client().await?,
            method,
            path,
            Some("application/json"),
            body.to_string().into_bytes(),
        )
        .await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let message = response.body()["message"].as_str().unwrap_or("no message").to_owned();
        Err(Error::Unexpected(format!("{method} {path}: {status}: {message}")))
    }

    /// The API server's own metrics, in the text format of Prometheus.
    pub async fn metrics(&self) -> Result<String, Error> {
        let client = self.client().await?;
        let request = Request::get("/metrics")
            .body(Vec::new())
            .map_err(|e| Error::Unexpected(format!("/metrics: {e}")))?;
        client.request_text(request).await.map_err(Error::api("/metrics"))
    }

    /// Runs kubectl as the administrator and returns its standard output.
    pub async fn kubectl(&self, arguments: &[&str], input: &[u8]) -> Result<String, Error> {
        kubectl(&self.assets.kubectl, Some(&self.admin_kubeconfig()), arguments, input).await
    }
}

/// Runs kubectl. A command that needs no server takes no kubeconfig.
pub(crate) async fn kubectl(
    program: &Path,
    kubeconfig: Option<&Path>,
    arguments: &[&str],
    input: &[u8],
) -> Result<String, Error> {
    let failed = |message: String| Error::Kubectl { arguments: arguments.join(" "), message };
    let mut command = tokio::process::Command::new(program);
    // /dev/null, so that kubectl never reads the user's kubeconfig.
    command.env("KUBECONFIG", kubeconfig.unwrap_or(Path::new("/dev/null")));
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| Error::Spawn { program: program.display().to_string(), source })?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // If kubectl does not read its input, its exit status reports the error.
            let _ = stdin.write_all(input).await;
        }
    };
    let both = async { tokio::join!(feed, child.wait_with_output()).1 };
    let output = tokio::time::timeout(ANSWER_TIMEOUT, both)
        .await
        .map_err(|_| failed(format!("no end after {} s", ANSWER_TIMEOUT.as_secs())))?
        .map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

/// Sends a request and returns the JSON answer, whatever its status. From 400 on it is a `Status`
/// object. `path` includes the query.
pub async fn send(
    client: &kube::Client,
    method: &str,
    path: &str,
    content_type: Option<&str>,
    body: Vec<u8>,
) -> Result<Response<Value>, Error> {
    let what = || format!("{method} {path}");
    let mut request = Request::builder().method(method).uri(path);
    if let Some(content_type) = content_type {
        request = request.header(http::header::CONTENT_TYPE, content_type);
    }
    let request = request
        .body(Body::from(body))
        .map_err(|e| Error::Unexpected(format!("{}: {e}", what())))?;
    let response = client.send(request).await.map_err(Error::api(what()))?;
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.map_err(Error::api(what()))?.to_bytes();
    // The parser's error is dropped: it would quote the answer, which can contain a Secret.
    let value = serde_json::from_slice(&bytes)
        .map_err(|_| Error::Unexpected(format!("{}: {}, not JSON", what(), head.status)))?;
    Ok(Response::from_parts(head, value))
}

/// Sends a GET over plain HTTP to an admin endpoint on loopback.
pub async fn http_get(address: SocketAddr, path: &str) -> Result<(StatusCode, String), Error> {
    let exchange = async { exchange(TcpStream::connect(address).await?, address, path, "").await };
    answer(&format!("http://{address}{path}"), exchange).await
}

/// Sends one GET request and returns all bytes of the answer.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    host: SocketAddr,
    path: &str,
    header: &str,
) -> std::io::Result<Vec<u8>> {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{header}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(answer)
}

async fn answer(
    url: &str,
    exchange: impl Future<Output = std::io::Result<Vec<u8>>>,
) -> Result<(StatusCode, String), Error> {
    let wrong = |why: &str| Error::Unexpected(format!("{url}: {why}"));
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, exchange)
        .await
        .map_err(|_| wrong("no answer"))?
        .map_err(|e| wrong(&e.to_string()))?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| wrong("no HTTP"))?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| StatusCode::from_bytes(code.as_bytes()).ok())
        .ok_or_else(|| wrong("no HTTP"))?;
    Ok((status, body.to_owned()))
}

/// A kubeconfig with one bearer token, as JSON, which is valid YAML.
fn kubeconfig(address: SocketAddr, ca: &str, token: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority-data": BASE64_STANDARD.encode(ca),
        }}],
        "users": [{"name": "it", "user": {"token": token}}],
    })
}

async fn client(kubeconfig: Value) -> Result<kube::Client, Error> {
    let unusable = |why: String| Error::Unexpected(format!("kubeconfig: {why}"));
    let parsed: Kubeconfig = serde_json::from_value(kubeconfig)
        .map_err(|_| unusable("the Kubernetes client cannot parse it".into()))?;
    let config = kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default())
        .await
        .map_err(|e| unusable(e.to_string()))?;
    kube::Client::try_from(config).map_err(Error::api("client"))
}
