//! Real TLS handshakes between peers that hold old or new files.

use std::sync::Arc;

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The buffer between two peers in bytes. A handshake takes about 3 KB.
const PIPE: usize = 16 * 1024;

/// The files of a mounted Secret, as a process read them at one time.
#[derive(Clone)]
pub struct Files {
    /// The name in its certificate.
    pub name: String,
    /// `ca.crt`, PEM.
    pub ca: Vec<u8>,
    /// `tls.crt`, PEM.
    pub certificate: Vec<u8>,
    /// `tls.key`, PEM.
    pub key: Vec<u8>,
}

/// How many of a number of handshakes succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many succeeded.
    pub succeeded: usize,
    /// How many were tried.
    pub tried: usize,
}

impl Tally {
    /// Whether all succeeded, and there was at least one.
    pub fn all(self) -> bool {
        self.tried > 0 && self.succeeded == self.tried
    }

    /// Whether none succeeded, and there was at least one.
    pub fn none(self) -> bool {
        self.tried > 0 && self.succeeded == 0
    }
}

/// Lets each of `verifiers` check the certificate of each of `presenters`: once as a TLS client and
/// once as a server that requires client certificates, the two halves of mutual TLS.
pub async fn meet(verifiers: &[Files], presenters: &[Files]) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for verifier in verifiers {
        for presenter in presenters {
            for accepted in [
                client_accepts(verifier, presenter).await?,
                server_accepts(verifier, presenter).await?,
            ] {
                tally.tried += 1;
                tally.succeeded += usize::from(accepted);
            }
        }
    }
    Ok(tally)
}

async fn client_accepts(verifier: &Files, presenter: &Files) -> anyhow::Result<bool> {
    let (chain, key) = presenter.pair()?;
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .with_context(|| presenter.unusable())?;
    let client =
        ClientConfig::builder().with_root_certificates(verifier.roots()?).with_no_client_auth();
    let (client_side, _) = shake(client, server, &presenter.name).await;
    Ok(client_side)
}

/// The client trusts the CA of the server, so only the check of the client's certificate can fail.
async fn server_accepts(verifier: &Files, presenter: &Files) -> anyhow::Result<bool> {
    let roots = verifier.roots()?;
    let demand = WebPkiClientVerifier::builder(Arc::new(roots.clone()))
        .build()
        .with_context(|| verifier.unusable())?;
    let (chain, key) = verifier.pair()?;
    let server = ServerConfig::builder()
        .with_client_cert_verifier(demand)
        .with_single_cert(chain, key)
        .with_context(|| verifier.unusable())?;
    let (chain, key) = presenter.pair()?;
    let client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .with_context(|| presenter.unusable())?;
    let (_, server_side) = shake(client, server, &verifier.name).await;
    Ok(server_side)
}

/// Whether the client and the server finished the handshake. In TLS 1.3 a client finishes before
/// the server checks its certificate.
async fn shake(client: ClientConfig, server: ServerConfig, name: &str) -> (bool, bool) {
    let (near, far) = tokio::io::duplex(PIPE);
    let Ok(name) = ServerName::try_from(name.to_owned()) else { return (false, false) };
    let (client, server) = tokio::join!(
        TlsConnector::from(Arc::new(client)).connect(name, near),
        TlsAcceptor::from(Arc::new(server)).accept(far),
    );
    (client.is_ok(), server.is_ok())
}

impl Files {
    fn roots(&self) -> anyhow::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates(&self.ca)? {
            roots.add(certificate).with_context(|| self.unusable())?;
        }
        Ok(roots)
    }

    fn pair(&self) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let key = PrivateKeyDer::from_pem_slice(&self.key).ok();
        let key = key.with_context(|| self.unusable())?;
        Ok((self.certificates(&self.certificate)?, key))
    }

    fn certificates(&self, pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        read.ok().with_context(|| self.unusable())
    }

    /// A peer cannot start with such files: this is an error of the caller, not a failed handshake.
    fn unusable(&self) -> String {
        format!("cannot use the files of {}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use crate::certs::{self, Identity};

    use super::*;

    /// A peer that trusts all of `cas` and whose leaf is from the first.
    fn peer(name: &str, cas: &[&Identity]) -> Files {
        let leaf = cas[0].leaf(name);
        Files {
            name: name.into(),
            ca: certs::bundle(cas).into_bytes(),
            certificate: leaf.pem.into_bytes(),
            key: leaf.key.into_bytes(),
        }
    }

    #[tokio::test]
    async fn trust_decides_the_handshake_in_both_roles() {
        let (old, new) = (certs::ca(), certs::ca());
        let before = peer("a", &[&old]);
        let after = peer("b", &[&new, &old]);
        let bare = peer("c", &[&new]);
        let one = |verifier: &Files, presenter: &Files| {
            let (verifier, presenter) = (vec![verifier.clone()], vec![presenter.clone()]);
            async move { meet(&verifier, &presenter).await.unwrap() }
        };
        assert_eq!(one(&after, &before).await, Tally { succeeded: 2, tried: 2 });
        assert!(one(&before, &after).await.none());
        assert!(one(&bare, &before).await.none());
        assert!(one(&bare, &bare).await.all());
    }
}
