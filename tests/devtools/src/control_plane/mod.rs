//! A real Kubernetes control plane without containers, for tests and for the demo.
//!
//! etcd and kube-apiserver run as ordinary processes on loopback, with RBAC, a throw-away
//! directory and random ports, so that several stand beside each other. Services get loopback
//! ClusterIPs (`127.X.Y.0/24`), which makes the API server's own path to a webhook work without
//! kube-proxy: whoever listens on the ClusterIP is the Service.
//!
//! ```text
//! ControlPlane::start ──► assets ──► supervise (etcd, kube-apiserver) ──► access (clients, tokens)
//!                                                  │                          │
//!                                      ends with us, even by SIGKILL      install (kustomize)
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

/// What keeps a control plane from starting or from being used. Causes are in the source chain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nowhere a complete set of binaries.
    #[error("no {missing} in {searched}: run make control-plane or set KUBEBUILDER_ASSETS")]
    NoAssets {
        /// The first binary that is not there.
        missing: &'static str,
        /// The directory, or directories, looked into.
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
    /// A component ended by itself.
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
        /// How long it was waited for.
        seconds: u64,
        /// The last answer.
        last: String,
        /// The end of its log.
        log: String,
    },
    /// A certificate or key for the API server cannot be made.
    #[error("cannot make the API server's certificates")]
    Certificate(#[from] rcgen::Error),
    /// The API server refused a request.
    #[error("the API server did not answer {what}")]
    Api {
        /// What was asked for.
        what: String,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// kubectl failed.
    #[error("kubectl {arguments}: {message}")]
    Kubectl {
        /// Its arguments.
        arguments: String,
        /// What it said.
        message: String,
    },
    /// Manifests are not as expected.
    #[error("{path}: {message}")]
    Manifests {
        /// The kustomization.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// There is no free port or address.
    #[error("no free loopback {what}")]
    Network {
        /// Port or address range.
        what: &'static str,
        /// The last refusal.
        source: std::io::Error,
    },
    /// An answer that makes no sense.
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
        .map_err(|_| Error::Unexpected("the operating system gives no random bytes".into()))?;
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

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;

    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
