//! Progress on standard error, for what takes more than two seconds.

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::Instant;

/// Nothing is said before.
const QUIET: Duration = Duration::from_secs(2);
/// How often it is said again on a terminal, and elsewhere.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Does `work`, and says what is being done, as `what` has it then, while that takes long.
pub(crate) async fn during<T>(what: impl Fn() -> String, work: impl Future<Output = T>) -> T {
    let terminal = std::io::stderr().is_terminal();
    let again = if terminal { AGAIN.0 } else { AGAIN.1 };
    let begun = Instant::now();
    let mut next = begun + QUIET;
    let mut said = false;
    tokio::pin!(work);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            () = tokio::time::sleep_until(next) => {
                let text = format!("{} … {} s", what(), begun.elapsed().as_secs());
                say(&if terminal { format!("\r{text}\x1b[K") } else { format!("{text}\n") });
                said = true;
                next = Instant::now() + again;
            }
        }
    };
    if said && terminal {
        say("\r\x1b[K");
    }
    result
}

/// Standard error that nobody reads is no reason to fail.
fn say(text: &str) {
    let mut out = std::io::stderr();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nothing_is_said_within_two_seconds_and_then_it_is() {
        let asked = Cell::new(0);
        let what = || {
            asked.set(asked.get() + 1);
            "at work".to_owned()
        };
        let short = tokio::time::sleep(Duration::from_millis(1900));
        during(what, short).await;
        assert_eq!(asked.get(), 0);
        during(what, tokio::time::sleep(Duration::from_millis(2100))).await;
        assert_eq!(asked.get(), 1);
    }
}
