//! The command line: flags, the environment variables of the servers' flags, and their validation.

mod completions;
mod defaults;
mod keeper;
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
use crate::tools::announce::AnnounceArgs;
use crate::tools::check::CheckArgs;
use crate::tools::distrust::DistrustArgs;
use crate::tools::drain::DrainArgs;
use crate::tools::inspect::InspectArgs;
use crate::tools::probe::ProbeArgs;
use crate::tools::review::ReviewArgs;
use crate::tools::simulate::SimulateArgs;
use crate::tools::status::StatusArgs;

/// Parses the command line and runs the command. Returns its exit code: 0 if all is well, 1 if
/// something was found, 2 if something could not be read or reached, 64 for a wrong command line
/// (`EX_USAGE` of sysexits.h). A server that fails ends with 1.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(completed) = completions::answer(&arguments) {
        return completed;
    }
    let Cli { log: LogArgs { log_level, log_format }, command } = match parse(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap, too. If printing fails, nothing else can help.
            drop(error.print());
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let is_server = matches!(command, Command::Keeper(_) | Command::Webhook(_));
    let log = log::init(log_level, log_format, is_server);
    command.run().unwrap_or_else(|failure| {
        log.print(&format!("ca-overlap: {failure}"));
        failure.code()
    })
}

const USAGE: u8 = 64;

/// The name under which kubectl finds its plugin `ca-overlap`, without an extension.
const PLUGIN: &str = "kubectl-ca_overlap";
/// The command that a user of the plugin types.
const PLUGIN_COMMAND: &str = "kubectl ca-overlap";

/// Parses the command line. kubectl starts its plugins under another name, so help and errors show
/// the command as the user typed it.
fn parse(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
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
#[command(
    name = "ca-overlap",
    version,
    max_term_width = 100,
    after_help = EXAMPLES,
    mut_subcommand("keeper", with_variables),
    mut_subcommand("webhook", with_variables)
)]
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

Each command has its own --help. Exit code: 0 if all is well; 1 if something was found, or a server
failed; 2 if something could not be read or reached; 64 if the command line is wrong.";

// How to log. A doc comment would replace the text of the servers, which get these flags again.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Logging")]
struct LogArgs {
    /// What to log to standard error: error, warn, info, debug or trace
    #[arg(long, global = true, value_name = "LEVEL", default_value = "info")]
    log_level: Level,

    /// The format of log lines: text or json
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    log_format: Format,
}

/// Gives a server the flags for the log again, with environment variables. Only the flags of
/// servers have these: a variable that changes what a person's command does surprises.
fn with_variables(server: clap::Command) -> clap::Command {
    LogArgs::augment_args(server)
        .mut_arg("log_level", |flag| flag.env("CA_OVERLAP_LOG_LEVEL"))
        .mut_arg("log_format", |flag| flag.env("CA_OVERLAP_LOG_FORMAT"))
}

/// The commands. Each is described at its flags: a doc comment here would replace that text.
#[derive(Debug, Subcommand)]
enum Command {
    Announce(Box<AnnounceArgs>),
    Check(Box<CheckArgs>),
    Distrust(Box<DistrustArgs>),
    Drain(Box<DrainArgs>),
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
    /// Runs the command.
    fn run(self) -> Result<ExitCode, CommandError> {
        match self {
            Self::Review(args) => Ok(args.run().map(|()| ExitCode::SUCCESS)?),
            Self::Announce(args) => Ok(runtime()?.block_on(args.run())?),
            Self::Check(args) => Ok(runtime()?.block_on(args.run())?),
            Self::Distrust(args) => Ok(runtime()?.block_on(args.run())?),
            Self::Drain(args) => Ok(runtime()?.block_on(args.run())?),
            Self::Simulate(args) => Ok(runtime()?.block_on(args.run())?),
            Self::Probe(args) => Ok(runtime()?.block_on(args.run())?),
            Self::Inspect(args) => Ok(runtime()?.block_on(args.run())?),
            Self::Completions(args) => Ok(args.run().context("cannot write the completions")?),
            Self::Status(args) => Ok(runtime()?.block_on(args.run())?),
            Self::Keeper(args) => args.run(),
            Self::Webhook(args) => args.run(),
        }
    }
}

/// The runtime of commands that make some calls and end: one thread is enough.
fn runtime() -> Result<tokio::runtime::Runtime, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("cannot start the runtime")?)
}

/// Why a command failed.
#[derive(Debug)]
enum CommandError {
    /// A server failed.
    Server(anyhow::Error),
    /// A command could not read or reach something.
    Trouble(anyhow::Error),
    /// The flags cannot be combined, so the command was not started.
    Usage(UsageError),
}

impl From<tools::error::ToolError> for CommandError {
    fn from(error: tools::error::ToolError) -> Self {
        match error {
            tools::error::ToolError::Usage { flag, problem } => {
                Self::Usage(UsageError::new(flag, problem))
            }
            error => Self::Trouble(error.into()),
        }
    }
}

impl CommandError {
    fn code(&self) -> ExitCode {
        match self {
            Self::Server(_) => ExitCode::FAILURE,
            Self::Trouble(_) => tools::error::TROUBLE.into(),
            Self::Usage(_) => USAGE.into(),
        }
    }
}

impl Display for CommandError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // The alternate form prints all causes in one line.
            Self::Server(error) | Self::Trouble(error) => write!(f, "{error:#}"),
            Self::Usage(error) => write!(f, "{error}"),
        }
    }
}

impl From<run::RunError> for CommandError {
    fn from(error: run::RunError) -> Self {
        Self::Server(error.into())
    }
}

impl From<anyhow::Error> for CommandError {
    fn from(error: anyhow::Error) -> Self {
        Self::Trouble(error)
    }
}

impl From<UsageError> for CommandError {
    fn from(error: UsageError) -> Self {
        Self::Usage(error)
    }
}

/// A flag that is wrong, or cannot be combined with others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag}: {problem} (see --help)")]
struct UsageError {
    flag: &'static str,
    problem: String,
}

impl UsageError {
    /// Takes `flag` as the user types it, and what is wrong with it.
    fn new(flag: &'static str, problem: impl Into<String>) -> Self {
        Self { flag, problem: problem.into() }
    }
}
