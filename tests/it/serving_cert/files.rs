//! The program with mounted certificate files that are replaced, and clients that resume sessions.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use devtools::control_plane::{Scratch, Supervised};
use rustls::client::Resumption;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::setup::wait_for;
use crate::server::{Client, connect, within};
use devtools::certs::{self, Identity};

#[tokio::test]
async fn no_ticket_outlives_the_mounted_certificate() {
    let ca = certs::ca_named("ca");
    let (one, two) = (ca.leaf("127.0.0.1"), ca.leaf("127.0.0.1"));
    let mut program = Program::start(&one, &[]).await;
    let clients = [&TLS12, &TLS13].map(|version| resuming(ca.client(&[version])));
    for client in &clients {
        assert_eq!(program.handshake(client).await.unwrap().0, HandshakeKind::Full);
        assert_eq!(program.handshake(client).await.unwrap().0, HandshakeKind::Resumed);
    }
    let mut open = program.connect(&resuming(ca.client(&[&TLS13]))).await.unwrap();
    assert!(!open.get("/").await.unwrap().asks_to_close());

    program.swap("..2", &two, None);
    // Only the signal makes it read the files: the interval is an hour.
    program.process.signal("HUP");
    wait_for("the new certificate", async || {
        let (_, leaf) = program.handshake(&resuming(ca.client(&[&TLS13]))).await.ok()?;
        (leaf == two.der).then_some(())
    })
    .await;
    let last = open.get("/").await.unwrap();
    assert!(last.status == 404 && last.asks_to_close(), "{}", last.head);
    open.closed().await;
    for client in &clients {
        let after = program.handshake(client).await.unwrap();
        assert_eq!(after, (HandshakeKind::Full, two.der.clone()));
        assert_eq!(program.handshake(client).await.unwrap().0, HandshakeKind::Resumed);
    }
}

#[tokio::test]
async fn no_session_outlives_the_client_ca() {
    let (ca, ours, theirs) =
        (certs::ca_named("ca"), certs::ca_named("clients"), certs::ca_named("other clients"));
    let (one, shown) = (ca.leaf("127.0.0.1"), ours.leaf("127.0.0.1"));
    let mut program = Program::start(&one, &[("ca.crt", &ours.pem)]).await;
    let clients = [&TLS12, &TLS13].map(|version| {
        let config = ClientConfig::builder_with_provider(ca_overlap::server::tls::provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(ca.roots())
            .with_client_auth_cert(vec![shown.der.clone()], shown.key_der());
        resuming(config.unwrap())
    });
    for client in &clients {
        for _ in 0..3 {
            assert_eq!(program.handshake(client).await.unwrap().0, HandshakeKind::Full);
        }
    }
    let mut open = program.connect(&clients[1]).await.unwrap();
    assert_eq!(open.get("/").await.unwrap().status, 404);
    program.swap("..2", &one, Some(&theirs.pem));
    program.process.signal("HUP");
    wait_for("a refused client", async || program.handshake(&clients[1]).await.err()).await;
    assert!(program.handshake(&clients[0]).await.is_err());
    // An open connection gets one more answer, which asks the client to reconnect.
    assert!(open.get("/").await.unwrap().asks_to_close());
}

/// The program with `tls.crt` and `tls.key` in a directory as the kubelet mounts it.
struct Program {
    address: SocketAddr,
    process: Supervised,
    scratch: Scratch,
}

impl Program {
    async fn start(pair: &Identity, more: &[(&str, &str)]) -> Self {
        let scratch = Scratch::create().unwrap();
        write(scratch.path(), "..1", pair, more.first().map(|(_, ca)| *ca));
        for file in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(Path::new("..data").join(file), scratch.path().join(file)).unwrap();
        }
        let mut arguments = vec!["webhook", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"];
        arguments.extend(["--tls-cert=tls.crt", "--tls-key=tls.key", "--tls-reload-interval=1h"]);
        if !more.is_empty() {
            arguments.push("--client-ca=ca.crt");
        }
        let log = scratch.path().join("log");
        let program = &crate::support::binary::path();
        let environment = [("NO_COLOR", std::ffi::OsStr::new("1"))];
        let mut process = Supervised::start(
            "webhook",
            program,
            arguments,
            &environment,
            scratch.path(),
            log.clone(),
        )
        .unwrap();
        let address = wait_for("the address in the log", async || {
            process.still_running().unwrap();
            let log = fs::read_to_string(&log).ok()?;
            let (_, rest) = log.split_once("webhook=")?;
            rest.split_whitespace().next()?.parse().ok()
        })
        .await;
        Self { address, process, scratch }
    }

    fn swap(&self, version: &str, pair: &Identity, client_ca: Option<&str>) {
        write(self.scratch.path(), version, pair, client_ca);
    }

    async fn connect(
        &self,
        config: &Arc<ClientConfig>,
    ) -> std::io::Result<Client<TlsStream<TcpStream>>> {
        connect(self.address, config).await
    }

    /// Connects, and returns the kind of the handshake and the server's certificate. It reads an
    /// answer, because in TLS 1.3 tickets and refusals arrive with it.
    async fn handshake(
        &self,
        config: &Arc<ClientConfig>,
    ) -> std::io::Result<(HandshakeKind, CertificateDer<'static>)> {
        within(async {
            let mut client = self.connect(config).await?;
            client.get("/").await?;
            let (_, tls) = client.0.get_ref();
            let leaf = tls.peer_certificates().unwrap()[0].clone().into_owned();
            Ok((tls.handshake_kind().unwrap(), leaf))
        })
        .await
    }
}

fn resuming(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.resumption = Resumption::in_memory_sessions(8);
    Arc::new(config)
}

/// Writes the files into a new directory, and renames `..data` to point at it.
fn write(mount: &Path, version: &str, pair: &Identity, client_ca: Option<&str>) {
    let directory = mount.join(version);
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("tls.crt"), &pair.pem).unwrap();
    fs::write(directory.join("tls.key"), &pair.key).unwrap();
    fs::write(directory.join("ca.crt"), client_ca.unwrap_or_default()).unwrap();
    symlink(version, mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
}
