//! Wires the two servers, webhook and keeper, from their parts, and supervises them.

mod distrusted;
pub(crate) mod keeper;
mod lease_watch;
#[cfg(test)]
mod metrics_page;
mod open_files;
mod parts;
pub(crate) mod webhook;

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::runtime::Builder;

use crate::kubernetes::client::ClientError;
pub(crate) use crate::kubernetes::client::own_namespace;
use crate::log;
use crate::metrics;
use crate::server::accept::{BindError, Limits, Server, Transport};
use crate::server::admin::{self, Admin, Ready};
use crate::server::drain::Drain;
use crate::server::metrics::ServerMetrics;
use crate::serving_cert::files::FilesError;

/// Why a server cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// A port cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A flag or command needs a client of the API server, and there is none.
    #[error("{0}: {1}")]
    Client(&'static str, ClientError),
    /// A part has ended that should run as long as the process. Only a restart helps.
    #[error("{0} has ended unexpectedly")]
    Ended(&'static str),
    /// The files of the serving certificate cannot be used.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The runtime, a signal handler or a socket cannot be created.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Runs a server until it ends. It accepts so many `connections` besides those of the admin port.
fn run(
    mut runtime: Builder,
    connections: usize,
    server: impl Future<Output = Result<(), RunError>>,
) -> Result<(), RunError> {
    open_files::raise(connections + keeper::LIMITS.open());
    let runtime = runtime.enable_all().build()?;
    let outcome = runtime.block_on(server);
    // A hanging task must not delay the end of the process.
    runtime.shutdown_background();
    outcome
}

/// Makes the registry of a server, with the metrics that both servers have.
fn registry(audit: bool) -> Registry {
    let mut registry = metrics::registry();
    log::register(&mut registry);
    metrics::register_audit(&mut registry, audit);
    registry
}

/// Serves the admin port, for kubelet, Prometheus and people. Its connections are not counted, and
/// the drain does not wait for them.
fn administer<R: Ready>(
    listener: TcpListener,
    readiness: R,
    registry: Registry,
    limits: Limits,
    drain: &Drain,
) -> impl Future<Output = Infallible> + use<R> {
    let server = Server {
        transport: Transport::Plain,
        router: admin::router(Admin { readiness, registry }),
        limits: Limits {
            max_connections: keeper::LIMITS.max_connections,
            max_body: 0,
            // A probe has a second, so a connection without a request makes room before that.
            request_timeout: limits.request_timeout.min(Duration::from_millis(500)),
            ..limits
        },
        drain: drain.without_waiting(),
        metrics: ServerMetrics::default(),
    };
    server.run(listener)
}

/// The names of parts of both servers.
const ADMIN_PORT: &str = "the admin port";
const LIST: &str = "the reader of the list of distrusted CAs";

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpSocket, TcpStream};
    use tokio::time::timeout;

    use super::*;
    use crate::server::accept::bind;

    struct AlwaysReady;

    impl Ready for AlwaysReady {
        async fn missing(&self, _: Timestamp) -> Option<&'static str> {
            None
        }
    }

    /// Sends a request from 127.0.0.`peer`.
    async fn probe(peer: u8, address: std::net::SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, peer], 0).into()).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        stream
    }

    #[tokio::test]
    async fn sleeping_connections_do_not_keep_a_probe_out() {
        let listener = bind("--admin-listen", ([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = keeper::LIMITS;
        let registry = registry(false);
        let drain = Drain::default();
        tokio::spawn(administer(listener, AlwaysReady, registry, limits, &drain));
        let mut asleep = Vec::new();
        for _ in 0..200 {
            asleep.push(probe(2, address).await);
        }
        for peer in 3..6 {
            let mut stream = probe(peer, address).await;
            let mut answer = [0; 15];
            let read = stream.read_exact(&mut answer);
            timeout(Duration::from_secs(60), read).await.expect("it hangs").unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
        }
    }
}
