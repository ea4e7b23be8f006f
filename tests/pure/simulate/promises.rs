//! The promises, for any seed: without ca-overlap handshakes fail; in staged mode none fails among
//! peers that reload, and with restarts none at all.

use super::{ALL, RELOAD, Strategies, failures_and_outage, simulate};

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

fn holds(seed: u64, more: &[&str]) {
    let seed = seed.to_string();
    let arguments = [&SMALL[..], &["--seed", &seed], more].concat();
    let ended = simulate(&arguments);
    let what = format!("simulate {}: {ended:?}", arguments.join(" "));
    assert_eq!(ended.code, 0, "{what}");
    let strategies = Strategies::of(&ended);
    let [none, bundle, staged, restart] =
        ["none", "bundle", "staged", "staged + restart"].map(|name| strategies.named(name));
    let (failures, outage) = failures_and_outage(none, &ALL);
    assert!(failures > 0 && outage > 0.0, "{what}");
    let (_, outage) = failures_and_outage(none, &RELOAD);
    assert!(outage > 0.0, "without ca-overlap peers that reload have an outage, too: {what}");
    assert!(failures_and_outage(bundle, &ALL).0 <= failures, "{what}");
    assert_eq!(failures_and_outage(staged, &RELOAD), (0, 0.0), "{what}");
    assert_eq!(failures_and_outage(restart, &ALL), (0, 0.0), "{what}");
    // Success proves something only if the leaves did change.
    for strategy in [staged, restart] {
        let promotions = strategy["promotionsAtSeconds"].as_array().unwrap();
        assert_eq!(promotions.len(), 2 * 3, "each Secret in each rotation: {what}");
    }
}

// Two halves, so that they run at the same time.

#[test]
fn the_promises_hold_for_a_hundred_seeds() {
    (0..100).for_each(|seed| holds(seed, &[]));
}

#[test]
fn the_promises_hold_for_another_hundred_seeds() {
    (100..200).for_each(|seed| holds(seed, &[]));
}

#[test]
fn the_promises_hold_with_slow_restarts_and_other_delays() {
    // Restarts for the new CA take longer than files, so leaves have to wait for them.
    let slow = ["--startup", "140s", "--never-reload", "60", "--interval", "40m"];
    (0..8).for_each(|seed| holds(seed, &slow));
    (0..4).for_each(|seed| holds(seed, &["--delay", "uniform", "--never-reload", "50"]));
    (0..4).for_each(|seed| holds(seed, &["--delay", "slowest", "--mutual", "100"]));
    (0..4).for_each(|seed| holds(seed, &["--window", "30m", "--keep", "2", "--mutual", "0"]));
}

#[test]
fn a_settle_time_that_is_too_short_breaks_the_promise() {
    // The negative control: the simulation does not flatter staged mode.
    let ended = simulate(&["--settle", "30s", "-o", "json"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let strategies = Strategies::of(&ended);
    let (failures, outage) = failures_and_outage(strategies.named("staged"), &RELOAD);
    assert!(failures > 0 && outage > 0.0);
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
