//! Each rule fires where it should, nowhere else, and is documented.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ca_overlap::tools::inspect::Rule;
use clap::ValueEnum;

use super::{examples, inspect, rules};

#[test]
fn each_rule_fires_where_it_should_and_nowhere_else() {
    let examples = examples::all();
    for rule in Rule::value_variants() {
        assert!(examples.iter().any(|e| e.rule == *rule), "no example for {}", rule.id());
    }
    for example in examples {
        let id = example.rule.id();
        let mut expected: BTreeSet<String> = example.also.iter().map(|rule| rule.id()).collect();
        expected.insert(id.clone());
        let fired = rules(&example.fires);
        assert_eq!(fired.iter().cloned().collect::<BTreeSet<_>>(), expected, "{id}");
        assert_eq!(rules(&example.sound), Vec::<String>::new(), "the sound example of {id}");
    }
}

#[test]
fn a_healthy_stage_is_not_reported() {
    assert_eq!(rules(&examples::in_time()), Vec::<String>::new());
}

#[test]
fn ignored_rules_are_not_reported() {
    let example = examples::all().into_iter().find(|e| e.rule == Rule::RetireBlocked).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("it.json"), example.fires.to_string()).unwrap();
    let some = inspect(dir.path(), &["it.json", "--ignore", "retire-blocked,active-ca-not-first"]);
    assert!(some.with_code(1).contains("leaf-needs-carried-ca"));
    assert!(!some.stdout.contains("retire-blocked"));
    let all = ["it.json", "--ignore", "retire-blocked,active-ca-not-first"];
    let all = [&all[..], &["--ignore", "leaf-needs-carried-ca"]].concat();
    assert!(inspect(dir.path(), &all).with_code(0).contains("No lint rule fires"));
    let unknown = inspect(dir.path(), &["it.json", "--ignore", "no-such-rule"]);
    unknown.with_code(64);
    assert!(unknown.stderr.contains("no-such-rule") && unknown.stderr.contains("leaf-expired"));
}

#[test]
fn each_rule_has_a_section_and_an_incident_in_the_docs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/lint.md");
    let docs = fs::read_to_string(path).unwrap();
    let mut sections: Vec<(&str, &str)> = Vec::new();
    for section in docs.split("\n### ").skip(1) {
        let (title, text) = section.split_once('\n').unwrap();
        sections.push((title, text.split("\n## ").next().unwrap()));
    }
    let titles: Vec<&str> = sections.iter().map(|(title, _)| *title).collect();
    let ids: Vec<String> = Rule::value_variants().iter().map(|rule| rule.id()).collect();
    assert_eq!(titles, ids, "a section for each rule, in the order of --help");
    for (title, text) in sections {
        assert!(text.contains("*Seen*: "), "{title} names no incident");
        assert!(text.contains("*Do*: "), "{title} does not say what to do");
    }
}
