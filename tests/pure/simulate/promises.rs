//! The promises, for any seed: without ca-overlap handshakes fail; in staged mode none fails among
//! peers that reload, and with restarts none at all. With cert-manager some fail where the webhook is
//! alone, and none with announcements and restarts.

use serde_json::Value;

use super::{ALL, NAMES, RELOAD, Strategies, failures_and_outage, simulate};

/// Small runs: few peers, two rotations, and a keeper that waits hardly longer than the slowest file.
/// Few handshakes are drawn, but an outage is found even if no handshake falls into it.
const SMALL: [&str; 12] = [
    "--peers",
    "8",
    "--rotations",
    "2",
    "--tick",
    "1m",
    "--meetings",
    "2",
    "--settle",
    "107s",
    "-o",
    "json",
];

/// A small run, its exit code and its arguments.
fn run(seed: u64, more: &[&str]) -> (Strategies, i32, String) {
    let seed = seed.to_string();
    let arguments = [&SMALL[..], &["--seed", &seed], more].concat();
    let ended = simulate(&arguments);
    let what = format!("simulate {}: {ended:?}", arguments.join(" "));
    (Strategies::of(&ended), ended.code, what)
}

fn holds(seed: u64, more: &[&str]) {
    let (strategies, code, what) = run(seed, more);
    assert_eq!(code, 0, "{what}");
    let [none, bundle, _, _, alone, announce] = NAMES.map(|name| strategies.named(name));
    let (failures, outage) = failures_and_outage(none, &ALL);
    assert!(failures > 0 && outage > 0.0, "{what}");
    assert!(failures_and_outage(bundle, &ALL).0 <= failures, "{what}");
    for strategy in [none, bundle, alone] {
        let (_, outage) = failures_and_outage(strategy, &RELOAD);
        assert!(outage > 0.0, "peers that reload have an outage, too: {what}");
    }
    staged_holds(&strategies, &what);
    assert_eq!(failures_and_outage(announce, &ALL), (0, 0.0), "{what}");
    has_restarts(announce, &what);
}

fn staged_holds(strategies: &Strategies, what: &str) {
    let [staged, restart] = ["staged", "staged + restart"].map(|name| strategies.named(name));
    assert_eq!(failures_and_outage(staged, &RELOAD), (0, 0.0), "{what}");
    assert_eq!(failures_and_outage(restart, &ALL), (0, 0.0), "{what}");
    // Success proves something only if the leaves did change.
    for strategy in [staged, restart] {
        let promotions = strategy["promotionsAtSeconds"].as_array().unwrap();
        assert_eq!(promotions.len(), 2 * 3, "each Secret in each rotation: {what}");
    }
    has_restarts(restart, what);
}

/// Pods that never reload prove something only if they have new leaves.
fn has_restarts(strategy: &Value, what: &str) {
    let restarts = strategy["restartsAtSeconds"].as_array().unwrap().len();
    assert!(restarts >= 2 * 2 * 2, "two pods, two rotations, for CA and leaf: {what}");
}

// Two halves, so that they run at the same time. `make simulate-seeds` runs more of them.

fn seeds() -> u64 {
    std::env::var("CA_OVERLAP_SEEDS").map_or(20, |seeds| seeds.parse().unwrap())
}

#[test]
fn the_promises_hold_for_even_seeds() {
    (0..seeds()).step_by(2).for_each(|seed| holds(seed, &[]));
}

#[test]
fn the_promises_hold_for_odd_seeds() {
    (1..seeds()).step_by(2).for_each(|seed| holds(seed, &[]));
}

#[test]
fn the_promises_hold_with_other_delays_and_windows() {
    (0..4).for_each(|seed| holds(seed, &["--delay", "uniform", "--never-reload", "50"]));
    (0..4).for_each(|seed| holds(seed, &["--delay", "slowest", "--mutual", "100"]));
    (0..4).for_each(|seed| holds(seed, &["--window", "30m", "--keep", "2", "--mutual", "0"]));
}

#[test]
fn leaves_wait_for_slow_restarts_in_staged_mode_and_not_with_cert_manager() {
    let slow = ["--startup", "140s", "--never-reload", "60", "--interval", "40m"];
    let failed = (0..8).filter(|seed| {
        let (strategies, code, what) = run(*seed, &slow);
        staged_holds(&strategies, &what);
        let announce = strategies.named("cert-manager + announce");
        assert_eq!(failures_and_outage(announce, &RELOAD), (0, 0.0), "{what}");
        let is_clean = failures_and_outage(announce, &ALL).1 == 0.0;
        assert_eq!(code, i32::from(!is_clean), "{what}");
        !is_clean
    });
    assert!(
        failed.count() > 0,
        "cert-manager renews a leaf before the restarts for its CA are done"
    );
}

#[test]
fn a_settle_time_that_is_too_short_breaks_the_promise() {
    // The negative control: the simulation flatters neither staged mode nor announcements.
    let ended = simulate(&["--settle", "30s", "-o", "json"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let strategies = Strategies::of(&ended);
    for strategy in ["staged", "cert-manager + announce"] {
        let (failures, outage) = failures_and_outage(strategies.named(strategy), &RELOAD);
        assert!(failures > 0 && outage > 0.0, "{strategy}");
    }
    assert_eq!(strategies.0["asPromised"], false);
}

#[test]
fn a_window_that_ends_before_pods_are_restarted_breaks_the_promise() {
    // The keeper retires the previous CA while pods still show its leaves.
    let ended = simulate(&["--settle", "2m", "--window", "5m", "--rotations", "1", "-o", "json"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let strategies = Strategies::of(&ended);
    assert_eq!(failures_and_outage(strategies.named("staged"), &RELOAD), (0, 0.0));
    assert!(failures_and_outage(strategies.named("staged + restart"), &ALL).1 > 0.0);
}
