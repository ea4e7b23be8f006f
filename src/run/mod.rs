//! The two servers, wired from their parts and supervised.

pub(crate) mod keeper;
mod lease;
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

/// Why a server cannot start, or not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A listener cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// There is no client for the API server, which a flag or a command needs.
    #[error("{0}: {1}")]
    Client(&'static str, ClientError),
    /// A part has ended that never should: a restart helps where going on does not.
    #[error("{0} has ended unexpectedly")]
    Ended(&'static str),
    /// The files of the serving certificate cannot be used.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The runtime, a signal or a socket cannot be had.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Runs a server to its end.
fn run(mut runtime: Builder, server: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let runtime = runtime.enable_all().build()?;
    let outcome = runtime.block_on(server);
    // A task that hangs must not keep the process from ending.
    runtime.shutdown_background();
    outcome
}

/// Answers on the admin port, for kubelet, Prometheus and a person or two. Its connections are not
/// counted, nor waited for at the end.
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

/// What both servers call it.
const ADMIN_PORT: &str = "the admin port";
