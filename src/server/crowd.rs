//! Connections that have not asked anything yet: they make room when every place is taken.
//!
//! Without this, whoever opens connections and says nothing would keep the API server out for as
//! long as an idle connection may last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// All of them, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    by_age: BTreeMap<u64, Arc<Notify>>,
}

impl Crowd {
    /// A new connection.
    pub(super) fn join(self: &Arc<Self>) -> Silent {
        let evicted = Arc::new(Notify::new());
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.by_age.insert(number, evicted.clone());
        drop(waiting);
        Silent { crowd: self.clone(), number, evicted }
    }

    /// Asks the oldest to go. `false` if all have asked something.
    pub(super) fn evict_oldest(&self) -> bool {
        let oldest = self.lock().by_age.pop_first();
        oldest.inspect(|(_, evicted)| evicted.notify_one()).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    use super::*;

    #[tokio::test]
    async fn the_oldest_that_has_not_spoken_goes() {
        let crowd = Arc::new(Crowd::default());
        assert!(!crowd.evict_oldest());
        let (first, second, third) = (crowd.join(), crowd.join(), crowd.join());
        first.has_spoken();
        drop(second);
        assert!(crowd.evict_oldest());
        third.evicted().await;
        assert!(!crowd.evict_oldest());
        drop(first);
    }
}
