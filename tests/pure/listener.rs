//! The listener over real sockets: HTTP/1.1 over TLS, limits, rotation and drain.

mod crowds;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::Resumption;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::support::server::{Client, GENEROUS, SHORT, TestServer, serving, within};
use ca_overlap::metrics;
use ca_overlap::server::accept::{Limits, Server, Transport, bind};
use ca_overlap::server::admin::{self, Admin, Ready as _, WebhookReadiness};
use ca_overlap::server::metrics::ServerMetrics;
use devtools::certs::{self, Identity, LEAF, Spec};

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let server = TestServer::start(GENEROUS).await;
    let mut client = server.client().await;
    for n in 0..10 {
        let answer = client.get("/").await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]), "request {n}");
        assert!(!answer.asks_to_close());
    }
    let post = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    client.send(post).await.unwrap();
    assert_eq!(client.answer().await.unwrap().body, b"abc");
    assert_eq!(server.drain.connections(), 1);
}

#[tokio::test]
async fn http_1_is_negotiated_whatever_else_is_offered() {
    let server = TestServer::start(GENEROUS).await;
    for (offered, agreed) in [
        (&[][..], None),
        (&["http/1.1"], Some(&b"http/1.1"[..])),
        (&["h2", "http/1.1"], Some(b"http/1.1")),
    ] {
        let mut client = server.connect(offering(&server, offered)).await.unwrap();
        assert_eq!(client.0.get_ref().1.alpn_protocol(), agreed, "{offered:?}");
        assert_eq!(client.get("/").await.unwrap().status, 200, "{offered:?}");
    }
    let refused = server.connect(offering(&server, &["h2"])).await.err().unwrap();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    assert_eq!(server.client().await.get("/").await.unwrap().status, 200);
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_served() {
    let server = TestServer::start(GENEROUS).await;
    for version in [&TLS12, &TLS13] {
        let mut client = server.connect(server.ca.client(&[version])).await.unwrap();
        assert_eq!(client.0.get_ref().1.protocol_version(), Some(version.version));
        assert_eq!(client.get("/").await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_stalled_handshake_is_closed() {
    let server = TestServer::start(Limits { handshake_timeout: SHORT, ..GENEROUS }).await;
    let mut silent = Client(TcpStream::connect(server.address).await.unwrap());
    silent.closed().await;
    let mut trickling = Client(TcpStream::connect(server.address).await.unwrap());
    // The beginning of a TLS record that never ends.
    trickling.send(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
    trickling.closed().await;
}

#[tokio::test]
async fn a_slow_first_request_is_closed_and_a_silent_connection_is_kept() {
    let server = TestServer::start(Limits { request_timeout: SHORT, ..GENEROUS }).await;
    // If an idle connection of a client's pool were closed, the client's next call would fail.
    let mut ahead = server.client().await;
    let mut trickling = server.client().await;
    trickling.send(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    trickling.closed().await;
    assert_eq!(ahead.get("/").await.unwrap().status, 200);
    // The timer of the first request ends with it, so a later pause closes nothing.
    let mut another = server.client().await;
    another.send(b"GET").await.unwrap();
    another.closed().await;
    assert_eq!(ahead.get("/").await.unwrap().status, 200);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = TestServer::start(Limits { idle_timeout: SHORT, ..GENEROUS }).await;
    let mut silent = server.client().await;
    silent.closed().await;
    let mut used = server.client().await;
    assert_eq!(used.get("/").await.unwrap().status, 200);
    used.closed().await;
}

#[tokio::test]
async fn connections_beyond_the_cap_wait() {
    let server = Arc::new(TestServer::start(Limits { max_connections: 1, ..GENEROUS }).await);
    let mut first = server.client().await;
    assert_eq!(first.get("/").await.unwrap().status, 200);
    let waiting = tokio::spawn({
        let server = server.clone();
        async move { server.client().await.get("/").await.unwrap().status }
    });
    for _ in 0..10 {
        assert_eq!(first.get("/").await.unwrap().status, 200);
        assert_eq!(server.drain.connections(), 1);
    }
    assert!(!waiting.is_finished());
    drop(first);
    assert_eq!(within(waiting).await.unwrap(), 200);
}

#[tokio::test]
async fn silent_connections_make_room_for_a_client_that_sends_a_request() {
    let limits = Limits { max_connections: 4, request_timeout: SHORT, ..GENEROUS };
    let server = TestServer::start(limits).await;
    let mut busy = server.client().await;
    assert_eq!(busy.get("/").await.unwrap().status, 200);
    // Some begin no handshake, and some complete it and send nothing.
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    let mut quiet = Vec::new();
    for _ in 0..8 {
        quiet.push(within(server.client()).await);
        assert_eq!(
            busy.get("/").await.unwrap().status,
            200,
            "a client that has sent a request keeps its connection"
        );
    }
    assert_eq!(within(server.client()).await.get("/").await.unwrap().status, 200);
    assert!(server.drain.connections() <= 4);
    quiet[0].closed().await;
}

#[tokio::test]
async fn without_a_certificate_clients_wait_for_one() {
    let server = Arc::new(TestServer::without_certificate(GENEROUS).await);
    let waiting = tokio::spawn({
        let server = server.clone();
        async move { server.client().await.get("/").await.unwrap().status }
    });
    // The kernel has accepted this connection, so the server could take it.
    drop(TcpStream::connect(server.address).await.unwrap());
    assert_eq!(server.drain.connections(), 0);
    server.rotate();
    assert_eq!(within(waiting).await.unwrap(), 200);
}

#[tokio::test]
async fn live_connections_are_asked_to_close_after_a_rotation() {
    let server = TestServer::start(GENEROUS).await;
    let mut before = server.client().await;
    let mut unused = server.client().await;
    assert!(!before.get("/").await.unwrap().asks_to_close());
    let leaf = server.rotate();
    for client in [&mut before, &mut unused] {
        let answer = client.get("/").await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.asks_to_close());
        client.closed().await;
    }
    let mut after = server.client().await;
    assert_eq!(after.0.get_ref().1.peer_certificates().unwrap(), [leaf.der]);
    assert!(!after.get("/").await.unwrap().asks_to_close());
}

#[tokio::test]
async fn sessions_resume_until_the_certificate_changes() {
    for version in [&TLS12, &TLS13] {
        let server = TestServer::start(GENEROUS).await;
        let mut config = server.ca.client(&[version]);
        config.resumption = Resumption::in_memory_sessions(8);
        let config = Arc::new(config);
        let kind = async || {
            let mut client = server.connect_with(&config).await.unwrap();
            // Tickets come with the first answer.
            assert_eq!(client.get("/").await.unwrap().status, 200);
            client.0.get_ref().1.handshake_kind().unwrap()
        };
        assert_eq!(kind().await, HandshakeKind::Full);
        assert_eq!(kind().await, HandshakeKind::Resumed, "{version:?}");
        server.rotate();
        assert_eq!(kind().await, HandshakeKind::Full, "{version:?}: a session outlived it");
        assert_eq!(kind().await, HandshakeKind::Resumed, "{version:?}");
    }
}

#[tokio::test]
async fn every_handshake_requires_a_client_certificate() {
    let server = TestServer::without_certificate(GENEROUS).await;
    let (ours, theirs) = (certs::ca_named("client CA"), certs::ca_named("another CA"));
    server.publish(Some(std::slice::from_ref(&ours.der)));
    for version in [&TLS12, &TLS13] {
        let mut good = showing(&server, &ours.leaf("127.0.0.1"), version);
        good.resumption = Resumption::in_memory_sessions(8);
        let good = Arc::new(good);
        for _ in 0..3 {
            let mut client = server.connect_with(&good).await.unwrap();
            assert_eq!(client.get("/").await.unwrap().status, 200);
            assert_eq!(client.0.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        }
        for refused in
            [server.ca.client(&[version]), showing(&server, &theirs.leaf("127.0.0.1"), version)]
        {
            // TLS 1.3 tells the client only after its own handshake is complete.
            let answer = async { server.connect(refused).await?.get("/").await };
            assert!(within(answer).await.is_err(), "{version:?}");
        }
        server.publish(Some(std::slice::from_ref(&theirs.der)));
        let answer = async { server.connect_with(&good).await?.get("/").await };
        assert!(within(answer).await.is_err(), "{version:?}: the client CA has changed");
        server.publish(Some(std::slice::from_ref(&ours.der)));
    }
}

#[tokio::test]
async fn a_panic_fails_only_its_own_request() {
    let server = TestServer::start(GENEROUS).await;
    let mut client = server.client().await;
    assert_eq!(client.get("/panic").await.unwrap().status, 500);
    assert_eq!(client.get("/").await.unwrap().status, 200);
}

#[tokio::test]
async fn an_answer_arrives_even_if_the_body_is_not_read() {
    let server = TestServer::start(GENEROUS).await;
    let mut client = server.client().await;
    let body = vec![b'x'; 7 << 20];
    let head =
        format!("POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    client.send(head.as_bytes()).await.unwrap();
    // The server may stop reading, so a write error does not matter.
    drop(within(client.send(&body)).await);
    assert_eq!(within(client.answer()).await.unwrap().status, 413);
}

#[tokio::test]
async fn a_draining_server_accepts_connections_and_asks_clients_to_close() {
    let server = TestServer::start(GENEROUS).await;
    let mut before = server.client().await;
    server.drain.start();
    let mut late = server.client().await;
    assert_eq!(server.drain.connections(), 2);
    let ending = tokio::spawn({
        let drain = server.drain.clone();
        async move { drain.finished(Duration::ZERO, Duration::from_secs(3600)).await }
    });
    for client in [&mut before, &mut late] {
        assert!(!ending.is_finished());
        let answer = client.get("/").await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.asks_to_close());
        client.closed().await;
    }
    drop((before, late));
    assert_eq!(within(ending).await.unwrap(), 0);
}

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let server = TestServer::without_certificate(GENEROUS).await;
    let (trusted, receiver) = watch::channel(false);
    let readiness = WebhookReadiness {
        address: server.address,
        published: server.published.clone(),
        trusted: Some(receiver),
        drain: server.drain.clone(),
    };
    let ports = admin_port(readiness, &server).await;
    let ready = async || {
        let answer = Client(TcpStream::connect(ports).await.unwrap()).get("/readyz").await.unwrap();
        (answer.status, String::from_utf8(answer.body).unwrap())
    };
    let unready = |(status, body): (u16, String), reason: &str| {
        assert_eq!(status, 503, "{body}");
        assert!(body.contains(reason), "{body}");
    };
    unready(ready().await, "no serving certificate");
    let expired = Spec { not_after: (2021, 1, 1), ..LEAF }.signed_by(&server.ca);
    server.publisher.send_replace(Some(serving(&expired, None)));
    unready(ready().await, "not valid now");
    server.rotate();
    unready(ready().await, "caBundle");
    trusted.send_replace(true);
    assert_eq!(ready().await, (200, "ok\n".to_owned()));
    server.drain.start();
    unready(ready().await, "draining");
    let mut admin = Client(TcpStream::connect(ports).await.unwrap());
    assert_eq!(admin.get("/livez").await.unwrap().status, 200);
}

#[tokio::test]
async fn readiness_requires_a_handshake_with_the_real_port() {
    let server = TestServer::start(GENEROUS).await;
    let other = TestServer::start(GENEROUS).await;
    let mut readiness = WebhookReadiness {
        address: server.address,
        published: server.published.clone(),
        trusted: None,
        drain: server.drain.clone(),
    };
    assert_eq!(readiness.missing(Timestamp::now()).await, None);
    readiness.address = other.address;
    let missing = readiness.missing(Timestamp::now()).await;
    assert!(missing.is_some_and(|m| m.contains("does not answer")), "{missing:?}");
}

#[tokio::test]
async fn metrics_are_open_metrics_text() {
    let server = TestServer::start(GENEROUS).await;
    let readiness = WebhookReadiness {
        address: server.address,
        published: server.published.clone(),
        trusted: None,
        drain: server.drain.clone(),
    };
    let port = admin_port(readiness, &server).await;
    let answer = Client(TcpStream::connect(port).await.unwrap()).get("/metrics").await.unwrap();
    assert!(answer.head.contains("content-type: application/openmetrics-text"), "{}", answer.head);
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.contains("ca_overlap_connections 0") && text.ends_with("# EOF\n"), "{text}");
}

/// An admin listener on a free port; its task ends with the test's runtime.
async fn admin_port(readiness: WebhookReadiness, server: &TestServer) -> std::net::SocketAddr {
    let mut registry = metrics::registry();
    ServerMetrics::register(&mut registry);
    let server = Server {
        transport: Transport::Plain,
        router: admin::router(Admin { readiness, registry }),
        limits: GENEROUS,
        drain: server.drain.without_waiting(),
        metrics: ServerMetrics::default(),
    };
    let listener = bind("--admin-listen", ([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server.run(listener));
    address
}

fn offering(server: &TestServer, protocols: &[&str]) -> ClientConfig {
    let mut config = server.ca.client(rustls::ALL_VERSIONS);
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    config
}

fn showing(
    server: &TestServer,
    pair: &Identity,
    version: &'static rustls::SupportedProtocolVersion,
) -> ClientConfig {
    ClientConfig::builder_with_provider(ca_overlap::server::tls::provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(server.ca.roots())
        .with_client_auth_cert(vec![pair.der.clone()], pair.key_der())
        .unwrap()
}
