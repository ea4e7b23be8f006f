//! The output of `simulate`.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::Strategy;
use super::mesh::{CLASSES, PairClass};
use super::schedule::{Delay, Millis, Schedule, millis};
use super::simulation::StrategyResult;
use crate::tools::output;
use crate::tools::table::{Column, Row, Table, line_width, wrapped};
use crate::tools::text::counted;

/// The results of all strategies.
#[derive(Clone, Debug)]
pub(super) struct SimulationReport {
    pub(super) schedule: Schedule,
    pub(super) results: Vec<StrategyResult>,
}

/// The names of the classes of pairs: in the table and in JSON.
const NAMES: [(&str, &str); CLASSES] =
    [("mutual TLS", "mutual"), ("one-way TLS", "oneWay"), ("never reloads", "neverReloads")];

impl SimulationReport {
    /// Whether ca-overlap keeps its promises: no failure between peers that reload in staged mode,
    /// and none at all with restarts or announcements.
    pub(super) fn is_as_promised(&self) -> bool {
        self.results.iter().all(|result| match result.strategy {
            Strategy::None | Strategy::Bundle | Strategy::CertManager => true,
            Strategy::Staged => result.reloading().is_clean(),
            Strategy::StagedRestart | Strategy::CertManagerAnnounce => result.all().is_clean(),
        })
    }

    pub(super) fn to_text(&self) -> String {
        let mut out = String::new();
        for line in self.head() {
            let _ = writeln!(out, "{line}");
        }
        let _ = write!(out, "\n{}", self.table().render());
        for note in self.notes() {
            let _ = writeln!(out);
            for line in wrapped(&note, line_width(0)) {
                let _ = writeln!(out, "{line}");
            }
        }
        out
    }

    /// The scenario, in two lines.
    pub(super) fn head(&self) -> [String; 2] {
        let scenario = &self.schedule.scenario;
        let delay = match scenario.delay {
            Delay::Kubelet | Delay::Uniform => "take up to",
            Delay::Slowest => "always take",
        };
        [
            format!(
                "{} on {}, {} of them never {} until restarted. Files {delay} {}.",
                counted(scenario.peers, "peer"),
                counted(scenario.secrets, "Secret"),
                scenario.never_reload,
                if scenario.never_reload == 1 { "reloads" } else { "reload" },
                span(scenario.longest_delay()),
            ),
            format!(
                "{}, one every {}; the keeper settles for {}. Seed {}.",
                counted(scenario.rotations, "rotation"),
                span(scenario.interval),
                span(millis(scenario.settle)),
                scenario.seed,
            ),
        ]
    }

    fn table(&self) -> Table {
        let columns = [
            ("STRATEGY", 16),
            ("PAIRS", 17),
            ("HANDSHAKES", 10),
            ("FAILED", 16),
            ("LONGEST OUTAGE", 16),
            ("FIRST", 8),
            ("LAST", 8),
        ];
        let mut table =
            Table::new(columns.map(|(head, max_width)| Column { head, max_width }).to_vec());
        for result in &self.results {
            let shown: Vec<_> =
                result.classes.iter().zip(NAMES).filter(|(class, _)| class.pairs > 0).collect();
            let cells = |cell: &dyn Fn(&PairClass, &str) -> String| -> Vec<String> {
                shown.iter().map(|(class, (name, _))| cell(class, name)).collect()
            };
            let moment = |at: Option<Millis>| at.map_or_else(|| "-".to_owned(), span);
            table.push(Row::new(vec![
                vec![result.strategy.name().to_owned()],
                cells(&|_, name| name.to_owned()),
                cells(&|class, _| class.handshakes.to_string()),
                cells(&|class, _| failed(class)),
                cells(&|class, _| outage(class)),
                cells(&|class, _| moment(class.first)),
                cells(&|class, _| moment(class.last)),
            ]));
        }
        table
    }

    fn notes(&self) -> Vec<String> {
        let scenario = &self.schedule.scenario;
        let is_left = self.results.iter().flat_map(|c| &c.classes).any(|class| class.left > 0);
        let mut notes = vec![
            "Mutual TLS, one-way TLS: both peers of the pair reload their files; in one-way TLS \
             only the server shows a certificate. Never reloads: a peer of the pair reads its \
             files only when it starts. An outage is the time during which a pair could not \
             connect, whether it tried or not."
                .to_owned(),
            "cert-manager renews the CA at each rotation, and each leaf one to two settle times later. \
             bundle and cert-manager: the webhook alone. cert-manager + announce: all Secrets trust \
             the new CA at once, and peers that never reload are restarted."
                .to_owned(),
        ];
        if is_left {
            notes.push("+: the outage lasts until the end.".to_owned());
        }
        if scenario.longest_delay() > millis(scenario.settle) {
            notes.push(format!(
                "Files can take {}, longer than --settle {}: a new leaf goes into service before \
                 all peers trust it.",
                span(scenario.longest_delay()),
                span(millis(scenario.settle)),
            ));
        }
        notes
    }

    pub(super) fn to_json(&self) -> Value {
        let scenario = &self.schedule.scenario;
        let starts: Vec<Value> = scenario.starts().map(seconds).collect();
        let renewals = self.schedule.renewals.iter().map(|of| times(&of[..scenario.secrets]));
        let strategies: Vec<Value> = self.results.iter().map(strategy).collect();
        let fields = json!({
            "seed": scenario.seed,
            "peers": scenario.peers,
            "peersThatNeverReload": scenario.never_reload,
            "secrets": scenario.secrets,
            "delay": scenario.delay,
            "longestDelaySeconds": seconds(scenario.longest_delay()),
            "settleSeconds": seconds(millis(scenario.settle)),
            "durationSeconds": seconds(scenario.end()),
            "rotationsAtSeconds": starts,
            "renewalsAtSeconds": renewals.collect::<Vec<_>>(),
            "asPromised": self.is_as_promised(),
            "strategies": strategies,
        });
        output::document("SimulationReport", fields)
    }
}

fn strategy(result: &StrategyResult) -> Value {
    let mut all = class(&result.all());
    all["strategy"] = json!(result.strategy.name());
    for (of, (_, name)) in result.classes.iter().zip(NAMES) {
        all[name] = class(of);
    }
    all["promotionsAtSeconds"] = times(&result.promotions);
    all["restartsAtSeconds"] = times(&result.restarts);
    all
}

fn class(class: &PairClass) -> Value {
    json!({
        "pairs": class.pairs,
        "handshakes": class.handshakes,
        "failures": class.failures,
        "longestOutageSeconds": seconds(class.longest_outage),
        "pairsDownAtTheEnd": class.left,
        "firstFailureSeconds": class.first.map(seconds),
        "lastFailureSeconds": class.last.map(seconds),
    })
}

fn times(times: &[Millis]) -> Value {
    times.iter().map(|at| seconds(*at)).collect()
}

/// A time in seconds; whole seconds are integers.
fn seconds(millis: Millis) -> Value {
    match millis % 1000 {
        0 => json!(millis / 1000),
        _ => json!(Duration::from_millis(millis).as_secs_f64()),
    }
}

fn failed(class: &PairClass) -> String {
    if class.failures == 0 {
        return "0".to_owned();
    }
    format!("{} ({})", class.failures, percent(class.failures, class.handshakes))
}

/// A percentage with one decimal, rounded down: only all of them are 100 %.
fn percent(part: usize, whole: usize) -> String {
    let tenths = 1000 * part / whole.max(1);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

fn outage(class: &PairClass) -> String {
    let is_left = if class.left > 0 { "+" } else { "" };
    match class.longest_outage {
        0 => "none".to_owned(),
        outage => format!("{}{is_left}", span(outage)),
    }
}

/// A duration in minutes and whole seconds: `45s`, `20m`, `1m 45s`.
pub(super) fn span(millis: Millis) -> String {
    let seconds = (millis + 500) / 1000;
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, 0) => format!("{minutes}m"),
        (minutes, seconds) => format!("{minutes}m {seconds}s"),
    }
}
