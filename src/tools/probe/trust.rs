//! Whom the probe trusts, and who it says it is.

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
use crate::tools::error::Error;
use crate::tools::text::printable;

/// By what a server's certificate is judged; `None` with `--insecure`.
pub(super) struct Trust(Option<Arc<WebPkiServerVerifier>>);

impl Trust {
    /// Takes every server as it is.
    pub(super) fn in_anything() -> Self {
        Self(None)
    }

    /// The CAs of a PEM file.
    pub(super) fn in_file(path: &Path) -> Result<Self, Error> {
        let flag = "--ca-file";
        let mut roots = RootCertStore::empty();
        for certificate in certificates(flag, path)? {
            roots.add(certificate).map_err(|error| Error::file(flag, path, error))?;
        }
        Self::in_roots(roots).map_err(|error| Error::file(flag, path, error))
    }

    /// The CAs that this machine trusts.
    pub(super) fn in_system() -> Result<Self, Error> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // Trust stores hold certificates that not every library can use.
        roots.add_parsable_certificates(found.certs);
        let why = found.errors.first().map_or("none were found".to_owned(), ToString::to_string);
        Self::in_roots(roots).map_err(|_| {
            Error::Failed(format!(
                "there are no CA certificates on this machine ({}); name the server's CA with \
                 --ca-file, or use --insecure",
                printable(&why)
            ))
        })
    }

    fn in_roots(roots: RootCertStore) -> Result<Self, String> {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
        Ok(Self(Some(verifier.build().map_err(|error| error.to_string())?)))
    }

    /// Whether a client that trusts the same would accept `chain`, a leaf and what it brought
    /// along; else why not.
    pub(super) fn check(
        &self,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
    ) -> Result<(), String> {
        let Some(verifier) = &self.0 else { return Ok(()) };
        let Some((leaf, others)) = chain.split_first() else {
            return Err("there is none".to_owned());
        };
        let result = verifier.verify_server_cert(leaf, others, name, &[], UnixTime::now());
        result.map(drop).map_err(|error| match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                "its issuer is none of the CAs that are trusted here".to_owned()
            }
            rustls::Error::InvalidCertificate(CertificateError::BadSignature) => {
                "a CA of its issuer's name is trusted here, but one with another key".to_owned()
            }
            rustls::Error::InvalidCertificate(problem) => printable(&problem.to_string()),
            error => printable(&error.to_string()),
        })
    }
}

/// Lets any certificate through during the handshake, so that one that is not trusted can be shown
/// and compared: [`Trust::check`] judges it afterwards. No data is ever sent or believed. That the
/// server holds the certificate's key is checked here.
#[derive(Debug)]
pub(super) struct Later(Arc<CryptoProvider>);

impl Later {
    pub(super) fn new() -> Self {
        Self(provider())
    }
}

impl ServerCertVerifier for Later {
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

/// Who the probe is to servers that want to know, and what they asked for.
#[derive(Debug)]
pub(super) struct Identity {
    pair: Option<Arc<CertifiedKey>>,
    asked: Mutex<Option<Asked>>,
}

/// A server's wish for a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// The distinguished names of the CAs that it says it accepts, in its order. Generators give
    /// each CA the same subject, so a name may come twice.
    pub(super) authorities: Vec<String>,
}

impl Identity {
    /// Nobody.
    pub(super) fn none() -> Self {
        Self { pair: None, asked: Mutex::default() }
    }

    /// The pair of two PEM files.
    pub(super) fn of_files(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let chain = certificates("--cert", certificate)?;
        let problem = |error: rustls::pki_types::pem::Error| {
            use rustls::pki_types::pem::Error::{Io, NoItemsFound};
            Error::file(
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
            .map_err(|_| Error::file("--key", key, "expected an RSA, ECDSA or Ed25519 key"))?;
        let pair = CertifiedKey::new(chain, loaded);
        let mismatch = "the private key does not belong to the certificate of --cert";
        pair.keys_match().map_err(|_| Error::failed("--key", mismatch))?;
        Ok(Self { pair: Some(Arc::new(pair)), asked: Mutex::default() })
    }

    /// Whether there is a certificate to send.
    pub(super) fn is_somebody(&self) -> bool {
        self.pair.is_some()
    }

    /// What a server asked for in the last full handshake in which it did.
    pub(super) fn asked(&self) -> Option<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        _: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let authorities = root_hint_subjects.iter().map(|name| distinguished_name(name)).collect();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        *asked = Some(Asked { authorities });
        self.pair.clone()
    }

    fn has_certs(&self) -> bool {
        self.is_somebody()
    }
}

fn distinguished_name(der: &[u8]) -> String {
    match X509Name::from_der(der) {
        Ok((_, name)) if name.iter().next().is_none() => "(empty name)".to_owned(),
        Ok((_, name)) => printable(&name.to_string()),
        Err(_) => "(unreadable name)".to_owned(),
    }
}

/// The certificates of a PEM file, of which there is at least one.
fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = std::fs::read(path).map_err(|error| Error::file(flag, path, error))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match read {
        Ok(found) if found.is_empty() => Err(Error::file(flag, path, "no certificate in it (PEM)")),
        Ok(found) => Ok(found),
        Err(_) => Err(Error::file(flag, path, "unreadable PEM")),
    }
}
