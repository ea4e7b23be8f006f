//! What the demo prints: at most 80 columns, colour only on a terminal.

use std::io::{IsTerminal, Write};

use devtools::handshake::Tally;

/// Standard output, with or without colour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Printer {
    colour: bool,
}

/// What a colour means.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tone {
    Good,
    Bad,
    Bold,
}

impl Printer {
    /// Colour for a terminal, unless <https://no-color.org> forbids it.
    pub(super) fn of_standard_output() -> Self {
        let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: std::io::stdout().is_terminal() && !forbidden }
    }

    /// A line. Output that nobody reads (a closed pipe) is no reason to fail.
    #[allow(clippy::unused_self, reason = "every output goes through the printer")]
    pub(super) fn line(self, text: &str) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// A headline with an empty line before.
    pub(super) fn head(self, text: &str) {
        self.line("");
        self.line(&self.paint(Tone::Bold, text));
    }

    /// A cell of the table.
    pub(super) fn paint_cell(self, cell: Option<Tally>, width: usize) -> String {
        let Some(tally) = cell else { return format!("{:<width$}", "–") };
        let (mark, tone) = if tally.all() { ("✓", Tone::Good) } else { ("✗", Tone::Bad) };
        let text = format!("{mark} {} of {}", tally.succeeded, tally.tried);
        self.paint(tone, &format!("{text:<width$}"))
    }

    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Bold => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}
