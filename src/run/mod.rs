//! Wires the two servers, webhook and keeper, from their parts, and supervises them.

mod distrusted;
pub(crate) mod keeper;
mod lease_watch;
mod parts;
pub(crate) mod webhook;

use std::convert::Infallible;
use std::io;

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::runtime::Builder;

use crate::kubernetes::client::ClientError;
pub(crate) use crate::kubernetes::client::own_namespace;
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

/// Runs a server until it ends.
fn run(
    mut runtime: Builder,
    server: impl Future<Output = Result<(), RunError>>,
) -> Result<(), RunError> {
    let runtime = runtime.enable_all().build()?;
    let outcome = runtime.block_on(server);
    // A hanging task must not delay the end of the process.
    runtime.shutdown_background();
    outcome
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
        limits: Limits { max_connections: 64, ..limits },
        drain: drain.without_waiting(),
        metrics: ServerMetrics::default(),
    };
    server.run(listener)
}

/// The names of parts of both servers.
const ADMIN_PORT: &str = "the admin port";
const LIST: &str = "the reader of the list of distrusted CAs";
