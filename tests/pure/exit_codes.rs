//! Exit codes: 0 fine, 1 found something, 2 could not read or reach something, 64 a wrong command
//! line. The servers end with 1 if they fail. Errors go to standard error.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use ca_overlap::cli::Cli;
use clap::CommandFactory;

use crate::support::binary;

/// A kubeconfig for an API server that does not listen.
fn unreachable_cluster(directory: &Path) -> String {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let path = directory.join("kubeconfig");
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: it, clusters: [{{name: it, cluster: {{server: \"http://{closed}\"}}}}], users: [{{name: it, user: {{token: it}}}}], contexts: [{{name: it, context: {{cluster: it, user: it}}}}]}}"
    );
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn every_command_says_what_is_wrong_on_stderr_and_by_its_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = unreachable_cluster(directory.path());
    let junk = directory.path().join("junk");
    std::fs::write(&junk, "junk").unwrap();
    let (junk, absent) = (junk.to_str().unwrap(), "/no/such/file");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let sha256 = "5e".repeat(32);
    let cases: Vec<(i32, Vec<&str>)> = vec![
        (2, vec!["announce", junk]),
        (2, vec!["announce", absent]),
        (64, vec!["announce", junk, "a/b/c"]),
        (2, vec!["check"]),
        (2, vec!["check", "--kubeconfig", absent]),
        (64, vec!["check", "-o", "diff"]),
        (64, vec!["check", "-n", "a/b"]),
        (64, vec!["check", "-n", "ca-overlap"]),
        (64, vec!["check", "--ca-overlap-namespace", ""]),
        (64, vec!["check", "-A"]),
        (64, vec!["check", "--pre", "-n", "a/b"]),
        (2, vec!["check", "--pre", "--kubeconfig", absent]),
        (64, vec!["completions", "tcsh"]),
        (2, vec!["distrust", &sha256]),
        (2, vec!["distrust", &sha256, "-A"]),
        (2, vec!["distrust", &sha256, "ns/name"]),
        (2, vec!["distrust", junk]),
        (64, vec!["distrust", absent]),
        (64, vec!["distrust", &sha256, "a/b/c"]),
        (2, vec!["drain", "-A"]),
        (64, vec!["drain", "--timeout", "soon"]),
        (2, vec!["inspect", "ns/name"]),
        (2, vec!["inspect", junk]),
        (2, vec!["inspect", "-"]),
        (64, vec!["inspect", absent]),
        (64, vec!["inspect", junk, "--ignore", "no-such-rule"]),
        (2, vec!["probe", &closed, "--insecure"]),
        (2, vec!["probe", &closed, "--ca-file", absent]),
        (64, vec!["probe", "no-port"]),
        (2, vec!["review", junk]),
        (2, vec!["review", absent]),
        (2, vec!["review", "--old", absent, "--new", absent]),
        (64, vec!["review"]),
        (
            2,
            vec![
                "simulate",
                "--rotations",
                "1",
                "--peers",
                "2",
                "--secrets",
                "1",
                "--svg",
                "/no/such/file",
            ],
        ),
        (64, vec!["simulate", "--peers", "1"]),
        (2, vec!["status"]),
        (2, vec!["status", "-A", "-o", "json"]),
        (2, vec!["status", "--kubeconfig", absent]),
        (64, vec!["status", "-o", "diff"]),
        (64, vec!["keeper", "--settle", "0s"]),
        (1, vec!["webhook", "--tls-cert", absent, "--tls-key", absent, "--listen=127.0.0.1:0"]),
        (64, vec!["webhook"]),
        (64, vec!["webhook", "--self-managed", "--trust-settle", "18446744073709551615s"]),
    ];
    for command in Cli::command().get_subcommands().map(|command| command.get_name().to_owned()) {
        let codes: BTreeSet<i32> =
            cases.iter().filter(|(_, line)| line[0] == command).map(|(code, _)| *code).collect();
        assert!(codes.contains(&64), "{command} has no case of a wrong command line");
        ends(64, &[&command, "--no-such-flag"], &kubeconfig);
    }
    for (code, arguments) in &cases {
        ends(*code, arguments, &kubeconfig);
    }
    ends(64, &["no-such-command"], &kubeconfig);
}

/// Runs the program. Fails if it ends otherwise, panics, or says nothing on standard error.
fn ends(code: i32, arguments: &[&str], kubeconfig: &str) {
    let mut command = Command::new(binary::path());
    command.args(arguments).env("KUBECONFIG", kubeconfig).stdin(Stdio::null());
    let output = command.output().unwrap();
    let (shown, said) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {shown}{said}");
    assert!(!said.trim().is_empty() && !said.contains("panicked"), "{arguments:?}: {shown}{said}");
    assert!(!shown.contains("No rotation in flight"), "{arguments:?}: {shown}");
}
