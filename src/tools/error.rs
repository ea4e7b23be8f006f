//! The error of a command.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The exit code if a command could not read or reach something, where 1 says that it found
/// something.
pub(crate) const TROUBLE: u8 = 2;

/// The exit code of a command that has read everything, or has not, and found nothing, or has.
pub(crate) fn exit_code(has_read_all: bool, is_fine: bool) -> ExitCode {
    match (has_read_all, is_fine) {
        (false, _) => TROUBLE.into(),
        (true, false) => ExitCode::FAILURE,
        (true, true) => ExitCode::SUCCESS,
    }
}

/// Why a command failed. The text never quotes the contents of a file or of a response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// The command was tried and failed.
    #[error("{0}")]
    Failed(String),
    /// A file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Read { path: PathBuf, error: io::Error },
    /// The command line is wrong; the command was not tried.
    #[error("{flag}: {problem}")]
    Usage { flag: &'static str, problem: String },
    /// The result cannot be written.
    #[error("cannot write the result: {0}")]
    Write(#[from] io::Error),
}

impl ToolError {
    pub(crate) fn failed(what: impl Display, error: impl Display) -> Self {
        Self::Failed(format!("{what}: {error}"))
    }

    /// The input that the command line names has another format.
    pub(crate) fn expected(what: impl Display, expected: &str) -> Self {
        Self::failed(what, format_args!("expected {expected}"))
    }

    /// The file of a flag cannot be used.
    pub(crate) fn file(flag: &str, path: &Path, problem: impl Display) -> Self {
        Self::failed(flag, format_args!("{}: {problem}", path.display()))
    }

    pub(crate) fn usage(flag: &'static str, problem: impl Into<String>) -> Self {
        Self::Usage { flag, problem: problem.into() }
    }
}
