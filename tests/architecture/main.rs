//! The arrows of `docs/design.md`: who may know whom.
//!
//! The sources are read as text: comments and strings are cut out, `use` trees are unfolded, and
//! every path that is left is compared with what its part of the program must not know. Unit tests
//! at the end of a file are not held to these rules.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod source;
mod threats;

use std::fs;
use std::path::{Path, PathBuf};

use self::source::Source;

/// The longest file, in lines.
const MAX_LINES: usize = 450;
/// The longest `main.rs`, in lines.
const MAX_MAIN_LINES: usize = 40;

/// A part of the program, and what it must not know.
struct Area {
    /// The file or directory below `src/`.
    name: &'static str,
    /// Paths: a leading `*::` means at any place, else from the start.
    forbidden: &'static [&'static [&'static str]],
}

/// Clients of the Kubernetes API and its types.
const KUBERNETES: &[&str] = &["kube", "k8s_openapi"];
/// Sockets, runtimes and what is built on them.
const NETWORK: &[&str] =
    &["tokio", "tokio_rustls", "axum", "hyper", "hyper_util", "http", "tower", "rustls"];
/// The world outside: files, sockets, environment, processes, logs, metrics.
const WORLD: &[&str] = &[
    "std::fs",
    "std::io",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "tracing",
    "prometheus_client",
    "clap",
];
/// Clocks, also those that libraries look at.
const CLOCKS: &[&str] = &[
    "std::time::SystemTime",
    "std::time::Instant",
    "*::SystemTime::now",
    "*::Instant::now",
    "*::Timestamp::now",
    "*::Zoned::now",
    "*::ASN1Time::now",
    ".is_valid()",
    ".time_to_expiration()",
];
/// Errors without a type are for the top of the program.
const UNTYPED_ERRORS: &[&str] = &["anyhow"];
/// The parts of the program that depend on the others, and never the other way round.
const TOP: &[&str] = &["crate::cli", "crate::tools", "crate::webhook"];

const AREAS: &[Area] = &[
    Area {
        name: "overlap",
        forbidden: &[
            KUBERNETES,
            NETWORK,
            WORLD,
            CLOCKS,
            UNTYPED_ERRORS,
            TOP,
            &["crate::admission", "crate::server", "crate::serving_cert", "crate::telemetry"],
        ],
    },
    Area {
        name: "admission",
        forbidden: &[
            KUBERNETES,
            UNTYPED_ERRORS,
            TOP,
            &["rustls", "tokio_rustls", "std::fs", "std::net"],
            &["crate::server", "crate::serving_cert"],
        ],
    },
    Area { name: "server", forbidden: &[KUBERNETES, UNTYPED_ERRORS, TOP, &["crate::overlap"]] },
    Area {
        name: "serving_cert",
        forbidden: &[UNTYPED_ERRORS, TOP, &["crate::overlap", "crate::admission"]],
    },
    Area {
        name: "keeper",
        forbidden: &[UNTYPED_ERRORS, TOP, &["crate::admission", "crate::serving_cert"]],
    },
    // These two put the parts together.
    Area { name: "webhook", forbidden: &[&["crate::cli", "crate::tools"]] },
    Area { name: "tools", forbidden: &[] },
    Area { name: "cli", forbidden: &[KUBERNETES] },
    Area {
        name: "telemetry",
        forbidden: &[
            KUBERNETES,
            UNTYPED_ERRORS,
            TOP,
            // It counts verdicts, so it may know their names in `admission` and `overlap`.
            &["crate::server", "crate::serving_cert"],
        ],
    },
    Area { name: "names", forbidden: &[KUBERNETES, NETWORK, WORLD, UNTYPED_ERRORS, &["crate"]] },
    Area { name: "lib", forbidden: &[KUBERNETES] },
    Area { name: "main", forbidden: &[KUBERNETES] },
];

/// Parts that handle reviews and Secrets: nothing there is printed as its programmer sees it.
const NO_DEBUG_OUTPUT: &[&str] = &["overlap", "admission", "server"];

#[test]
fn every_part_knows_only_what_it_may() {
    let sources = sources();
    assert!(sources.len() > 8, "the sources were not found");
    let found: Vec<String> = sources.iter().flat_map(violations).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_rule_is_about_something_that_exists() {
    let sources = sources();
    for area in AREAS {
        assert!(sources.iter().any(|source| source.area() == area.name), "no src/{}", area.name);
    }
}

#[test]
fn files_stay_short() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = rust_files(&root.join("src"));
    files.extend(rust_files(&root.join("tests")));
    files.extend(rust_files(&root.join("benches")));
    for file in files {
        let lines = fs::read_to_string(&file).expect("a readable file").lines().count();
        let is_main = file == root.join("src/main.rs");
        let limit = if is_main { MAX_MAIN_LINES } else { MAX_LINES };
        assert!(lines <= limit, "{}: {lines} lines, {limit} allowed", file.display());
    }
}

// Negative controls: the checker finds what it is there for.

#[test]
fn forbidden_paths_are_found_however_they_are_written() {
    let bad = [
        ("overlap/a.rs", "use kube::Client;"),
        ("overlap/a.rs", "use crate::{names, admission::Review};"),
        ("overlap/a.rs", "use super::super::admission;"),
        ("overlap/mod.rs", "use super::server;"),
        ("overlap/a.rs", "pub use ::tokio as t;"),
        ("overlap/a.rs", "fn f() { let _ = std::fs::read(\"x\"); }"),
        ("overlap/a.rs", "use std::{fmt, time::{Duration, Instant}};"),
        ("overlap/a.rs", "fn f() { let now = jiff::Timestamp::now(); }"),
        ("overlap/a.rs", "fn f() { Timestamp :: now(); }"),
        ("overlap/a.rs", "fn f(c: &C) -> bool { c.validity().is_valid() }"),
        ("overlap/a.rs", "fn f() { let c = '\"'; kube::run(); }"),
        ("overlap/a.rs", "fn f<'a>(x: &'a str) { /* \" */ kube::run(); }"),
        ("admission/handler.rs", "use k8s_openapi::api::core::v1::Secret;"),
        ("admission/handler.rs", "#[cfg(test)]\nuse a::b;\nuse kube::Api;"),
        ("server/accept.rs", "use crate::overlap::decide;"),
        ("names.rs", "use crate::overlap;"),
        ("telemetry.rs", "use anyhow::Result;"),
        ("stranger/lease.rs", ""),
        ("keeper/due.rs", "use kube::Client;"),
        ("keeper/due.rs", "fn f() { Timestamp::now(); }"),
    ];
    for (file, text) in bad {
        assert!(!violations(&Source::new(file, text)).is_empty(), "{file}: {text}");
    }
}

#[test]
fn printing_with_debug_is_found() {
    let bad = [
        "fn f() { format!(\"{:?}\", review); }",
        "fn f() { format!(\"{review:#?}\"); }",
        "fn f() { tracing::debug!(?review, \"seen\"); }",
        "fn f() { tracing::debug!(uid, ?review); }",
        "fn f() { dbg!(review); }",
    ];
    for text in bad {
        assert!(!violations(&Source::new("admission/handler.rs", text)).is_empty(), "{text}");
    }
}

#[test]
fn what_is_allowed_passes() {
    let good = [
        ("overlap/a.rs", "//! Knows no kube::Client and no crate::admission.\nuse crate::names;"),
        ("overlap/a.rs", "/* use tokio; /* nested */ kube::x */ use super::policy::Keep;"),
        ("overlap/a.rs", "const A: &str = \"kube::Client\"; const B: &str = r#\"tokio::\"x\"#;"),
        ("overlap/a.rs", "use rustls_pki_types::CertificateDer; use std::time::Duration;"),
        ("overlap/a.rs", "fn f<T: ?Sized>(t: &T) {}\n#[cfg(test)]\nmod tests { use std::fs; }"),
        ("tools/demo.rs", "use kube::Client; use crate::overlap::decide;"),
        ("serving_cert/inject.rs", "use kube::Api;"),
        ("server/mod.rs", "fn f(x: Option<u8>) -> Option<u8> { g(x?, format!(\"{x}\")) }"),
    ];
    for (file, text) in good {
        assert_eq!(violations(&Source::new(file, text)), Vec::<String>::new(), "{file}: {text}");
    }
}

/// What a file does that it must not do, one line each.
fn violations(source: &Source) -> Vec<String> {
    let name = source.area();
    // Pure, though its neighbours are not.
    let rules = if source.file == "keeper/due.rs" { "overlap" } else { name };
    let Some(area) = AREAS.iter().find(|area| area.name == rules) else {
        return vec![format!("src/{}: src/{name} has no rule in tests/architecture", source.file)];
    };
    let forbidden = || area.forbidden.iter().copied().flatten().copied();
    let paths = source.paths();
    let mut found: Vec<String> = paths
        .iter()
        .filter_map(|path| Some((path, forbidden().find(|pattern| matches(path, pattern))?)))
        .map(|(path, pattern)| format!("src/{}: {path} ({pattern} is forbidden)", source.file))
        .collect();
    let calls = forbidden().filter(|pattern| pattern.starts_with('.'));
    let calls = calls.filter(|call| source.code.contains(call));
    found.extend(calls.map(|call| format!("src/{}: {call} is forbidden", source.file)));
    if NO_DEBUG_OUTPUT.contains(&name) && source.prints_debug() {
        found.push(format!("src/{}: output with {{:?}} is forbidden", source.file));
    }
    found
}

fn matches(path: &str, pattern: &str) -> bool {
    let (path, pattern) = (format!("::{path}::"), format!("{pattern}::"));
    match pattern.strip_prefix('*') {
        Some(anywhere) => path.contains(anywhere),
        None => path.starts_with(&format!("::{pattern}")),
    }
}

fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    rust_files(&src)
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file).expect("a readable file");
            let name = file.strip_prefix(&src).expect("a file below src");
            Source::new(&name.to_string_lossy(), &text)
        })
        .collect()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
