//! What the demo prints: at most 100 columns, colour only on a terminal.

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::Instant;

use crate::tools::text::is_colourful;

/// How often progress is shown on a terminal, and elsewhere.
const TICK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

/// Standard output, with or without colour.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    terminal: bool,
    colour: bool,
}

/// A meaning that has a colour.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tone {
    Good,
    Bad,
    Dim,
    Bold,
}

impl View {
    pub(super) fn of_standard_output() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { terminal, colour: is_colourful() }
    }

    /// A line. Output that nobody reads (a closed pipe) is no reason to fail.
    #[allow(clippy::unused_self, reason = "every output goes through the view")]
    pub(super) fn line(self, text: &str) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// A headline with an empty line before.
    pub(super) fn head(self, text: &str) {
        self.line("");
        self.line(&self.paint(Tone::Bold, text));
    }

    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Dim => "2",
            Tone::Bold => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Shows that `what` is being done, and for how long, until it is done.
    pub(super) async fn during<T, E>(
        self,
        what: &str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let begun = Instant::now();
        let tick = if self.terminal { TICK.0 } else { TICK.1 };
        tokio::pin!(work);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                () = tokio::time::sleep(tick) => {
                    let seconds = begun.elapsed().as_secs();
                    if self.terminal {
                        let mut out = std::io::stdout();
                        let _ = write!(out, "\r  {what} … {seconds} s ");
                        let _ = out.flush();
                    } else {
                        self.line(&format!("  {what} … {seconds} s"));
                    }
                }
            }
        };
        let seconds = begun.elapsed().as_secs_f64();
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        match &result {
            Ok(_) => self.line(&format!(
                "{clear}  {} {what} {}",
                self.paint(Tone::Good, "✓"),
                self.paint(Tone::Dim, &format!("({seconds:.1} s)")),
            )),
            Err(_) => self.line(&format!("{clear}  {} {what}", self.paint(Tone::Bad, "✗"))),
        }
        result
    }

    /// A table whose first row is its head; columns as wide as their widest cell.
    pub(super) fn table(self, rows: &[Vec<String>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for (number, row) in rows.iter().enumerate() {
            let cells: Vec<_> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            let text = format!("    {}", cells.join("  "));
            let text = text.trim_end();
            self.line(&if number == 0 { self.paint(Tone::Dim, text) } else { text.to_owned() });
        }
    }
}
