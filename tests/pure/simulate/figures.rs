//! The committed figures are what the program draws today: `make figures` makes them anew.

use std::fs;
use std::path::{Path, PathBuf};

use super::simulate;

/// File below `docs/figures`, arguments, exit code.
const FIGURES: [(&str, &[&str], i32); 2] =
    [("simulate.svg", &[], 0), ("simulate-settle-30s.svg", &["--settle", "30s"], 1)];
/// Between these the README shows what the first of them prints.
const BEGIN: &str = "```\n$ ca-overlap simulate --svg docs/figures/simulate.svg\n";
const END: &str = "```\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compares, or writes where `CA_OVERLAP_RECORD` is set.
fn agree(path: &Path, expected: &str) {
    if std::env::var_os("CA_OVERLAP_RECORD").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, expected).unwrap();
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == expected,
        "{} is not what the program draws: run make figures, and look at what has changed",
        path.display()
    );
}

#[test]
fn the_committed_figures_are_those_of_their_seed() {
    let dir = tempfile::tempdir().unwrap();
    for (name, arguments, code) in FIGURES {
        let drawn = dir.path().join(name);
        let ended = simulate(&[arguments, &["--svg", drawn.to_str().unwrap()]].concat());
        assert_eq!(ended.code, code, "{ended:?}");
        let committed: PathBuf = root().join("docs/figures").join(name);
        agree(&committed, &fs::read_to_string(drawn).unwrap());
    }
}

#[test]
fn the_readme_shows_what_the_program_prints() {
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("the README shows the command");
    let (_, after) = rest.split_once(END).unwrap();
    let printed = simulate(&[]).stdout;
    agree(&path, &format!("{before}{BEGIN}{printed}{END}{after}"));
}
