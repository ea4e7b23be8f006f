//! `ca-overlap review` as a user runs it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::readers::odd;
use base64::prelude::*;
use devtools::certs;
use serde_json::{Value, json};

fn review(dir: &Path, args: &[&str]) -> Output {
    Command::new(crate::support::binary::path())
        .arg("review")
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Files with an old and a new CA: as PEM, as Secrets in YAML and JSON.
fn files() -> (tempfile::TempDir, certs::Identity, certs::Identity) {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (certs::ca(), certs::ca());
    fs::write(dir.path().join("old.pem"), &old.pem).unwrap();
    fs::write(dir.path().join("new.pem"), &new.pem).unwrap();
    let secret = |ca: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "envoy", "namespace": "gw"},
               "data": {"ca.crt": BASE64_STANDARD.encode(ca), "tls.key": BASE64_STANDARD.encode("CANARY")}})
    };
    fs::write(dir.path().join("old.json"), secret(&old.pem).to_string()).unwrap();
    let yaml = format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: envoy\n  namespace: gw\nstringData:\n  tls.key: CANARY\n  ca.crt: |\n    {}\n",
        new.pem.trim_end().replace('\n', "\n    ")
    );
    fs::write(dir.path().join("new.yaml"), yaml).unwrap();
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {"uid": "u1", "operation": "UPDATE", "namespace": "gw", "name": "envoy",
            "kind": {"group": "", "version": "v1", "kind": "Secret"}, "options": {"kind": "UpdateOptions"},
            "object": secret(&new.pem), "oldObject": secret(&old.pem)}
    });
    fs::write(dir.path().join("review.json"), review.to_string()).unwrap();
    (dir, old, new)
}

#[test]
fn pem_files_secrets_and_reviews_are_explained_alike() {
    let (dir, old, _) = files();
    for args in [
        &["--old", "old.pem", "--new", "new.pem"][..],
        &["--old", "old.json", "--new", "new.yaml"],
        &["review.json"],
    ] {
        let text = stdout(&review(dir.path(), args));
        assert!(text.contains("Decision  rotation"), "{text}");
        assert!(text.contains(&old.sha256()), "{text}");
        assert!(text.contains("2 certificates") && text.contains("add    /data/ca.crt"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        assert!(!text.contains("CANARY"));
    }
}

#[test]
fn json_output_is_the_webhooks_answer_and_the_result() {
    let (dir, old, new) = files();
    let answer: Value =
        serde_json::from_str(&stdout(&review(dir.path(), &["review.json", "-o", "json"]))).unwrap();
    assert_eq!(answer["response"]["uid"], "u1");
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    assert_eq!(answer["result"]["ca.crt"], certs::bundle(&[&new, &old]));
    assert_eq!(answer["result"]["certificates"][1]["carried"], true);
    assert!(!answer.to_string().contains(&BASE64_STANDARD.encode("CANARY")));
    let yaml = stdout(&review(dir.path(), &["review.json", "-o", "yaml"]));
    let as_yaml: Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(as_yaml["result"]["ca.crt"], answer["result"]["ca.crt"]);
}

#[test]
fn diff_shows_what_is_added() {
    let (dir, _, _) = files();
    let diff =
        stdout(&review(dir.path(), &["--old", "old.json", "--new", "new.yaml", "-o", "diff"]));
    assert!(diff.contains("+ca.crt: -----BEGIN CERTIFICATE-----"), "{diff}");
    assert!(diff.contains("+labels: ca-overlap.dev/phase: overlap"), "{diff}");
    assert!(!diff.contains("CANARY"));
}

#[test]
fn the_time_and_the_defaults_are_arguments() {
    let (dir, _, _) = files();
    let pem = ["--old", "old.pem", "--new", "new.pem"];
    let expired =
        stdout(&review(dir.path(), &[&pem[..], &["--at", "2091-01-01T00:00:00Z"]].concat()));
    assert!(expired.contains("1 certificate") && expired.contains("EXPIRED"), "{expired}");
    let none = stdout(&review(dir.path(), &[&pem[..], &["--keep", "0"]].concat()));
    assert!(
        none.contains("1 certificate\n")
            || none.contains("1 certificate readable")
            || none.contains("1 readable"),
        "{none}"
    );
    let off = stdout(&review(dir.path(), &[&pem[..], &["--default-mode", "off"]].concat()));
    assert!(off.contains("mode off"), "{off}");
}

#[test]
fn reads_standard_input() {
    let (dir, _, _) = files();
    let mut child = Command::new(crate::support::binary::path())
        .args(["review", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let review = fs::read(dir.path().join("review.json")).unwrap();
    child.stdin.take().unwrap().write_all(&review).unwrap();
    assert!(stdout(&child.wait_with_output().unwrap()).contains("rotation"));
}

#[test]
fn errors_are_one_line_that_names_the_file_and_no_content() {
    let (dir, _, _) = files();
    fs::write(dir.path().join("junk"), "CANARY: [").unwrap();
    fs::write(dir.path().join("shape.json"), r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":["CANARY"]}}"#).unwrap();
    for (args, code, names) in [
        (&["missing.json"][..], 2, "missing.json"),
        (&["junk"], 2, "junk"),
        (&["shape.json"], 2, "shape.json"),
        (&["old.pem"], 2, "old.pem"),
        (&["--old", "junk", "--new", "new.pem"], 2, "junk"),
        (&["--old", "old.pem"], 64, "--new"),
        (&[], 64, "FILE"),
        (&["review.json", "-o", "xml"], 64, "xml"),
        (&["review.json", "--keep", "9"], 64, "--keep"),
        (&["review.json", "--old", "old.pem", "--new", "new.pem"], 64, "--old"),
    ] {
        let output = review(dir.path(), args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(names) && !stderr.contains("CANARY"), "{args:?}: {stderr}");
        assert!(code == 64 || stderr.lines().count() == 1, "{stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn readers_that_a_bundle_harms_or_does_not_help_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let notes = |old: &str, new: &str| {
        fs::write(dir.path().join("old.pem"), old).unwrap();
        fs::write(dir.path().join("new.pem"), new).unwrap();
        let files = ["--old", "old.pem", "--new", "new.pem"];
        let text = stdout(&review(dir.path(), &files));
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        let json = stdout(&review(dir.path(), &[&files[..], &["-o", "json"]].concat()));
        let json: Value = serde_json::from_str(&json).unwrap();
        let notes = json["result"]["notes"].as_array().unwrap().clone();
        assert_eq!(text.matches("Note  ").count(), notes.len(), "{text}");
        notes.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let old = certs::ca();
    assert_eq!(notes(&old.pem, &certs::ca_named("Other").pem), Vec::<String>::new());
    assert_eq!(notes(&old.pem, &old.renewed().pem), Vec::<String>::new());
    let same = notes(&old.pem, &certs::ca().pem);
    assert!(same.len() == 1 && same[0].contains("ZooKeeper") && same[0].contains("mode=off"));
    let neither = notes(&odd::pem("no-key-ids"), &odd::pem("no-extensions"));
    assert!(neither.len() == 2 && neither[1].contains("OpenSSL"), "{neither:?}");
}
