//! `faulty-webhook`: the webhook with one fault that other projects had in production, for the
//! fault rig.
//!
//! It uses the router and the certificate reload of the library, but accepts connections with code
//! of its own, so that the product needs no switch for a fault. With `--fault none` the rig must
//! find nothing. With any other fault the rig must find it: this proves that the rig would see that
//! fault in the product.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use ca_overlap::admission::handler::{Admission, router};
use ca_overlap::admission::keeper_lease::KeeperLease;
use ca_overlap::admission::metrics::AdmissionMetrics;
use ca_overlap::admission::respond::Installation;
use ca_overlap::metrics;
use ca_overlap::overlap::settings::Defaults;
use ca_overlap::server::accept::{Limits, Server, Transport};
use ca_overlap::server::admin::{self, Admin, WebhookReadiness};
use ca_overlap::server::drain::{CountedConnection, Drain, Signals};
use ca_overlap::server::metrics::ServerMetrics;
use ca_overlap::server::tls::{self, Published};
use ca_overlap::serving_cert::files::CertificateFiles;
use ca_overlap::serving_cert::metrics::CertificateMetrics;
use clap::{Parser, ValueEnum};
use http::Request;
use http::header::{CONNECTION, HeaderValue};
use humantime::parse_duration;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tower::Service;

/// The fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fault {
    /// No fault: the rig's positive control.
    None,
    /// SIGTERM closes idle connections at once, with hyper's `graceful_shutdown`.
    GracefulShutdown,
    /// Idle connections are closed after 30 s, hyper's default if there is a timer.
    Idle30s,
    /// ALPN offers only `h2`.
    H2Only,
    /// Bodies above 2 MB, axum's default limit, are rejected.
    Body2mb,
}

/// Serves the webhook with one fault.
#[derive(Parser)]
#[command(name = "faulty-webhook")]
struct Args {
    #[arg(long)]
    fault: Fault,
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    admin_listen: SocketAddr,
    #[arg(long)]
    tls_cert: PathBuf,
    #[arg(long)]
    tls_key: PathBuf,
    #[arg(long, value_parser = parse_duration)]
    tls_reload_interval: Duration,
    #[arg(long, value_parser = parse_duration)]
    drain_delay: Duration,
    #[arg(long, value_parser = parse_duration)]
    drain_timeout: Duration,
}

fn main() -> ExitCode {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime.context("start tokio").and_then(|it| it.block_on(run(Args::parse())));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("faulty-webhook: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("listen for signals")?;
    let listener = TcpListener::bind(args.listen).await.context("--listen")?;
    let admin = TcpListener::bind(args.admin_listen).await.context("--admin-listen")?;
    let (address, admin_address) = (listener.local_addr()?, admin.local_addr()?);

    let (sender, published) = tls::channel();
    let interval = args.tls_reload_interval;
    let files =
        CertificateFiles { cert: args.tls_cert, key: args.tls_key, client_ca: None, interval };
    let reloader = files.publish(Timestamp::now(), sender, CertificateMetrics::default())?;
    tokio::spawn(reloader.run(Arc::default()));

    let drain = Drain::default();
    let ready = WebhookReadiness {
        address,
        published: published.clone(),
        trusted: None,
        drain: drain.clone(),
    };
    tokio::spawn(admin_server(ready).run(admin));
    let webhook = Webhook { fault: args.fault, published, drain: drain.clone() };
    tokio::spawn(webhook.accept(listener));
    // The product logs these fields, and the rig reads them.
    eprintln!(r#"{{"message":"listening","webhook":"{address}","admin":"{admin_address}"}}"#);

    signals.next().await;
    drain.start();
    drain.finished(args.drain_delay, args.drain_timeout).await;
    Ok(())
}

#[derive(Clone)]
struct Webhook {
    fault: Fault,
    published: Published,
    drain: Drain,
}

impl Webhook {
    async fn accept(self, listener: TcpListener) {
        let max_body = if self.fault == Fault::Body2mb { 2_097_152 } else { 8 << 20 };
        let router = router(Arc::new(Admission {
            installation: watch::channel(Installation::new(Defaults::default(), "ca-overlap")).1,
            keeper: KeeperLease::not_watched(),
            max_body,
            body_timeout: Duration::from_secs(10),
            metrics: AdmissionMetrics::default(),
        }));
        while let Ok((stream, _)) = listener.accept().await {
            let held = self.drain.connection();
            tokio::spawn(self.clone().serve(stream, router.clone(), held));
        }
    }

    async fn serve(self, stream: TcpStream, router: Router, held: CountedConnection) {
        drop(stream.set_nodelay(true));
        let mut published = self.published.clone();
        let Some(current) = published.borrow_and_update().clone() else { return };
        let mut config = current.config().clone();
        if self.fault == Fault::H2Only {
            Arc::make_mut(&mut config).alpn_protocols = vec![b"h2".to_vec()];
        }
        let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else { return };
        let service = service_fn(|request: Request<Incoming>| {
            let mut router = router.clone();
            let closing = self.drain.is_draining() || published.has_changed().unwrap_or(false);
            async move {
                let mut response = router.call(request.map(Body::new)).await?;
                if closing {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let idle = if self.fault == Fault::Idle30s { 30 } else { 120 };
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(idle));
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = &mut connection => drop(ended),
            () = self.told_to_shut_down() => {
                connection.as_mut().graceful_shutdown();
                drop(connection.await);
            }
        }
        drop(held);
    }

    /// Returns after SIGTERM if that is the fault, else never.
    async fn told_to_shut_down(&self) {
        if self.fault != Fault::GracefulShutdown {
            return std::future::pending().await;
        }
        while !self.drain.is_draining() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn admin_server(readiness: WebhookReadiness) -> Server {
    let limits = Limits {
        max_connections: 64,
        body_memory: 64 << 20,
        max_body: 8 << 20,
        handshake_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(120),
    };
    Server {
        transport: Transport::Plain,
        drain: readiness.drain.without_waiting(),
        router: admin::router(Admin { readiness, registry: metrics::registry() }),
        limits,
        metrics: ServerMetrics::default(),
    }
}
