//! Shows progress on standard error when a command takes more than two seconds.

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::Instant;

/// Nothing is printed before this time.
const QUIET: Duration = Duration::from_secs(2);
/// How often progress is printed: on a terminal, and elsewhere.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Runs `work`. While it takes long, prints what `what` returns at that moment.
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

/// Ignores errors: progress that cannot be printed must not fail the command.
fn say(text: &str) {
    let mut out = std::io::stderr();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn progress_is_printed_only_after_two_seconds() {
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
