//! The CAs that the probe trusts, and its client certificate.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

use crate::server::tls::provider;
use crate::tools::error::ToolError;
use crate::tools::text::printable;

/// Verifies serving certificates; `None` with `--insecure`.
pub(super) struct Trust(Option<Arc<WebPkiServerVerifier>>);

impl Trust {
    /// Accepts every certificate.
    pub(super) fn any() -> Self {
        Self(None)
    }

    /// Trusts the CAs of a PEM file.
    pub(super) fn in_file(path: &Path) -> Result<Self, ToolError> {
        let flag = "--ca-file";
        let mut roots = RootCertStore::empty();
        for certificate in certificates(flag, path)? {
            roots.add(certificate).map_err(|error| ToolError::file(flag, path, error))?;
        }
        Self::in_roots(roots).map_err(|error| ToolError::file(flag, path, error))
    }

    /// Trusts the CAs that this machine trusts.
    pub(super) fn in_system() -> Result<Self, ToolError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // Trust stores can hold certificates that rustls cannot parse.
        roots.add_parsable_certificates(found.certs);
        let why = found.errors.first().map_or("none were found".to_owned(), ToString::to_string);
        Self::in_roots(roots).map_err(|_| {
            ToolError::Failed(format!(
                "this machine has no CA certificates ({}); give the server's CA with --ca-file, or \
                 use --insecure",
                printable(&why)
            ))
        })
    }

    fn in_roots(roots: RootCertStore) -> Result<Self, String> {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
        Ok(Self(Some(verifier.build().map_err(|error| error.to_string())?)))
    }

    /// Checks whether a client that trusts these CAs accepts `chain`, leaf first. Returns the
    /// reason if not.
    pub(super) fn check(
        &self,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
    ) -> Result<(), String> {
        let Some(verifier) = &self.0 else { return Ok(()) };
        let Some((leaf, others)) = chain.split_first() else {
            return Err("the server sent none".to_owned());
        };
        let result = verifier.verify_server_cert(leaf, others, name, &[], UnixTime::now());
        result.map(drop).map_err(|error| match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                "no trusted CA issued it".to_owned()
            }
            rustls::Error::InvalidCertificate(CertificateError::BadSignature) => {
                "the trusted CA with the name of its issuer has another key".to_owned()
            }
            rustls::Error::InvalidCertificate(problem) => printable(&problem.to_string()),
            error => printable(&error.to_string()),
        })
    }
}

/// Accepts any certificate during the handshake, so that an untrusted one can be shown too.
/// [`Trust::check`] verifies it afterwards. The signature is checked here, so the server must hold
/// the private key. The probe sends no data.
#[derive(Debug)]
pub(super) struct AcceptAnyCertificate(Arc<CryptoProvider>);

impl AcceptAnyCertificate {
    pub(super) fn new() -> Self {
        Self(provider())
    }
}

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The probe's client certificate, and the server's request for one.
#[derive(Debug)]
pub(super) struct ClientCertificate {
    pair: Option<Arc<CertifiedKey>>,
    request: Mutex<Option<CertificateRequest>>,
}

/// A server's request for a client certificate (RFC 8446 §4.3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertificateRequest {
    /// The names of the CAs that the server says it accepts, in its order. A name can come twice,
    /// because generators give each CA the same subject.
    pub(super) authorities: Vec<String>,
}

impl ClientCertificate {
    /// No client certificate.
    pub(super) fn none() -> Self {
        Self { pair: None, request: Mutex::default() }
    }

    /// Reads a certificate and its private key from PEM files.
    pub(super) fn of_files(certificate: &Path, key: &Path) -> Result<Self, ToolError> {
        let chain = certificates("--cert", certificate)?;
        let problem = |error: rustls::pki_types::pem::Error| {
            use rustls::pki_types::pem::Error::{Io, NoItemsFound};
            ToolError::file(
                "--key",
                key,
                match error {
                    Io(error) => error.to_string(),
                    NoItemsFound => "no private key in it (PEM, not encrypted)".to_owned(),
                    _ => "unreadable PEM".to_owned(),
                },
            )
        };
        let loaded = PrivateKeyDer::from_pem_file(key).map_err(problem)?;
        let loaded = provider().key_provider.load_private_key(loaded);
        let loaded = loaded
            .map_err(|_| ToolError::file("--key", key, "expected an RSA, ECDSA or Ed25519 key"))?;
        let pair = CertifiedKey::new(chain, loaded);
        let mismatch = "the private key does not belong to the certificate of --cert";
        pair.keys_match().map_err(|_| ToolError::failed("--key", mismatch))?;
        Ok(Self { pair: Some(Arc::new(pair)), request: Mutex::default() })
    }

    /// Whether there is a certificate to send.
    pub(super) fn is_given(&self) -> bool {
        self.pair.is_some()
    }

    /// The request of the last full handshake that had one.
    pub(super) fn request(&self) -> Option<CertificateRequest> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesClientCert for ClientCertificate {
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        _: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let authorities = root_hint_subjects.iter().map(|name| distinguished_name(name)).collect();
        let mut request = self.request.lock().unwrap_or_else(PoisonError::into_inner);
        *request = Some(CertificateRequest { authorities });
        self.pair.clone()
    }

    fn has_certs(&self) -> bool {
        self.is_given()
    }
}

fn distinguished_name(der: &[u8]) -> String {
    match X509Name::from_der(der) {
        Ok((_, name)) if name.iter().next().is_none() => "(empty name)".to_owned(),
        Ok((_, name)) => printable(&name.to_string()),
        Err(_) => "(unreadable name)".to_owned(),
    }
}

/// The certificates of a PEM file. A file without one is an error.
fn certificates(
    flag: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, ToolError> {
    let text = std::fs::read(path).map_err(|error| ToolError::file(flag, path, error))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match read {
        Ok(found) if found.is_empty() => {
            Err(ToolError::file(flag, path, "no certificate in it (PEM)"))
        }
        Ok(found) => Ok(found),
        Err(_) => Err(ToolError::file(flag, path, "unreadable PEM")),
    }
}
