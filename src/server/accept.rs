//! The accept loop: limits, then TLS, then HTTP/1.1.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use http::header::{CONNECTION, HeaderValue};
use http::{Request, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::Service;

use super::drain::{CountedConnection, Drain};
use super::eager::{SMALL, eager};
use super::eviction::{Evictable, EvictionQueue};
use super::first_byte::FirstByteStream;
use super::tls::{Published, ServingCert};
use crate::server::metrics::{HandshakeResult, ServerMetrics, TimeoutPhase};

/// Binds `address`, the value of `flag`.
pub async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| BindError { flag, address, error })
}

/// A port that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {address}: {}{}", reason(.error), advice(.error))]
pub struct BindError {
    flag: &'static str,
    address: SocketAddr,
    error: io::Error,
}

/// The configuration of one listener. See [`Server::run`].
#[derive(Clone, Debug)]
pub struct Server {
    /// The layer below HTTP.
    pub transport: Transport,
    /// Answers the requests.
    pub router: Router,
    /// Limits of connections and of time.
    pub limits: Limits,
    /// Tells when connections must close, and counts them.
    pub drain: Drain,
    /// Counts connections, handshakes and timeouts.
    pub metrics: ServerMetrics,
}

/// The layer below HTTP.
#[derive(Clone, Debug)]
pub enum Transport {
    /// TCP alone.
    Plain,
    /// TLS, with the configuration that is published when a connection is accepted.
    Tls(Published),
}

/// Limits of connections and of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most connections at the same time. A further one waits until another one closes, or
    /// until one has sent no request for two seconds (or `request_timeout`, if that is shorter):
    /// the oldest of these is closed.
    pub max_connections: usize,
    /// Limits the whole TLS handshake.
    pub handshake_timeout: Duration,
    /// Limits the header of a connection's first request, from its first byte.
    pub request_timeout: Duration,
    /// Limits the time without a request. Must exceed the 90 s for which the API server keeps idle
    /// connections: it does not repeat a POST on a connection that we close. Its client also dials
    /// ahead, so this limit, not `request_timeout`, holds for a connection without any request.
    pub idle_timeout: Duration,
}

impl Server {
    /// Accepts connections, without end.
    ///
    /// Accepts none until a certificate is published. Until then clients wait in the backlog.
    pub async fn run(self, listener: TcpListener) -> Infallible {
        let slots = Arc::new(Semaphore::new(self.limits.max_connections));
        let evictions = Arc::new(EvictionQueue::default());
        let server = Arc::new(self);
        let mut backoff = AcceptBackoff::default();
        loop {
            server.transport.clone().ready().await;
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    backoff.wait(&error).await;
                    continue;
                }
            };
            backoff = AcceptBackoff::default();
            let slot = tokio::select! {
                biased;
                slot = slots.clone().acquire_owned() => slot,
                () = evictions.evict_one(server.limits.eviction_age()) => {
                    server.metrics.evicted();
                    slots.clone().acquire_owned().await
                }
            };
            let Ok(slot) = slot else {
                // The semaphore is never closed. This case accepts nothing more.
                return std::future::pending().await;
            };
            let (open, evictable) = (OpenConnection::new(&server, slot), evictions.add());
            let server = server.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = server.connection(stream, &evictable) => {}
                    () = evictable.evicted() => {}
                }
                drop(open);
            });
        }
    }

    /// Serves one connection. Boxes the large futures, so that an idle connection holds the memory
    /// that hyper and rustls need, and none of its handshake.
    async fn connection(&self, stream: TcpStream, evictable: &Evictable) {
        // An answer is written in one piece: with Nagle's algorithm it would only be delayed.
        drop(stream.set_nodelay(true));
        let requests = RequestState::default();
        match &self.transport {
            Transport::Plain => {
                let (http, first_byte) = self.http(stream, evictable, &requests, || false);
                self.serve(http, &first_byte, &requests).await;
            }
            Transport::Tls(published) => {
                let mut published = published.clone();
                let Some(current) = published.borrow_and_update().clone() else { return };
                let Some(stream) = Box::pin(self.handshake(stream, &current)).await else { return };
                drop(current);
                // An error means that the publisher is gone: the configuration never changes again.
                let outdated = || published.has_changed().unwrap_or(false);
                let (http, first_byte) = self.http(stream, evictable, &requests, outdated);
                self.serve(http, &first_byte, &requests).await;
            }
        }
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        current: &ServingCert,
    ) -> Option<Box<TlsStream<TcpStream>>> {
        let handshake = TlsAcceptor::from(current.config().clone()).accept(stream);
        match timeout(self.limits.handshake_timeout, handshake).await {
            Ok(Ok(stream)) => {
                self.metrics.handshake(HandshakeResult::Ok);
                Some(Box::new(stream))
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake failed");
                self.metrics.handshake(HandshakeResult::Failed);
                None
            }
            Err(_) => {
                self.metrics.handshake(HandshakeResult::Timeout);
                self.metrics.timed_out(TimeoutPhase::TlsHandshake);
                None
            }
        }
    }

    /// Prepares HTTP on `io`: the future that serves it, and the notification of its first byte.
    /// This is not an async function, because that would keep a second copy of `io`.
    fn http<'a, I, O>(
        &'a self,
        io: I,
        evictable: &'a Evictable,
        requests: &'a RequestState,
        outdated: O,
    ) -> (BoxFuture<'a, hyper::Result<FirstByteStream<I>>>, Arc<Notify>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'a,
        O: Fn() -> bool + Send + Sync + Copy + 'a,
    {
        let first_byte = Arc::new(Notify::new());
        let io = FirstByteStream::new(io, first_byte.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            if !requests.has_begun.swap(true, Ordering::Relaxed) {
                evictable.has_sent_request();
            }
            let is_small = request.body().size_hint().upper().is_some_and(|size| size <= SMALL);
            requests.is_small.store(is_small, Ordering::Relaxed);
            let answer = answer(self.router.clone(), request, &self.metrics);
            async move {
                let mut response = answer.await;
                if self.drain.is_draining() || outdated() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut http = http1::Builder::new();
        // Hyper's header timer also runs between two requests, so it is the idle timer.
        http.timer(TokioTimer::new()).header_read_timeout(self.limits.idle_timeout);
        http.max_buf_size(BUFFER);
        let connection = http.serve_connection(TokioIo::new(io), service).without_shutdown();
        let http = connection.map_ok(|parts| parts.io.into_inner());
        (Box::pin(eager(http, &requests.is_small)), first_byte)
    }

    /// Serves until the peer closes, is too slow, or was asked to close.
    async fn serve<I>(
        &self,
        mut http: BoxFuture<'_, hyper::Result<FirstByteStream<I>>>,
        first_byte: &Notify,
        requests: &RequestState,
    ) where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let ended = tokio::select! {
            ended = &mut http => ended,
            () = first_byte.notified() => {
                match timeout(self.limits.request_timeout, &mut http).await {
                    Ok(ended) => ended,
                    Err(_) if requests.has_begun.load(Ordering::Relaxed) => http.await,
                    Err(_) => return self.metrics.timed_out(TimeoutPhase::FirstRequest),
                }
            }
        };
        match ended {
            Ok(io) => linger(io).await,
            Err(error) if error.is_timeout() => self.metrics.timed_out(TimeoutPhase::Idle),
            Err(error) => tracing::debug!(%error, "connection failed"),
        }
    }
}

/// The requests of one connection.
#[derive(Default)]
struct RequestState {
    /// Whether the header of the first one has arrived.
    has_begun: AtomicBool,
    /// Whether the latest one has a small body.
    is_small: AtomicBool,
}

/// The largest read buffer of a connection, in bytes, which hyper keeps until the connection ends.
/// It also limits the header of a request. This is hyper's minimum. With its default of about 400
/// KiB, a thousand connections that have sent one large review each would exceed the memory limit.
const BUFFER: usize = 8 << 10;

impl Limits {
    /// How long a connection may send no request before it can be evicted. This is less than the 3
    /// s after which the API server gives up, by the manifests, and more than a burst of dials
    /// takes.
    fn eviction_age(&self) -> Duration {
        self.request_timeout.min(Duration::from_secs(2))
    }
}

impl Transport {
    /// Waits until a connection can be served.
    async fn ready(self) {
        if let Self::Tls(mut published) = self
            && published.wait_for(Option::is_some).await.is_err()
        {
            // The publisher is gone and has published nothing.
            std::future::pending::<()>().await;
        }
    }
}

/// Counts a connection, and holds its slot, until it is dropped.
struct OpenConnection {
    metrics: ServerMetrics,
    _slot: OwnedSemaphorePermit,
    _counted: CountedConnection,
}

impl OpenConnection {
    fn new(server: &Server, slot: OwnedSemaphorePermit) -> Self {
        server.metrics.connected();
        Self { metrics: server.metrics.clone(), _slot: slot, _counted: server.drain.connection() }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.metrics.disconnected();
    }
}

/// Slows the accept loop down after errors. Without file descriptors it would spin otherwise.
#[derive(Default)]
struct AcceptBackoff {
    failures: u32,
}

impl AcceptBackoff {
    /// Waits 10 ms, twice as long after each failure, at most 1.28 s.
    async fn wait(&mut self, error: &io::Error) {
        if error.kind() == io::ErrorKind::ConnectionAborted {
            return;
        }
        if self.failures == 0 {
            tracing::warn!(%error, "cannot accept connections, trying again");
        }
        sleep(Duration::from_millis(10 << self.failures.min(7))).await;
        self.failures = self.failures.saturating_add(1);
    }
}

/// Answers with the router, or with 500 if the handler panics. The connection stays open.
fn answer(
    mut router: Router,
    request: Request<Incoming>,
    metrics: &ServerMetrics,
) -> impl Future<Output = Response> {
    let answer = AssertUnwindSafe(async move {
        match router.call(request.map(Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    });
    answer.catch_unwind().map(|answer| {
        answer.unwrap_or_else(|_| {
            metrics.panicked();
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        })
    })
}

/// Shuts down our side, then discards what the peer still sends. Closing a socket with unread data
/// resets it, and the peer may lose an answer, such as 413, that it has not read yet.
async fn linger<I: AsyncRead + AsyncWrite + Unpin>(mut io: I) {
    let ending = async {
        io.shutdown().await?;
        let mut unread = vec![0; 4096];
        while io.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // The connection closes in any case.
    drop(timeout(LINGER, ending).await);
}

/// How long [`linger`] waits.
const LINGER: Duration = Duration::from_secs(2);

/// Describes an error of the operating system in plain words.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".into(),
        io::ErrorKind::AddrNotAvailable => "no such address on this machine".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => ": stop the program that listens there, or choose another port",
        io::ErrorKind::PermissionDenied => {
            ": choose a port above 1023, or grant CAP_NET_BIND_SERVICE"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_error_of_a_port_in_use_names_its_flag() {
        let taken = bind("--listen", ([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind("--admin-listen", address).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "--admin-listen {address}: address already in use: stop the program that listens \
                 there, or choose another port"
            )
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_backoff_is_bounded() {
        let mut backoff = AcceptBackoff::default();
        let error = io::Error::from_raw_os_error(24);
        let start = tokio::time::Instant::now();
        for _ in 0..100 {
            backoff.wait(&error).await;
        }
        assert!(start.elapsed() < Duration::from_secs(130), "{:?}", start.elapsed());
        assert!(start.elapsed() > Duration::from_secs(100), "{:?}", start.elapsed());
    }
}
