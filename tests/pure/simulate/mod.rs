//! `ca-overlap simulate` as a user runs it.

mod figures;
mod output;
mod promises;

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::command::CommandOutput;

fn simulate(arguments: &[&str]) -> CommandOutput {
    let mut command = Command::new(crate::support::binary::path());
    // Settings in the environment of the tests must not change the result.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CA_OVERLAP_") {
            command.env_remove(name);
        }
    }
    command.arg("simulate").args(arguments).stdin(Stdio::null()).output().unwrap().into()
}

/// The strategies of a run, by name.
struct Strategies(Value);

impl Strategies {
    #[track_caller]
    fn of(ended: &CommandOutput) -> Self {
        let parsed = serde_json::from_str(&ended.stdout);
        Self(parsed.unwrap_or_else(|error| panic!("{error}: {ended:?}")))
    }

    #[track_caller]
    fn named(&self, name: &str) -> &Value {
        let all = self.0["strategies"].as_array().unwrap();
        all.iter().find(|strategy| strategy["strategy"] == name).unwrap()
    }
}

/// The strategies, in order.
const NAMES: [&str; 6] =
    ["none", "bundle", "staged", "staged + restart", "cert-manager", "cert-manager + announce"];

/// The failed handshakes of these classes of pairs, and the longest outage of a pair in seconds.
fn failures_and_outage(strategy: &Value, classes: &[&str]) -> (u64, f64) {
    let of = |class: &&str| &strategy[*class];
    let failures = classes.iter().map(of).map(|class| class["failures"].as_u64().unwrap());
    let outages = classes.iter().map(of).map(|c| c["longestOutageSeconds"].as_f64().unwrap());
    (failures.sum(), outages.fold(0.0, f64::max))
}

/// The classes of pairs in which both sides reload their files.
const RELOAD: [&str; 2] = ["mutual", "oneWay"];
const ALL: [&str; 3] = ["mutual", "oneWay", "neverReloads"];
