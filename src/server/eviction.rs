//! Evicts connections that have sent no request, when the limit of connections is reached.
//!
//! Without this, a peer that opens connections and sends nothing would lock the API server out
//! until these connections time out as idle. A new connection is not evicted: after a stall the API
//! server dials once for every call that waits, and closing these connections would fail the calls.
//! So a connection must have been silent for a while.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The connections that have sent no request, in the order in which they were accepted.
#[derive(Debug, Default)]
pub(super) struct EvictionQueue {
    silent: Mutex<SilentConnections>,
}

#[derive(Debug, Default)]
struct SilentConnections {
    next: u64,
    by_age: BTreeMap<u64, SilentConnection>,
}

#[derive(Debug)]
struct SilentConnection {
    since: Instant,
    evicted: Arc<Notify>,
}

impl EvictionQueue {
    /// Adds a new connection.
    pub(super) fn add(self: &Arc<Self>) -> Evictable {
        let evicted = Arc::new(Notify::new());
        let mut silent = self.lock();
        let number = silent.next;
        silent.next += 1;
        let connection = SilentConnection { since: Instant::now(), evicted: evicted.clone() };
        silent.by_age.insert(number, connection);
        drop(silent);
        Evictable { queue: self.clone(), number, evicted }
    }

    /// Waits until the oldest connection has been silent for `min_age`, and evicts it. Waits
    /// without end while the queue is empty.
    pub(super) async fn evict_one(&self, min_age: Duration) {
        loop {
            match self.try_evict(min_age) {
                Eviction::Done => return,
                Eviction::TooEarly { since } => sleep_until(since + min_age).await,
                Eviction::Empty => pending().await,
            }
        }
    }

    fn try_evict(&self, min_age: Duration) -> Eviction {
        let mut silent = self.lock();
        let Some(oldest) = silent.by_age.first_entry() else { return Eviction::Empty };
        let since = oldest.get().since;
        if since.elapsed() < min_age {
            return Eviction::TooEarly { since };
        }
        oldest.remove().evicted.notify_one();
        Eviction::Done
    }

    fn lock(&self) -> MutexGuard<'_, SilentConnections> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The result of one attempt to evict.
enum Eviction {
    /// The oldest connection was told to close.
    Done,
    /// The oldest connection has not been silent for long enough.
    TooEarly { since: Instant },
    /// Every connection has sent a request.
    Empty,
}

/// A connection's entry in the [`EvictionQueue`]. Leaves the queue when it is dropped.
#[derive(Debug)]
pub(super) struct Evictable {
    queue: Arc<EvictionQueue>,
    number: u64,
    evicted: Arc<Notify>,
}

impl Evictable {
    /// Completes when the connection must close.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Leaves the queue, because the connection has sent a request.
    pub(super) fn has_sent_request(&self) {
        self.queue.lock().by_age.remove(&self.number);
    }
}

impl Drop for Evictable {
    fn drop(&mut self) {
        self.has_sent_request();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const MIN_AGE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn the_oldest_silent_connection_is_evicted() {
        let queue = Arc::new(EvictionQueue::default());
        let (first, second, third) = (queue.add(), queue.add(), queue.add());
        first.has_sent_request();
        drop(second);
        queue.evict_one(MIN_AGE).await;
        third.evicted().await;
        assert!(timeout(MIN_AGE * 9, queue.evict_one(MIN_AGE)).await.is_err(), "none is left");
        drop(first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_is_not_evicted() {
        let queue = Arc::new(EvictionQueue::default());
        let begin = Instant::now();
        let first = queue.add();
        sleep_until(begin + MIN_AGE / 2).await;
        let second = queue.add();
        let request = async {
            sleep_until(begin + MIN_AGE * 9 / 10).await;
            first.has_sent_request();
        };
        tokio::join!(request, queue.evict_one(MIN_AGE));
        second.evicted().await;
        assert_eq!(begin.elapsed(), MIN_AGE * 3 / 2);
    }
}
