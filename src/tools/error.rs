//! Why a command could not do its work.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// Never says what a file or an answer holds.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It was tried.
    #[error("{0}")]
    Failed(String),
    /// A file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Read { path: PathBuf, error: io::Error },
    /// A part of the command line is wrong: nothing was tried.
    #[error("{flag}: {problem}")]
    Usage { flag: &'static str, problem: String },
    /// The result cannot be written.
    #[error("cannot write the result: {0}")]
    Write(#[from] io::Error),
}

impl Error {
    pub(crate) fn failed(what: impl Display, error: impl Display) -> Self {
        Self::Failed(format!("{what}: {error}"))
    }

    /// What was named on the command line is something else.
    pub(crate) fn expected(what: impl Display, expected: &str) -> Self {
        Self::failed(what, format_args!("expected {expected}"))
    }

    /// A file that a flag names is no use.
    pub(crate) fn file(flag: &str, path: &Path, problem: impl Display) -> Self {
        Self::failed(flag, format_args!("{}: {problem}", path.display()))
    }

    pub(crate) fn usage(flag: &'static str, problem: impl Into<String>) -> Self {
        Self::Usage { flag, problem: problem.into() }
    }
}
