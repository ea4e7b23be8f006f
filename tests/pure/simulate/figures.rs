//! The docs show what `simulate` prints; `make figures` updates them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{ALL, Strategies, simulate};

/// The output stands between these in `docs/modes.md`.
const BEGIN: &str = "```\n$ ca-overlap simulate --svg docs/figures/simulate.svg\n";
const END: &str = "```\n";
/// The strategies, and their names in the README's table. Those of cert-manager compare only with each
/// other, as docs/modes.md says.
const IN_SHORT: [(&str, &str); 4] = [
    ("none", "without ca-overlap"),
    ("bundle", "webhook alone"),
    ("staged", "keeper and staged mode"),
    ("staged + restart", "keeper, staged mode and restarts"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_page_about_modes_shows_what_the_program_prints() {
    let path = root().join("docs/modes.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page shows the command");
    let (_, after) = rest.split_once(END).unwrap();
    let printed = simulate(&[]).stdout;
    let expected = format!("{before}{BEGIN}{printed}{END}{after}");
    if std::env::var_os("CA_OVERLAP_RECORD").is_some() {
        return fs::write(&path, &expected).unwrap();
    }
    assert!(page == expected, "docs/modes.md shows something else: run make figures, and look");
}

#[test]
fn the_readme_sums_up_what_the_program_prints() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let strategies = Strategies::of(&simulate(&["-o", "json"]));
    for (strategy, name) in IN_SHORT {
        let strategy = strategies.named(strategy);
        let failed = ALL.map(|class| share(&strategy[class]));
        let row = format!("\n| {name} | {} |\n", failed.join(" | "));
        assert!(readme.contains(&row), "the README lacks {row}");
    }
}

/// The share of a class's handshakes that failed, with one decimal and rounded down.
fn share(class: &Value) -> String {
    let [failures, handshakes] = ["failures", "handshakes"].map(|key| class[key].as_u64().unwrap());
    let tenths = failures * 1000 / handshakes;
    if failures == 0 { "0".into() } else { format!("{}.{} %", tenths / 10, tenths % 10) }
}
