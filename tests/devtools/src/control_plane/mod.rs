//! A real Kubernetes control plane without containers, for tests and the demo.
//!
//! etcd and kube-apiserver run as ordinary processes on loopback, with RBAC, a temporary directory
//! and random ports, so several can run at the same time. Services get loopback ClusterIPs
//! (`127.X.Y.0/24`). So the API server reaches a webhook by its Service without kube-proxy: the
//! webhook listens on the ClusterIP itself.
//!
//! ```text
//! ControlPlane::start ──► assets ──► supervise (etcd, kube-apiserver; they end with this process)
//!                                         │
//!                                         ├──► access (clients, tokens)
//!                                         └──► install (kustomize)
//! ```

mod access;
mod assets;
mod controllers;
mod install;
mod launch;
mod network;
mod pki;
mod reset;
mod supervise;
mod webhook;

use std::path::PathBuf;

pub use access::{http_get, send};
pub use assets::Assets;
pub use install::{Patches, render};
pub use launch::{ControlPlane, Options};
pub use network::{ServiceProxy, can_listen, free_port};
pub use pki::{Serving, serving};
pub use supervise::{Scratch, Supervised};
pub use webhook::{Webhook, WebhookOptions};

/// Why a control plane cannot start or cannot be used. Causes are in the source chain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The binaries are incomplete or missing.
    #[error("no {missing} in {searched}: run make control-plane or set KUBEBUILDER_ASSETS")]
    NoAssets {
        /// The first binary that is missing.
        missing: &'static str,
        /// The directory that was searched.
        searched: String,
    },
    /// A file or directory cannot be used.
    #[error("cannot use {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A program cannot be started.
    #[error("cannot start {program}")]
    Spawn {
        /// Which one.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// A component ended unexpectedly.
    #[error("{component} ended; the last lines of its log:\n{log}")]
    Ended {
        /// Which one.
        component: String,
        /// The end of its log.
        log: String,
    },
    /// A component did not become ready in time.
    #[error(
        "{component} is not ready after {seconds} s ({last}); the last lines of its log:\n{log}"
    )]
    NotReady {
        /// Which one.
        component: String,
        /// How long the caller waited.
        seconds: u64,
        /// The last answer.
        last: String,
        /// The end of its log.
        log: String,
    },
    /// A certificate or key for the API server cannot be created.
    #[error("cannot create the API server's certificates")]
    Certificate(#[from] rcgen::Error),
    /// A request to the API server failed.
    #[error("request {what} to the API server failed")]
    Api {
        /// The request.
        what: String,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// kubectl failed.
    #[error("kubectl {arguments}: {message}")]
    Kubectl {
        /// Its arguments.
        arguments: String,
        /// Its error output.
        message: String,
    },
    /// The manifests cannot be used.
    #[error("{path}: {message}")]
    Manifests {
        /// The kustomization.
        path: PathBuf,
        /// What is wrong with them.
        message: String,
    },
    /// No port or address is free.
    #[error("no free loopback {what}")]
    Network {
        /// Port or address range.
        what: &'static str,
        /// The last error.
        source: std::io::Error,
    },
    /// An answer is not as expected.
    #[error("{0}")]
    Unexpected(String),
}

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    pub(crate) fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Api { what, source: Box::new(source) }
    }
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Error::Unexpected("the operating system returns no random bytes".into()))?;
    Ok(bytes)
}

/// The last lines of a log, for an error message.
pub(crate) fn log_tail(path: &std::path::Path) -> String {
    const LINES: usize = 12;
    const WIDTH: usize = 400;
    let Ok(bytes) = std::fs::read(path) else {
        return format!("  ({} cannot be read)", path.display());
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let tail: Vec<String> = lines[lines.len().saturating_sub(LINES)..]
        .iter()
        .map(|line| format!("  {}", line.chars().take(WIDTH).collect::<String>()))
        .collect();
    if tail.is_empty() { "  (empty)".into() } else { tail.join("\n") }
}

/// The bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;

    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
