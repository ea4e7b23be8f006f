//! Serves the files of `--tls-cert`, `--tls-key` and `--client-ca`, which others renew.
//!
//! Compares their content at an interval. The kubelet renews a mounted Secret by renaming a
//! symbolic link, which a watch on the file itself does not notice. Reading a few kilobytes is
//! cheap.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256, SHA256_OUTPUT_LEN};
use jiff::Timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use super::metrics::CertificateMetrics;
use crate::server::tls::{Publisher, ServingCert, TlsError, roots};

/// The files, and the interval at which they are read.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// `--tls-cert`: PEM, the leaf first.
    pub cert: PathBuf,
    /// `--tls-key`: PEM, PKCS#8, SEC1 or PKCS#1.
    pub key: PathBuf,
    /// `--client-ca`: PEM.
    pub client_ca: Option<PathBuf>,
    /// `--tls-reload-interval`.
    pub interval: Duration,
}

impl CertificateFiles {
    /// Reads, checks and publishes the files. The returned [`Reloader`] publishes their changes.
    ///
    /// Fails if they cannot be served, so that the process does not start with them.
    pub fn publish(
        self,
        now: Timestamp,
        publisher: Publisher,
        metrics: CertificateMetrics,
    ) -> Result<Reloader, FilesError> {
        let content = FileContents::of(&self);
        let digest = content.digest();
        let first = content.parse(&self, now)?;
        let mut reloader =
            Reloader { files: self, publisher, metrics, published: digest, refused: None };
        reloader.send(first);
        Ok(reloader)
    }
}

/// Publishes the files again when they change.
#[derive(Debug)]
pub struct Reloader {
    files: CertificateFiles,
    publisher: Publisher,
    metrics: CertificateMetrics,
    published: [u8; SHA256_OUTPUT_LEN],
    /// The content that could not be served and was logged.
    refused: Option<[u8; SHA256_OUTPUT_LEN]>,
}

impl Reloader {
    /// Reads the files at each `--tls-reload-interval`, and when notified. Never returns.
    pub async fn run(mut self, force: Arc<Notify>) -> Infallible {
        every(self.files.interval, &force, || {
            self.poll(Timestamp::now());
        })
        .await
    }

    /// Publishes the files if their content has changed and can be served. Otherwise the served
    /// certificate stays. Returns whether it published.
    pub fn poll(&mut self, now: Timestamp) -> bool {
        let content = FileContents::of(&self.files);
        let digest = content.digest();
        if digest == self.published {
            if self.refused.take().is_some() {
                tracing::info!("the files contain the served certificate again");
            }
            return false;
        }
        match content.parse(&self.files, now) {
            Ok(cert) => {
                tracing::info!(not_after = %cert.not_after(), "serving a new certificate");
                self.refused = None;
                self.published = digest;
                self.send(cert);
                true
            }
            Err(error) => {
                self.metrics.refresh_failed();
                // Logged once for each content. The metric counts every attempt.
                if self.refused.replace(digest) != Some(digest) {
                    tracing::error!(%error, "cannot serve the new certificate files, the previous certificate stays in service");
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

/// Calls `poll` at each interval, and when notified. Never returns.
pub(crate) async fn every(period: Duration, force: &Notify, mut poll: impl FnMut()) -> Infallible {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = force.notified() => {}
        }
        poll();
    }
}

/// Reads the client CAs from `path`. Each must be usable as a trust anchor.
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
    /// The flags that name the file.
    flags: &'static str,
    path: PathBuf,
    problem: FileProblem,
}

#[derive(Debug, thiserror::Error)]
enum FileProblem {
    #[error("no {0} found: expected PEM")]
    Empty(&'static str),
    #[error("the PEM is malformed")]
    Pem,
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("{0}")]
    Unfit(#[from] TlsError),
}

impl FileProblem {
    fn of(self, flags: &'static str, path: &Path) -> FilesError {
        FilesError { flags, path: path.into(), problem: self }
    }
}

/// The content of the files at one time. Has no `Debug`, because one of them is a key.
struct FileContents {
    cert: io::Result<Vec<u8>>,
    key: io::Result<Vec<u8>>,
    client_ca: Option<io::Result<Vec<u8>>>,
}

impl FileContents {
    fn of(files: &CertificateFiles) -> Self {
        Self {
            cert: read(&files.cert),
            key: read(&files.key),
            client_ca: files.client_ca.as_deref().map(read),
        }
    }

    /// A SHA-256 of all files. It is kept for comparison instead of a copy of the key.
    fn digest(&self) -> [u8; SHA256_OUTPUT_LEN] {
        let mut context = digest::Context::new(&SHA256);
        for file in [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()] {
            // The first byte is the kind of entry. The length keeps bytes that move from one file
            // to the next from giving the same digest.
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
        let mut digest = [0; SHA256_OUTPUT_LEN];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    fn parse(self, files: &CertificateFiles, now: Timestamp) -> Result<ServingCert, FilesError> {
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
            FileProblem::Unfit(error).of(flags, path)
        })
    }
}

/// The largest file that is read, in bytes: a hundred times the size of a long chain.
const MAX_FILE: u64 = 1 << 20;

/// Reads a whole file that is not too large.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    Ok(bytes)
}

fn certificates(bytes: io::Result<Vec<u8>>) -> Result<Vec<CertificateDer<'static>>, FileProblem> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes?).collect();
    let certificates = certificates.map_err(|_| FileProblem::Pem)?;
    if certificates.is_empty() {
        return Err(FileProblem::Empty("certificate"));
    }
    Ok(certificates)
}

fn private_key(bytes: io::Result<Vec<u8>>) -> Result<PrivateKeyDer<'static>, FileProblem> {
    match PrivateKeyDer::pem_slice_iter(&bytes?).next() {
        Some(Ok(key)) => Ok(key),
        Some(Err(_)) => Err(FileProblem::Pem),
        None => Err(FileProblem::Empty("private key")),
    }
}
