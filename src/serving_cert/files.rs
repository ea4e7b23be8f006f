//! `--tls-cert`, `--tls-key` and `--client-ca`: files that others renew.
//!
//! They are polled by content. The kubelet renews a mounted Secret by renaming a symbolic link, of
//! which a watch on the file itself hears nothing; and a mount without change costs a read of a
//! few kilobytes.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256};
use jiff::Timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use super::metrics::CertificateMetrics;
use crate::server::tls::{Publisher, ServingCert, TlsError, roots};

/// The files, and how often to look at them.
#[derive(Clone, Debug)]
pub struct Files {
    /// `--tls-cert`: PEM, the leaf first.
    pub cert: PathBuf,
    /// `--tls-key`: PEM, PKCS#8, SEC1 or PKCS#1.
    pub key: PathBuf,
    /// `--client-ca`: PEM.
    pub client_ca: Option<PathBuf>,
    /// `--tls-reload-interval`.
    pub interval: Duration,
}

impl Files {
    /// Reads, checks and publishes the files, and returns what keeps them published.
    ///
    /// Fails where they cannot be served now: at start that is for the operator to see.
    pub fn publish(
        self,
        now: Timestamp,
        publisher: Publisher,
        metrics: CertificateMetrics,
    ) -> Result<Reloader, FilesError> {
        let content = Content::of(&self);
        let digest = content.digest();
        let first = content.parse(&self, now)?;
        let mut reloader =
            Reloader { files: self, publisher, metrics, published: digest, complained_about: None };
        reloader.send(first);
        Ok(reloader)
    }
}

/// Keeps the published configuration in step with the files.
#[derive(Debug)]
pub struct Reloader {
    files: Files,
    publisher: Publisher,
    metrics: CertificateMetrics,
    published: Digest,
    complained_about: Option<Digest>,
}

impl Reloader {
    /// Looks at the files for ever: each `--tls-reload-interval`, and when notified.
    pub async fn run(mut self, force: Arc<Notify>) -> std::convert::Infallible {
        let mut ticks = interval(self.files.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = force.notified() => {}
            }
            self.poll(Timestamp::now());
        }
    }

    /// Publishes the files if their content has changed and can be served; what is served stays
    /// otherwise. Says whether anything was published.
    pub fn poll(&mut self, now: Timestamp) -> bool {
        let content = Content::of(&self.files);
        let digest = content.digest();
        if digest == self.published {
            if self.complained_about.take().is_some() {
                tracing::info!("the serving certificate's files are as served again");
            }
            return false;
        }
        match content.parse(&self.files, now) {
            Ok(cert) => {
                tracing::info!(not_after = %cert.not_after(), "serving a new certificate");
                self.complained_about = None;
                self.published = digest;
                self.send(cert);
                true
            }
            Err(error) => {
                self.metrics.refresh_failed();
                // Once for each content: the metric counts the polls.
                if self.complained_about.replace(digest) != Some(digest) {
                    tracing::error!(%error, "the certificate served so far stays");
                }
                false
            }
        }
    }

    fn send(&mut self, cert: ServingCert) {
        self.metrics.refreshed(cert.not_after());
        self.publisher.send_replace(Some(Arc::new(cert)));
    }
}

/// The client CAs of `path`, each fit to be a trust anchor.
pub(super) fn client_cas(path: &Path) -> Result<Vec<CertificateDer<'static>>, FilesError> {
    let cas = certificates(read(path)).and_then(|cas| Ok(roots(&cas).map(|_| cas)?));
    cas.map_err(|problem| problem.of(CLIENT_CA, path))
}

const TLS_CERT: &str = "--tls-cert";
const TLS_KEY: &str = "--tls-key";
const CLIENT_CA: &str = "--client-ca";

/// A file that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{flags} {path}: {problem}")]
pub struct FilesError {
    /// The flags that named it.
    flags: &'static str,
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("no {0} found: expected PEM")]
    Empty(&'static str),
    #[error("the PEM is broken")]
    Pem,
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("{0}")]
    Unfit(#[from] TlsError),
}

impl Problem {
    fn of(self, flags: &'static str, path: &Path) -> FilesError {
        FilesError { flags, path: path.into(), problem: self }
    }
}

/// What the files hold at one moment. No `Debug`: one of them is a key.
struct Content {
    cert: io::Result<Vec<u8>>,
    key: io::Result<Vec<u8>>,
    client_ca: Option<io::Result<Vec<u8>>>,
}

/// SHA-256 over what was read, so that no copy of a key is kept for comparison.
type Digest = [u8; digest::SHA256_OUTPUT_LEN];

impl Content {
    fn of(files: &Files) -> Self {
        Self {
            cert: read(&files.cert),
            key: read(&files.key),
            client_ca: files.client_ca.as_deref().map(read),
        }
    }

    fn digest(&self) -> Digest {
        let mut context = digest::Context::new(&SHA256);
        for file in [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()] {
            // A byte says what follows; the length keeps one file's end from being the next
            // one's beginning.
            match file {
                None => context.update(&[0]),
                Some(Err(_)) => context.update(&[1]),
                Some(Ok(bytes)) => {
                    context.update(&[2]);
                    context.update(&bytes.len().to_be_bytes());
                    context.update(bytes);
                }
            }
        }
        let mut digest = Digest::default();
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    fn parse(self, files: &Files, now: Timestamp) -> Result<ServingCert, FilesError> {
        let chain = certificates(self.cert).map_err(|p| p.of(TLS_CERT, &files.cert))?;
        let key = private_key(self.key).map_err(|p| p.of(TLS_KEY, &files.key))?;
        let client_cas = match (&files.client_ca, self.client_ca) {
            (Some(path), Some(read)) => {
                Some(certificates(read).map_err(|p| p.of(CLIENT_CA, path))?)
            }
            _ => None,
        };
        let cert = ServingCert::new(chain, key, client_cas.as_deref());
        cert.and_then(|cert| cert.check_valid(now).map(|()| cert)).map_err(|error| {
            let (flags, path) = match error {
                TlsError::ClientCa => (CLIENT_CA, files.client_ca.as_ref().unwrap_or(&files.cert)),
                TlsError::Key => (TLS_KEY, &files.key),
                TlsError::Mismatch => ("--tls-cert and --tls-key", &files.key),
                _ => (TLS_CERT, &files.cert),
            };
            Problem::Unfit(error).of(flags, path)
        })
    }
}

/// The most that is read of a file: a hundred times what a long chain needs.
const MAX_FILE: u64 = 1 << 20;

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    Ok(bytes)
}

fn certificates(bytes: io::Result<Vec<u8>>) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes?).collect();
    let certificates = certificates.map_err(|_| Problem::Pem)?;
    if certificates.is_empty() {
        return Err(Problem::Empty("certificate"));
    }
    Ok(certificates)
}

fn private_key(bytes: io::Result<Vec<u8>>) -> Result<PrivateKeyDer<'static>, Problem> {
    match PrivateKeyDer::pem_slice_iter(&bytes?).next() {
        Some(Ok(key)) => Ok(key),
        Some(Err(_)) => Err(Problem::Pem),
        None => Err(Problem::Empty("private key")),
    }
}
