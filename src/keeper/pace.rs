//! Limits how many writes a second announcements cost the API server.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The default of `--announce-rate`.
pub const DEFAULT_RATE: NonZeroU32 = NonZeroU32::new(200).expect("not zero");

/// How much of the time that was not used may be made up for: timers are late by a millisecond or two.
const SLACK: Duration = Duration::from_millis(100);

/// Lets writes pass one after the other. Clones share the limit.
#[derive(Clone, Debug)]
pub struct Pace {
    interval: Duration,
    next: Arc<Mutex<Option<Instant>>>,
}

impl Pace {
    /// Lets this many writes a second pass.
    pub fn new(rate: NonZeroU32) -> Self {
        Self { interval: Duration::from_secs(1) / rate.get(), next: Arc::default() }
    }

    /// Waits until the next write may be made.
    pub(crate) async fn wait(&self) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let earliest = now.checked_sub(SLACK).unwrap_or(now);
            let at = next.map_or(now, |next| next.max(earliest));
            *next = Some(at + self.interval);
            at
        };
        sleep_until(at).await;
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(DEFAULT_RATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_writes_pass_than_the_rate_allows_and_few_are_saved_up() {
        let pace = Pace::new(NonZeroU32::new(10).unwrap());
        let start = Instant::now();
        for _ in 0..11 {
            pace.clone().wait().await;
        }
        assert!((Duration::from_secs(1)..Duration::from_millis(1100)).contains(&start.elapsed()));
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..4 {
            pace.wait().await;
        }
        assert!(start.elapsed() >= Duration::from_millis(200));
    }
}
