//! Output of commands: text for people, or JSON and YAML for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::Value;

/// Output formats. Each command supports some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For programs, as JSON
    Json,
    /// For programs, as YAML
    Yaml,
    /// The difference between the Secret as written and as stored
    Diff,
}

impl Output {
    /// The formats of most commands.
    pub(crate) const USUAL: &[Self] = &[Self::Text, Self::Json, Self::Yaml];

    /// A parser that accepts `these` formats on the command line.
    pub(crate) fn one_of(these: &[Self]) -> impl TypedValueParser<Value = Self> + use<> {
        let names = these.iter().filter_map(Self::to_possible_value);
        PossibleValuesParser::new(names).try_map(|name| Self::from_str(&name, false))
    }

    /// Prints the text or the document, as the format requires.
    pub(crate) fn print(
        self,
        text: impl FnOnce() -> String,
        document: impl FnOnce() -> Value,
    ) -> io::Result<()> {
        let printed = match self {
            Self::Text | Self::Diff => text(),
            Self::Json => format!("{:#}\n", document()),
            Self::Yaml => yaml(&document())?,
        };
        write(&printed).map(drop)
    }
}

pub(crate) fn yaml(document: &Value) -> io::Result<String> {
    serde_saphyr::to_string(document).map_err(io::Error::other)
}

/// Writes to standard output. Returns `false` if the reader has closed the pipe, as `head` does:
/// that is not an error.
pub(crate) fn write(text: &str) -> io::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}
