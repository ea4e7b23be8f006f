//! The promise of staged mode, with real TLS: three Secrets rotate together, their peers reload the
//! files at different times, and no handshake between any two of them fails.
//!
//! A simulation in ticks. The writes go through the real decision, the handshakes are real, and the
//! keeper promotes when the slowest peer has had time to reload the trust.

use std::sync::{Arc, LazyLock};

use base64::prelude::*;
use ca_overlap::admission::respond::{Installation, respond};
use ca_overlap::admission::review;
use ca_overlap::overlap::settings::{Defaults, Mode};
use ca_overlap::overlap::staged::KeeperHealth;
use ca_overlap::x509::certs::Fingerprint;
use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use devtools::certs::{self, Identity};
use devtools::reviews;

/// How many Secrets rotate together, each with one peer that mounts it.
const GROUP: usize = 3;
/// The most ticks that a peer takes to reload a write, and that the keeper waits.
const SETTLE: usize = 6;
/// When each rotation begins.
const ROTATIONS: [usize; 2] = [1, 40];
/// When the history ends.
const END: usize = 80;

/// Three generations: each a CA, and a leaf for each Secret.
static GENERATIONS: LazyLock<Vec<(Identity, Vec<Identity>)>> = LazyLock::new(|| {
    let generation = || {
        let ca = certs::ca();
        let leaves = (0..GROUP).map(|_| ca.leaf("peer")).collect();
        (ca, leaves)
    };
    (0..=ROTATIONS.len()).map(|_| generation()).collect()
});

/// The object that the generator writes for a Secret of the group.
fn fresh(generation: usize, secret: usize) -> Value {
    let (ca, leaves) = &GENERATIONS[generation];
    json!({
        "metadata": {"name": "peer", "namespace": "n", "managedFields": [{}]},
        "data": {
            "ca.crt": BASE64_STANDARD.encode(&ca.pem),
            "tls.crt": BASE64_STANDARD.encode(&leaves[secret].pem),
            "tls.key": BASE64_STANDARD.encode(&leaves[secret].key),
        },
    })
}

/// A Secret, and the peer that mounts it.
struct Peer {
    secret: Value,
    /// The files that the peer has loaded.
    files: Value,
    /// The ticks at which it reloads.
    due: Vec<usize>,
}

struct Simulation {
    installation: Installation,
    peers: Vec<Peer>,
    /// The random numbers of delays and orders.
    numbers: std::vec::IntoIter<usize>,
    last_write: usize,
    promoting: bool,
    staged: usize,
    failures: Vec<String>,
}

impl Simulation {
    fn new(mode: Mode, numbers: Vec<usize>) -> Self {
        let defaults = Defaults { mode, ..Defaults::default() };
        let peers = (0..GROUP).map(|secret| {
            let secret = stored(fresh(0, secret));
            Peer { files: secret["data"].clone(), secret, due: Vec::new() }
        });
        Self {
            installation: Installation::new(defaults, "ca-overlap"),
            peers: peers.collect(),
            numbers: numbers.into_iter(),
            last_write: 0,
            promoting: false,
            staged: 0,
            failures: Vec::new(),
        }
    }

    /// A number below `limit`.
    fn draw(&mut self, limit: usize) -> usize {
        self.numbers.next().unwrap_or_default() % limit
    }

    async fn run(mut self) -> Self {
        let mut writes = Vec::new();
        for (generation, begin) in ROTATIONS.into_iter().enumerate() {
            for secret in 0..GROUP {
                writes.push((begin + self.draw(SETTLE), secret, generation + 1));
            }
        }
        for now in 0..END {
            for &(_, secret, generation) in writes.iter().filter(|(at, ..)| *at == now) {
                self.write(now, secret, fresh(generation, secret), "certgen");
                let marked = &self.peers[secret].secret["data"]["pending.tls.crt"];
                self.staged += usize::from(marked.is_string());
            }
            // The keeper knows the members of a group, and waits until all are written.
            let begun = ROTATIONS.iter().rfind(|begin| **begin <= now);
            let is_rotating = begun.is_some_and(|begin| {
                writes.iter().any(|(at, ..)| *at > now && *at < begin + SETTLE)
            });
            self.promote_when_settled(now, is_rotating);
            if self.reload(now) {
                self.all_shake_hands(now).await;
            }
        }
        self
    }

    fn write(&mut self, now: usize, secret: usize, object: Value, user: &str) {
        let review = reviews::update(&self.peers[secret].secret, &object, user);
        let body = serde_json::to_vec(&review).unwrap();
        let request = review::read(&body).ok().unwrap();
        let time = Timestamp::from_second(1_780_000_000 + i64::try_from(now).unwrap()).unwrap();
        let answer = respond(&request, &self.installation, KeeperHealth::Alive, time);
        let mut object = object;
        if let Some(patch) = &answer.patch {
            json_patch::patch(&mut object, patch).unwrap();
        }
        let delay = self.draw(SETTLE);
        let peer = &mut self.peers[secret];
        peer.secret = stored(object);
        peer.due.push(now + 1 + delay);
        self.last_write = now;
    }

    /// The keeper promotes the group, one Secret a tick in any order, once the slowest peer has had
    /// time to reload the last write.
    fn promote_when_settled(&mut self, now: usize, is_rotating: bool) {
        let waits = |peer: &Peer| peer.secret["data"]["pending.tls.crt"].is_string();
        let mut waiting: Vec<_> = (0..GROUP).filter(|s| waits(&self.peers[*s])).collect();
        let is_time = !is_rotating && now > self.last_write + SETTLE;
        self.promoting = !waiting.is_empty() && (self.promoting || is_time);
        if !self.promoting {
            return;
        }
        let secret = waiting.swap_remove(self.draw(waiting.len()));
        let mut object = self.peers[secret].secret.clone();
        let text = object["data"]["pending.tls.crt"].as_str().unwrap();
        let print = Fingerprint::of(&BASE64_STANDARD.decode(text).unwrap());
        object["metadata"]["annotations"]["ca-overlap.dev/ask"] = format!("promote {print}").into();
        self.write(now, secret, object, "system:serviceaccount:ca-overlap:ca-overlap-keeper");
    }

    /// Reloads the files that are due; says whether any have changed.
    fn reload(&mut self, now: usize) -> bool {
        let mut changed = false;
        for peer in &mut self.peers {
            if peer.due.contains(&now) {
                changed |= peer.files != peer.secret["data"];
                peer.files = peer.secret["data"].clone();
            }
        }
        changed
    }

    async fn all_shake_hands(&mut self, now: usize) {
        for client in 0..GROUP {
            for server in (0..GROUP).filter(|server| *server != client) {
                if !shake(&self.peers[client].files, &self.peers[server].files).await {
                    self.failures.push(format!("tick {now}: {client} and {server}"));
                }
            }
        }
    }
}

/// The object as the API server stores it.
fn stored(mut object: Value) -> Value {
    object["metadata"]["uid"] = "1".into();
    object
}

/// Mutual TLS between a client and a server with these files.
async fn shake(client: &Value, server: &Value) -> bool {
    let bytes =
        |files: &Value, key: &str| BASE64_STANDARD.decode(files[key].as_str().unwrap()).unwrap();
    let roots = |files: &Value| {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bytes(files, "ca.crt")) {
            roots.add(certificate.unwrap()).unwrap();
        }
        Arc::new(roots)
    };
    let pair = |files: &Value| {
        let chain = CertificateDer::pem_slice_iter(&bytes(files, "tls.crt"))
            .collect::<Result<Vec<_>, _>>()
            .unwrap();
        (chain, PrivateKeyDer::from_pem_slice(&bytes(files, "tls.key")).unwrap())
    };
    let demand = WebPkiClientVerifier::builder(roots(server)).build().unwrap();
    let (chain, key) = pair(server);
    let acceptor =
        ServerConfig::builder().with_client_cert_verifier(demand).with_single_cert(chain, key);
    let (chain, key) = pair(client);
    let connector = ClientConfig::builder()
        .with_root_certificates(roots(client))
        .with_client_auth_cert(chain, key);
    let (near, far) = tokio::io::duplex(16 * 1024);
    let (near, far) = tokio::join!(
        TlsConnector::from(Arc::new(connector.unwrap()))
            .connect(ServerName::try_from("peer").unwrap(), near),
        TlsAcceptor::from(Arc::new(acceptor.unwrap())).accept(far),
    );
    near.is_ok() && far.is_ok()
}

/// Runs a history.
fn simulate(mode: Mode, numbers: Vec<usize>) -> Simulation {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(Simulation::new(mode, numbers).run())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn with_staging_no_handshake_fails(numbers in vec(0..60_usize, 40)) {
        let simulation = simulate(Mode::Staged, numbers);
        prop_assert_eq!(simulation.failures, Vec::<String>::new());
        prop_assert_eq!(simulation.staged, GROUP * ROTATIONS.len(), "every rotation was staged");
        for (secret, peer) in simulation.peers.iter().enumerate() {
            let last = fresh(ROTATIONS.len(), secret);
            prop_assert_eq!(&peer.files["tls.crt"], &last["data"]["tls.crt"], "the stage has ended");
            prop_assert!(peer.files.get("pending.tls.key").is_none());
        }
    }
}

#[test]
fn without_staging_some_handshakes_fail() {
    // The negative control: the first peer reloads fast, the others slowly.
    let numbers = [vec![0; 2 * GROUP], vec![0, 5, 5]].concat();
    let simulation = simulate(Mode::Bundle, numbers.clone());
    assert!(!simulation.failures.is_empty());
    assert_eq!(simulate(Mode::Staged, numbers).failures, Vec::<String>::new());
}
