//! The pages for users, and the commands that they show.

use std::fs;
use std::path::{Path, PathBuf};

/// A command that a page shows.
#[derive(Clone, Debug)]
pub struct Shown {
    pub page: PathBuf,
    /// The heading above it.
    pub section: String,
    /// One line, without a comment.
    pub command: String,
}

/// The parts of pages that the suite on a real cluster runs, word for word: `tests/cluster/readme.rs`.
/// An empty heading means the whole page.
pub const ON_A_CLUSTER: [(&str, &str); 4] = [
    ("docs/quick-start.md", ""),
    ("README.md", "Install"),
    ("docs/install.md", "Commands"),
    ("docs/install.md", "Check that it works"),
];

/// The parts whose `kubectl` commands run against an API server: `tests/it/documented.rs`.
pub const ON_AN_API_SERVER: [(&str, &str); 5] = [
    ("README.md", "Settings on a Secret"),
    ("docs/generators/envoy-gateway.md", ""),
    ("docs/generators/kube-webhook-certgen.md", ""),
    ("docs/troubleshooting.md", ""),
    ("manifests/chart/README.md", ""),
];

impl Shown {
    /// Whether it is in one of these parts.
    pub fn is_in(&self, parts: &[(&str, &str)]) -> bool {
        let is_here = |(page, section): &(&str, &str)| {
            self.page.ends_with(page) && (section.is_empty() || self.section == *section)
        };
        parts.iter().any(is_here)
    }
}

/// The commands in the fenced blocks of all pages that name no other language: each line, or, where a
/// block also shows output, each line after a `$`.
pub fn commands() -> Vec<Shown> {
    pages().iter().flat_map(|(page, text)| commands_of(page, text)).collect()
}

/// The same of one page.
pub fn commands_of(page: &Path, text: &str) -> Vec<Shown> {
    let mut section = String::new();
    let mut shown = Vec::new();
    for (number, part) in text.split("```").enumerate() {
        if number % 2 == 0 {
            let heading = part.lines().rev().find_map(|line| line.strip_prefix("## "));
            section = heading.map_or(section, str::to_owned);
            continue;
        }
        let Some(block) = part.strip_prefix('\n') else { continue };
        let block = block.replace("\\\n", " ");
        let is_session = block.lines().any(|line| line.starts_with("$ "));
        for line in block.lines() {
            let line = if is_session { line.strip_prefix("$ ") } else { Some(line) };
            let command = line.and_then(|line| line.split(" #").next()).unwrap_or_default().trim();
            if !command.is_empty() {
                let words: Vec<&str> = command.split_whitespace().collect();
                let command = words.join(" ");
                shown.push(Shown { page: page.to_owned(), section: section.clone(), command });
            }
        }
    }
    shown
}

/// The pages of the root and of the chart, and all pages below `docs/`.
pub fn pages() -> Vec<(PathBuf, String)> {
    let named = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "manifests/chart/README.md"];
    let mut paths = named.map(|name| root().join(name)).to_vec();
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

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
