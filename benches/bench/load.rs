//! Closed loops, a new connection for each request, and open loops.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::stream::{FuturesUnordered, TryStreamExt};
use tokio::sync::Notify;
use tokio::task::yield_now;

use crate::client::{Connection, Target};
use crate::reviews::Review;

/// The requests to send, and their target.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    pub target: &'a Target,
    pub review: &'a Review,
    pub connections: usize,
}

/// The end of a loop: the later of the two.
#[derive(Clone, Copy)]
pub struct Until {
    pub duration: Duration,
    pub requests: u64,
}

/// The result of an open loop.
#[derive(Default)]
pub struct Latencies {
    /// From the scheduled time to the end of the answer, in microseconds, sorted.
    pub micros: Vec<u32>,
    /// How late the client itself was, in microseconds, sorted.
    pub lateness: Vec<u32>,
    /// Answers per second.
    pub achieved: f64,
}

impl Load<'_> {
    pub async fn dial(&self) -> Result<Vec<Connection>> {
        let mut connections = Vec::new();
        for _ in 0..self.connections {
            connections.push(Connection::dial(self.target).await?);
        }
        Ok(connections)
    }

    /// Each connection sends as soon as it has its answer. Ends when all have theirs.
    pub async fn closed(&self, connections: &mut [Connection], until: Until) -> Result<u64> {
        let (done, end) = (Cell::new(0), Instant::now() + until.duration);
        let workers = connections.iter_mut().map(async |connection| {
            while done.get() < until.requests || Instant::now() < end {
                // Counted before it is sent, so that no request is sent beyond the limit.
                done.set(done.get() + 1);
                connection.call(self.target, self.review).await?;
            }
            Ok(())
        });
        all(workers).await?;
        Ok(done.get())
    }

    /// A new connection, with a full handshake, for each request.
    pub async fn churn(&self, until: Until) -> Result<u64> {
        let (done, end) = (Cell::new(0), Instant::now() + until.duration);
        let workers = (0..self.connections).map(async |_| {
            while done.get() < until.requests || Instant::now() < end {
                done.set(done.get() + 1);
                let mut connection = Connection::dial(self.target).await?;
                connection.call(self.target, self.review).await?;
                connection.close().await?;
            }
            Ok(())
        });
        all(workers).await?;
        Ok(done.get())
    }

    /// Sends `rate` requests a second by a schedule. A request waits while all connections are busy,
    /// and its latency counts from its scheduled time.
    pub async fn open(
        &self,
        connections: &mut [Connection],
        rate: f64,
        duration: Duration,
    ) -> Result<Latencies> {
        let schedule = Schedule::default();
        let total = (rate * duration.as_secs_f64()).max(1.0) as u64;
        let began = Instant::now();
        let lateness = RefCell::new(Vec::with_capacity(total as usize));
        let micros = RefCell::new(Vec::with_capacity(total as usize));
        let clock = async {
            for number in 0..total {
                let due = began + Duration::from_secs_f64(number as f64 / rate);
                wait_until(due).await;
                lateness.borrow_mut().push(micros_since(due));
                schedule.queue.borrow_mut().push_back(due);
                schedule.arrived.notify_one();
            }
            schedule.over.set(true);
            schedule.arrived.notify_waiters();
        };
        let workers = connections.iter_mut().map(async |connection| {
            while let Some(due) = schedule.next().await {
                connection.call(self.target, self.review).await?;
                micros.borrow_mut().push(micros_since(due));
            }
            Ok(())
        });
        let ((), outcome) = futures::future::join(clock, all(workers)).await;
        outcome?;
        let elapsed = began.elapsed().as_secs_f64();
        let (mut micros, mut lateness) = (micros.into_inner(), lateness.into_inner());
        micros.sort_unstable();
        lateness.sort_unstable();
        Ok(Latencies { achieved: micros.len() as f64 / elapsed, micros, lateness })
    }
}

/// The requests that are due.
#[derive(Default)]
struct Schedule {
    queue: RefCell<VecDeque<Instant>>,
    arrived: Notify,
    over: Cell<bool>,
}

impl Schedule {
    /// The next one due; `None` after the last.
    async fn next(&self) -> Option<Instant> {
        loop {
            // Registered before the queue is read, so that no notification is missed.
            let notified = self.arrived.notified();
            if let Some(due) = self.queue.borrow_mut().pop_front() {
                return Some(due);
            }
            if self.over.get() {
                return None;
            }
            notified.await;
        }
    }
}

/// Sleeps until shortly before, then spins: the timers of the runtime have a resolution of
/// milliseconds, and the client has a core of its own.
async fn wait_until(due: Instant) {
    const ROUGHLY: Duration = Duration::from_millis(2);
    let left = due.saturating_duration_since(Instant::now());
    if let Some(asleep) = left.checked_sub(ROUGHLY) {
        tokio::time::sleep(asleep).await;
    }
    while Instant::now() < due {
        yield_now().await;
    }
}

fn micros_since(due: Instant) -> u32 {
    u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX)
}

/// Waits for all, or for the first error. Polls only the workers that are ready.
async fn all<F: Future<Output = Result<()>>>(workers: impl Iterator<Item = F>) -> Result<()> {
    workers.collect::<FuturesUnordered<_>>().try_collect().await
}
