//! Real TLS 1.3 handshakes in memory: bytes are copied from one connection to the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, ConnectionCommon, RootCertStore, ServerConfig,
    ServerConnection, SideData, WantsVerifier,
};

use crate::tools::error::ToolError;

/// The PEM files of a mounted Secret, and the DNS name in its leaf.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct PeerFiles {
    pub(super) name: String,
    pub(super) ca: Vec<u8>,
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
}

/// Identifies the files that a peer has read. Equal files have the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FilesId(usize);

/// A handshake that failed for another reason than trust: a bug in the simulation.
#[derive(Debug, thiserror::Error)]
#[error("a handshake with {name} failed, and not because of trust: {source}")]
pub(super) struct HandshakeError {
    name: String,
    source: rustls::Error,
}

impl From<HandshakeError> for ToolError {
    fn from(error: HandshakeError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The TLS configurations of all peers: a client and two servers for each set of files, built once.
pub(super) struct Tls {
    clock: Arc<Clock>,
    provider: Arc<CryptoProvider>,
    ids: HashMap<PeerFiles, FilesId>,
    configs: Vec<TlsConfigs>,
    /// The result of the first handshake between two sets of files.
    known: HashMap<(FilesId, FilesId, Authentication), bool>,
}

/// Which sides show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Authentication {
    /// Both sides.
    Mutual,
    /// The server only.
    OneWay,
}

struct TlsConfigs {
    name: String,
    server_name: ServerName<'static>,
    client: Arc<ClientConfig>,
    /// Requires client certificates.
    mutual: Arc<ServerConfig>,
    /// Requests no client certificate.
    one_way: Arc<ServerConfig>,
}

/// The virtual clock against which certificates are checked.
#[derive(Debug, Default)]
struct Clock(AtomicU64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = self.0.load(Ordering::Relaxed);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

impl Tls {
    pub(super) fn new() -> Self {
        // A handshake spends its time on key exchange and signatures. The signatures matter here,
        // so the key exchange is the cheapest one.
        let provider = CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            ..aws_lc_rs::default_provider()
        };
        Self {
            clock: Arc::default(),
            provider: Arc::new(provider),
            ids: HashMap::new(),
            configs: Vec::new(),
            known: HashMap::new(),
        }
    }

    /// Sets the time, in seconds since the Unix epoch.
    pub(super) fn set_time(&self, seconds: u64) {
        self.clock.0.store(seconds, Ordering::Relaxed);
    }

    /// Builds the TLS configurations for these files, as a process does at its start.
    pub(super) fn read(&mut self, files: PeerFiles) -> Result<FilesId, HandshakeError> {
        if let Some(id) = self.ids.get(&files) {
            return Ok(*id);
        }
        let error = |source| HandshakeError { name: files.name.clone(), source };
        self.configs.push(self.tls_configs(&files).map_err(error)?);
        let id = FilesId(self.configs.len() - 1);
        self.ids.insert(files, id);
        Ok(id)
    }

    /// Whether two peers with these files can connect. Does one handshake and remembers the result.
    pub(super) fn connects(
        &mut self,
        client: FilesId,
        server: FilesId,
        authentication: Authentication,
    ) -> Result<bool, HandshakeError> {
        if let Some(known) = self.known.get(&(client, server, authentication)) {
            return Ok(*known);
        }
        let connects = self.handshake(client, server, authentication)?;
        self.known.insert((client, server, authentication), connects);
        Ok(connects)
    }

    /// Does a handshake. Returns `false` if either side rejects the other's certificate.
    pub(super) fn handshake(
        &self,
        client: FilesId,
        server: FilesId,
        authentication: Authentication,
    ) -> Result<bool, HandshakeError> {
        let [client, server] = [client, server].map(|id| &self.configs[id.0]);
        match handshake(client, server, authentication) {
            Ok(()) => Ok(true),
            Err(rustls::Error::InvalidCertificate(_)) => Ok(false),
            Err(source) => Err(HandshakeError { name: server.name.clone(), source }),
        }
    }

    fn tls_configs(&self, files: &PeerFiles) -> Result<TlsConfigs, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.ca)? {
            roots.add(certificate)?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|_| unreadable())?;
        let (provider, clock) = (Arc::clone(&self.provider), Arc::clone(&self.clock) as _);
        let mut client = ClientConfig::builder_with_details(provider, clock)
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(chain.clone(), key.clone_key())?;
        // A resumed session shows no certificate.
        client.resumption = Resumption::disabled();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&self.provider)).build();
        let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
        let mutual = self.server()?.with_client_cert_verifier(verifier);
        let one_way = self.server()?.with_no_client_auth();
        let mut mutual = mutual.with_single_cert(chain.clone(), key.clone_key())?;
        let mut one_way = one_way.with_single_cert(chain, key)?;
        (mutual.send_tls13_tickets, one_way.send_tls13_tickets) = (0, 0);
        let server_name = ServerName::try_from(files.name.clone())
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(TlsConfigs {
            name: files.name.clone(),
            server_name,
            client: Arc::new(client),
            mutual: Arc::new(mutual),
            one_way: Arc::new(one_way),
        })
    }

    fn server(&self) -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, rustls::Error> {
        let (provider, clock) = (Arc::clone(&self.provider), Arc::clone(&self.clock) as _);
        ServerConfig::builder_with_details(provider, clock).with_protocol_versions(&[&TLS13])
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, rustls::Error> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| unreadable())
}

fn unreadable() -> rustls::Error {
    rustls::Error::General("unreadable PEM".to_owned())
}

/// Runs a handshake until neither side has anything to send. The end of the client's handshake is
/// not enough: in TLS 1.3 the server checks the client's certificate after it.
fn handshake(
    client: &TlsConfigs,
    server: &TlsConfigs,
    authentication: Authentication,
) -> Result<(), rustls::Error> {
    let config = match authentication {
        Authentication::Mutual => &server.mutual,
        Authentication::OneWay => &server.one_way,
    };
    let mut near = ClientConnection::new(Arc::clone(&client.client), server.server_name.clone())?;
    let mut far = ServerConnection::new(Arc::clone(config))?;
    let mut wire = Vec::new();
    loop {
        let there = pass(&mut near, &mut far, &mut wire)?;
        let back = pass(&mut far, &mut near, &mut wire)?;
        if !there && !back {
            let is_done = !near.is_handshaking() && !far.is_handshaking();
            return if is_done { Ok(()) } else { Err(rustls::Error::HandshakeNotComplete) };
        }
    }
}

/// Copies the bytes of one side to the other and processes them. Returns `false` if there are none.
fn pass<A: SideData, B: SideData>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
    wire: &mut Vec<u8>,
) -> Result<bool, rustls::Error> {
    let io = |error: std::io::Error| rustls::Error::General(error.to_string());
    wire.clear();
    while from.wants_write() {
        from.write_tls(wire).map_err(io)?;
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).map_err(io)?;
        to.process_new_packets()?;
    }
    Ok(!wire.is_empty())
}

#[cfg(test)]
mod tests {
    use base64::prelude::*;
    use serde_json::Value;

    use super::super::generator::{dns_name, generation};
    use super::*;

    fn files(secret: usize, own: &Value, trusted: &[&Value]) -> PeerFiles {
        let bytes =
            |from: &Value, key: &str| BASE64_STANDARD.decode(from[key].as_str().unwrap()).unwrap();
        PeerFiles {
            name: dns_name(secret),
            ca: trusted.iter().flat_map(|from| bytes(from, "ca.crt")).collect(),
            certificate: bytes(own, "tls.crt"),
            key: bytes(own, "tls.key"),
        }
    }

    #[test]
    fn each_side_decides_by_its_own_ca_crt() {
        let (old, new) = (generation(2).unwrap(), generation(2).unwrap());
        let mut tls = Tls::new();
        tls.set_time(1_767_225_600);
        let before = tls.read(files(0, &old[0], &[&old[0]])).unwrap();
        let after = tls.read(files(1, &new[1], &[&new[1]])).unwrap();
        let bundled = tls.read(files(1, &new[1], &[&new[1], &old[1]])).unwrap();
        let held = tls.read(files(1, &old[1], &[&new[1], &old[1]])).unwrap();
        assert_eq!(tls.read(files(1, &old[1], &[&new[1], &old[1]])).unwrap(), held);
        for (client, server, mutual, one_way) in [
            (before, before, true, true),
            (before, after, false, false),
            (after, before, false, false),
            (after, bundled, true, true),
            (before, bundled, false, false),
            (bundled, before, false, true),
            (held, before, true, true),
            (held, bundled, true, true),
            (bundled, held, true, true),
        ] {
            for (authentication, connects) in
                [(Authentication::Mutual, mutual), (Authentication::OneWay, one_way)]
            {
                let what = format!("{client:?} {server:?} {authentication:?}");
                assert_eq!(
                    tls.connects(client, server, authentication).unwrap(),
                    connects,
                    "{what}"
                );
                assert_eq!(
                    tls.handshake(client, server, authentication).unwrap(),
                    connects,
                    "{what}"
                );
            }
        }
    }

    #[test]
    fn certificates_are_checked_against_the_virtual_clock() {
        let generation = generation(1).unwrap();
        let mut tls = Tls::new();
        let peer = tls.read(files(0, &generation[0], &[&generation[0]])).unwrap();
        for (year, seconds, valid) in [
            (2019, 1_546_300_800, false),
            (2026, 1_767_225_600, true),
            (2055, 2_682_288_000, false),
        ] {
            tls.set_time(seconds);
            assert_eq!(tls.handshake(peer, peer, Authentication::Mutual).unwrap(), valid, "{year}");
        }
    }
}
