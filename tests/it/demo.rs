//! The demo shows what the design promises, notices when it does not, and leaves nothing behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support;

const WIDTH: usize = 100;

#[test]
fn it_shows_what_the_design_promises() {
    let Some((output, scratch)) = demo("it_shows_what_the_design_promises", &[], &[]) else {
        return;
    };
    let shown = said(&output);
    assert!(output.status.success(), "{shown}");
    for line in ["envoy             CA2, CA1*", "envoy-gateway     CA3, CA2*"] {
        assert!(shown.contains(line), "{shown}");
    }
    assert!(shown.contains("[CA2, CA1*] [CA3, CA2*] [CA4, CA3*]"), "{shown}");
    assert!(shown.contains("✓ 54 of 54 handshakes"), "{shown}");
    assert!(shown.ends_with("✓ Everything shown is what the design promises.\n"), "{shown}");
    assert!(!shown.contains('\x1b'), "colour without a terminal");
    assert_fits(&shown);
    assert_nothing_left(scratch.path());
}

#[test]
fn it_registers_by_url_where_port_443_cannot_be_had() {
    let test = "it_registers_by_url_where_port_443_cannot_be_had";
    let Some((output, scratch)) = demo(test, &["--by-url"], &[]) else { return };
    let shown = said(&output);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("Registered by URL instead of by Service"), "{shown}");
    assert!(shown.contains("with https://127.0.0.1:"), "{shown}");
    assert_fits(&shown);
    assert_nothing_left(scratch.path());
}

/// A webhook that is told to carry nothing does not keep the promise, and the demo must say so.
#[test]
fn it_fails_when_the_promise_is_not_kept() {
    let test = "it_fails_when_the_promise_is_not_kept";
    let Some((output, scratch)) = demo(test, &[], &[("CA_OVERLAP_KEEP", "0")]) else { return };
    let shown = said(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(
        shown.contains("is not ready") || shown.contains("NOT what the design promises"),
        "{shown}"
    );
    assert_nothing_left(scratch.path());
}

#[test]
fn ctrl_c_stops_everything() {
    let Some((mut command, scratch)) = command("ctrl_c_stops_everything", &[], &[]) else { return };
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("✓ starting etcd and kube-apiserver")));
    assert!(!running_in(scratch.path()).is_empty());
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    assert!(lines.any(|line| line.contains("Interrupted")));
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_nothing_left(scratch.path());
}

#[test]
fn a_missing_generator_is_named() {
    let mut command = Command::new(support::example("demo"));
    let output = command.args(["--generator", "none/legacy-certgen"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("no generator at none/legacy-certgen: run make demo"), "{error}");
}

/// Runs the demo to its end, with a directory for temporary files of its own.
fn demo(test: &str, flags: &[&str], variables: &[(&str, &str)]) -> Option<(Output, TempDir)> {
    let (mut command, scratch) = command(test, flags, variables)?;
    Some((command.output().unwrap(), scratch))
}

fn command(test: &str, flags: &[&str], variables: &[(&str, &str)]) -> Option<(Command, TempDir)> {
    support::assets(test)?;
    // Sockets in it have a short limit for their paths: nothing long.
    let scratch = TempDir::new().unwrap();
    let mut command = Command::new(support::example("demo"));
    command
        .args(flags)
        .env("TMPDIR", scratch.path())
        .env("CA_OVERLAP_PROGRAM", support::binary::path())
        .envs(variables.iter().copied())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null());
    Some((command, scratch))
}

fn said(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    format!("{error}{}", String::from_utf8(output.stdout.clone()).unwrap())
}

#[track_caller]
fn assert_fits(shown: &str) {
    let widest = shown.lines().max_by_key(|line| line.chars().count()).unwrap();
    assert!(widest.chars().count() <= WIDTH, "{widest}");
}

#[track_caller]
fn assert_nothing_left(scratch: &Path) {
    let files: Vec<_> = std::fs::read_dir(scratch).unwrap().collect();
    assert!(files.is_empty(), "{files:?}");
    let processes = running_in(scratch);
    assert!(processes.is_empty(), "{processes:?}");
}

/// The processes whose working directory is below `scratch` (Linux; elsewhere none are seen).
fn running_in(scratch: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(scratch))
        })
        .map(|entry| entry.path())
        .collect()
}
