//! The real webhook as a process, under its real `ServiceAccount`.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::{ControlPlane, Error, Supervised, http_get, log_tail};
use crate::names;

/// Start to ready takes well under a second, plus what the API server takes.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// How to run it.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// The `ca-overlap` binary.
    pub program: PathBuf,
    /// A name for its log, unlike those of other replicas.
    pub name: String,
    /// Where reviews arrive.
    pub listen: SocketAddr,
    /// Where health and metrics are.
    pub admin: SocketAddr,
    /// More arguments. Without `--tls-cert` the certificate is `--self-managed`.
    pub arguments: Vec<String>,
}

/// A running webhook; killed when this is dropped, or when our process ends.
#[derive(Debug)]
pub struct Webhook {
    process: Supervised,
    options: WebhookOptions,
}

impl Webhook {
    /// Starts it as its `ServiceAccount`; the manifests must be applied. Does not wait.
    pub async fn start(plane: &ControlPlane, options: WebhookOptions) -> Result<Self, Error> {
        let kubeconfig = plane
            .service_account_kubeconfig(names::NAMESPACE, names::WEBHOOK_SERVICE_ACCOUNT)
            .await?;
        let mut arguments: Vec<String> = vec![
            "webhook".into(),
            "--listen".into(),
            options.listen.to_string(),
            "--admin-listen".into(),
            options.admin.to_string(),
            "--namespace".into(),
            names::NAMESPACE.into(),
        ];
        if !options.arguments.iter().any(|a| a.starts_with("--tls-cert")) {
            arguments.push("--self-managed".into());
        }
        arguments.extend(options.arguments.iter().cloned());
        let scratch = plane.scratch().path();
        let process = Supervised::start(
            &options.name,
            &options.program,
            arguments,
            &[("KUBECONFIG", kubeconfig.as_os_str()), ("NO_COLOR", OsStr::new("1"))],
            scratch,
            scratch.join(format!("{}.log", options.name)),
        )?;
        Ok(Self { process, options })
    }

    /// Waits until its `/readyz` says so.
    pub async fn ready(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let answer = http_get(self.options.admin, "/readyz").await;
            self.process.still_running()?;
            match answer {
                Ok((StatusCode::OK, _)) => return Ok(()),
                _ if Instant::now() < deadline => tokio::time::sleep(POLL).await,
                other => {
                    return Err(Error::NotReady {
                        component: self.options.name.clone(),
                        seconds: READY_TIMEOUT.as_secs(),
                        last: match other {
                            Ok((status, body)) => format!("{status} {}", body.trim()),
                            Err(e) => e.to_string(),
                        },
                        log: log_tail(self.process.log()),
                    });
                }
            }
        }
    }

    /// Its metrics, in the text format of Prometheus.
    pub async fn metrics(&self) -> Result<String, Error> {
        http_get(self.options.admin, "/metrics").await.map(|(_, body)| body)
    }

    /// Where reviews arrive.
    pub fn listen(&self) -> SocketAddr {
        self.options.listen
    }

    /// Where health and metrics are.
    pub fn admin(&self) -> SocketAddr {
        self.options.admin
    }

    /// The file with everything it printed.
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        log_tail(self.process.log())
    }

    /// All of its log.
    pub fn log_text(&self) -> String {
        std::fs::read(self.process.log())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The process, for signals and for its end.
    pub fn process(&mut self) -> &mut Supervised {
        &mut self.process
    }
}
