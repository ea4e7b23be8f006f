//! The fastest server on our stack, for `make bench`: hyper on tokio-rustls with the product's TLS
//! configuration and size limit. It reads the uid of a review and allows the request.
//!
//! It has no timers, connection limit, metrics, log or router.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use clap::Parser;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const MAX_BODY: usize = 8 * 1024 * 1024;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    tls_cert: PathBuf,
    #[arg(long)]
    tls_key: PathBuf,
}

/// The parser skips all other fields.
#[derive(Deserialize)]
struct Review<'a> {
    #[serde(borrow)]
    request: ReviewRequest<'a>,
}

#[derive(Deserialize)]
struct ReviewRequest<'a> {
    uid: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Allowed<'a>,
}

#[derive(Serialize)]
struct Allowed<'a> {
    uid: &'a str,
    allowed: bool,
}

/// Uses the product's runtime: several threads, or as many as `TOKIO_WORKER_THREADS` says.
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let config = tls(&args)?;
    let listener = TcpListener::bind(args.listen).await.context("--listen")?;
    Ok(tokio::spawn(accept(listener, TlsAcceptor::from(config))).await?)
}

fn tls(args: &Args) -> anyhow::Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(&args.tls_cert)
        .and_then(Iterator::collect)
        .context("--tls-cert")?;
    let key = PrivateKeyDer::from_pem_file(&args.tls_key).context("--tls-key")?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            drop(stream.set_nodelay(true));
            if let Ok(stream) = acceptor.accept(stream).await {
                let service =
                    service_fn(async |request| Ok::<_, Infallible>(answer(request).await));
                // An error of a connection does not matter here.
                drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
            }
        });
    }
}

async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let body = body.to_bytes();
    let Ok(review) = serde_json::from_slice::<Review<'_>>(&body) else {
        return refusal(StatusCode::BAD_REQUEST);
    };
    let answer = Answer {
        api_version: "admission.k8s.io/v1",
        kind: "AdmissionReview",
        response: Allowed { uid: review.request.uid, allowed: true },
    };
    let Ok(text) = serde_json::to_vec(&answer) else {
        return refusal(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let mut response = Response::new(Full::from(text));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn refusal(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
