//! Stops the process without failing a call.
//!
//! After the first signal readiness fails, and every response carries `Connection: close`. The
//! listener stays open, because other nodes learn late that this pod stops. The header closes the
//! connections that are in use; the API server closes idle ones after 90 s.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Whether the process is stopping, and the connections that it waits for. Clones share this state.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    draining: Arc<AtomicBool>,
    connections: Arc<watch::Sender<usize>>,
}

impl Drain {
    /// Makes readiness fail, and asks connections to close.
    pub fn start(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether [`Drain::start`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Counts a connection until the returned value is dropped.
    pub fn connection(&self) -> CountedConnection {
        self.connections.send_modify(|open| *open += 1);
        CountedConnection(self.connections.clone())
    }

    /// The number of open connections.
    pub fn connections(&self) -> usize {
        *self.connections.borrow()
    }

    /// The same drain, for a listener whose connections are not waited for.
    #[must_use]
    pub fn without_waiting(&self) -> Self {
        Self { draining: self.draining.clone(), connections: Arc::default() }
    }

    /// Waits until `delay` has passed and no connection is open, but at most for `limit`. Returns
    /// the number of connections that are still open.
    pub async fn finished(&self, delay: Duration, limit: Duration) -> usize {
        let mut open = self.connections.subscribe();
        let quiet = async {
            sleep(delay).await;
            // The sender lives in `self`, so this cannot fail.
            drop(open.wait_for(|open| *open == 0).await);
        };
        match timeout(limit, quiet).await {
            Ok(()) => 0,
            Err(_) => self.connections(),
        }
    }
}

/// One open connection. Dropping it ends the count.
#[derive(Debug)]
pub struct CountedConnection(Arc<watch::Sender<usize>>);

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// Receives SIGTERM and SIGINT from its creation on.
#[derive(Debug)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// Replaces the default action of both signals. Needs a tokio runtime.
    pub fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal and returns its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const DELAY: Duration = Duration::from_secs(15);
    const LIMIT: Duration = Duration::from_secs(95);

    #[tokio::test(start_paused = true)]
    async fn without_connections_it_waits_for_the_delay() {
        let (drain, start) = (Drain::default(), Instant::now());
        assert_eq!(drain.finished(DELAY, LIMIT).await, 0);
        assert_eq!(start.elapsed(), DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_the_last_connection() {
        let (drain, start) = (Drain::default(), Instant::now());
        let (first, second) = (drain.connection(), drain.connection());
        tokio::spawn(async move {
            sleep(Duration::from_secs(3)).await;
            drop(first);
            sleep(Duration::from_secs(27)).await;
            drop(second);
        });
        assert_eq!(drain.finished(DELAY, LIMIT).await, 0);
        assert_eq!(start.elapsed(), Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_connections_that_open_during_the_delay() {
        let (drain, start) = (Drain::default(), Instant::now());
        let late = drain.clone();
        tokio::spawn(async move {
            sleep(Duration::from_secs(14)).await;
            let connection = late.connection();
            sleep(Duration::from_secs(6)).await;
            drop(connection);
        });
        assert_eq!(drain.finished(DELAY, LIMIT).await, 0);
        assert_eq!(start.elapsed(), Duration::from_secs(20));
    }

    #[tokio::test(start_paused = true)]
    async fn it_stops_waiting_at_the_limit_and_returns_the_open_connections() {
        let (drain, start) = (Drain::default(), Instant::now());
        let _open = [drain.connection(), drain.connection()];
        assert_eq!(drain.finished(DELAY, LIMIT).await, 2);
        assert_eq!(start.elapsed(), LIMIT);
    }

    #[test]
    fn a_drain_without_waiting_starts_together_but_counts_apart() {
        let drain = Drain::default();
        let admin = drain.without_waiting();
        let _open = admin.connection();
        drain.start();
        assert!(admin.is_draining());
        assert_eq!(drain.connections(), 0);
    }
}
