//! The serving certificate of the webhook, from files or from our own CA.

mod authority;
pub mod files;
pub mod inject;
mod issue;
pub(crate) mod manager;
pub mod metrics;
pub(crate) mod objects;
pub(crate) mod rotation;

use std::time::{Duration, Instant};

/// Limits a repeated log message to one a minute.
#[derive(Debug, Default)]
pub(crate) struct LogLimiter {
    last: Option<(String, Instant)>,
}

impl LogLimiter {
    /// Whether to log `message` at `now`: it differs from the last one, or that is a minute old.
    pub(crate) fn should_log(&mut self, message: &str, now: Instant) -> bool {
        let known = self
            .last
            .as_ref()
            .is_some_and(|(last, at)| last == message && now.duration_since(*at) < QUIET);
        if !known {
            self.last = Some((message.to_owned(), now));
        }
        !known
    }

    /// Forgets the last message. Returns whether there was one.
    pub(crate) fn clear(&mut self) -> bool {
        self.last.take().is_some()
    }
}

/// How long the same message is not logged again.
const QUIET: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_logged_when_it_changes_and_after_a_minute() {
        let mut repeated = LogLimiter::default();
        let start = Instant::now();
        assert!(repeated.should_log("a", start));
        assert!(!repeated.should_log("a", start + Duration::from_secs(59)));
        assert!(repeated.should_log("a", start + Duration::from_secs(60)));
        assert!(repeated.should_log("b", start + Duration::from_secs(61)));
        assert!(repeated.clear());
        assert!(!repeated.clear());
    }
}
