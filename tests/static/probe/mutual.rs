//! Servers that request client certificates: the CAs that they accept, and sessions that clients
//! with a certificate resume.

use super::run::{Ended, Watching, probe_once, run};
use super::servers::{Files, NAME, Server, go, nginx, s_server};
use devtools::certs::{self, bundle};

const RESUMES: &str = "RESUMES ACROSS ROTATION";
const ROTATES: &str = "rotates tickets";
const UNCHANGED: &str = "certificate unchanged so far";

/// A file with two client CAs, as in an overlap, and a client certificate from the old one.
struct Clients {
    cas: String,
    pair: [String; 2],
}

fn clients(files: &Files) -> Clients {
    let (old, new) = (certs::ca_named("Mesh CA 2025"), certs::ca_named("Mesh CA 2026"));
    let cas = files.write("clients.pem", &bundle(&[&new, &old]));
    Clients { cas, pair: files.client(&old) }
}

impl Clients {
    fn arguments(&self) -> [&str; 4] {
        ["--cert", &self.pair[0], "--key", &self.pair[1]]
    }
}

/// Asserts that both TLS versions fail without a client certificate, and that the server names the
/// accepted CAs.
#[track_caller]
fn expect_refused(ended: &Ended, server: &Server) {
    assert_eq!(ended.verdicts(2), [None, None], "{}", server.log());
    let json = ended.json();
    assert_eq!(json["verdict"], serde_json::Value::Null);
    for version in json["versions"].as_array().unwrap() {
        let error = version["error"].as_str().unwrap();
        assert!(error.contains("without a client certificate"), "{error}");
        assert!(error.contains("--cert"), "{error}");
    }
    expect_asked(ended, false);
}

#[track_caller]
fn expect_asked(ended: &Ended, sent: bool) {
    let client = &ended.json()["clientCertificate"];
    assert_eq!(client["requested"], true);
    assert_eq!(client["sent"], sent);
    let mut authorities: Vec<_> = client["authorities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    authorities.sort_unstable();
    assert_eq!(authorities, ["CN=Mesh CA 2025", "CN=Mesh CA 2026"]);
}

#[track_caller]
fn expect(ended: &Ended, code: i32, verdict: &str) {
    assert_eq!(ended.verdicts(code), [Some(verdict.to_owned()), Some(verdict.to_owned())]);
    expect_asked(ended, true);
}

#[test]
fn probe_shows_the_client_cas_that_openssl_accepts() {
    let files = Files::new();
    let clients = clients(&files);
    let arguments = ["-Verify", "2", "-verify_return_error", "-CAfile", &clients.cas];
    let Some(server) = s_server("openssl, client CAs", &files, 0, &arguments) else { return };
    expect_refused(&probe_once(&server, &files, &[]), &server);
    expect(&probe_once(&server, &files, &clients.arguments()), 0, UNCHANGED);
    // A client of another CA is refused because of its certificate.
    let [cert, key] = files.client(&certs::ca_named("Someone else"));
    let ended = probe_once(&server, &files, &["--cert", &cert, "--key", &key]);
    assert_eq!(ended.verdicts(2), [None, None]);
    for version in ended.json()["versions"].as_array().unwrap() {
        let error = version["error"].as_str().unwrap();
        assert!(error.contains("rejects the client certificate"), "{error}");
    }
}

/// nginx completes the handshake without a client certificate, and rejects only requests.
#[test]
fn probe_shows_the_client_cas_that_nginx_accepts() {
    let files = Files::new();
    let clients = clients(&files);
    let ssl = "ssl_certificate @/$ssl_server_name.pem;
        ssl_certificate_key @/$ssl_server_name.pem;
        ssl_client_certificate @/clients.pem; ssl_verify_client on;";
    let Some(server) = nginx("nginx, client CAs", &files, ssl) else { return };
    let ended = probe_once(&server, &files, &[]);
    assert_eq!(ended.code, 0, "{ended:?}");
    expect_asked(&ended, false);
    // Clients with a certificate resume after a rotation.
    let watching = Watching::start(&server, &files, &clients.arguments());
    files.rotate();
    expect(&watching.end(), 1, RESUMES);
}

#[test]
fn probe_finds_the_fault_in_go_with_client_certificates() {
    let files = Files::new();
    let clients = clients(&files);
    for (changes, code, verdict) in [("certificate", 1, RESUMES), ("keys", 0, ROTATES)] {
        let arguments = ["-changes", changes, "-client-ca", &clients.cas];
        let Some(mut server) = go("Go, client CAs", &files, &arguments) else { return };
        expect_refused(&probe_once(&server, &files, &[]), &server);
        let watching = Watching::start(&server, &files, &clients.arguments());
        files.rotate();
        server.signal("HUP");
        expect(&watching.end(), code, verdict);
    }
}

#[test]
fn the_table_shows_the_accepted_client_cas() {
    let files = Files::new();
    let clients = clients(&files);
    let arguments = ["-client-ca", clients.cas.as_str()];
    let Some(server) = go("Go, client CAs for people", &files, &arguments) else { return };
    let (target, ca) = (server.target(), files.ca());
    let known = [target.as_str(), "--server-name", NAME, "--ca-file", &ca];
    let ended = run(&known);
    assert_eq!(ended.code, 2, "{ended:?}");
    let expected = "Client certificate: requested, none was sent (--cert, --key).
The server accepts client certificates of these CAs:
  CN=Mesh CA 2026
  CN=Mesh CA 2025
";
    assert!(ended.stdout.contains(expected), "{}", ended.stdout);
    let ended = run(&[&known[..], &clients.arguments()].concat());
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout.contains("requested, one was sent"), "{}", ended.stdout);
}
