//! Where the server's own certificate comes from: files, or an authority of our own.

pub(crate) mod api;
mod authority;
pub mod files;
pub mod inject;
mod issue;
pub(crate) mod manager;
pub mod metrics;
pub(crate) mod plan;

use std::time::{Duration, Instant};

/// Says the same thing once a minute instead of at every attempt.
#[derive(Debug, Default)]
pub(crate) struct Repeated {
    last: Option<(String, Instant)>,
}

impl Repeated {
    /// Whether `message` is news at `now`: another one than before, or a minute old.
    pub(crate) fn is_news(&mut self, message: &str, now: Instant) -> bool {
        let known = self
            .last
            .as_ref()
            .is_some_and(|(last, at)| last == message && now.duration_since(*at) < QUIET);
        if !known {
            self.last = Some((message.to_owned(), now));
        }
        !known
    }

    /// The trouble is over; says whether there was any.
    pub(crate) fn clear(&mut self) -> bool {
        self.last.take().is_some()
    }
}

/// How long a message stays known.
const QUIET: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_is_what_changed_or_a_minute_old() {
        let mut repeated = Repeated::default();
        let start = Instant::now();
        assert!(repeated.is_news("a", start));
        assert!(!repeated.is_news("a", start + Duration::from_secs(59)));
        assert!(repeated.is_news("a", start + Duration::from_secs(60)));
        assert!(repeated.is_news("b", start + Duration::from_secs(61)));
        assert!(repeated.clear());
        assert!(!repeated.clear());
    }
}
