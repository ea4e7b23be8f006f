//! The command line: flags, their environment variables, and what they must not say.

mod keeper;
mod webhook;

use std::fmt::Display;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

pub use keeper::KeeperArgs;
pub use webhook::WebhookArgs;

use crate::telemetry::{self, Format, Level};
use crate::tools::demo;
use crate::tools::review::ReviewArgs;

/// Parses, runs, and turns what comes of it into an exit code: 0 fine, 1 found something or
/// failed, 64 usage (`EX_USAGE` of sysexits.h).
pub fn main() -> ExitCode {
    let Cli { log: LogArgs { log_level, log_format }, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way, too; where they cannot be printed, nothing can.
            drop(error.print());
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    telemetry::init(log_level, log_format);
    command.run().unwrap_or_else(|failure| {
        eprintln!("ca-overlap: {failure}");
        failure.code()
    })
}

const USAGE: u8 = 64;

/// Keeps the previous CA bundled beside the new one when a Secret's ca.crt rotates.
#[derive(Debug, Parser)]
#[command(name = "ca-overlap", version, max_term_width = 100)]
pub struct Cli {
    /// How to log.
    #[command(flatten)]
    pub log: LogArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to log.
#[derive(Clone, Copy, Debug, Args)]
pub struct LogArgs {
    /// How much to log, on standard error: error, warn, info, debug or trace
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "CA_OVERLAP_LOG_LEVEL",
        default_value = "info"
    )]
    pub log_level: Level,

    /// How a log line looks: text or json
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "CA_OVERLAP_LOG_FORMAT",
        default_value = "text"
    )]
    pub log_format: Format,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Explain what the webhook decides about a write, without a cluster
    Review(Box<ReviewArgs>),
    /// Run the keeper: retire what is over, promote what has settled, repair what was missed
    Keeper(Box<KeeperArgs>),
    /// Run the admission webhook
    Webhook(Box<WebhookArgs>),
    /// Play a CA rotation on a real API server, first without the webhook and then with it
    Demo(demo::Args),
}

impl Command {
    /// Runs it to its end.
    pub fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Review(args) => {
                args.run().map_err(anyhow::Error::from)?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Keeper(args) => args.run(),
            Self::Webhook(args) => args.run(),
            Self::Demo(args) => run_demo(&args),
        }
    }
}

fn run_demo(args: &demo::Args) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let outcome = runtime.block_on(demo::run(args)).context("demo")?;
    Ok(outcome.exit_code().into())
}

/// Why a command could not do its work.
#[derive(Debug)]
pub enum Failure {
    /// It was tried.
    Failed(anyhow::Error),
    /// The flags do not go together: nothing was tried.
    Usage(UsageError),
}

impl Failure {
    fn code(&self) -> ExitCode {
        match self {
            Self::Failed(_) => ExitCode::FAILURE,
            Self::Usage(_) => USAGE.into(),
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // With its causes, in one line.
            Self::Failed(error) => write!(f, "{error:#}"),
            Self::Usage(error) => write!(f, "{error}"),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Self {
        Self::Usage(error)
    }
}

/// Flags that do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag}: {problem} (see --help)")]
pub struct UsageError {
    flag: &'static str,
    problem: String,
}

impl UsageError {
    /// `flag` as the user writes it, and what is wrong with it.
    pub fn new(flag: &'static str, problem: impl Into<String>) -> Self {
        Self { flag, problem: problem.into() }
    }
}
