//! The accept loop: limits, then TLS, then HTTP/1.1.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
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
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::Service;

use super::bodies::Bodies;
use super::drain::Drain;
use super::metrics::{BodyRefusal, Eviction, HandshakeResult, ServerMetrics, TimeoutPhase};
use super::shares::{self, Claim, Rules, Shares};
use super::stream::{HttpStream, Requests};
use super::tls::{Published, ServingCert};

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

/// Limits of connections, memory and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most connections at the same time, and twice as many as one peer may have. A further one
    /// waits until another one closes, or until one has had no request for two seconds (or
    /// `request_timeout`, if that is shorter): then that one is closed, of the peer with the most.
    pub max_connections: usize,
    /// The memory for the bodies of all requests, in bytes. A request that finds none for two seconds
    /// is answered with 503.
    pub body_memory: usize,
    /// The most that the handler reads of a body, in bytes. A body of unknown size takes as much
    /// memory. 0 if it reads none.
    pub max_body: usize,
    /// Limits the whole TLS handshake, and the wait for a place before it.
    pub handshake_timeout: Duration,
    /// Limits the header of a connection's first request, from its first byte, and the time that the
    /// peer takes to read an answer.
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
        let places = Shares::new(self.limits.places(), self.metrics.connections.clone());
        let bodies = self.limits.bodies(&self.metrics);
        let server = Arc::new((self, bodies));
        let mut backoff = AcceptBackoff::default();
        loop {
            server.0.transport.clone().ready().await;
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    backoff.wait(&error).await;
                    continue;
                }
            };
            backoff = AcceptBackoff::default();
            let peer = shares::peer(address.ip());
            let (place, server) = (places.claim(peer, 1), server.clone());
            tokio::spawn(async move {
                let (server, bodies) = &*server;
                server.in_place(stream, place, Memory { bodies, peer }).await;
            });
        }
    }

    /// Serves a connection once it has a place, for as long as it keeps it.
    async fn in_place(&self, stream: TcpStream, place: Claim, memory: Memory<'_>) {
        self.metrics.accepted();
        if !place.granted().await {
            return self.metrics.evicted(Eviction::Waiting);
        }
        let _counted = self.drain.connection();
        let requests = Arc::new(Requests::new(place));
        tokio::select! {
            // A request that arrives in this very moment keeps the connection.
            biased;
            () = self.connection(stream, &requests, memory) => {}
            () = requests.displaced() => {
                let has_begun = requests.has_begun();
                self.metrics.evicted(if has_begun { Eviction::Idle } else { Eviction::Silent });
            }
        }
    }

    /// Serves one connection. Boxes the large futures, so that an idle connection holds the memory
    /// that hyper and rustls need, and none of its handshake.
    async fn connection(&self, stream: TcpStream, requests: &Arc<Requests>, memory: Memory<'_>) {
        // An answer is written in one piece: with Nagle's algorithm it would only be delayed.
        drop(stream.set_nodelay(true));
        match &self.transport {
            Transport::Plain => {
                let http = self.http(stream, requests, memory, || false);
                self.serve(http, requests).await;
            }
            Transport::Tls(published) => {
                let mut published = published.clone();
                let Some(current) = published.borrow_and_update().clone() else { return };
                let Some(stream) = Box::pin(self.handshake(stream, &current)).await else { return };
                drop(current);
                // An error means that the publisher is gone: the configuration never changes again.
                let outdated = || published.has_changed().unwrap_or(false);
                let http = self.http(stream, requests, memory, outdated);
                self.serve(http, requests).await;
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

    /// Prepares the future that serves HTTP on `io`. This is not an async function, because that
    /// would keep a second copy of `io`.
    fn http<'a, I, O>(
        &'a self,
        io: I,
        requests: &'a Arc<Requests>,
        memory: Memory<'a>,
        outdated: O,
    ) -> BoxFuture<'a, hyper::Result<HttpStream<I>>>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'a,
        O: Fn() -> bool + Send + Sync + Copy + 'a,
    {
        let io = HttpStream::new(io, requests.clone(), self.limits.request_timeout);
        let service = service_fn(move |request: Request<Incoming>| {
            requests.begin();
            async move {
                let body = memory.claim(&request, self.limits.max_body);
                let mut response = self.answer(request, body.as_ref()).await;
                requests.answered(body);
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
        connection.map_ok(|parts| parts.io.into_inner()).boxed()
    }

    /// Answers a request as soon as there is memory for its body, and for as long as it keeps it.
    async fn answer(&self, request: Request<Incoming>, body: Option<&Claim>) -> Response {
        let Some(body) = body else {
            return answer(self.router.clone(), request, &self.metrics).await;
        };
        if !body.granted().await {
            return self.refuse(BodyRefusal::NoMemory);
        }
        tokio::select! {
            biased;
            response = answer(self.router.clone(), request, &self.metrics) => response,
            () = body.displaced() => self.refuse(BodyRefusal::Displaced),
        }
    }

    /// An answer without `Retry-After`, which the API server would follow.
    fn refuse(&self, reason: BodyRefusal) -> Response {
        self.metrics.body_refused(reason);
        let mut response = Response::new(Body::from("no memory is free for this body\n"));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }

    /// Serves until the peer closes, is too slow, or was asked to close.
    async fn serve<I>(
        &self,
        mut http: BoxFuture<'_, hyper::Result<HttpStream<I>>>,
        requests: &Requests,
    ) where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let ended = tokio::select! {
            ended = &mut http => ended,
            () = requests.first_byte.notified() => {
                match timeout(self.limits.request_timeout, &mut http).await {
                    Ok(ended) => ended,
                    Err(_) if requests.has_begun() => http.await,
                    Err(_) => return self.metrics.timed_out(TimeoutPhase::FirstRequest),
                }
            }
        };
        match ended {
            Ok(io) => linger(io).await,
            Err(_) if requests.has_unread_answer() => self.metrics.timed_out(TimeoutPhase::Answer),
            Err(error) if error.is_timeout() => self.metrics.timed_out(TimeoutPhase::Idle),
            Err(error) => tracing::debug!(%error, "connection failed"),
        }
    }
}

/// The memory for the bodies of one peer.
#[derive(Clone, Copy)]
struct Memory<'a> {
    bodies: &'a Bodies,
    peer: IpAddr,
}

impl Memory<'_> {
    /// Claims what the body announces, at most `max_body`. A request without a body needs none.
    fn claim(self, request: &Request<Incoming>, max_body: usize) -> Option<Claim> {
        let announced = request.body().size_hint().upper();
        let size = announced.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX);
        let size = size.min(max_body);
        (size > 0).then(|| self.bodies.claim(self.peer, size))
    }
}

/// The largest read buffer of a connection, in bytes, which hyper keeps until the connection ends.
/// It also limits the header of a request. This is hyper's minimum. With its default of about 400
/// KiB, a thousand connections that have sent one large review each would exceed the memory limit.
const BUFFER: usize = 8 << 10;

impl Limits {
    /// The most connections that are open at the same time, with or without a place.
    pub(crate) fn open(&self) -> usize {
        self.max_connections + self.waiting()
    }

    /// How many connections wait for a place. Each holds a socket and little memory.
    fn waiting(&self) -> usize {
        (self.max_connections * 2).max(64)
    }

    /// How long a body waits for memory, and how long a connection is left alone without a request.
    /// This is less than the 3 s after which the API server gives up, by the manifests. And it is
    /// more than a burst of dials takes: after a stall the API server dials once for every call
    /// that waits, and closing one of these connections would fail its call.
    fn patience(&self) -> Duration {
        self.request_timeout.min(Duration::from_secs(2))
    }

    /// How bodies share their memory.
    fn bodies(&self, metrics: &ServerMetrics) -> Bodies {
        Bodies::new(self.body_memory, self.patience(), &metrics.body_memory)
    }

    /// How connections share their places.
    fn places(&self) -> Rules {
        let age = self.patience();
        Rules {
            capacity: self.max_connections,
            share: self.max_connections.div_ceil(2),
            // The API server keeps at most 25 idle connections, and does not repeat a call on one
            // that we close.
            kept: (self.max_connections / 8).clamp(1, 32),
            waiting: self.waiting(),
            patience: self.handshake_timeout,
            age,
            own_age: age,
        }
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
