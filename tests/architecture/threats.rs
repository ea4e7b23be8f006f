//! The threat model names a test for what it claims: each of these must exist.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/threat-model.md")).expect("the threat model");
    let makefile = fs::read_to_string(root.join("Makefile")).expect("the Makefile");
    let names: Vec<_> = rows(&text).flat_map(quoted).collect();
    assert!(names.len() > 30, "the rows are read: {names:?}");
    for name in names {
        let exists = match name.strip_prefix("make ") {
            Some(target) => makefile.contains(&format!("\n{target}:")),
            None => is_test(&root.join("tests"), name),
        };
        assert!(exists, "docs/threat-model.md names `{name}`, which does not exist");
    }
    assert!(!is_test(&root.join("tests"), "wire::no_such_test"), "the control");
    assert!(!is_test(&root.join("tests"), "no_such_crate"), "the control");
}

/// The last cells of the tables: *shown by*.
fn rows(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| line.starts_with("| T") || line.starts_with("| O"))
        .filter_map(|line| line.trim_end_matches(['|', ' ']).rsplit(" | ").next())
}

fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// `crate`, `crate::module` or `crate::…::function`, below `tests`.
fn is_test(tests: &Path, name: &str) -> bool {
    let mut parts = name.split("::");
    let crate_name = parts.next().unwrap_or_default();
    let Some(last) = parts.last() else {
        return !sources(tests, crate_name).is_empty();
    };
    let function = format!("fn {last}(");
    sources(tests, crate_name).iter().any(|path| {
        path.file_stem().is_some_and(|stem| stem == last)
            || fs::read_to_string(path).is_ok_and(|text| text.contains(&function))
    })
}

/// The sources of a test crate: a file, or the files of a directory.
fn sources(tests: &Path, crate_name: &str) -> Vec<PathBuf> {
    let file = tests.join(format!("{crate_name}.rs"));
    if file.exists() {
        return vec![file];
    }
    let Ok(directory) = fs::read_dir(tests.join(crate_name)) else { return Vec::new() };
    directory.filter_map(|entry| Some(entry.ok()?.path())).collect()
}
