//! Runs the program as a user does against a cluster.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The exit code and the output of a command.
#[derive(Debug)]
pub struct CommandOutput {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for CommandOutput {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code().unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl CommandOutput {
    /// Standard output. Fails if the exit code is not `code`.
    #[track_caller]
    pub fn with_code(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        &self.stdout
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let parsed = serde_json::from_str(&self.stdout);
        assert!(parsed.is_ok(), "no JSON: {}{}", self.stdout, self.stderr);
        parsed.unwrap()
    }
}

/// `ca-overlap` with this kubeconfig.
pub fn command(kubeconfig: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ca-overlap"));
    command.args(arguments).env("KUBECONFIG", kubeconfig).stdin(Stdio::null());
    // A shell may export it.
    command.env_remove("COLUMNS");
    command
}

/// Runs it to its end. Fails if text exceeds 100 columns or shows a private key.
pub fn run(kubeconfig: &Path, arguments: &[&str]) -> CommandOutput {
    let ended = CommandOutput::from(command(kubeconfig, arguments).output().unwrap());
    let wide = ended.stdout.lines().find(|line| line.chars().count() > 100);
    assert!(wide.is_none() || arguments.contains(&"-o"), "{wide:?}");
    assert!(!ended.stdout.contains("PRIVATE KEY") && !ended.stderr.contains("PRIVATE KEY"));
    ended
}
