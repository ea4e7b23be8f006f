//! The TLS configuration, published as a whole.
//!
//! A new certificate gets a new configuration. Ticket keys and session storage belong to the
//! configuration, so a session from before a rotation cannot resume after it, and the client sees
//! the new certificate.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A sender and a receiver of the TLS configuration. Nothing is published yet.
pub fn channel() -> (Publisher, Published) {
    watch::channel(None)
}

/// Publishes the configuration to serve.
pub type Publisher = watch::Sender<Option<Arc<ServingCert>>>;

/// The published configuration, or `None` before the first one.
pub type Published = watch::Receiver<Option<Arc<ServingCert>>>;

/// A certificate with the TLS configuration that serves it.
pub struct ServingCert {
    config: Arc<ServerConfig>,
    leaf: CertificateDer<'static>,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl ServingCert {
    /// Checks that the certificates parse and that the key belongs to the leaf, and builds the
    /// configuration: TLS 1.2 and 1.3, ALPN `http/1.1`, new ticket keys, new session storage.
    ///
    /// `chain` starts with the leaf. With `client_cas` every client must show a certificate that
    /// one of them issued, and sessions do not resume: a resumed session would skip the check of
    /// the client's certificate, which may have expired, or whose CA may have been removed.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        client_cas: Option<&[CertificateDer<'static>]>,
    ) -> Result<Self, TlsError> {
        let leaf = chain.first().ok_or(TlsError::NoCertificate)?.clone();
        for (at, certificate) in chain.iter().enumerate() {
            parse(certificate).ok_or(TlsError::Certificate { number: at + 1 })?;
        }
        let (not_before, not_after) = validity(&leaf)?;
        let provider = provider();
        let key = provider.key_provider.load_private_key(key).map_err(|_| TlsError::Key)?;
        let pair = CertifiedKey::new(chain, key);
        pair.keys_match().map_err(|_| TlsError::Mismatch)?;

        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(TlsError::Configuration)?;
        let mut config = match client_cas {
            None => builder.with_no_client_auth(),
            Some(cas) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(roots(cas)?, provider)
                    .build()
                    .map_err(|_| TlsError::ClientCa)?,
            ),
        }
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair)));
        // The API server offers HTTP/1.1 only, so a list with HTTP/2 only would fail every call.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if client_cas.is_some() {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Configuration)?;
            // One, as in Go. The API server uses none, and each costs time in every handshake.
            config.send_tls13_tickets = 1;
        }
        Ok(Self { config: Arc::new(config), leaf, not_before, not_after })
    }

    /// The configuration for new connections.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// The certificate that is served, as DER.
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.leaf
    }

    /// When the leaf expires.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Fails if the leaf is not valid yet or has expired.
    pub fn check_valid(&self, now: Timestamp) -> Result<(), TlsError> {
        if now < self.not_before {
            return Err(TlsError::NotYetValid { not_before: self.not_before });
        }
        if now >= self.not_after {
            return Err(TlsError::Expired { not_after: self.not_after });
        }
        Ok(())
    }
}

impl fmt::Debug for ServingCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServingCert").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A certificate of the chain is not X.509.
    #[error("certificate {number} of the chain is not readable")]
    Certificate {
        /// Counted from 1, the leaf.
        number: usize,
    },
    /// A client CA cannot be a trust anchor.
    #[error("a client CA cannot be a trust anchor: use valid CA certificates only")]
    ClientCa,
    /// rustls refused the parameters.
    #[error("rustls refused the TLS configuration")]
    Configuration(#[source] rustls::Error),
    /// The leaf has expired.
    #[error("the certificate expired at {not_after}")]
    Expired {
        /// When.
        not_after: Timestamp,
    },
    /// The key cannot be used for TLS.
    #[error("the private key is not usable: expected an RSA, ECDSA or Ed25519 key")]
    Key,
    /// The key does not belong to the leaf.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// The chain is empty.
    #[error("no certificate was found")]
    NoCertificate,
    /// The leaf is not valid yet.
    #[error("the certificate is not valid before {not_before}: check the clock")]
    NotYetValid {
        /// When it will be.
        not_before: Timestamp,
    },
}

/// The cryptography provider, passed explicitly wherever rustls accepts one.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Makes trust anchors of `cas`. Fails if one of them cannot be a trust anchor.
pub fn roots(cas: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots.add(ca.clone()).map_err(|_| TlsError::ClientCa)?;
    }
    Ok(Arc::new(roots))
}

/// Reads `notBefore` and `notAfter`.
pub(crate) fn validity(der: &[u8]) -> Result<(Timestamp, Timestamp), TlsError> {
    let unreadable = || TlsError::Certificate { number: 1 };
    let certificate = parse(der).ok_or_else(unreadable)?;
    let validity = certificate.validity();
    let from = Timestamp::from_second(validity.not_before.timestamp());
    let to = Timestamp::from_second(validity.not_after.timestamp());
    from.ok().zip(to.ok()).ok_or_else(unreadable)
}

/// Parses `der`, and refuses trailing bytes.
fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use devtools::certs::LEAF;

    use super::*;

    #[test]
    fn every_configuration_has_its_own_sessions() {
        let leaf = LEAF.self_signed();
        let chain = vec![leaf.der.clone()];
        let build = || ServingCert::new(chain.clone(), leaf.key_der(), None).unwrap();
        let (one, two) = (build(), build());
        let ticket = one.config().ticketer.encrypt(b"session").unwrap();
        assert_eq!(one.config().ticketer.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(two.config().ticketer.decrypt(&ticket), None);
        assert!(one.config().session_storage.put(b"id".to_vec(), b"session".to_vec()));
        assert_eq!(two.config().session_storage.get(b"id"), None);
        assert_eq!(one.config().alpn_protocols, [b"http/1.1".to_vec()]);
    }

    #[test]
    fn the_debug_text_contains_no_key() {
        let leaf = LEAF.self_signed();
        let serving = ServingCert::new(vec![leaf.der.clone()], leaf.key_der(), None).unwrap();
        assert_eq!(format!("{serving:?}"), "ServingCert { not_after: 2090-01-01T00:00:00Z, .. }");
    }
}
