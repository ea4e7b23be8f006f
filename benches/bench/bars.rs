//! The bars of `docs/performance.md`, each met or missed by a session.

use crate::results::{ALLOW_ALL, CONTROLLER_RUNTIME, OURS, Results, STDLIB, Spread};

/// One line of the table.
pub struct Bar {
    pub case: String,
    pub limit: String,
    pub measured: String,
    /// `None` if it was not measured.
    pub met: Option<bool>,
}

/// Every bar.
pub fn all(results: &Results) -> Vec<Bar> {
    let mut bars = ratios(results);
    bars.extend(instructions(results));
    bars.extend(latencies(results));
    bars.extend(memory(results));
    bars.extend(rest(results));
    bars
}

impl Bar {
    fn at_most(case: &str, limit: f64, unit: &str, measured: Option<f64>) -> Self {
        Self {
            case: case.into(),
            limit: format!("≤ {limit}{unit}"),
            measured: measured.map_or("not measured".into(), |value| format!("{value:.2}{unit}")),
            met: measured.map(|value| value <= limit),
        }
    }

    fn ratio(case: &str, limit: f64, spread: Option<Spread>) -> Self {
        let mut bar = Self::at_most(case, limit, "", spread.map(|s| s.median));
        if let Some(Spread { median, low, high }) = spread {
            bar.measured = format!("{median:.3} ({low:.3} to {high:.3})");
            // The end of the interval that is nearest to failure has to meet the limit.
            bar.met = Some(high <= limit);
        }
        bar
    }
}

fn ratios(results: &Results) -> Vec<Bar> {
    let to = |scenario: &str, program: &str| results.ratio(scenario, OURS, program);
    let stdlib = [
        ("bundle-3k", "bundling, 3 KB", 0.35),
        ("bundle-8k", "bundling, 8 KB", 0.35),
        ("nothing-3k", "nothing to do, 3 KB", 0.25),
        ("nothing-8k", "nothing to do, 8 KB", 0.25),
        ("bundle-2m8", "bundling, 2.8 MB", 0.25),
        ("nothing-2m8", "nothing to do, 2.8 MB", 0.25),
        ("churn-8k", "bundling, 8 KB, a new connection for each", 0.5),
    ];
    let against = |case: &str| format!("CPU against Go's standard library: {case}");
    let mut bars: Vec<Bar> = stdlib
        .iter()
        .map(|(id, case, limit)| Bar::ratio(&against(case), *limit, to(id, STDLIB)))
        .collect();
    for (id, case) in [("bundle-8k", "bundling, 8 KB"), ("nothing-8k", "nothing to do, 8 KB")] {
        let case = format!("CPU against controller-runtime: {case}");
        bars.push(Bar::ratio(&case, 0.12, to(id, CONTROLLER_RUNTIME)));
    }
    bars
}

fn instructions(results: &Results) -> Vec<Bar> {
    let ratio = |what: &str| {
        let ours = results.instructions_of(OURS, what)? as f64;
        Some(ours / results.instructions_of(ALLOW_ALL, what)? as f64)
    };
    vec![
        Bar::at_most(
            "instructions against allow-all: bundling, 8 KB",
            2.0,
            " ×",
            ratio("bundling"),
        ),
        Bar::at_most(
            "instructions against allow-all: nothing to do, 8 KB",
            1.2,
            " ×",
            ratio("nothing to do"),
        ),
    ]
}

fn latencies(results: &Results) -> Vec<Bar> {
    let knee = results.knees.iter().find(|knee| knee.program == OURS).map(|knee| knee.rate);
    let p50 = results.latency(OURS, "300/s").map(|l| f64::from(l.p50) / 1e3);
    let max = results.latency(OURS, "500 connections").map(|l| f64::from(l.max) / 1e3);
    vec![
        Bar {
            case: "bundled admissions on one core at p99 ≤ 5 ms".into(),
            limit: "≥ 12,000/s".into(),
            measured: knee.map_or("not measured".into(), |rate| format!("{rate:.0}/s")),
            met: knee.map(|rate| rate >= 12_000.0),
        },
        Bar::at_most("p50 at 300/s", 0.6, " ms", p50),
        Bar::at_most("max with 500 connections, 1,000/s", 100.0, " ms", max),
    ]
}

fn memory(results: &Results) -> Vec<Bar> {
    let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    let ours = results.memory.iter().find(|memory| memory.program == OURS);
    let growth = match (results.flat.first(), results.flat.last()) {
        (Some((_, first)), Some((calls, last))) if *calls >= 1_000_000 => {
            Some((last.rss_anon as f64 / first.rss_anon as f64 - 1.0) * 100.0)
        }
        _ => None,
    };
    vec![
        Bar::at_most(
            "RssAnon after the first requests",
            3.0,
            " MiB",
            ours.map(|m| mib(m.first_requests.rss_anon)),
        ),
        Bar::at_most(
            "RssAnon with 500 connections",
            26.0,
            " MiB",
            ours.map(|m| mib(m.with_500_connections.rss_anon)),
        ),
        Bar::at_most("growth of RssAnon from 10,000 to 1,000,000 calls", 5.0, " %", growth),
    ]
}

fn rest(results: &Results) -> Vec<Bar> {
    let starts = results.starts.iter().find(|starts| starts.program == OURS);
    let median = starts.and_then(|starts| starts.millis.get(starts.millis.len() / 2).copied());
    let ours = results.programs.iter().find(|program| program.name == OURS);
    let mib = ours.map(|program| program.bytes as f64 / 1024.0 / 1024.0);
    let worst = results.hostile.iter().map(|hostile| hostile.millis).reduce(f64::max);
    vec![
        Bar::at_most("start to first answer, median", 15.0, " ms", median),
        Bar::at_most("binary", 14.0, " MiB", mib),
        Bar::at_most("CPU for a hostile body of 7 MiB, or 1 MiB of PEM", 50.0, " ms", worst),
        Bar::at_most("the same for twice the size (2 is linear)", 2.5, " ×", growth(results)),
    ]
}

/// The worst growth of CPU from one hostile body to one of twice the size. Below 2 ms the clock is
/// too coarse.
fn growth(results: &Results) -> Option<f64> {
    let pairs = results.hostile.windows(2).filter(|pair| pair[0].what == pair[1].what);
    pairs.filter(|p| p[0].millis >= 2.0).map(|p| p[1].millis / p[0].millis).reduce(f64::max)
}
