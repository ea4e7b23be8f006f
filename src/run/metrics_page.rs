//! `docs/metrics.md` lists every metric as it is exported; `make metrics-page` updates it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use prometheus_client::registry::Registry;

use super::{distrusted, registry, webhook};
use crate::keeper::metrics::KeeperMetrics;
use crate::metrics::{self, process};

/// What each table begins with: one of the webhook, one of the keeper, and one of both.
const HEAD: &str = "| metric | type | counts or shows |\n| --- | --- | --- |\n";
/// Labels whose values no table can list.
const OPEN: [&str; 3] = ["le", "sha256", "version"];

/// Metrics that only the webhook has, those that only the keeper has, and those of both.
fn exported() -> [String; 3] {
    let mut of_webhook = metrics::registry();
    webhook::register(&mut of_webhook);
    let mut of_keeper = metrics::registry();
    KeeperMetrics::register(&mut of_keeper);
    let mut of_both = registry(false);
    let list = tempfile::tempdir().unwrap();
    fs::write(list.path().join("ca"), "00".repeat(32)).unwrap();
    drop(distrusted::follow(Some(list.path().to_owned()), &mut of_both, |_| {}));
    let text = |ours, process| metrics::encode(ours, process).unwrap();
    let none = Registry::default();
    [text(&of_webhook, &none), text(&of_keeper, &none), text(&of_both, &process::registry())]
}

/// The rows of a table. Each registry has the version, which is one of both.
fn table(exported: &str, is_of_both: bool) -> String {
    let mut table = HEAD.to_owned();
    for text in exported.split("# HELP ").skip(1) {
        let (first, rest) = text.split_once('\n').unwrap();
        let (family, help) = first.split_once(' ').unwrap();
        let kind = rest.lines().next().unwrap().rsplit(' ').next().unwrap();
        if family.ends_with("_build") && !is_of_both {
            continue;
        }
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let labels = labels(rest);
        let names: Vec<&str> = labels.keys().copied().filter(|label| *label != "le").collect();
        let names =
            if names.is_empty() { String::new() } else { format!("{{{}}}", names.join(",")) };
        write!(table, "| `{family}{suffix}{names}` | {kind} | {help}").unwrap();
        for (label, values) in labels.iter().filter(|(label, _)| !OPEN.contains(label)) {
            let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
            write!(table, " {label}: {}.", values.join(", ")).unwrap();
        }
        table.push_str(" |\n");
    }
    table
}

/// The labels of these series, and their values.
fn labels(series: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut labels = BTreeMap::<_, BTreeSet<_>>::new();
    let series = series.lines().filter(|line| !line.starts_with('#'));
    for list in series.filter_map(|line| line.split_once('{')?.1.split('}').next()) {
        for (label, value) in list.split(',').filter_map(|pair| pair.split_once('=')) {
            labels.entry(label).or_default().insert(value.trim_matches('"'));
        }
    }
    labels
}

#[test]
fn the_page_lists_every_metric_as_it_is_exported() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = fs::read_to_string(&path).unwrap();
    let [of_webhook, of_keeper, of_both] = exported();
    let tables = [table(&of_webhook, false), table(&of_keeper, false), table(&of_both, true)];
    let mut parts = page.split(HEAD);
    let mut expected = parts.next().unwrap().to_owned();
    for (table, rest) in tables.iter().zip(parts.by_ref()) {
        let (_, after) = rest.split_once("\n\n").unwrap();
        write!(expected, "{table}\n{after}").unwrap();
    }
    assert!(tables.iter().all(|table| expected.contains(table)), "the page has three tables");
    assert_eq!(parts.next(), None, "the page has no other table with this head");
    if std::env::var_os("CA_OVERLAP_RECORD").is_some() {
        return fs::write(&path, &expected).unwrap();
    }
    assert!(page == expected, "docs/metrics.md lists something else: run make metrics-page");
}

#[test]
fn what_the_page_says_about_values_is_about_values_that_exist() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = fs::read_to_string(&path).unwrap();
    let (_, rest) = page.split_once("\n## Values of labels\n").unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let exported = exported().concat();
    let labels = labels(&exported);
    let mut told = 0;
    for text in section.split('`').skip(1).step_by(2) {
        let is_word = text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let exists = labels.contains_key(text) || labels.values().any(|it| it.contains(text));
        assert!(!is_word || exists, "{text}");
        told += 1;
    }
    assert!(told > 20, "{told}");
}
