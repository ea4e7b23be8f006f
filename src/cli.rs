//! The command line: flags, their environment variables, and what they must not say.

mod completions;
mod keeper;
mod policy;
mod webhook;

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::completions::CompletionsArgs;
use self::keeper::KeeperArgs;
use self::webhook::WebhookArgs;
use crate::log::{self, Format, Level};
use crate::run;
use crate::tools;
use crate::tools::distrust::DistrustArgs;
use crate::tools::inspect::InspectArgs;
use crate::tools::probe::ProbeArgs;
use crate::tools::review::ReviewArgs;
use crate::tools::simulate::SimulateArgs;
use crate::tools::status::StatusArgs;

/// Parses, runs, and turns what comes of it into an exit code: 0 fine, 1 found something or
/// failed, 64 usage (`EX_USAGE` of sysexits.h).
pub fn main() -> ExitCode {
    let Cli { log: LogArgs { log_level, log_format }, command } = match parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way, too; where they cannot be printed, nothing can.
            drop(error.print());
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    log::init(log_level, log_format);
    command.run().unwrap_or_else(|failure| {
        eprintln!("ca-overlap: {failure}");
        failure.code()
    })
}

const USAGE: u8 = 64;

/// The name under which kubectl finds its plugin `ca-overlap`, without an extension.
const PLUGIN: &str = "kubectl-ca_overlap";
/// What a user of the plugin types.
const PLUGIN_COMMAND: &str = "kubectl ca-overlap";

/// Reads the command line. Help and errors say the command as it was typed: kubectl starts its
/// plugins under another name.
fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let arguments: Vec<OsString> = arguments.collect();
    let program = arguments.first().map(Path::new).and_then(Path::file_stem);
    let command = if program == Some(OsStr::new(PLUGIN)) { plugin() } else { Cli::command() };
    Cli::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

fn plugin() -> clap::Command {
    let examples = |command: clap::Command| {
        let mut help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for before in ["  ", "| "] {
            help = help
                .replace(&format!("{before}ca-overlap "), &format!("{before}{PLUGIN_COMMAND} "));
        }
        command.after_help(help)
    };
    examples(Cli::command()).bin_name(PLUGIN_COMMAND).mut_subcommands(examples)
}

/// Keeps the previous CA bundled beside the new one when a Secret's ca.crt rotates.
#[derive(Debug, Parser)]
#[command(name = "ca-overlap", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// How to log.
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  ca-overlap status -A
  ca-overlap inspect gateway/envoy
  ca-overlap review --old old.yaml --new new.yaml

Each command has a --help with more. Exit code: 0 if all is well; 1 if something was found, or
failed; 64 if the command line is wrong.";

/// How to log.
#[derive(Clone, Copy, Debug, Args)]
struct LogArgs {
    /// How much to log, on standard error: error, warn, info, debug or trace
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "CA_OVERLAP_LOG_LEVEL",
        default_value = "info"
    )]
    log_level: Level,

    /// How a log line looks: text or json
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "CA_OVERLAP_LOG_FORMAT",
        default_value = "text"
    )]
    log_format: Format,
}

/// What to do. Each is described where its flags are: a text here would hide that one.
#[derive(Debug, Subcommand)]
enum Command {
    Distrust(Box<DistrustArgs>),
    Inspect(Box<InspectArgs>),
    /// Find servers that resume TLS sessions across a rotation of their certificate
    Probe(Box<ProbeArgs>),
    Review(Box<ReviewArgs>),
    Simulate(Box<SimulateArgs>),
    Status(Box<StatusArgs>),
    Keeper(Box<KeeperArgs>),
    Webhook(Box<WebhookArgs>),
    Completions(CompletionsArgs),
}

impl Command {
    /// Runs it to its end.
    fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Review(args) => args.run().map(|()| ExitCode::SUCCESS).map_err(Failure::from),
            Self::Distrust(args) => runtime()?.block_on(args.run()).map_err(Failure::from),
            Self::Simulate(args) => runtime()?.block_on(args.run()).map_err(Failure::from),
            Self::Probe(args) => runtime()?.block_on(args.run()).map_err(Failure::from),
            Self::Inspect(args) => runtime()?.block_on(args.run()).map_err(Failure::from),
            Self::Completions(args) => {
                Ok(args.run(Cli::command()).context("cannot write the completions")?)
            }
            Self::Status(args) => runtime()?.block_on(args.run()).map_err(Failure::from),
            Self::Keeper(args) => args.run(),
            Self::Webhook(args) => args.run(),
        }
    }
}

/// For commands that make some calls and end: one thread is enough.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("cannot start the runtime")?)
}

/// Why a command could not do its work.
#[derive(Debug)]
enum Failure {
    /// It was tried.
    Failed(anyhow::Error),
    /// The flags do not go together: nothing was tried.
    Usage(UsageError),
}

impl From<tools::error::Error> for Failure {
    fn from(error: tools::error::Error) -> Self {
        match error {
            tools::error::Error::Usage { flag, problem } => {
                Self::Usage(UsageError::new(flag, problem))
            }
            error => Self::Failed(error.into()),
        }
    }
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

impl From<run::Error> for Failure {
    fn from(error: run::Error) -> Self {
        Self::Failed(error.into())
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
struct UsageError {
    flag: &'static str,
    problem: String,
}

impl UsageError {
    /// `flag` as the user writes it, and what is wrong with it.
    fn new(flag: &'static str, problem: impl Into<String>) -> Self {
        Self { flag, problem: problem.into() }
    }
}
