//! `ca-overlap completions`: prints a completion script for a shell.

use std::io;
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::tools::output;

const EXAMPLES: &str = "\
Examples:
  ca-overlap completions bash >~/.local/share/bash-completion/completions/ca-overlap
  ca-overlap completions zsh >~/.zfunc/_ca-overlap
  ca-overlap completions fish >~/.config/fish/completions/ca-overlap.fish
  ca-overlap completions powershell | Out-String | Invoke-Expression
  ca-overlap completions elvish >~/.config/elvish/lib/ca-overlap.elv

Exit code: 0 if the script was printed; 2 if printing failed; 64 if the shell is unknown.";

/// Print a completion script for a shell
///
/// The script completes commands, flags and known values. The examples write it to the usual place
/// of each shell.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub(super) shell: Shell,
}

impl CompletionsArgs {
    /// Prints the script for `command`.
    pub(super) fn run(self, mut command: Command) -> io::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "ca-overlap", &mut script);
        // For a program with a hyphen, the bash script of clap_complete 4.6 uses two names, so that
        // it completes no flag of a subcommand (clap#6421).
        let script = String::from_utf8_lossy(&script).replace("ca__subcmd__overlap", "ca__overlap");
        output::write(&script).map(|_| ExitCode::SUCCESS)
    }
}
