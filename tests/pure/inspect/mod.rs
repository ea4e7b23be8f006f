//! `ca-overlap inspect` as a user runs it: each lint rule with an example that triggers it and one
//! that does not, and each form of input.

mod examples;
mod inputs;
mod keystores;
mod rules;
mod secrets;

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::command::CommandOutput;
use serde_json::Value;

/// The time of all examples.
const NOW: &str = "2026-03-01T10:00:00Z";

/// Runs `ca-overlap inspect` in `dir`. Fails if text exceeds 100 columns or shows a private key.
fn inspect(dir: &Path, arguments: &[&str]) -> CommandOutput {
    let output = Command::new(crate::support::binary::path())
        .args(["inspect", "--at", NOW])
        .args(arguments)
        .current_dir(dir)
        .env("KUBECONFIG", dir.join("no-kubeconfig"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let ended = CommandOutput::from(output);
    for shown in [&ended.stdout, &ended.stderr] {
        assert!(!shown.contains(CANARY) && !shown.contains("BEGIN"), "{shown}");
    }
    let wide = ended.stdout.lines().find(|line| line.chars().count() > 100);
    assert!(wide.is_none() || arguments.contains(&"-o"), "{wide:?}");
    ended
}

/// The content of the private keys of all examples.
const CANARY: &str = "Q0FOQVJZCANARY";

/// The rules that fire on a Secret, in their order. Fails if text, JSON and exit code disagree.
fn rules(secret: &Value) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret.json"), secret.to_string()).unwrap();
    let ended = inspect(dir.path(), &["secret.json", "-o", "json"]);
    let findings = ended.json()["inspected"][0]["findings"].as_array().unwrap().clone();
    let rules: Vec<String> =
        findings.iter().map(|finding| finding["rule"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ended.code, i32::from(!rules.is_empty()), "{rules:?}");
    let shown = inspect(dir.path(), &["secret.json"]);
    assert_eq!(shown.code, ended.code);
    for rule in &rules {
        assert!(shown.stdout.contains(rule), "{rule} is not in {}", shown.stdout);
    }
    rules
}
