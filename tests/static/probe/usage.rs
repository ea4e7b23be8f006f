//! Server names, trust, TLS versions, and error messages.

use std::io::Write as _;
use std::net::TcpListener;

use devtools::control_plane::ServiceProxy;

use super::run::{Watching, command, probe_once, run};
use super::servers::{Files, NAME, go};
use devtools::certs;

const ROTATES: &str = "rotates tickets";
const UNCHANGED: &str = "certificate unchanged so far";

#[test]
fn usage_errors_exit_64_and_name_the_argument() {
    for (arguments, names) in [
        (&[][..], "HOST:PORT"),
        (&["nowhere"], "HOST:PORT"),
        (&["nowhere:0"], "HOST:PORT"),
        (&["https://a:443"], "HOST:PORT"),
        (&["::1:443"], "HOST:PORT"),
        (&["a:1", "--tls", "1.1"], "--tls"),
        (&["a:1", "--server-name", "a b"], "--server-name"),
        (&["a:1", "--cert", "a"], "--key"),
        (&["a:1", "--key", "a"], "--cert"),
        (&["a:1", "--insecure", "--ca-file", "a"], "--insecure"),
        (&["a:1", "--interval", "1ms"], "--interval"),
        (&["a:1", "--interval", "2m"], "--interval"),
        (&["a:1", "--timeout", "soon"], "--timeout"),
        (&["a:1", "--settle", "soon"], "--settle"),
        (&["a:1", "--handshake-timeout", "0s"], "--handshake-timeout"),
        (&["a:1", "--alpn", ","], "--alpn"),
        (&["a:1", "-o", "svg"], "--output"),
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, 64, "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(names), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn unusable_files_are_named() {
    let files = Files::new();
    let (junk, absent) = (files.write("junk.pem", "CANARY"), files.path("absent.pem"));
    let [cert, key] = files.client(&certs::ca_named("clients"));
    let other = files.write("other.key", &certs::ca_named("other").key);
    for (arguments, says) in [
        (["--ca-file", &absent, "--alpn", "h2"], "--ca-file: "),
        (["--ca-file", &junk, "--alpn", "h2"], "no certificate in it"),
        (["--cert", &junk, "--key", &key], "--cert: "),
        (["--cert", &cert, "--key", &junk], "--key: "),
        (["--cert", &cert, "--key", &absent], "--key: "),
        (["--cert", &cert, "--key", &other], "does not belong"),
    ] {
        let insecure = if arguments[0] == "--ca-file" { &[][..] } else { &["--insecure"] };
        let ended = run(&[&["127.0.0.1:1"], &arguments[..], insecure].concat());
        assert_eq!(ended.code, 2, "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(says), "{arguments:?}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        assert!(!ended.stderr.contains("CANARY"));
    }
}

#[test]
fn trust_comes_from_the_flags_or_from_the_system() {
    let files = Files::new();
    let Some(server) = go("trust", &files, &[]) else { return };
    let target = server.target();
    let unchanged = || Some(UNCHANGED.to_owned());
    let known = [target.as_str(), "--server-name", NAME, "-o", "json"];
    let with_roots = |roots: &str, arguments: &[&str]| {
        let mut command = command(&[&known, arguments].concat());
        let command = command.env("SSL_CERT_FILE", roots).env_remove("SSL_CERT_DIR");
        super::run::Ended::of(command.output().unwrap())
    };
    let own = with_roots(&files.ca(), &[]);
    assert_eq!(own.verdicts(0), [unchanged(), unchanged()]);

    let other = files.write("other.pem", &certs::ca_named("Server CA").pem);
    let ended = with_roots(&other, &[]);
    assert_eq!(ended.verdicts(2), [None, None]);
    // The other CA has the same name, as with most generators.
    assert!(
        ended.stdout.contains("is not trusted: the trusted CA with the name of its issuer"),
        "{ended:?}"
    );
    assert_eq!(with_roots(&other, &["--insecure"]).verdicts(0), [unchanged(), unchanged()]);

    let none = with_roots(&files.write("empty.pem", ""), &[]);
    assert_eq!(none.code, 2, "{none:?}");
    assert!(none.stderr.contains("--ca-file"), "{none:?}");

    // The certificate must also have the requested name.
    let ended = probe_once(&server, &files, &["--tls", "1.3"]);
    assert_eq!(ended.verdicts(0), [None, unchanged()]);
    let ended = run(&[&target, "--ca-file", &files.ca(), "-o", "json"]);
    assert_eq!(ended.verdicts(2), [None, None], "no certificate for 127.0.0.1");
    assert!(ended.stdout.contains("is not trusted"), "{ended:?}");
    // localhost resolves to the server, and the certificate has that name.
    let local = format!("localhost:{}", server.port);
    let ended = run(&[&local, "--ca-file", &files.ca(), "-o", "json"]);
    assert_eq!(ended.verdicts(0), [unchanged(), unchanged()]);
    assert_eq!(ended.json()["serverName"], "localhost");
}

/// After a rotation of the CA the probe still finds its verdict, and reports the loss of trust.
#[test]
fn an_untrusted_new_certificate_is_reported() {
    let files = Files::new();
    let Some(mut server) = go("new CA", &files, &["-changes", "keys"]) else { return };
    let watching = Watching::start(&server, &files, &[]);
    files.rotate_to(&certs::ca_named("Next CA"));
    server.signal("HUP");
    let ended = watching.end();
    assert_eq!(ended.verdicts(1), [Some(ROTATES.to_owned()), Some(ROTATES.to_owned())]);
    for version in ended.json()["versions"].as_array().unwrap() {
        let problem = version["newCertificate"]["problem"].as_str().unwrap();
        assert!(problem.contains("no trusted CA issued it"), "{problem}");
    }
}

#[test]
fn a_missing_tls_version_is_no_failure_if_another_is_offered() {
    let files = Files::new();
    let Some(server) = go("TLS 1.2", &files, &["-max-version", "1.2"]) else { return };
    let ended = probe_once(&server, &files, &[]);
    assert_eq!(ended.verdicts(0), [Some(UNCHANGED.to_owned()), None]);
    assert_eq!(ended.json()["versions"][1]["offered"], false);
    let ended = probe_once(&server, &files, &["--tls", "1.3"]);
    assert_eq!(ended.verdicts(2), [None, None]);
    assert!(ended.stdout.contains("does not offer TLS 1.3"), "{ended:?}");
}

#[test]
fn a_server_without_tls_is_reported() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = silent.local_addr().unwrap().to_string();
    let ended = run(&[&target, "--insecure", "--handshake-timeout", "100ms"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("no answer from 127.0.0.1"), "{ended:?}");
    drop(silent);
    let ended = run(&[&target, "--insecure"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("cannot connect to 127.0.0.1"), "{ended:?}");

    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = plain.local_addr().unwrap().to_string();
    let answer = std::thread::spawn(move || {
        let (mut stream, _) = plain.accept().unwrap();
        stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
        // Read until the other side closes, so that no reset discards the answer.
        std::io::copy(&mut stream, &mut std::io::sink())
    });
    let ended = run(&[&target, "--insecure", "--tls", "1.3"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("does not answer with TLS"), "{ended:?}");
    drop(answer.join().unwrap());
}

/// While one of two replicas has its old certificate, the other may resume old sessions. Afterwards
/// it may not.
#[tokio::test]
async fn a_rollout_is_judged_once_it_is_complete() {
    let files = Files::new();
    let arguments = ["-changes", "certificate", "-ticket-key", "shared by the replicas"];
    let Some(mut one) = go("rollout", &files, &arguments) else { return };
    let Some(mut two) = go("rollout", &files, &arguments) else { return };
    let address = |port| ([127, 0, 0, 1], port).into();
    let backends = vec![address(one.port), address(two.port)];
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = ServiceProxy::start(free, backends).await.unwrap();
    let probes = tokio::task::spawn_blocking(move || {
        let (target, ca) = (free.to_string(), files.ca());
        let known = [target.as_str(), "--server-name", NAME, "--ca-file", &ca, "--timeout"];
        let watching = Watching::with(&[&known[..], &["3s"]].concat());
        files.rotate();
        one.exchange();
        let begun = watching.end();
        two.exchange();
        let watching = Watching::with(&[&known[..], &["60s"]].concat());
        files.rotate();
        one.exchange();
        two.exchange();
        (begun, watching.end())
    });
    let (begun, over) = probes.await.unwrap();
    drop(proxy);
    let both = |verdict: &str| [Some(verdict.to_owned()), Some(verdict.to_owned())];
    assert_eq!(begun.verdicts(0), both(UNCHANGED), "{begun:?}");
    assert_eq!(over.verdicts(1), both("RESUMES ACROSS ROTATION"), "{over:?}");
}
