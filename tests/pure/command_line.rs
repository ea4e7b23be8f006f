//! Help, completions and man pages.

#[path = "../man/pages.rs"]
mod pages;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use ca_overlap::cli::Cli;
use clap::CommandFactory;
use clap::error::ErrorKind;

fn commands() -> Vec<String> {
    let program = Cli::command();
    let names: Vec<String> = program.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    assert!(names.len() >= 8, "{names:?}");
    names
}

fn stdout(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = Command::new(crate::support::binary::path())
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_fits_has_examples_and_no_colour() {
    let commands = commands();
    let mut pages: Vec<Vec<&str>> = vec![vec!["--help"]];
    pages.extend(commands.iter().map(|command| vec![command.as_str(), "--help"]));
    for page in pages {
        let wide = stdout(&page, &[("COLUMNS", "300")]);
        for (shown, most) in [(&wide, 100), (&stdout(&page, &[("COLUMNS", "80")]), 100)] {
            let widest = shown.lines().max_by_key(|line| line.chars().count()).unwrap();
            assert!(widest.chars().count() <= most, "{page:?}: {widest}");
            assert!(!shown.contains('\u{1b}'), "{page:?}: colour without a terminal");
        }
        let examples = wide.split_once("\nExamples:\n").map(|(_, examples)| examples);
        let examples = examples.unwrap_or_else(|| panic!("{page:?} has no examples"));
        let first = examples.lines().next().unwrap();
        assert!(first.starts_with("  ca-overlap "), "{first}");
        assert!(wide.contains("Exit code: ") || wide.contains("Signals:"), "{page:?}");
    }
    let all = stdout(&["--help"], &[]);
    for command in &commands {
        let line = all.lines().find(|line| line.trim_start().starts_with(&format!("{command} ")));
        assert!(
            line.is_some_and(|line| line.trim().len() > command.len() + 20),
            "{command}: {all}"
        );
    }
}

#[test]
fn every_example_is_understood() {
    for command in Cli::command().get_subcommands() {
        let help = command.get_after_help().unwrap().to_string();
        let mut seen = 0;
        for line in help.lines().filter(|line| line.starts_with("  ")) {
            let Some((_, line)) = line.split_once("ca-overlap ") else { continue };
            let line = line.split(['>', '|', '#']).next().unwrap();
            let mut words = vec!["ca-overlap"];
            words.extend(line.split_whitespace());
            let parsed = Cli::command().try_get_matches_from(&words);
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            seen += 1;
        }
        assert!(seen > 0, "{} has no example", command.get_name());
    }
}

/// A variable that changes what a person's command does surprises.
#[test]
fn every_flag_of_the_servers_has_its_environment_variable_and_no_other_flag_has_one() {
    let mut program = Cli::command();
    program.build();
    for command in program.get_subcommands() {
        let is_server = ["keeper", "webhook"].contains(&command.get_name());
        for argument in command.get_arguments().filter(|argument| argument.get_long().is_some()) {
            let flag = argument.get_long().unwrap();
            let variable = argument.get_env().and_then(|name| name.to_str());
            let is_ours = variable.is_some_and(|name| name.starts_with("CA_OVERLAP_"));
            let expected = is_server && !["help", "version"].contains(&flag);
            assert_eq!(is_ours, expected, "{} --{flag}: {variable:?}", command.get_name());
        }
    }
}

#[test]
fn the_flags_of_the_log_stand_apart_in_help() {
    for command in ["status", "webhook"] {
        let help = stdout(&[command, "--help"], &[]);
        let (_, logging) = help.split_once("\nLogging:\n").unwrap_or_else(|| panic!("{help}"));
        assert!(logging.contains("--log-level") && logging.contains("--log-format"), "{help}");
        assert_eq!(help.matches("--log-level").count(), 1, "{help}");
    }
}

/// A flag is of this kind if it accepts one of these values, but not any text.
#[test]
fn every_number_size_and_time_has_an_upper_bound() {
    const USUAL: [&str; 5] = ["1", "10", "8MiB", "3s", "2h"];
    const HUGE: [&str; 4] =
        ["18446744073709551616", "18446744073709551615", "99999999999MiB", "18446744073709551615s"];
    let program = Cli::command();
    let refusal = |command: &str, flag: &str, value: &str| {
        let value = format!("--{flag}={value}");
        let error = program.clone().try_get_matches_from(["ca-overlap", command, &value]).err();
        error.filter(|e| matches!(e.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue))
    };
    let mut seen = 0;
    for command in program.get_subcommands() {
        let name = command.get_name();
        for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
            let accepts = |value: &&str| refusal(name, flag, value).is_none();
            // Any seed gives a simulation.
            if !USUAL.iter().any(accepts) || accepts(&"text") || flag == "seed" {
                continue;
            }
            seen += 1;
            for huge in HUGE {
                let error = refusal(name, flag, huge);
                let error = error.unwrap_or_else(|| panic!("{name} --{flag} accepts {huge}"));
                assert!(error.to_string().contains(&format!("--{flag}")), "{error}");
            }
        }
    }
    assert!(seen > 40, "{seen}");
}

/// The answer to a shell that completes the last of these words.
fn completed(shell: &str, words: &[&str]) -> String {
    let index = (words.len() - 1).to_string();
    let variables = [
        ("CA_OVERLAP_COMPLETE", shell),
        ("_CLAP_COMPLETE_INDEX", &index),
        ("_CLAP_IFS", "\n"),
        ("KUBECONFIG", "/no/such/file"),
    ];
    stdout(&[&["--"], words].concat(), &variables)
}

#[test]
fn every_shell_has_a_script_and_completes_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = stdout(&["completions", shell], &[]);
        assert!(script.contains("CA_OVERLAP_COMPLETE"), "{shell}: {script}");
        let known = completed(shell, &["ca-overlap", ""]);
        for command in commands() {
            assert!(known.contains(&command), "{shell}: {command}");
        }
        let rules = completed(shell, &["ca-overlap", "inspect", "--ignore", "leaf-not-ch"]);
        assert!(rules.contains("leaf-not-chained"), "{shell}: {rules}");
    }
    let wrong = Command::new(crate::support::binary::path())
        .args(["completions", "tcsh"])
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("powershell"));
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let script = stdout(&["completions", "bash"], &[]);
    let program = crate::support::binary::path();
    let bin = program.parent().unwrap().display();
    for (words, expected) in [
        (&["ca-overlap", "ins"][..], "inspect"),
        (&["ca-overlap", "dist"], "distrust"),
        (&["ca-overlap", "inspect", "--ign"], "--ignore"),
        (&["ca-overlap", "inspect", "--ignore", "near"], "near-size-limit"),
        (&["ca-overlap", "completions", "el"], "elvish"),
        (&["ca-overlap", "status", "--all-n"], "--all-namespaces"),
        (&["ca-overlap", "status", "-o", "wi"], "wide"),
    ] {
        let list: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let (current, before) = (list.last().unwrap(), &list[list.len() - 2]);
        let ask = format!(
            "registered=$(complete -p ca-overlap); registered=${{registered#*-F }}; \
             COMP_WORDS=({}); COMP_CWORD={}; ${{registered%% *}} ca-overlap {current} {before}; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            list.join(" "),
            list.len() - 1
        );
        let shown = bash(&format!("PATH={bin}:$PATH\nKUBECONFIG=/dev/null\n{script}\n{ask}\n"));
        assert_eq!(shown.trim(), expected, "{words:?}");
    }
}

/// A shell prints what a completion prints. So it prints nothing, also where the cluster does not
/// answer, or a program that the kubeconfig names does not end.
#[test]
fn a_completion_that_fails_prints_nothing_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let endless = r#"{exec: {apiVersion: client.authentication.k8s.io/v1, command: sh,
        args: [-c, "echo CANARY >&2; sleep 60"], interactiveMode: Never}}"#;
    for (name, user) in [("silent", "{token: it}"), ("endless", endless)] {
        let file = directory.path().join(name);
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: it, clusters: [{{name: it, cluster: {{server: \"http://{address}\"}}}}], users: [{{name: it, user: {user}}}], contexts: [{{name: it, context: {{cluster: it, user: it}}}}]}}"
        );
        fs::write(&file, text).unwrap();
        let output = Command::new(crate::support::binary::path())
            .args(["--", "ca-overlap", "status", "-n", ""])
            .env("CA_OVERLAP_COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", "3")
            .env("KUBECONFIG", file)
            .output()
            .unwrap();
        let shown = [output.stdout, output.stderr].concat();
        assert_eq!(String::from_utf8_lossy(&shown), "", "{name}");
    }
}

fn bash(script: &str) -> String {
    let mut child = Command::new("bash")
        .args(["--noprofile", "--norc"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash, which tests need");
    let mut input = child.stdin.take().unwrap();
    let text = script.to_owned();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_command_has_a_man_page_that_renders() {
    let directory = tempfile::tempdir().unwrap();
    let written = pages::write(directory.path()).unwrap();
    let name = |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let names: Vec<_> = written.iter().map(name).collect();
    let mut expected = vec!["ca-overlap.1".to_owned()];
    expected.extend(commands().iter().map(|command| format!("ca-overlap-{command}.1")));
    assert_eq!(names, expected);
    for path in &written {
        let source = fs::read_to_string(path).unwrap();
        assert_is_clean(path, &source);
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES"] {
            assert!(
                source.contains(&format!("\n.SH {section}\n")),
                "{section}: {}",
                path.display()
            );
        }
        if let Some(page) = rendered(path) {
            assert!(page.contains("SYNOPSIS") && page.contains("--log-level"), "{page}");
            assert!(page.contains("\n       ca-overlap "), "{page}");
        }
    }
    let again = tempfile::tempdir().unwrap();
    for (one, other) in written.iter().zip(pages::write(again.path()).unwrap()) {
        assert_eq!(fs::read(one).unwrap(), fs::read(other).unwrap());
    }
}

/// Fails on what mandoc warns of: trailing blanks, unknown macros, lines that start with a quote.
fn assert_is_clean(path: &Path, source: &str) {
    const MACROS: [&str; 12] =
        ["TH", "SH", "SS", "TP", "IP", "PP", "RS", "RE", "nf", "fi", "br", "ie"];
    for line in source.lines() {
        let place = format!("{}: {line}", path.display());
        assert!(!line.ends_with(' ') && !line.contains('\t'), "{place}");
        assert!(!line.starts_with('\''), "{place}");
        if let Some(name) = line.strip_prefix('.') {
            let name: String = name.chars().take_while(char::is_ascii_alphanumeric).collect();
            assert!(MACROS.contains(&name.as_str()) || name == "el", "{place}");
        }
    }
    assert!(source.is_ascii(), "{}", path.display());
}

/// The page as groff renders it, without a warning. `None` if groff is missing.
fn rendered(path: &Path) -> Option<String> {
    let output =
        Command::new("groff").args(["-man", "-Tutf8", "-ww", "-P-cbou"]).arg(path).output().ok()?;
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && warnings.is_empty(), "{}: {warnings}", path.display());
    Some(String::from_utf8(output.stdout).unwrap())
}
