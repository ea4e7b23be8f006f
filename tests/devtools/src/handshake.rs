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
#[derive(Clone, PartialEq, Eq)]
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

/// Which peers show a certificate.
#[derive(Clone, Copy, Debug)]
pub enum Tls {
    /// The client and the server.
    Mutual,
    /// Only the server.
    OneWay,
}

/// How many of a number of handshakes succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many both peers finished.
    pub succeeded: usize,
    /// How many were tried.
    pub tried: usize,
}

impl Tally {
    /// Whether all succeeded, and there was at least one.
    pub fn all(self) -> bool {
        self.tried > 0 && self.succeeded == self.tried
    }
}

/// Makes a handshake of each of `clients` with each of `servers`.
pub async fn meet(tls: Tls, clients: &[Files], servers: &[Files]) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for client in clients {
        for server in servers {
            tally.tried += 1;
            tally.succeeded += usize::from(shake(tls, client, server).await?);
        }
    }
    Ok(tally)
}

/// Whether both peers finish the handshake. In TLS 1.3 a client finishes before the server checks
/// its certificate.
async fn shake(tls: Tls, client: &Files, server: &Files) -> anyhow::Result<bool> {
    let acceptor = ServerConfig::builder();
    let connector = ClientConfig::builder().with_root_certificates(client.roots()?);
    let (acceptor, connector) = match tls {
        Tls::Mutual => {
            let demand = WebPkiClientVerifier::builder(Arc::new(server.roots()?)).build();
            let demand = demand.with_context(|| server.unusable())?;
            let (chain, key) = client.pair()?;
            let connector = connector.with_client_auth_cert(chain, key);
            let connector = connector.with_context(|| client.unusable())?;
            (acceptor.with_client_cert_verifier(demand), connector)
        }
        Tls::OneWay => (acceptor.with_no_client_auth(), connector.with_no_client_auth()),
    };
    let (chain, key) = server.pair()?;
    let acceptor = acceptor.with_single_cert(chain, key).with_context(|| server.unusable())?;
    let name = ServerName::try_from(server.name.clone()).with_context(|| server.unusable())?;
    let (near, far) = tokio::io::duplex(PIPE);
    let (near, far) = tokio::join!(
        TlsConnector::from(Arc::new(connector)).connect(name, near),
        TlsAcceptor::from(Arc::new(acceptor)).accept(far),
    );
    Ok(near.is_ok() && far.is_ok())
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
    use std::slice;

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
    async fn a_handshake_succeeds_if_each_peer_trusts_what_the_other_shows() {
        let (old, new) = (certs::ca(), certs::ca());
        let before = peer("a", &[&old]);
        let after = peer("b", &[&new, &old]);
        let bare = peer("c", &[&new]);
        let succeeds = async |tls, client: &Files, server: &Files| {
            meet(tls, slice::from_ref(client), slice::from_ref(server)).await.unwrap().all()
        };
        assert!(succeeds(Tls::OneWay, &after, &before).await);
        assert!(!succeeds(Tls::OneWay, &before, &after).await);
        assert!(!succeeds(Tls::Mutual, &after, &before).await, "the server refuses the client");
        assert!(!succeeds(Tls::Mutual, &before, &after).await, "the client rejects the server");
        assert!(!succeeds(Tls::OneWay, &bare, &before).await);
        assert!(succeeds(Tls::Mutual, &bare, &after).await);
        assert!(succeeds(Tls::Mutual, &after, &bare).await);
    }
}
