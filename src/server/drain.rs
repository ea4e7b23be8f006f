//! How the process ends without failing a call.
//!
//! On the first signal readiness fails and every response carries `Connection: close`, but the
//! listener stays open: other nodes learn late that this pod is leaving. A connection that is used
//! closes by that header; one that is not, the API server closes after 90 s.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Whether the process is ending, and the connections it waits for. Clones are the same drain.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    draining: Arc<AtomicBool>,
    connections: Arc<watch::Sender<usize>>,
}

impl Drain {
    /// From now on readiness fails and connections are asked to close.
    pub fn start(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether [`Drain::start`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Counts a connection until what is returned is dropped.
    pub fn connection(&self) -> Connection {
        self.connections.send_modify(|open| *open += 1);
        Connection(self.connections.clone())
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        *self.connections.borrow()
    }

    /// The same signal, for a listener whose connections are not waited for.
    #[must_use]
    pub fn without_waiting(&self) -> Self {
        Self { draining: self.draining.clone(), connections: Arc::default() }
    }

    /// Ends when no connection is open and at least `delay` has passed, or after `limit`. Says
    /// how many connections are then cut.
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

/// One open connection.
#[derive(Debug)]
pub struct Connection(Arc<watch::Sender<usize>>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// SIGTERM and SIGINT, from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// Takes over both signals. Needs a runtime.
    pub fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next of them and names it.
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
    async fn waits_for_the_delay_without_connections() {
        let (drain, start) = (Drain::default(), Instant::now());
        assert_eq!(drain.finished(DELAY, LIMIT).await, 0);
        assert_eq!(start.elapsed(), DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_the_last_connection() {
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
    async fn counts_connections_that_come_late() {
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
    async fn gives_up_at_the_limit_and_says_what_is_cut() {
        let (drain, start) = (Drain::default(), Instant::now());
        let _open = [drain.connection(), drain.connection()];
        assert_eq!(drain.finished(DELAY, LIMIT).await, 2);
        assert_eq!(start.elapsed(), LIMIT);
    }

    #[test]
    fn a_sibling_drains_with_it_but_is_not_waited_for() {
        let drain = Drain::default();
        let admin = drain.without_waiting();
        let _open = admin.connection();
        drain.start();
        assert!(admin.is_draining());
        assert_eq!(drain.connections(), 0);
    }
}
