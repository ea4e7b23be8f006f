//! The demo shows one rotation in three parts, fails when a handshake of the third part fails, and
//! leaves nothing behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support;

const WIDTH: usize = 80;
/// What the columns of the table have to show, from the first row to the last. In mutual TLS the
/// webhook alone does not help; in one-way TLS it helps where an old leaf meets new files.
const WITHOUT: &str = "✓ ✗ ✗ ✗ ✗ ✓ – – ✓ – – ✓";
const WEBHOOK: &str = "✓ ✗ ✗ ✓ ✗ ✓ – – ✓ – – ✓";
const FULL: &str = "✓ ✓ ✓ ✓ ✓ ✓ ✓ ✓ ✓ ✓ ✓ ✓";

#[test]
fn no_handshake_fails_with_webhook_and_keeper() {
    let Some((output, scratch)) = demo("no_handshake_fails_with_webhook_and_keeper", &[]) else {
        return;
    };
    let shown = output_text(&output);
    assert_eq!(columns(&shown), [WITHOUT, WEBHOOK, FULL], "{shown}");
    assert!(output.status.success(), "{shown}");
    let staged = "ca.crt: CA2, CA1 (kept)  tls.crt: leaf by CA1  pending.tls.crt: leaf by CA2";
    assert!(shown.contains(staged), "{shown}");
    assert!(!shown.contains('\x1b'), "colour without a terminal");
    let widest = shown.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(WIDTH), "{shown}");
    assert_nothing_left(scratch.path());
}

/// The negative control: without a keeper nothing is staged. It also registers the webhook by URL,
/// as the demo does where it cannot listen on port 443.
#[test]
fn it_fails_without_a_keeper() {
    let flags = ["--by-url", "--no-keeper"];
    let Some((output, scratch)) = demo("it_fails_without_a_keeper", &flags) else { return };
    let shown = output_text(&output);
    assert_eq!(columns(&shown), [WITHOUT, WEBHOOK, WEBHOOK], "{shown}");
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(
        shown.contains("The webhook will be registered by URL instead of by Service"),
        "{shown}"
    );
    assert_nothing_left(scratch.path());
}

#[test]
fn ctrl_c_stops_everything() {
    let Some((mut command, scratch)) = command("ctrl_c_stops_everything", &[]) else { return };
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    // All programs run then.
    assert!(lines.any(|line| line.contains("The keeper waits for --settle")));
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
fn demo(test: &str, flags: &[&str]) -> Option<(Output, TempDir)> {
    let (mut command, scratch) = command(test, flags)?;
    Some((command.output().unwrap(), scratch))
}

fn command(test: &str, flags: &[&str]) -> Option<(Command, TempDir)> {
    support::assets(test)?;
    // Sockets in it have a short limit for their paths: nothing long.
    let scratch = TempDir::new().unwrap();
    let mut command = Command::new(support::example("demo"));
    command
        .args(flags)
        .env("TMPDIR", scratch.path())
        .env("CA_OVERLAP_PROGRAM", support::binary::path())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null());
    Some((command, scratch))
}

fn output_text(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    format!("{error}{}", String::from_utf8(output.stdout.clone()).unwrap())
}

/// The marks of the last table, a line for each column.
fn columns(shown: &str) -> [String; 3] {
    let (_, table) = shown.split_once("HANDSHAKES THAT SUCCEED").unwrap_or_default();
    let rows =
        table.lines().filter(|line| line.contains("-way TLS: ") || line.contains("mutual TLS: "));
    let rows: Vec<Vec<_>> =
        rows.map(|row| row.chars().filter(|c| "✓✗–".contains(*c)).collect()).collect();
    [0, 1, 2].map(|column| {
        let marks: Vec<_> = rows.iter().map(|row| row[column].to_string()).collect();
        marks.join(" ")
    })
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
