//! Every committed seed, by its oracle.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::oracle::certificate::Readers;
use super::oracle::{certificate, pem, record, review, secrets, settings};

/// The seeds of a target. The target `review` also gets the reviews of a real API server.
fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut directories = vec![root.join("tests/fuzz/corpus").join(target)];
    if target == "review" {
        directories.push(root.join("tests/data/reviews"));
    }
    let files = directories.iter().flat_map(|d| std::fs::read_dir(d).unwrap());
    let mut seeds: Vec<_> = files
        .map(|file| file.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    seeds.sort();
    assert!(seeds.len() >= 3, "{target} has {} seeds", seeds.len());
    seeds
}

fn all<T>(target: &str, check: impl Fn(&[u8]) -> Result<T, String>) -> Vec<T> {
    let mut wrong = Vec::new();
    let mut results = Vec::new();
    for (path, bytes) in seeds(target) {
        match check(&bytes) {
            Ok(result) => results.push(result),
            Err(reason) => wrong.push(format!("{}: {reason}", path.display())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    results
}

#[test]
fn pem_seeds_pass() {
    all("pem", pem::check);
}

#[test]
fn record_seeds_pass() {
    all("record", record::check);
}

#[test]
fn settings_seeds_pass() {
    all("settings", settings::check);
}

#[test]
fn certificate_seeds_pass_and_reach_every_outcome() {
    let readers = all("certificate", certificate::check);
    for outcome in [Readers::None, Readers::Both] {
        assert!(readers.contains(&outcome), "no seed is read by {outcome:?}");
    }
}

#[test]
fn review_seeds_pass_and_are_answered() {
    let judged = all("review", review::check);
    let decisions: BTreeSet<_> = judged.into_iter().flatten().map(|j| j.decision).collect();
    for decision in ["rotation", "rollback", "retirement", "same", "unchanged"] {
        assert!(decisions.contains(decision), "no seed reaches {decision}: {decisions:?}");
    }
}

#[test]
fn history_seeds_pass_and_reach_every_decision() {
    let reached: BTreeSet<_> = all("secrets", secrets::check).into_iter().flatten().collect();
    for decision in [
        "first_contact, appends",
        "foreign_overlap",
        "immutable",
        "no_ca",
        "not_a_secret_update",
        "not_readable",
        "off",
        "own_namespace",
        "retirement",
        "rollback, appends",
        "rotation",
        "rotation, appends",
        "same, appends",
        "service_account_token",
        "signer",
        "trust_store",
        "unchanged",
        "unchanged, cuts",
    ] {
        assert!(reached.contains(decision), "no seed reaches {decision}: {reached:?}");
    }
}
