//! The stream below HTTP. It sees what hyper does not tell: the first byte of the peer, and whether
//! the peer reads its answers.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep};

use super::shares::{Claim, Standing};

/// The requests of one connection.
pub(super) struct Requests {
    /// The place of the connection.
    place: Claim,
    /// Notified when the first byte arrives.
    pub(super) first_byte: Notify,
    has_begun: AtomicBool,
    /// Set from an answer until it is written.
    is_answered: AtomicBool,
    /// The memory of the request whose answer is being written.
    body: Mutex<Option<Claim>>,
    has_unread_answer: AtomicBool,
}

impl Requests {
    /// There is none yet.
    pub(super) fn new(place: Claim) -> Self {
        Self {
            place,
            first_byte: Notify::new(),
            has_begun: AtomicBool::new(false),
            is_answered: AtomicBool::new(false),
            body: Mutex::new(None),
            has_unread_answer: AtomicBool::new(false),
        }
    }

    /// The header of a request has arrived.
    pub(super) fn begin(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
        self.place.stand(Standing::Busy);
    }

    /// Whether the header of the first request has arrived.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }

    /// The answer is about to be written. `body` is held until it is.
    pub(super) fn answered(&self, body: Option<Claim>) {
        *self.body() = body;
        self.is_answered.store(true, Ordering::Relaxed);
    }

    /// Whether the connection ended because the peer did not read an answer in time.
    pub(super) fn has_unread_answer(&self) -> bool {
        self.has_unread_answer.load(Ordering::Relaxed)
    }

    /// Completes when another connection needs the place of this one.
    pub(super) async fn displaced(&self) {
        self.place.displaced().await;
    }

    fn written(&self) {
        if self.is_answered.swap(false, Ordering::Relaxed) {
            drop(self.body().take());
            self.place.stand(Standing::Used);
        }
    }

    fn body(&self) -> std::sync::MutexGuard<'_, Option<Claim>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wraps a stream, and reports to [`Requests`].
pub(super) struct HttpStream<I> {
    io: I,
    requests: Arc<Requests>,
    has_read: bool,
    /// Limits the time that the peer takes to read an answer.
    limit: Duration,
    unread: Option<Unread>,
}

/// An answer that the peer does not read at the moment.
struct Unread {
    since: Instant,
    look: Pin<Box<Sleep>>,
}

/// How often to look whether the memory of an unread answer is needed.
const LOOK: Duration = Duration::from_millis(250);

impl<I> HttpStream<I> {
    /// Wraps `io`. Writing fails when an answer is not read within `limit`, or earlier if its
    /// memory is needed.
    pub(super) fn new(io: I, requests: Arc<Requests>, limit: Duration) -> Self {
        Self { io, requests, has_read: false, limit, unread: None }
    }

    fn poll_unread<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let look = LOOK.min(self.limit);
        let unread = self
            .unread
            .get_or_insert_with(|| Unread { since: Instant::now(), look: Box::pin(sleep(look)) });
        while unread.look.as_mut().poll(cx).is_ready() {
            let is_displaced = self.requests.body().as_ref().is_some_and(Claim::is_displaced);
            if is_displaced || unread.since.elapsed() >= self.limit {
                self.requests.has_unread_answer.store(true, Ordering::Relaxed);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            unread.look.as_mut().reset(Instant::now() + look);
        }
        Poll::Pending
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for HttpStream<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.io).poll_read(cx, buf);
        if !self.has_read && buf.filled().len() > before {
            self.has_read = true;
            self.requests.first_byte.notify_one();
        }
        poll
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for HttpStream<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.io).poll_write(cx, buf) {
            Poll::Pending => self.poll_unread(cx),
            ready @ Poll::Ready(_) => ready,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Pending => self.poll_unread(cx),
            ready @ Poll::Ready(_) => {
                self.unread = None;
                self.requests.written();
                ready
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.io).poll_write_vectored(cx, bufs) {
            Poll::Pending => self.poll_unread(cx),
            ready @ Poll::Ready(_) => ready,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
