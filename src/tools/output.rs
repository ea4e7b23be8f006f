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
    /// The same, with more columns, and nothing cut
    Wide,
    /// For programs, as JSON
    Json,
    /// For programs, as YAML
    Yaml,
    /// The Secrets only, as secret/NAME
    Name,
    /// The difference between the Secret as written and as stored
    Diff,
}

impl Output {
    /// The formats of most commands.
    pub(crate) const USUAL: &[Self] = &[Self::Text, Self::Json, Self::Yaml];
    /// The formats of commands that print a table of Secrets.
    pub(crate) const TABLE: &[Self] = &[Self::Text, Self::Wide, Self::Json, Self::Yaml, Self::Name];

    /// A parser that accepts `these` formats on the command line.
    pub(crate) fn one_of(these: &[Self]) -> impl TypedValueParser<Value = Self> + use<> {
        let names = these.iter().filter_map(Self::to_possible_value);
        PossibleValuesParser::new(names).try_map(|name| Self::from_str(&name, false))
    }

    /// Prints the text or the document, as the format requires. Where a command has more formats than
    /// the usual ones, `text` gives what is asked for.
    pub(crate) fn print(
        self,
        text: impl FnOnce() -> String,
        document: impl FnOnce() -> Value,
    ) -> io::Result<()> {
        let printed = match self {
            Self::Text | Self::Wide | Self::Name | Self::Diff => text(),
            Self::Json => format!("{:#}\n", document()),
            Self::Yaml => yaml(&document())?,
        };
        write(&printed).map(drop)
    }
}

/// A document for programs: these fields, with its version and its kind.
pub(crate) fn document(kind: &str, mut fields: Value) -> Value {
    fields["apiVersion"] = API_VERSION.into();
    fields["kind"] = kind.into();
    fields
}

/// The version of all documents.
const API_VERSION: &str = "ca-overlap.dev/v1alpha1";

/// The names of Secrets, a line each, as kubectl prints them.
pub(crate) fn names<'a>(secrets: impl IntoIterator<Item = &'a str>) -> String {
    secrets.into_iter().flat_map(|name| ["secret/", name, "\n"]).collect()
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
