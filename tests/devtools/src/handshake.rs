//! Real TLS handshakes between peers that hold the files of one moment or another.

use std::sync::Arc;

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The pipe between two peers, in bytes; a handshake is about 3 KB.
const PIPE: usize = 16 * 1024;

/// The files of a mounted Secret, as a process that read them at one moment holds them.
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
    /// Those that both peers finished.
    pub succeeded: usize,
    /// All.
    pub tried: usize,
}

impl Tally {
    /// Whether all succeeded, of at least one.
    pub fn all(self) -> bool {
        self.tried > 0 && self.succeeded == self.tried
    }

    /// Whether none succeeded, of at least one.
    pub fn none(self) -> bool {
        self.tried > 0 && self.succeeded == 0
    }
}

/// Lets each of `verifiers` check the certificate of each of `presenters`, once as a TLS client
/// and once as a server that demands client certificates (the two halves of mTLS).
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

/// The server's own certificate is checked against its own CA, so that only the client's counts.
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

/// Whether client and server finished; in TLS 1.3 a client does before its certificate is checked.
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

    /// Files that no peer could start with are no refused handshake: the demo itself is wrong.
    fn unusable(&self) -> String {
        format!("the files of {} cannot be used", self.name)
    }
}

#[cfg(test)]
mod tests {
    use crate::certs::{self, Identity};

    use super::*;

    /// A peer whose leaf is by the first of `cas` and who trusts all of them.
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
    async fn trust_decides_in_both_roles() {
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
