//! Connections that have not asked anything yet: they make room when every place is taken.
//!
//! Without this, whoever opens connections and says nothing would keep the API server out for as
//! long as an idle connection may last. But one that has only just come is about to ask something:
//! after a stall the API server dials for every call that waits, and closing these connections
//! would fail the calls. So only those go that have been silent for a while.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// All of them, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    by_age: BTreeMap<u64, Member>,
}

#[derive(Debug)]
struct Member {
    since: Instant,
    evicted: Arc<Notify>,
}

impl Crowd {
    /// A new connection.
    pub(super) fn join(self: &Arc<Self>) -> Silent {
        let evicted = Arc::new(Notify::new());
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        let member = Member { since: Instant::now(), evicted: evicted.clone() };
        waiting.by_age.insert(number, member);
        drop(waiting);
        Silent { crowd: self.clone(), number, evicted }
    }

    /// Waits until the oldest has been silent for `patience`, and asks it to go. Never ends where
    /// all have asked something.
    pub(super) async fn make_room(&self, patience: Duration) {
        loop {
            match self.evict_oldest(patience) {
                Oldest::Evicted => return,
                Oldest::Since(since) => sleep_until(since + patience).await,
                Oldest::Nobody => pending().await,
            }
        }
    }

    fn evict_oldest(&self, patience: Duration) -> Oldest {
        let mut waiting = self.lock();
        let Some(oldest) = waiting.by_age.first_entry() else { return Oldest::Nobody };
        let since = oldest.get().since;
        if since.elapsed() < patience {
            return Oldest::Since(since);
        }
        oldest.remove().evicted.notify_one();
        Oldest::Evicted
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of the oldest.
enum Oldest {
    /// It was asked to go.
    Evicted,
    /// It has been silent since then: not long enough.
    Since(Instant),
    /// There is none.
    Nobody,
}

/// A connection that has not asked anything yet; leaves the crowd when it is dropped.
#[derive(Debug)]
pub(super) struct Silent {
    crowd: Arc<Crowd>,
    number: u64,
    evicted: Arc<Notify>,
}

impl Silent {
    /// Ends when it has to make room.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// It has asked something: its place is its own.
    pub(super) fn has_spoken(&self) {
        self.crowd.lock().by_age.remove(&self.number);
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.has_spoken();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn the_oldest_that_has_not_spoken_goes() {
        let crowd = Arc::new(Crowd::default());
        let (first, second, third) = (crowd.join(), crowd.join(), crowd.join());
        first.has_spoken();
        drop(second);
        crowd.make_room(PATIENCE).await;
        third.evicted().await;
        assert!(timeout(PATIENCE * 9, crowd.make_room(PATIENCE)).await.is_err(), "none is left");
        drop(first);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_only_just_come_is_left_in_peace() {
        let crowd = Arc::new(Crowd::default());
        let begin = Instant::now();
        let first = crowd.join();
        sleep_until(begin + PATIENCE / 2).await;
        let second = crowd.join();
        let spoken = async {
            sleep_until(begin + PATIENCE * 9 / 10).await;
            first.has_spoken();
        };
        tokio::join!(spoken, crowd.make_room(PATIENCE));
        second.evicted().await;
        assert_eq!(begin.elapsed(), PATIENCE * 3 / 2);
    }
}
