//! The accept loop: limits first, then TLS, then HTTP/1.1.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
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

use super::crowd::{Crowd, Silent};
use super::drain::{Connection, Drain};
use super::eager::{SMALL, eager};
use super::opening::{Opening, watched};
use super::tls::{Published, ServingCert};
use crate::server::metrics::{HandshakeResult, ServerMetrics, TimeoutPhase};

/// Binds `address`, which `flag` had named.
pub async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| BindError { flag, address, error })
}

/// A listener that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {address}: {}{}", reason(.error), advice(.error))]
pub struct BindError {
    flag: &'static str,
    address: SocketAddr,
    error: io::Error,
}

/// What one listener needs; see [`Server::run`].
#[derive(Clone, Debug)]
pub struct Server {
    /// What connections speak below HTTP.
    pub transport: Transport,
    /// Who answers.
    pub router: Router,
    /// What a peer may use.
    pub limits: Limits,
    /// Asks connections to close when the process ends.
    pub drain: Drain,
    /// Where connections are counted.
    pub metrics: ServerMetrics,
}

/// What connections speak below HTTP.
#[derive(Clone, Debug)]
pub enum Transport {
    /// Nothing.
    Plain,
    /// TLS, with what is published at the moment a connection is accepted.
    Tls(Published),
}

/// What a peer may use, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at the same time. A further one waits, or takes the place of the oldest that
    /// has not asked anything for two seconds (or `request_timeout`, if that is shorter).
    pub max_connections: usize,
    /// For the whole of the TLS handshake.
    pub handshake_timeout: Duration,
    /// For the header of a connection's first request, from its first byte.
    pub request_timeout: Duration,
    /// Without a request. Must exceed the 90 s for which the API server keeps connections: it
    /// does not repeat a POST on a connection that is closed under it. That holds for one that
    /// it has not used yet, too: its client dials ahead, so this and not `request_timeout`
    /// bounds a silent connection.
    pub idle_timeout: Duration,
}

impl Server {
    /// Accepts connections for ever.
    ///
    /// While no certificate is published none is accepted: clients wait in the backlog and are
    /// served as soon as there is one.
    pub async fn run(self, listener: TcpListener) -> Infallible {
        let slots = Arc::new(Semaphore::new(self.limits.max_connections));
        let crowd = Arc::new(Crowd::default());
        let server = Arc::new(self);
        let mut backoff = Backoff::default();
        loop {
            server.transport.clone().ready().await;
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    backoff.wait(&error).await;
                    continue;
                }
            };
            backoff = Backoff::default();
            let slot = tokio::select! {
                biased;
                slot = slots.clone().acquire_owned() => slot,
                () = crowd.make_room(server.limits.patience()) => {
                    server.metrics.evicted();
                    slots.clone().acquire_owned().await
                }
            };
            let Ok(slot) = slot else {
                // Never closed; but were it, accepting nothing is better than ending.
                return std::future::pending().await;
            };
            let (held, silent) = (Held::new(&server, slot), crowd.join());
            tokio::spawn(server.clone().place(stream, held, silent));
        }
    }

    /// A connection for as long as it has its place.
    async fn place(self: Arc<Self>, stream: TcpStream, held: Held, silent: Silent) {
        tokio::select! {
            () = self.connection(stream, &silent) => {}
            () = silent.evicted() => {}
        }
        drop(held);
    }

    /// Whatever is large is in a box of its own, for as long as it is needed: an idle connection
    /// holds what hyper and rustls need, not what its handshake needed.
    async fn connection(&self, stream: TcpStream, silent: &Silent) {
        // Answers are small and written at once: waiting for more only delays them.
        drop(stream.set_nodelay(true));
        let requests = Requests::default();
        match &self.transport {
            Transport::Plain => {
                let (http, spoken) = self.http(stream, silent, &requests, || false);
                self.until_end(http, &spoken, &requests).await;
            }
            Transport::Tls(published) => {
                let mut published = published.clone();
                let Some(current) = published.borrow_and_update().clone() else { return };
                let Some(stream) = Box::pin(self.handshake(stream, &current)).await else { return };
                drop(current);
                // An error says that nothing can be published any more.
                let outdated = || published.has_changed().unwrap_or(false);
                let (http, spoken) = self.http(stream, silent, &requests, outdated);
                self.until_end(http, &spoken, &requests).await;
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

    /// HTTP on a stream that is ready for it, and what is notified at its first byte. No async
    /// function, since that would keep a second copy of `io`.
    fn http<'a, I, O>(
        &'a self,
        io: I,
        silent: &'a Silent,
        requests: &'a Requests,
        outdated: O,
    ) -> (Http<'a, I>, Arc<Notify>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'a,
        O: Fn() -> bool + Send + Sync + Copy + 'a,
    {
        let (io, spoken) = watched(io);
        let service = service_fn(move |request: Request<Incoming>| {
            if !requests.have_come.swap(true, Ordering::Relaxed) {
                silent.has_spoken();
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
        // The one header timer of hyper also runs between requests, hence is the idle timer.
        http.timer(TokioTimer::new()).header_read_timeout(self.limits.idle_timeout);
        http.max_buf_size(BUFFER);
        let connection = http.serve_connection(TokioIo::new(io), service).without_shutdown();
        let http = connection.map_ok(|parts| parts.io.into_inner());
        (Box::pin(eager(http, &requests.is_small)), spoken)
    }

    /// Serves until the peer leaves, is too slow, or was asked to close.
    async fn until_end<I>(&self, mut http: Http<'_, I>, spoken: &Notify, requests: &Requests)
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let ended = tokio::select! {
            ended = &mut http => ended,
            () = spoken.notified() => {
                match timeout(self.limits.request_timeout, &mut http).await {
                    Ok(ended) => ended,
                    Err(_) if requests.have_come.load(Ordering::Relaxed) => http.await,
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

/// What is known of the requests of a connection.
#[derive(Default)]
struct Requests {
    have_come: AtomicBool,
    /// Whether the latest one has a small body.
    is_small: AtomicBool,
}

/// What hyper reads at a time at most, and keeps for a connection until it ends, in bytes; also the
/// most that the header of a request may have. It is the least that hyper takes; its own limit is
/// 400 KiB, and a thousand connections that have had one large review each would hold more than
/// the memory of the container.
const BUFFER: usize = 8 << 10;

/// A connection until it ends; where that is in good order, what it was on.
type Http<'a, I> = Pin<Box<dyn Future<Output = hyper::Result<Opening<I>>> + Send + 'a>>;

impl Limits {
    /// How long a silent connection keeps its place from one that has none. Less than the 3 s that
    /// the API server waits for an answer, by the manifests; more than a burst of dials takes.
    fn patience(&self) -> Duration {
        self.request_timeout.min(Duration::from_secs(2))
    }
}

impl Transport {
    /// Ends when a connection can be served.
    async fn ready(self) {
        if let Self::Tls(mut published) = self
            && published.wait_for(Option::is_some).await.is_err()
        {
            // The source has gone without ever publishing anything.
            std::future::pending::<()>().await;
        }
    }
}

/// What a connection occupies, until it is dropped.
struct Held {
    metrics: ServerMetrics,
    _slot: OwnedSemaphorePermit,
    _connection: Connection,
}

impl Held {
    fn new(server: &Server, slot: OwnedSemaphorePermit) -> Self {
        server.metrics.connected();
        Self {
            metrics: server.metrics.clone(),
            _slot: slot,
            _connection: server.drain.connection(),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.metrics.disconnected();
    }
}

/// What accept errors cost: with no file descriptor left the loop would spin otherwise.
#[derive(Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    /// 10 ms, doubled each time, at most about a second.
    async fn wait(&mut self, error: &io::Error) {
        if error.kind() == io::ErrorKind::ConnectionAborted {
            return;
        }
        if self.failures == 0 {
            tracing::warn!(%error, "cannot accept connections for now: trying again");
        }
        sleep(Duration::from_millis(10 << self.failures.min(7))).await;
        self.failures = self.failures.saturating_add(1);
    }
}

/// The router's answer, or 500 where its handler panics; the connection lives on.
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

/// Ends our half, then reads away what is still on the way: closing a socket with unread data
/// resets it, and the peer may lose an answer such as 413 that it has not read yet.
async fn linger<I: AsyncRead + AsyncWrite + Unpin>(mut io: I) {
    let ending = async {
        io.shutdown().await?;
        let mut unread = vec![0; 4096];
        while io.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // Whichever way it ends, the connection is over.
    drop(timeout(LINGER, ending).await);
}

/// How long [`linger`] waits.
const LINGER: Duration = Duration::from_secs(2);

/// Operating-system errors in the words of the rest of our messages.
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
        io::ErrorKind::AddrInUse => ": stop what listens there, or choose another port",
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
    async fn a_port_in_use_is_named_with_its_flag() {
        let taken = bind("--listen", ([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind("--admin-listen", address).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "--admin-listen {address}: address already in use: stop what listens there, or \
                 choose another port"
            )
        );
    }

    #[tokio::test(start_paused = true)]
    async fn backing_off_is_bounded() {
        let mut backoff = Backoff::default();
        let error = io::Error::from_raw_os_error(24);
        let start = tokio::time::Instant::now();
        for _ in 0..100 {
            backoff.wait(&error).await;
        }
        assert!(start.elapsed() < Duration::from_secs(130), "{:?}", start.elapsed());
        assert!(start.elapsed() > Duration::from_secs(100), "{:?}", start.elapsed());
    }
}
