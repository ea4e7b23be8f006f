//! Completion of a line in a shell: `ca-overlap completions` prints a script, which calls the program
//! while a line is typed; so does kubectl for its plugin.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell, engine};

use super::{Cli, plugin};
use crate::tools::output;

const EXAMPLES: &str = "\
Examples:
  ca-overlap completions bash         # in ~/.bashrc: source <(…); zsh alike
  ca-overlap completions fish | source
  ca-overlap completions powershell | Out-String | Invoke-Expression

Exit code: 0 if the script was printed; 2 if printing failed; 64 if the shell is unknown.";

/// Print a completion script for a shell
///
/// The script calls ca-overlap, which completes commands, flags and values, and asks the cluster for
/// the names of namespaces and Secrets. It fits this version: let the shell run it at each start.
///
/// kubectl completes its plugin, too, where a link named kubectl_complete-ca_overlap to this program is
/// on PATH.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub(super) shell: Shell,
}

impl CompletionsArgs {
    /// Prints the script.
    pub(super) fn run(self) -> io::Result<ExitCode> {
        let shells = Shells::builtins();
        let name = self.shell.to_string();
        let shell = shells.completer(&name).ok_or_else(|| io::Error::other("unknown shell"))?;
        let mut script = Vec::new();
        shell.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
        output::write(&String::from_utf8_lossy(&script)).map(|_| ExitCode::SUCCESS)
    }
}

const PROGRAM: &str = "ca-overlap";
/// Is set by the scripts.
const VARIABLE: &str = "CA_OVERLAP_COMPLETE";
/// The name by which kubectl calls the program to complete a line of its plugin.
const OF_KUBECTL: &str = "kubectl_complete-ca_overlap";

/// Completes a line if a shell asks for it. Otherwise `None`.
pub(super) fn answer(arguments: &[OsString]) -> Option<ExitCode> {
    let program = arguments.first().map(Path::new).and_then(Path::file_stem);
    let is_of_kubectl = program == Some(OsStr::new(OF_KUBECTL));
    if !is_of_kubectl
        && std::env::var_os(VARIABLE).is_none_or(|shell| shell.is_empty() || shell == "0")
    {
        return None;
    }
    // Nothing may be printed into the line: no error, and no word of a plugin that fetches a token.
    if let Ok(nowhere) = OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stderr(&nowhere);
    }
    let directory = std::env::current_dir().ok();
    let is_answered = if is_of_kubectl {
        let (words, last) = (arguments.to_vec(), arguments.len() - 1);
        let found = engine::complete(&mut plugin(), words, last, directory.as_deref());
        found.is_ok_and(|found| output::write(&of_kubectl(&found)).is_ok())
    } else {
        let environment = CompleteEnv::with_factory(Cli::command).var(VARIABLE);
        environment.try_complete(arguments.to_vec(), directory.as_deref()).unwrap_or_default()
    };
    Some(if is_answered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What kubectl expects: a value and its description in each line, then a number of bits.
fn of_kubectl(found: &[engine::CompletionCandidate]) -> String {
    const NO_SPACE: u8 = 2;
    const NO_FILES: u8 = 4;
    let mut text = String::new();
    let mut bits = NO_FILES;
    for candidate in found {
        let value = candidate.get_value().to_string_lossy();
        if value.ends_with(['/', '=']) {
            bits |= NO_SPACE;
        }
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.lines().next().unwrap_or_default();
        let _ = writeln!(text, "{value}{}{help}", if help.is_empty() { "" } else { "\t" });
    }
    let _ = writeln!(text, ":{bits}");
    text
}
