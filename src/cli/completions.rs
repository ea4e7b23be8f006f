//! `ca-overlap completions`: what a shell needs to complete the command line.

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

Exit code: 0 if they were printed; 1 if that failed; 64 if there is no such shell.";

/// Print the completions for a shell
///
/// They complete commands, flags and the values that are known. Where the files go is up to the shell;
/// the examples are where they usually are.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompletionsArgs {
    /// For which shell
    #[arg(value_name = "SHELL", value_enum)]
    pub(super) shell: Shell,
}

impl CompletionsArgs {
    /// Prints those of `command`.
    pub(super) fn run(self, mut command: Command) -> io::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "ca-overlap", &mut script);
        // For a program with a hyphen, clap_complete 4.6 goes by two names in its script for bash, so
        // that no flag of a command is completed (clap#6421).
        let script = String::from_utf8_lossy(&script).replace("ca__subcmd__overlap", "ca__overlap");
        output::write(&script).map(|_| ExitCode::SUCCESS)
    }
}
