//! The webhook as a process: the endpoint over real TLS, and one clear error line for each mistake.

use std::net::TcpListener;
use std::time::Duration;

use base64::prelude::*;
use devtools::certs;
use devtools::reviews;
use serde_json::{Value, json};

use crate::support::program::{Files, Program, fails};
use crate::support::server::within;

const MAX_BODY: usize = 8 * 1024 * 1024;

fn review(old: &str, new: &str, filler: usize) -> String {
    let secret = |ca: &str| {
        json!({
            "metadata": {"name": "envoy", "namespace": "gw"}, "type": "kubernetes.io/tls",
            "data": {"ca.crt": BASE64_STANDARD.encode(ca), "tls.crt": "",
                     "tls.key": BASE64_STANDARD.encode("CANARY"), "blob": "A".repeat(filler)},
        })
    };
    reviews::update(&secret(old), &secret(new), "x").to_string()
}

fn request(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /mutate?timeout=3s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn one_connection_answers_reviews_of_every_size() {
    let program = Program::start(&[]).await;
    let mut client = program.client().await;
    let (old, new) = (certs::ca().pem, certs::ca().pem);
    for filler in [0, 4_000, 1_390_000, 3_490_000] {
        client.send(request(&review(&old, &new, filler)).as_bytes()).await.unwrap();
        let answer = within(client.answer()).await.unwrap();
        assert_eq!(answer.status, 200, "{filler}");
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer["response"]["uid"], "0a1b");
        let patch = BASE64_STANDARD.decode(answer["response"]["patch"].as_str().unwrap()).unwrap();
        let patch: Value = serde_json::from_slice(&patch).unwrap();
        if filler > 1_400_000 {
            assert_eq!(patch[0]["path"], "/metadata/annotations", "the Secret has no room");
            continue;
        }
        assert_eq!(patch[0]["value"], BASE64_STANDARD.encode(format!("{new}{old}")));
    }
    let log = program.stop().await;
    assert!(log.contains("reviewed") && !log.contains("CANARY"));
    assert!(!log.contains(&BASE64_STANDARD.encode("CANARY")[..8]));
}

/// The limits of docs/performance.md for anonymous memory (`RssAnon`). File pages have no limit:
/// they are shared and can be reclaimed.
#[tokio::test]
#[ignore = "needs the static program: make test-static"]
async fn memory_stays_small_with_500_connections() {
    let program = Program::start(&[]).await;
    let (old, new) = (certs::ca().pem, certs::ca().pem);
    let mut clients = Vec::new();
    // The last case has had large reviews: the program must release their buffers. docs/performance.md
    // says what is missing to 26 MiB. What 25 connections take that send at once depends on how the
    // kernel schedules the threads, and that of 500 by 3 MiB.
    for (connections, filler, bar) in
        [(1, 3_200, 3), (25, 3_200, 4), (500, 3_200, 32), (500, 200_000, 32)]
    {
        while clients.len() < connections {
            clients.push(program.client().await);
        }
        let review = request(&review(&old, &new, filler));
        // Small reviews are also sent on all connections at once.
        let at_once = if filler < 10_000 { connections } else { 1 };
        for at_a_time in [1, 1, at_once, at_once] {
            for clients in clients.chunks_mut(at_a_time) {
                for client in &mut *clients {
                    client.send(review.as_bytes()).await.unwrap();
                }
                for client in clients {
                    assert_eq!(within(client.answer()).await.unwrap().status, 200);
                }
            }
        }
        let (anonymous, size) = (program.anonymous(), review.len() >> 10);
        eprintln!("{connections} connections, reviews of {size} KiB: {anonymous} KiB of RssAnon");
        assert!(anonymous <= bar << 10, "{anonymous} KiB, above {bar} MiB");
    }
}

/// The webhook, started with this limit of open files (`ulimit`).
async fn with_open_files(limit: &str, arguments: &[&str]) -> Program {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")]);
    shell.arg(Program::command().get_program());
    let files = Files::new();
    let (cert, key) = (files.cert(), files.key());
    let arguments = [&["--tls-cert", &cert, "--tls-key", &key], arguments].concat();
    Program::spawn_by(shell, files, &arguments, &[]).await
}

#[tokio::test]
async fn a_small_limit_of_open_files_is_raised_and_one_that_cannot_be_raised_is_reported() {
    let program = with_open_files("-S -n 64", &["--max-connections", "200"]).await;
    let mut clients = Vec::new();
    while clients.len() < 90 {
        clients.push(program.client().await);
    }
    assert!(!program.stop().await.contains("open files"));

    // 1024 connections have a place and 2048 wait, 64 and 128 on the admin port, and 64 other files.
    let mut program = with_open_files("-n 3327", &[]).await;
    let log = program.wait_for_log("the limit of open files is too small").await;
    assert!(log.contains("\"limit\":3327,\"needed\":3328"), "{log}");
    assert_eq!(program.stop().await.matches("open files").count(), 1);
    assert!(!with_open_files("-n 3328", &[]).await.stop().await.contains("open files"));
}

#[tokio::test]
async fn bad_requests_get_their_status_and_the_program_keeps_running() {
    let program = Program::start(&["--request-timeout", "200ms"]).await;
    let head = "POST /mutate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let too_large = MAX_BODY + 1;
    for (text, status) in [
        (request("not json"), 400),
        (request(&format!("{{\"x\":{}", "[".repeat(3_000_000))), 400),
        (request("{}").replace("application/json", "text/plain"), 415),
        (request("{}").replace("content-type: application/json\r\n", ""), 415),
        (request("{}").replace("POST", "PUT"), 405),
        (request("{}").replace("/mutate", "/validate"), 404),
        (format!("{head}content-length: {too_large}\r\n\r\n"), 413),
        // The request timeout, not the idle timeout, ends a stalled body.
        (format!("{head}content-length: 10\r\n\r\nabc"), 408),
        (format!("{head}transfer-encoding: chunked\r\n\r\n5\r\nabc"), 408),
    ] {
        let mut client = program.client().await;
        client.send(text.as_bytes()).await.unwrap();
        let answer = within(client.answer()).await.unwrap();
        assert_eq!(answer.status, status, "{}", &text[..text.len().min(120)]);
        assert!(!answer.head.contains("retry-after"));
    }
    // A chunked body of unknown length is cut off at the limit.
    let mut client = program.client().await;
    client.send(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(0x10_0000));
    for _ in 0..9 {
        if client.send(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    assert_eq!(within(client.answer()).await.unwrap().status, 413);
    let metrics = program.metrics().await;
    for (code, count) in [("400", 2), ("408", 2), ("413", 2), ("415", 2)] {
        let line = format!("ca_overlap_requests_refused_total{{code=\"{code}\"}} {count}");
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
}

#[tokio::test]
async fn usage_errors_exit_64_and_name_the_flag() {
    for (arguments, names) in [
        (&["webhook"][..], "--self-managed"),
        (&["webhook", "--self-managed", "--tls-cert", "a", "--tls-key", "b"], "--self-managed"),
        (&["webhook", "--tls-cert", "a"], "--tls-key"),
        (&["webhook", "--self-managed", "--listen", "nowhere"], "--listen"),
        (&["webhook", "--self-managed", "--idle-timeout", "90s"], "--idle-timeout"),
        (&["webhook", "--self-managed", "--keep", "9"], "--keep"),
        (&["webhook", "--self-managed", "--window", "soon"], "--window"),
        (&["webhook", "--self-managed", "--default-mode", "on"], "--default-mode"),
        (&["webhook", "--self-managed", "--log-level", "loud"], "--log-level"),
        (&["webhook", "--no-such-flag"], "--no-such-flag"),
        (&["no-such-command"], "no-such-command"),
        (&[], "Usage"),
    ] {
        let (code, stderr) = fails(arguments);
        assert_eq!(code, 64, "{arguments:?}: {stderr}");
        assert!(stderr.contains(names), "{arguments:?}: {stderr}");
    }
}

#[tokio::test]
async fn failures_exit_1_with_one_line_that_names_the_cause() {
    let files = Files::new();
    let other = Files::new();
    let (cert, key) = (files.cert(), files.key());
    let junk = files.write("junk.pem", "CANARY");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let free = ["--admin-listen", "127.0.0.1:0"];
    let cases: [(Vec<&str>, &str); 7] = [
        (
            vec!["--tls-cert", "missing.pem", "--tls-key", &key, "--listen", "127.0.0.1:0"],
            "missing.pem",
        ),
        (
            vec!["--tls-cert", &cert, "--tls-key", "missing.key", "--listen", "127.0.0.1:0"],
            "missing.key",
        ),
        (vec!["--tls-cert", &junk, "--tls-key", &key, "--listen", "127.0.0.1:0"], "junk.pem"),
        (vec!["--tls-cert", &cert, "--tls-key", &junk, "--listen", "127.0.0.1:0"], "junk.pem"),
        (
            vec!["--tls-cert", &cert, "--tls-key", other.key_ref(), "--listen", "127.0.0.1:0"],
            "--tls-key",
        ),
        (vec!["--tls-cert", &cert, "--tls-key", &key, "--listen", &taken], &taken),
        (
            vec![
                "--tls-cert",
                &cert,
                "--tls-key",
                &key,
                "--client-ca",
                &junk,
                "--listen",
                "127.0.0.1:0",
            ],
            "junk.pem",
        ),
    ];
    for (arguments, names) in cases {
        let arguments = [&["webhook"][..], &arguments, &free].concat();
        let (code, stderr) = fails(&arguments);
        assert_eq!(code, 1, "{arguments:?}: {stderr}");
        let errors: Vec<_> = stderr.lines().filter(|l| l.starts_with("ca-overlap:")).collect();
        assert_eq!(errors.len(), 1, "{arguments:?}: {stderr}");
        assert!(errors[0].contains(names) && !stderr.contains("CANARY"), "{arguments:?}: {stderr}");
    }
}

#[tokio::test]
async fn a_missing_kubeconfig_is_an_error_and_an_unreachable_cluster_is_retried() {
    let files = Files::new();
    let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let missing = Program::command()
        .args([&["webhook", "--self-managed"][..], &ports].concat())
        .env("KUBECONFIG", files.path("no-kubeconfig"))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&missing.stderr);
    assert_eq!(missing.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("KUBECONFIG"), "{stderr}");
    // No program listens on this port.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let kubeconfig = files.write(
        "kubeconfig",
        &json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": {"server": format!("https://{closed}")}}],
            "users": [{"name": "x", "user": {"token": "CANARY"}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        })
        .to_string(),
    );
    let mut program = Program::spawn(&["--self-managed"], &[("KUBECONFIG", &kubeconfig)]).await;
    let log = program.wait_for_log("MutatingWebhookConfiguration ca-overlap").await;
    assert!(!log.contains("CANARY"), "{log}");
    let (status, body) = program.admin("/readyz").await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(program.admin("/livez").await.0, 200);
}

#[tokio::test]
async fn help_and_version_exit_0() {
    for arguments in
        [&["--help"][..], &["webhook", "--help"], &["review", "--help"], &["--version"]]
    {
        let output = Program::command().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}

#[tokio::test]
async fn the_first_signal_drains_and_the_second_ends_at_once() {
    let mut program = Program::start(&["--drain-delay", "1h", "--drain-timeout", "2h"]).await;
    let mut client = program.client().await;
    program.signal("TERM");
    program.wait_for_log("drain").await;
    client.send(request(&review("", "", 0)).as_bytes()).await.unwrap();
    let answer = within(client.answer()).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.asks_to_close());
    assert_eq!(program.admin("/readyz").await.0, 503);
    // New connections are still served.
    let mut late = program.client().await;
    late.send(request(&review("", "", 0)).as_bytes()).await.unwrap();
    assert_eq!(within(late.answer()).await.unwrap().status, 200);
    program.signal("TERM");
    assert_eq!(program.ended().await.code(), Some(0));
    program.wait_for_log("the webhook has ended").await;
}

#[tokio::test]
async fn an_idle_webhook_ends_after_the_drain_delay() {
    let mut program = Program::start(&["--drain-delay", "10ms", "--drain-timeout", "1h"]).await;
    let client = program.client().await;
    drop(client);
    program.signal("TERM");
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(60), program.ended()).await.unwrap().code(),
        Some(0)
    );
}
