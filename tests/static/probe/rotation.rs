//! Session resumption across a certificate rotation.

use super::run::{Ended, Watching, probe_once};
use super::servers::{Files, NAME, Server, balancer, go, nginx, s_server, webhook};

const ROTATES: &str = "rotates tickets";
const RESUMES: &str = "RESUMES ACROSS ROTATION";
const NONE: &str = "no resumption";
const UNCHANGED: &str = "certificate unchanged so far";

/// How a running server gets a new certificate.
#[derive(Clone, Copy)]
enum Rotation {
    /// It reads the file itself.
    File,
    /// It reloads after SIGHUP.
    Reload,
}

/// Runs a probe with both TLS versions while the certificate is rotated.
fn rotated(server: &mut Server, files: &Files, rotation: Rotation, arguments: &[&str]) -> Ended {
    let watching = Watching::start(server, files, arguments);
    files.rotate();
    if let Rotation::Reload = rotation {
        server.signal("HUP");
    }
    watching.end()
}

#[track_caller]
fn expect(ended: &Ended, server: &Server, verdict: &str) {
    let code = i32::from(verdict == RESUMES);
    let both = [Some(verdict.to_owned()), Some(verdict.to_owned())];
    assert_eq!(ended.verdicts(code), both, "{}{}", ended.stdout, server.log());
    assert_eq!(ended.json()["verdict"], verdict);
    for version in ended.json()["versions"].as_array().unwrap() {
        assert!(version["given"].as_u64() > Some(0), "{version}");
        assert!(version["before"]["resumed"].as_u64() > Some(0), "no resumption before: {version}");
        assert!(version["after"]["tried"].as_u64() > Some(0), "no try afterwards: {version}");
        assert_ne!(version["certificates"][0]["sha256"], version["newCertificate"]["sha256"]);
    }
}

const BY_FILE: &str = "ssl_certificate @/server.test.pem; ssl_certificate_key @/server.test.pem;";
/// The certificate for the requested server name, which nginx reads again for each handshake.
const BY_NAME: &str =
    "ssl_certificate @/$ssl_server_name.pem; ssl_certificate_key @/$ssl_server_name.pem;";
const TICKET_KEY: &str = "ssl_session_ticket_key @/ticket.key;";

/// Writes a fixed ticket key for nginx, of 80 bytes.
fn write_ticket_key(files: &Files) {
    files.write("ticket.key", &"0123456789".repeat(8));
}

#[test]
fn nginx_with_new_ticket_keys_after_a_reload_is_sound() {
    let files = Files::new();
    let Some(mut server) = nginx("nginx, sound", &files, BY_FILE) else { return };
    let ended = rotated(&mut server, &files, Rotation::Reload, &[]);
    expect(&ended, &server, ROTATES);
}

#[test]
fn nginx_with_a_fixed_ticket_key_and_a_named_file_is_sound() {
    let files = Files::new();
    write_ticket_key(&files);
    let ssl = format!("{BY_FILE}{TICKET_KEY}");
    let Some(mut server) = nginx("nginx, ticket key", &files, &ssl) else { return };
    let ended = rotated(&mut server, &files, Rotation::Reload, &[]);
    expect(&ended, &server, ROTATES);
}

#[test]
fn nginx_with_a_variable_in_the_certificate_path_has_the_fault() {
    let files = Files::new();
    let Some(mut server) = nginx("nginx, variable", &files, BY_NAME) else { return };
    let ended = rotated(&mut server, &files, Rotation::File, &[]);
    expect(&ended, &server, RESUMES);
}

#[test]
fn nginx_with_a_variable_and_a_fixed_ticket_key_has_the_fault() {
    let files = Files::new();
    write_ticket_key(&files);
    let ssl = format!("{BY_NAME}{TICKET_KEY}");
    let Some(mut server) = nginx("nginx, variable, ticket key", &files, &ssl) else { return };
    let ended = rotated(&mut server, &files, Rotation::Reload, &[]);
    expect(&ended, &server, RESUMES);
}

/// With session IDs and a cache instead of tickets. In TLS 1.3 a ticket names an entry of the
/// cache.
#[test]
fn nginx_with_a_variable_and_a_session_cache_has_the_fault() {
    let files = Files::new();
    let ssl = format!("{BY_NAME}ssl_session_tickets off; ssl_session_cache shared:s:1m;");
    let Some(mut server) = nginx("nginx, session cache", &files, &ssl) else { return };
    let ended = rotated(&mut server, &files, Rotation::File, &[]);
    expect(&ended, &server, RESUMES);
}

#[test]
fn nginx_with_a_session_cache_and_a_named_file_is_sound() {
    let files = Files::new();
    let ssl = format!("{BY_FILE}ssl_session_tickets off; ssl_session_cache shared:s:1m;");
    let Some(mut server) = nginx("nginx, session cache, file", &files, &ssl) else { return };
    let ended = rotated(&mut server, &files, Rotation::Reload, &[]);
    expect(&ended, &server, ROTATES);
}

#[test]
fn go_with_new_ticket_keys_is_sound() {
    let files = Files::new();
    let Some(mut server) = go("Go, sound", &files, &["-changes", "keys"]) else { return };
    let ended = rotated(&mut server, &files, Rotation::Reload, &[]);
    expect(&ended, &server, ROTATES);
}

/// The fault as it was found in production: `StackRox` issue 19384.
#[test]
fn go_with_only_a_new_certificate_has_the_fault() {
    let files = Files::new();
    let Some(mut server) = go("Go, fault", &files, &["-changes", "certificate"]) else { return };
    let ended = rotated(&mut server, &files, Rotation::Reload, &[]);
    expect(&ended, &server, RESUMES);
}

/// A new `tls.Config` does not help: it gets the ticket keys of the outer one.
#[test]
fn go_with_a_new_config_by_get_config_for_client_has_the_fault() {
    let files = Files::new();
    let Some(mut server) = go("Go, new config", &files, &["-changes", "config"]) else { return };
    let ended = rotated(&mut server, &files, Rotation::Reload, &[]);
    expect(&ended, &server, RESUMES);
}

#[test]
fn the_webhook_is_sound() {
    let files = Files::new();
    let mut server = webhook(&files);
    let ended = rotated(&mut server, &files, Rotation::Reload, &[]);
    expect(&ended, &server, ROTATES);
}

/// Replicas behind one address, each with its own ticket keys: most attempts to resume reach another
/// replica than the one that gave the ticket.
fn balanced(test: &str, changes: &str) -> Option<(Files, Ended, Vec<Server>)> {
    let files = Files::new();
    let start = |_| go(test, &files, &["-changes", changes]);
    let mut replicas = (0..3).map(start).collect::<Option<Vec<Server>>>()?;
    let port = balancer(replicas.iter().map(|replica| replica.port).collect());
    let target = format!("127.0.0.1:{port}");
    let arguments = [&target, "--server-name", NAME, "--ca-file", &files.ca(), "--timeout", "60s"];
    let watching = Watching::with(&arguments);
    files.rotate();
    replicas.iter_mut().for_each(Server::exchange);
    let ended = watching.end();
    Some((files, ended, replicas))
}

#[test]
fn replicas_behind_a_balancer_with_the_fault_are_found() {
    let Some((_, ended, replicas)) = balanced("Go, balancer, fault", "certificate") else { return };
    expect(&ended, &replicas[0], RESUMES);
}

#[test]
fn sound_replicas_behind_a_balancer_are_not_said_to_resume_nothing() {
    let Some((_, ended, replicas)) = balanced("Go, balancer, sound", "keys") else { return };
    expect(&ended, &replicas[0], ROTATES);
}

#[test]
fn go_without_tickets_does_not_resume() {
    let files = Files::new();
    let Some(server) = go("Go, no tickets", &files, &["-no-tickets"]) else { return };
    let ended = probe_once(&server, &files, &[]);
    assert_eq!(ended.verdicts(0), [Some(NONE.to_owned()), Some(NONE.to_owned())]);
}

/// The restart creates new keys. The server is down in between.
#[test]
fn openssl_after_a_restart_is_sound() {
    let files = Files::new();
    let Some(server) = s_server("openssl, restart", &files, 0, &[]) else { return };
    let watching = Watching::start(&server, &files, &[]);
    let port = server.port;
    drop(server);
    files.rotate();
    let Some(server) = s_server("openssl, restart", &files, port, &[]) else { return };
    expect(&watching.end(), &server, ROTATES);
}

#[test]
fn openssl_without_tickets_or_cache_does_not_resume() {
    let files = Files::new();
    let arguments = ["-no_ticket", "-no_cache", "-num_tickets", "0"];
    let Some(server) = s_server("openssl, none", &files, 0, &arguments) else { return };
    let ended = probe_once(&server, &files, &["--watch"]);
    assert_eq!(ended.verdicts(0), [Some(NONE.to_owned()), Some(NONE.to_owned())]);
    assert!(!ended.stderr.contains("rotate"), "asks for a rotation: {}", ended.stderr);
    for version in ended.json()["versions"].as_array().unwrap() {
        assert_eq!(version["given"], 0);
    }
}

#[test]
fn an_unchanged_certificate_is_reported() {
    let files = Files::new();
    let Some(server) = s_server("openssl, unchanged", &files, 0, &[]) else { return };
    let ended = probe_once(&server, &files, &[]);
    let unchanged = || Some(UNCHANGED.to_owned());
    assert_eq!(ended.verdicts(0), [unchanged(), unchanged()]);
    // s_server sends two tickets in TLS 1.3.
    assert_eq!(ended.json()["versions"][1]["given"], 2);
    assert_eq!(probe_once(&server, &files, &["--tls", "1.2"]).verdicts(0), [unchanged(), None]);
    assert_eq!(probe_once(&server, &files, &["--tls", "1.3"]).verdicts(0), [None, unchanged()]);
    // The probe watches until its timeout.
    let ended = probe_once(&server, &files, &["--watch", "--timeout", "100ms"]);
    assert_eq!(ended.verdicts(0), [unchanged(), unchanged()]);
}
