//! The documents name files, keys and commands that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ca_overlap::cli::Cli;
use ca_overlap::names;
use clap::CommandFactory;

#[test]
fn every_link_leads_somewhere() {
    let mut links = 0;
    for (path, text) in documents() {
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
    for (path, text) in documents() {
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

/// The keys on Namespaces, workloads and the registration, and the bare prefix, as in `ca-overlap.dev/*`.
const OTHER_KEYS: [&str; 4] = ["", "metrics", "allow-restart", "audit"];

#[test]
fn every_command_that_is_shown_exists() {
    let program = Cli::command();
    let known: Vec<&str> = program.get_subcommands().map(clap::Command::get_name).collect();
    let mut seen = BTreeSet::new();
    for (path, text) in documents() {
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

/// The main pages of the root, and all pages below `docs/`.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root().join(name)).to_vec();
    collect(&root().join("docs"), &mut paths);
    assert!(paths.len() > 25, "{paths:?}");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
