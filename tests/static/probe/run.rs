//! Runs `ca-overlap probe` as a user does.

use std::io::{BufRead, BufReader, Read as _};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use serde_json::Value;

use super::servers::{Files, NAME, Server};
use crate::support::binary;

/// The result of a probe.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let ended = Self {
            code: output.status.code().unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        };
        if !ended.stdout.starts_with('{') {
            let wide = ended.stdout.lines().find(|line| line.chars().count() > 100);
            assert_eq!(wide, None, "the table fits 100 columns");
        }
        ended
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let parsed = serde_json::from_str(&self.stdout);
        assert!(parsed.is_ok(), "the output is not JSON: {self:?}");
        parsed.unwrap()
    }

    /// Asserts the exit code, and returns the verdict for each TLS version.
    #[track_caller]
    pub(crate) fn verdicts(&self, code: i32) -> [Option<String>; 2] {
        assert_eq!(self.code, code, "{self:?}");
        let json = self.json();
        assert_eq!(json["fine"], code == 0);
        ["1.2", "1.3"].map(|tls| {
            let versions = json["versions"].as_array().unwrap();
            let version = versions.iter().find(|version| version["tls"] == tls)?;
            version["verdict"].as_str().map(str::to_owned)
        })
    }
}

pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary::path());
    command.arg("probe").args(arguments).stdin(Stdio::null()).env("NO_COLOR", "1");
    command
}

pub(crate) fn run(arguments: &[&str]) -> Ended {
    Ended::of(command(arguments).output().unwrap())
}

/// Probes a server once, with its CA as the trust anchor.
pub(crate) fn probe_once(server: &Server, files: &Files, arguments: &[&str]) -> Ended {
    let (target, ca) = (server.target(), files.ca());
    let known = [target.as_str(), "--server-name", NAME, "--ca-file", &ca, "-o", "json"];
    run(&[&known, arguments].concat())
}

/// A probe with `--watch`.
pub(crate) struct Watching {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Watching {
    /// Watches a server, with its CA as the trust anchor.
    pub(crate) fn start(server: &Server, files: &Files, arguments: &[&str]) -> Self {
        let (target, ca) = (server.target(), files.ca());
        let known = [target.as_str(), "--server-name", NAME, "--ca-file", &ca];
        Self::with(&[&known[..], &["--timeout", "60s"], arguments].concat())
    }

    /// Starts a probe, and waits until it has the sessions that it needs from before the rotation.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let mut child = command(&["-o", "json", "--watch", "--interval", "50ms", "--settle", "1s"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("rotate its certificate now") {
            if stderr.read_line(&mut said).unwrap() == 0 {
                let output = child.wait_with_output().unwrap();
                panic!("the probe ended: {said}{}", String::from_utf8_lossy(&output.stdout));
            }
        }
        Self { child, stderr }
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        let mut stderr = Vec::new();
        self.stderr.read_to_end(&mut stderr).unwrap();
        let status = self.child.wait().unwrap();
        let mut stdout = Vec::new();
        self.child.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
        Ended::of(Output { status, stdout, stderr })
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
