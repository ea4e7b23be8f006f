//! Reviews that a real API server sent (recorded by `make corpus`), and the expected decisions.

use std::path::Path;

use serde_json::Value;

use super::endpoint::{Outcome, admit};

/// File, decision, number of certificates afterwards, whether there is a patch.
const EXPECTED: [(&str, &str, usize, bool); 12] = [
    ("annotate", "unchanged", 2, true),
    ("annotate-remove", "unchanged", 2, true),
    ("json-patch", "rollback", 2, true),
    ("kubectl-apply", "rotation", 2, true),
    ("kubectl-edit", "rotation", 2, true),
    ("merge-patch", "retirement", 2, true),
    ("put", "rotation", 2, true),
    ("put-again", "same", 2, true),
    ("put-dry-run", "rotation", 2, true),
    ("read-modify-write", "rotation", 3, true),
    ("server-side-apply", "rotation", 2, true),
    ("strategic-merge-patch", "rotation", 2, true),
];

fn recorded(name: &str) -> Value {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/reviews");
    let text = std::fs::read_to_string(directory.join(format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn certificates(outcome: &Outcome) -> usize {
    outcome.ca_crt().matches("-----BEGIN CERTIFICATE-----").count()
}

#[tokio::test]
async fn every_recorded_review_gets_its_decision() {
    for (name, decision, count, changes) in EXPECTED {
        let outcome = admit(&recorded(name)).await;
        assert_eq!(outcome.decision(), decision, "{name}");
        assert_eq!(certificates(&outcome), count, "{name}");
        assert_eq!(!outcome.operations.is_empty(), changes, "{name}: {:?}", outcome.operations);
    }
}

#[tokio::test]
async fn the_outcome_written_again_changes_nothing() {
    for (name, ..) in EXPECTED {
        let mut review = recorded(name);
        let first = admit(&review).await;
        review["request"]["oldObject"] = first.stored.clone();
        let second = admit(&review).await;
        assert_eq!(second.stored["data"], first.stored["data"], "{name}");
        assert_eq!(second.annotation("carried"), first.annotation("carried"), "{name}");
    }
}

#[test]
fn every_recorded_review_is_expected() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/reviews");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    files.sort();
    assert_eq!(files, EXPECTED.map(|(name, ..)| name));
}
