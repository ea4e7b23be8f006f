//! What commands print: for people, or the same for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::Value;

/// How a result is printed. Each command can do some of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For programs
    Json,
    /// The same as YAML
    Yaml,
    /// How what is stored differs from what was written
    Diff,
}

impl Output {
    /// Of most commands.
    pub(crate) const USUAL: &[Self] = &[Self::Text, Self::Json, Self::Yaml];

    /// Reads one of these on the command line.
    pub(crate) fn one_of(these: &[Self]) -> impl TypedValueParser<Value = Self> + use<> {
        let names = these.iter().filter_map(Self::to_possible_value);
        PossibleValuesParser::new(names).try_map(|name| Self::from_str(&name, false))
    }

    /// Prints a text for people, or a document for programs.
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

/// Writes to standard output, and says whether somebody still reads it. A reader such as `head`
/// that has seen enough is no failure.
pub(crate) fn write(text: &str) -> io::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}
