//! A server on a free port, and a client that speaks HTTP/1.1 byte by byte.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use http::StatusCode;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use ca_overlap::metrics;
use ca_overlap::server::accept::{Limits, Server, Transport, bind};
use ca_overlap::server::drain::Drain;
use ca_overlap::server::metrics::ServerMetrics;
use ca_overlap::server::tls::{self, Published, Publisher, ServingCert};

use devtools::certs::{self, Identity};

/// Limits that a test reaches only on purpose.
pub(crate) const GENEROUS: Limits = Limits {
    max_connections: 64,
    body_memory: 64 << 20,
    max_body: 8 << 20,
    handshake_timeout: HOUR,
    request_timeout: HOUR,
    idle_timeout: HOUR,
};
const HOUR: Duration = Duration::from_secs(3600);

/// A timeout that a test waits for.
pub(crate) const SHORT: Duration = Duration::from_millis(50);

/// Connects to a server whose certificate names its address.
pub(crate) async fn connect(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> std::io::Result<Client<TlsStream<TcpStream>>> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::from(address.ip());
    Ok(Client(TlsConnector::from(config.clone()).connect(name, tcp).await?))
}

/// Connects from 127.0.0.`peer`.
pub(crate) async fn dial_from(peer: u8, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, peer], 0).into()).unwrap();
    socket.connect(address).await.unwrap()
}

/// A TLS server with its own CA. It stops when dropped.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) ca: Identity,
    pub(crate) publisher: Publisher,
    pub(crate) published: Published,
    pub(crate) drain: Drain,
    registry: Registry,
    task: JoinHandle<std::convert::Infallible>,
}

impl TestServer {
    /// Starts it with a leaf.
    pub(crate) async fn start(limits: Limits) -> Self {
        let server = Self::without_certificate(limits).await;
        server.rotate();
        server
    }

    pub(crate) async fn without_certificate(limits: Limits) -> Self {
        let (sender, published) = tls::channel();
        let (drain, mut registry) = (Drain::default(), metrics::registry());
        let listener = bind("--listen", ([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server {
            transport: Transport::Tls(published.clone()),
            router: router(),
            limits,
            drain: drain.clone(),
            metrics: ServerMetrics::register(&mut registry),
        };
        let task = tokio::spawn(server.run(listener));
        Self {
            address,
            ca: certs::ca_named("server CA"),
            publisher: sender,
            published,
            drain,
            registry,
            task,
        }
    }

    /// Publishes a new leaf of the same CA.
    pub(crate) fn rotate(&self) -> Identity {
        self.publish(None)
    }

    /// Publishes a new leaf, and asks clients for certificates of these CAs.
    pub(crate) fn publish(&self, client_cas: Option<&[CertificateDer<'static>]>) -> Identity {
        let leaf = self.ca.leaf("127.0.0.1");
        self.publisher.send_replace(Some(serving(&leaf, client_cas)));
        leaf
    }

    pub(crate) async fn connect(
        &self,
        config: ClientConfig,
    ) -> std::io::Result<Client<TlsStream<TcpStream>>> {
        self.connect_with(&Arc::new(config)).await
    }

    /// Connects with a configuration, and thus a session cache, that outlives the connection.
    pub(crate) async fn connect_with(
        &self,
        config: &Arc<ClientConfig>,
    ) -> std::io::Result<Client<TlsStream<TcpStream>>> {
        connect(self.address, config).await
    }

    /// Connects a client from 127.0.0.`peer`.
    pub(crate) async fn client_at(&self, peer: u8) -> Client<TlsStream<TcpStream>> {
        let tcp = dial_from(peer, self.address).await;
        let config = Arc::new(self.ca.client(rustls::ALL_VERSIONS));
        let name = ServerName::from(self.address.ip());
        Client(TlsConnector::from(config).connect(name, tcp).await.unwrap())
    }

    /// The value of a metric of the listener, whose prefix is `ca_overlap_`.
    pub(crate) fn count(&self, name: &str) -> usize {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let start = format!("ca_overlap_{name} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&start));
        value.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
    }

    /// Connects a client with all TLS versions.
    pub(crate) async fn client(&self) -> Client<TlsStream<TcpStream>> {
        self.connect(self.ca.client(rustls::ALL_VERSIONS)).await.unwrap()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The configuration of a server that shows `leaf`.
pub(crate) fn serving(
    leaf: &Identity,
    client_cas: Option<&[CertificateDer<'static>]>,
) -> Arc<ServingCert> {
    let chain = vec![leaf.der.clone()];
    Arc::new(ServingCert::new(chain, leaf.key_der(), client_cas).unwrap())
}

/// The routes of the server.
fn router() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/never", get(std::future::pending::<()>))
        .route("/large", get(|| async { vec![b'x'; 16 << 20] }))
        .route("/much", post(|_: Bytes| async { vec![b'x'; 16 << 20] }))
        .route("/panic", get(|| async { broken() }))
        .route("/echo", post(|body: Bytes| async move { body }))
        .route("/refuse", post(|| async { StatusCode::PAYLOAD_TOO_LARGE }))
}

/// A handler that panics.
fn broken() -> &'static str {
    std::panic::panic_any("what a request holds")
}

/// One connection.
pub(crate) struct Client<S>(pub(crate) S);

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The status line and the headers in lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn asks_to_close(&self) -> bool {
        self.head.contains("\r\nconnection: close\r\n")
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) async fn get(&mut self, path: &str) -> std::io::Result<Answer> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await?;
        self.answer().await
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    pub(crate) async fn answer(&mut self) -> std::io::Result<Answer> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head
            .split_once("\r\ncontent-length: ")
            .map_or(0, |(_, rest)| rest.split("\r\n").next().unwrap().parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        Ok(Answer { status, head, body })
    }

    /// Waits until the server closes the connection. Fails if it sends anything before.
    pub(crate) async fn closed(&mut self) {
        let mut rest = Vec::new();
        // A reset also closes the connection.
        drop(within(self.0.read_to_end(&mut rest)).await);
        assert!(rest.is_empty(), "the server sent {} bytes before it closed", rest.len());
    }
}

/// Waits until this holds. Fails after a minute.
pub(crate) async fn until(holds: impl Fn() -> bool) {
    within(async {
        while !holds() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Fails if this takes longer than a minute.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it hangs")
}
