//! Tests of which flags the webhook accepts, and what they set.

use clap::{CommandFactory, Parser};

use super::super::{Cli, Command};
use super::limit_args::size;
use super::*;
use crate::overlap::settings::Defaults;
use crate::server::accept::Limits;

const FILES: [&str; 4] = ["--tls-cert", "c.pem", "--tls-key", "k.pem"];

fn config(args: &[&str]) -> Result<WebhookConfig, String> {
    let line = ["ca-overlap", "webhook"].iter().chain(args);
    match Cli::try_parse_from(line).map_err(|e| e.to_string())?.command {
        Command::Webhook(args) => args.validate().map_err(|e| e.to_string()),
        #[allow(unreachable_patterns)] // Other commands come and go.
        _ => unreachable!("webhook was asked for"),
    }
}

fn with_files(args: &[&str]) -> Result<WebhookConfig, String> {
    config(&[&FILES[..], args].concat())
}

#[test]
fn the_command_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_flag_has_an_environment_variable_a_default_and_a_help_text() {
    let command = Cli::command();
    let webhook = command.find_subcommand("webhook").unwrap();
    let flags: Vec<_> = webhook.get_arguments().collect();
    assert!(flags.len() > 25, "{}", flags.len());
    for arg in flags {
        let id = arg.get_id().as_str();
        if matches!(id, "help" | "version") {
            continue;
        }
        let expected = format!("CA_OVERLAP_{}", id.to_uppercase());
        assert_eq!(arg.get_env().and_then(|e| e.to_str()), Some(expected.as_str()), "{id}");
        assert!(arg.get_help().is_some(), "{id} has no help text");
        let optional = [
            "self_managed",
            "tls_cert",
            "tls_key",
            "client_ca",
            "namespace",
            "keeper_user",
            "staged",
            "distrusted",
            "audit",
        ];
        assert_eq!(arg.get_default_values().is_empty(), optional.contains(&id), "{id}");
    }
}

#[test]
fn the_defaults_are_those_of_the_design() {
    let config = config(&["--self-managed", "--namespace", "n"]).unwrap();
    assert_eq!(config.listen, ([0, 0, 0, 0], 8443).into());
    assert_eq!(config.admin_listen, ([0, 0, 0, 0], 8081).into());
    assert_eq!(config.installation.defaults, Defaults::default());
    assert_eq!(config.installation.own_namespace, "n");
    assert_eq!(config.installation.keeper_user, "system:serviceaccount:n:ca-overlap-keeper");
    assert_eq!(config.installation.settle, Duration::from_secs(300));
    assert_eq!(config.keeper_lease, None);
    assert_eq!(config.drain_delay, Duration::from_secs(15));
    assert_eq!(config.drain_timeout, Duration::from_secs(110));
    assert_eq!(
        config.limits,
        Limits {
            max_connections: 1024,
            body_memory: 64 << 20,
            max_body: 8 << 20,
            handshake_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
        }
    );
    let CertificateSource::SelfManaged(objects, settings) = config.source else {
        unreachable!("self-managed was asked for");
    };
    assert_eq!((&*objects.namespace, &*objects.secret), ("n", "ca-overlap-ca"));
    assert_eq!(settings.dns_names[0], "ca-overlap-webhook.n.svc");
    assert_eq!(settings.ca_lifetime, DAY * 365);
    assert_eq!(settings.timing.leaf_lifetime, DAY * 7);
}

#[test]
fn exactly_one_source_of_the_serving_certificate_is_required() {
    assert!(config(&FILES).is_ok());
    for (args, flag) in [
        (&[][..], "--self-managed: no serving certificate"),
        (&["--tls-cert", "c"], "--tls-key: is required"),
        (&["--tls-key", "k"], "--tls-cert: is required"),
        (&["--self-managed", "--tls-cert", "c"], "--self-managed: cannot be combined"),
        (&["--self-managed", "--tls-key", "k"], "--self-managed: cannot be combined"),
    ] {
        let error = config(args).unwrap_err();
        assert!(error.starts_with(flag), "{error}");
    }
}

#[test]
fn an_error_names_its_flag() {
    for (args, flag) in [
        (["--idle-timeout", "90s"], "--idle-timeout"),
        (["--drain-timeout", "1s"], "--drain-timeout"),
        (["--max-connections", "0"], "--max-connections"),
        (["--handshake-timeout", "0s"], "--handshake-timeout"),
        (["--request-timeout", "0s"], "--request-timeout"),
        (["--tls-reload-interval", "0s"], "--tls-reload-interval"),
        (["--admin-listen", "0.0.0.0:8443"], "--admin-listen"),
        (["--max-body", "1"], "--max-body"),
        (["--max-body", "99999999MiB"], "--max-body"),
        (["--body-memory", "15MiB"], "--body-memory"),
        (["--body-memory", "lots"], "--body-memory"),
        (["--keep", "9"], "--keep"),
        (["--window", "soon"], "--window"),
        (["--default-mode", "on"], "--default-mode"),
        (["--service", "a/../b"], "--service"),
        (["--namespace", "a.b"], "--namespace"),
        (["--listen", "8443"], "--listen"),
    ] {
        let error = with_files(&args).unwrap_err();
        let of_clap = format!("for '{flag} <");
        assert!(error.starts_with(flag) || error.contains(&of_clap), "{args:?}: {error}");
    }
    for (args, flag) in [
        (["--leaf-lifetime", "1m"], "--leaf-lifetime"),
        (["--ca-lifetime", "20d"], "--ca-lifetime"),
        (["--ca-lifetime", "200y"], "--ca-lifetime"),
        (["--trust-settle", "200d"], "--ca-lifetime"),
        (["--reconcile-interval", "0s"], "--reconcile-interval"),
    ] {
        let error = config(&[&["--self-managed"], &args[..]].concat()).unwrap_err();
        assert!(error.contains(flag), "{args:?}: {error}");
    }
}

#[test]
fn the_longest_time_for_any_flag_gives_an_answer() {
    let command = Cli::command();
    let webhook = command.find_subcommand("webhook").unwrap();
    let mut times = 0;
    for flag in webhook.get_arguments().filter_map(|argument| argument.get_long()) {
        let flag = format!("--{flag}");
        let longest = config(&["--self-managed", &flag, "36600d"]);
        times += usize::from(longest.is_err_and(|error| error.contains("must be")));
    }
    assert!(times >= 10, "{times} flags refuse it in words");
}

#[test]
fn a_size_is_in_bytes_or_has_a_unit() {
    for (text, bytes) in [("2048", 2048), ("4KiB", 4096), ("8MiB", 8 << 20)] {
        assert_eq!(size(text), Ok(bytes), "{text}");
    }
    assert!(size("8MB").is_err());
}

#[test]
fn staged_mode_watches_the_keepers_lease() {
    let config = |args: &[&str]| with_files(args).unwrap();
    assert_eq!(config(&["--keeper-lease", "other"]).keeper_lease, None);
    assert_eq!(config(&["--staged"]).keeper_lease.as_deref(), Some("ca-overlap-keeper"));
    let config =
        config(&["--staged", "--keeper-lease", "other", "--keeper-user", "me", "--settle", "7m"]);
    assert_eq!(config.keeper_lease.as_deref(), Some("other"));
    assert_eq!(config.installation.keeper_user, "me");
    assert_eq!(config.installation.settle, Duration::from_secs(420));
    assert!(with_files(&["--keeper-lease", "Not a name"]).is_err());
}
