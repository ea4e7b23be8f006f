//! The documents name files, keys and commands that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use ca_overlap::cli::Cli;
use ca_overlap::names;
use clap::CommandFactory;
use clap::error::ErrorKind;

use crate::support::pages::{self, ON_A_CLUSTER, ON_AN_API_SERVER, pages, root};

#[test]
fn every_link_leads_somewhere() {
    let mut links = 0;
    for (path, text) in pages() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, section) = target.split_once('#').unwrap_or((target, ""));
            if file.contains("://") || file.contains(char::is_whitespace) {
                continue;
            }
            let linked =
                if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(linked.exists(), "{}: {target}", path.display());
            if !section.is_empty() {
                let text = fs::read_to_string(&linked).unwrap();
                let found = text.lines().any(|line| anchor(line).as_deref() == Some(section));
                assert!(found, "{}: {target}", path.display());
            }
            links += 1;
        }
    }
    assert!(links > 30, "the links are read: {links}");
}

/// The anchor of a heading.
fn anchor(line: &str) -> Option<String> {
    let title = line.strip_prefix('#')?.trim_start_matches('#').trim();
    let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
}

#[test]
fn every_documented_key_exists_and_every_key_is_documented() {
    let mut seen = BTreeSet::new();
    for (path, text) in pages() {
        for rest in text.split(names::PREFIX).skip(1) {
            let key = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-');
            let key: String = key.collect();
            let key = key.trim_end_matches('-');
            let whole = format!("{}{key}", names::PREFIX);
            let is_known = names::KEYS.contains(&whole.as_str()) || OTHER_KEYS.contains(&key);
            assert!(is_known, "{}: {whole}", path.display());
            seen.insert(whole);
        }
    }
    assert!(names::KEYS.iter().all(|key| seen.contains(*key)), "undocumented: {seen:?}");
}

/// The keys on Namespaces, workloads and the registration, the bare prefix, as in `ca-overlap.dev/*`, and the
/// version of documents.
const OTHER_KEYS: [&str; 5] = ["", "metrics", "allow-restart", "audit", "v"];

#[test]
fn every_command_that_is_shown_exists() {
    let program = Cli::command();
    let known: Vec<&str> = program.get_subcommands().map(clap::Command::get_name).collect();
    let mut seen = BTreeSet::new();
    for (path, text) in pages() {
        // Helm's release has the program's name.
        let text = text.replace("install ca-overlap ", "install ");
        for rest in text.split("ca-overlap ").skip(1) {
            let mut words = rest.split_whitespace();
            let command = words.next().unwrap_or_default().trim_end_matches('`');
            // In prose any word may follow the name, but no flag.
            if known.contains(&command) {
                seen.insert(command.to_owned());
            } else {
                let flag = words.next().unwrap_or_default().starts_with("--");
                assert!(!flag, "{}: ca-overlap {command}", path.display());
            }
        }
    }
    assert!(seen.len() >= 5, "{seen:?}");
}

/// What starts a command that no test runs as it stands, and why.
const NOT_RUN: [(&str, &str); 10] = [
    ("kind create cluster", "tests/kind/run.sh makes the cluster"),
    ("docker push", "it needs a registry of images"),
    ("crane push", "it needs a registry of images"),
    ("helm test", "tests/cluster/helm.rs runs it with a time limit"),
    ("kubectl -n ca-overlap logs", "it needs a kubelet, and only reads"),
    ("cosign verify", "nothing is published or signed yet"),
    ("sha256sum --check", "nothing is published or signed yet"),
    ("ln -s", "tests/it/status.rs calls a link of that name by kubectl"),
    ("CA_OVERLAP_TEST_KUBECONFIG=FILE cargo test --test cluster", "tests/kind/run.sh runs it"),
    ("SECRETS=", "the commands after it run with it"),
];

/// A page that shows a command shows one that works: its program parses it, or a test runs it.
#[test]
fn every_command_that_is_shown_is_run_or_has_a_reason() {
    let shown = pages::commands();
    let run_in = |parts: &[(&str, &str)], program: &str| -> BTreeSet<String> {
        let is_run = |it: &&pages::Shown| it.is_in(parts) && it.command.starts_with(program);
        shown.iter().filter(is_run).map(|it| it.command.clone()).collect()
    };
    let mut run = run_in(&ON_A_CLUSTER, "");
    run.extend(run_in(&ON_AN_API_SERVER, "kubectl "));
    let mut reasons = BTreeSet::new();
    for it in &shown {
        let place = format!("{}, {}: {}", it.page.display(), it.section, it.command);
        let command = it.command.as_str();
        let reason = NOT_RUN.iter().find(|(start, _)| command.starts_with(start));
        let reason = reason.map(|(start, _)| reasons.insert(*start)).is_some();
        let ours = ["ca-overlap ", "target/static/ca-overlap ", "kubectl ca-overlap "];
        if let Some(arguments) = ours.iter().find_map(|program| command.strip_prefix(program)) {
            let words = std::iter::once("ca-overlap").chain(arguments.split_whitespace());
            let parsed = Cli::command().try_get_matches_from(words);
            assert!(parsed.is_ok(), "{place}: {}", parsed.unwrap_err());
        } else if let Some(arguments) = command.strip_prefix("make ") {
            assert_is_made(arguments, &place);
        } else {
            assert!(reason || run.contains(command), "no test runs this: {place}");
        }
    }
    assert!(shown.len() > 60, "the commands are read: {}", shown.len());
    let unused = NOT_RUN.iter().map(|(start, _)| start).filter(|start| !reasons.contains(*start));
    assert_eq!(unused.collect::<Vec<_>>(), Vec::<&&str>::new(), "reasons without a command");
}

/// The pages that a person reads while something is wrong, and the alerts, name commands that are
/// accepted, also in a sentence.
#[test]
fn every_command_in_a_runbook_is_accepted() {
    let rules = root().join("manifests/components/prometheus/prometheusrule.yaml");
    let rules = (rules.clone(), fs::read_to_string(rules).unwrap());
    let is_runbook =
        |page: &Path| ["alerts.md", "troubleshooting.md"].iter().any(|name| page.ends_with(name));
    let runbooks = pages().into_iter().filter(|(page, _)| is_runbook(page)).chain([rules]);
    let (mut wrong, mut named) = (Vec::new(), 0);
    for (page, text) in runbooks {
        // Every second part is a fenced block.
        let sentences = text.split("```").step_by(2);
        for span in sentences.flat_map(|text| text.split('`').skip(1).step_by(2)) {
            let words: Vec<&str> = span.split_whitespace().collect();
            let words = if words.first() == Some(&"kubectl") { &words[1..] } else { &words[..] };
            if words.first() != Some(&"ca-overlap") || words.len() < 2 {
                continue;
            }
            let fingerprint = "0".repeat(64);
            let words =
                words.iter().map(|it| if *it == "FINGERPRINT" { &fingerprint } else { *it });
            // A command without its arguments is only named.
            match Cli::command().try_get_matches_from(words) {
                Err(error) if error.kind() != ErrorKind::MissingRequiredArgument => {
                    wrong.push(format!("{}: `{span}`: {error}", page.display()));
                }
                _ => named += 1,
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(named > 15, "{named}");
}

/// Fails if make knows no such target, or if no recipe uses a variable that is set.
#[track_caller]
fn assert_is_made(arguments: &str, place: &str) {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    let output = Command::new("make")
        .arg("--dry-run")
        .args(&words)
        .envs([("MAKEFLAGS", ""), ("MAKELEVEL", "0")])
        .current_dir(root())
        .output()
        .expect("make");
    assert!(output.status.success(), "{place}: {}", String::from_utf8_lossy(&output.stderr));
    let makefiles: String = fs::read_dir(root().join("make"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    for (variable, _) in words.iter().filter_map(|word| word.split_once('=')) {
        assert!(
            makefiles.contains(&format!("$({variable})")),
            "{place}: no recipe uses {variable}"
        );
    }
}

#[test]
#[should_panic(expected = "no-such-target")]
fn a_target_that_make_does_not_know_is_noticed() {
    assert_is_made("no-such-target", "nowhere");
}

#[test]
fn commands_are_distinguished_from_output() {
    let text = "## One\n```\nmake x   # why\n\n```\n## Two\n```\n$ ca-overlap a \\\n    b\nmake y\n```\n\
                ```yaml\nmake: z\n```\n";
    let shown = pages::commands_of(Path::new("page.md"), text);
    let shown: Vec<_> = shown.iter().map(|it| (it.section.as_str(), it.command.as_str())).collect();
    assert_eq!(shown, [("One", "make x"), ("Two", "ca-overlap a b")]);
}

#[test]
fn the_readme_is_a_page() {
    let words = fs::read_to_string(root().join("README.md")).unwrap();
    let words = words.split_whitespace().count();
    assert!(words <= 1000, "{words} words");
}

#[test]
fn each_page_is_in_the_index_once() {
    let index = fs::read_to_string(root().join("docs/README.md")).unwrap();
    let mut pages = 0;
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_page = Path::new(&name).extension().is_some_and(|extension| extension == "md");
        if is_page && name != "README.md" {
            assert_eq!(index.matches(&format!("]({name})")).count(), 1, "{name} in the index");
            pages += 1;
        }
    }
    assert!(pages >= 20, "{pages}");
}

#[test]
fn each_generator_has_its_page_with_the_same_three_questions() {
    let directory = root().join("docs/generators");
    let index = fs::read_to_string(directory.join("README.md")).unwrap();
    let mut pages = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "README.md" {
            continue;
        }
        assert_eq!(index.matches(&format!("]({name})")).count(), 1, "{name} in the index");
        let text = fs::read_to_string(&path).unwrap();
        let heads: Vec<&str> = text.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(heads, ["## What to expect", "## What to set", "## What not to do"], "{name}");
        for part in text.split("\n## ").skip(1) {
            assert!(part.contains("\n- "), "{name}: an empty part");
        }
        pages += 1;
    }
    assert!(pages >= 20, "{pages}");
}
