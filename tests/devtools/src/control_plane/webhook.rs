//! Runs the real webhook as a process with its real `ServiceAccount`.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::{ControlPlane, Error, Supervised, http_get, log_tail};
use crate::names;

/// The webhook is usually ready in less than a second, plus the time of the API server.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// How to run the webhook.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// The `ca-overlap` binary.
    pub program: PathBuf,
    /// A name for its log that no other replica has.
    pub name: String,
    /// The address for reviews.
    pub listen: SocketAddr,
    /// The address for health checks and metrics.
    pub admin: SocketAddr,
    /// Additional arguments. Without `--tls-cert`, `--self-managed` is added.
    pub arguments: Vec<String>,
}

/// A running webhook. It is killed when this value is dropped or this process ends.
#[derive(Debug)]
pub struct Webhook {
    process: Supervised,
    options: WebhookOptions,
}

impl Webhook {
    /// Starts the webhook as its `ServiceAccount` and does not wait until it is ready. The
    /// manifests must be applied.
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

    /// Waits until `/readyz` returns 200.
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

    /// The address for reviews.
    pub fn listen(&self) -> SocketAddr {
        self.options.listen
    }

    /// The address for health checks and metrics.
    pub fn admin(&self) -> SocketAddr {
        self.options.admin
    }

    /// The file with its output.
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        log_tail(self.process.log())
    }

    /// Its whole log.
    pub fn log_text(&self) -> String {
        std::fs::read(self.process.log())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The process, to send signals or wait for its end.
    pub fn process(&mut self) -> &mut Supervised {
        &mut self.process
    }
}
