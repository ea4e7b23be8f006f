//! A log that nobody reads stops nothing: standard error is a full pipe.

use std::os::fd::AsRawFd;
use std::process::Stdio;

use base64::prelude::*;
use devtools::{certs, reviews};
use serde_json::{Value, json};

use crate::support::program::{Program, fill};
use crate::support::sample;
use crate::support::server::within;

/// A request whose review has this uid, name and namespace.
fn request(old: &str, new: &str, name: &str) -> String {
    let secret = |ca: &str| json!({"metadata": {}, "data": {"ca.crt": BASE64_STANDARD.encode(ca)}});
    let mut review = reviews::update(&secret(old), &secret(new), "x");
    for key in ["uid", "name", "namespace"] {
        review["request"][key] = name.into();
    }
    let body = review.to_string();
    let length = body.len();
    format!(
        "POST /mutate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn each_line_names_its_review_and_a_review_that_changes_nothing_is_logged_at_debug() {
    let (old, new) = (certs::ca().pem, certs::ca().pem);
    let too_long = "n".repeat(254);
    for (level, logged) in [("info", &["rotated"][..]), ("debug", &["unchanged", "rotated"])] {
        let program = Program::start(&["--log-level", level]).await;
        let mut client = program.client().await;
        for (new, name) in [(&old, "unchanged"), (&new, "rotated"), (&new, &too_long)] {
            client.send(request(&old, new, name).as_bytes()).await.unwrap();
            assert_eq!(within(client.answer()).await.unwrap().status, 200);
        }
        let log = program.stop().await;
        let lines: Vec<Value> =
            log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let reviewed: Vec<_> = lines.iter().filter(|line| line["message"] == "reviewed").collect();
        for key in ["uid", "name", "namespace"] {
            let named: Vec<_> = reviewed.iter().filter_map(|line| line[key].as_str()).collect();
            assert_eq!(named, logged, "{key} at {level}");
        }
        assert_eq!(reviewed.len(), logged.len() + 1, "{level}: the last, without its names");
    }
}

#[tokio::test]
async fn a_blocked_standard_error_stops_neither_reviews_nor_probes_nor_the_end() {
    let mut program = Program::start(&[]).await;
    let unread = program.blocked_log().await;
    let mut client = program.client().await;
    // Its line in the log is as long as they get.
    let review = request(&certs::ca().pem, &certs::ca().pem, &"n".repeat(253));
    let dropped = loop {
        for _ in 0..100 {
            client.send(review.as_bytes()).await.unwrap();
            assert_eq!(within(client.answer()).await.unwrap().status, 200);
        }
        let dropped = sample(&program.metrics().await, "ca_overlap_log_lines_dropped_total");
        if dropped > 0.0 {
            break dropped;
        }
    };
    assert_eq!(within(program.admin("/livez")).await.0, 200);
    assert_eq!(within(program.admin("/readyz")).await.0, 200);

    drop(unread);
    let log = program.wait_for_log("standard error was blocked").await;
    let said = log.lines().find(|line| line.contains("standard error was blocked")).unwrap();
    assert!(said.contains(&format!("\"lines\":{dropped},")), "{dropped}: {said}");

    let _unread = program.blocked_log().await;
    program.signal("TERM");
    // The log cannot say that the drain has begun.
    while within(program.admin("/readyz")).await.0 == 200 {}
    program.signal("TERM");
    assert_eq!(within(program.exited()).await.code(), Some(0));
}

#[tokio::test]
async fn a_blocked_standard_error_does_not_hold_up_an_exit_with_an_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    fill(&format!("/proc/self/fd/{}", reader.as_raw_fd()));
    let command = Program::command();
    let mut child = tokio::process::Command::from(command)
        .args(["webhook", "--tls-cert", "missing.pem", "--tls-key", "missing.key"])
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .stderr(Stdio::from(writer))
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    assert_eq!(within(child.wait()).await.unwrap().code(), Some(1));
}
