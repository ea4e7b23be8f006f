//! The results as markdown.

use std::fmt::Write as _;

use crate::bars;
use crate::results::{
    AGAIN, ALLOW_ALL, CONTROLLER_RUNTIME, Latency, OURS, Results, STDLIB, Spread,
};

/// The programs in the order of columns.
const COLUMNS: [&str; 4] = [OURS, ALLOW_ALL, STDLIB, CONTROLLER_RUNTIME];

/// The whole report, as in `docs/performance.md`.
pub fn markdown(results: &Results) -> String {
    let mut text = head(results);
    let sections = [
        ("Bars", bar_table(results)),
        ("CPU per admission", cpu_table(results)),
        ("Latency", latency_table(results)),
        ("Rate on one core", knee_table(results)),
        ("Memory, start and size", size_table(results)),
        ("Instructions", instruction_table(results)),
        ("Hostile bodies", hostile_table(results)),
    ];
    for (title, section) in sections {
        if !section.trim().is_empty() {
            write!(text, "\n### {title}\n\n{section}").unwrap_or_default();
        }
    }
    for what in &results.not_measured {
        write!(text, "\nNot measured: {what}.\n").unwrap_or_default();
    }
    text
}

fn head(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "Session `{}` of {}, commit {}. {}, Linux {}; load average {:.1} before and {:.1} after.\n",
        results.mode,
        machine.date,
        machine.commit,
        machine.cpu,
        machine.kernel,
        machine.load.0,
        machine.load.1
    );
    let void = results.void();
    for reason in &void {
        write!(text, "\n**VOID**: {reason}.\n").unwrap_or_default();
    }
    if void.is_empty() && results.programs.iter().any(|program| program.name == AGAIN) {
        text.push_str("The same program against itself gave 1 in every scenario.\n");
    }
    for program in results.programs.iter().filter(|program| program.name != AGAIN) {
        writeln!(text, "- {}: {}", program.name, program.tls).unwrap_or_default();
    }
    text
}

fn bar_table(results: &Results) -> String {
    // A short session leaves most of them out on purpose.
    let full = results.mode == "full";
    let bars = bars::all(results).into_iter().filter(|bar| full || bar.met.is_some());
    let rows = bars.map(|bar| {
        let met = match bar.met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "–",
        };
        vec![bar.case, bar.limit, bar.measured, met.into()]
    });
    table(&["case", "bar", "measured", ""], rows)
}

fn cpu_table(results: &Results) -> String {
    if results.scenarios.is_empty() {
        return String::new();
    }
    let rows = results.scenarios.iter().map(|scenario| {
        let mut row = vec![format!("{} ({} bytes)", scenario.title, scenario.size)];
        for program in COLUMNS {
            row.push(results.micros(&scenario.id, program).map_or("–".into(), micros));
        }
        for program in [AGAIN, ALLOW_ALL, STDLIB, CONTROLLER_RUNTIME] {
            let ratio = if program == AGAIN {
                results.ratio(&scenario.id, AGAIN, OURS)
            } else {
                results.ratio(&scenario.id, OURS, program)
            };
            row.push(ratio.map_or("–".into(), ratio_text));
        }
        row
    });
    let mut text = String::from(
        "µs of CPU per request: median, and in brackets the interval of the median. Ratios are of the same round.\n\n",
    );
    let header = [
        "scenario",
        OURS,
        ALLOW_ALL,
        STDLIB,
        CONTROLLER_RUNTIME,
        "A/A",
        "ours / allow-all",
        "ours / Go",
        "ours / c-r",
    ];
    text += &table(&header, rows);
    if let Some(log) = results.ratio("log", "info", "warn") {
        let ratio = ratio_text(log);
        write!(text, "\nA line in the log for each: {ratio} × the CPU of `--log-level warn`.\n")
            .unwrap_or_default();
    }
    text
}

fn latency_table(results: &Results) -> String {
    if results.latencies.is_empty() {
        return String::new();
    }
    let row = |l: &Latency| {
        let millis = |micros: u32| format!("{:.2}", f64::from(micros) / 1e3);
        vec![
            l.program.clone(),
            l.what.clone(),
            format!("{:.0}", l.rate),
            format!("{:.0}", l.achieved),
            millis(l.p50),
            millis(l.p99),
            millis(l.p999),
            millis(l.max),
            millis(l.client_p99),
        ]
    };
    let header = [
        "program",
        "load",
        "rate/s",
        "achieved/s",
        "p50 ms",
        "p99",
        "p99.9",
        "max",
        "client's own p99",
    ];
    format!(
        "Bundling, 8 KB, open loop, from the scheduled time.\n\n{}",
        table(&header, results.latencies.iter().map(row))
    )
}

fn knee_table(results: &Results) -> String {
    let rows = results.knees.iter().map(|knee| {
        vec![knee.program.clone(), format!("{:.0}", knee.saturation), format!("{:.0}", knee.rate)]
    });
    table(&["program", "closed loop, 25 connections, /s", "open loop at p99 ≤ 5 ms, /s"], rows)
}

fn size_table(results: &Results) -> String {
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / 1024.0 / 1024.0);
    let rows = results.starts.iter().map(|starts| {
        let memory = results.memory.iter().find(|memory| memory.program == starts.program);
        let bytes = results.programs.iter().find(|p| p.name == starts.program).map(|p| p.bytes);
        let millis =
            |at: usize| starts.millis.get(at).map_or("–".into(), |ms| format!("{ms:.1}"));
        let last = starts.millis.len().saturating_sub(1);
        let (first, many) =
            memory.map_or_else(Default::default, |m| (m.first_requests, m.with_500_connections));
        vec![
            starts.program.clone(),
            format!("{} / {}", mib(first.rss_anon), mib(first.rss)),
            format!("{} / {}", mib(many.rss_anon), mib(many.rss)),
            format!("{} ({} to {})", millis(starts.millis.len() / 2), millis(0), millis(last)),
            bytes.map_or("–".into(), mib),
        ]
    });
    let header = [
        "program",
        "RssAnon / RSS after 100 requests, MiB",
        "with 500 connections",
        "exec to first answer, ms",
        "binary, MiB",
    ];
    let mut text = table(&header, rows);
    for (calls, memory) in &results.flat {
        let (anon, rss) = (mib(memory.rss_anon), mib(memory.rss));
        write!(text, "\nAfter {calls} calls: {anon} / {rss} MiB.").unwrap_or_default();
    }
    text.trim_end().to_owned() + "\n"
}

fn instruction_table(results: &Results) -> String {
    let rows = results
        .instructions
        .iter()
        .map(|i| vec![i.program.clone(), i.what.clone(), i.per_request.to_string()]);
    table(&["program", "8 KB review", "instructions per request (callgrind)"], rows)
}

fn hostile_table(results: &Results) -> String {
    let rows = results.hostile.iter().map(|h| {
        vec![h.what.clone(), h.bytes.to_string(), h.status.to_string(), format!("{:.1}", h.millis)]
    });
    table(&["body", "bytes", "status", "CPU ms"], rows)
}

/// A table, or nothing if it has no rows.
pub fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<String> = rows.map(|row| format!("| {} |\n", row.join(" | "))).collect();
    if rows.is_empty() {
        return String::new();
    }
    let rule = vec!["---"; header.len()].join(" | ");
    format!("| {} |\n| {rule} |\n{}", header.join(" | "), rows.concat())
}

fn micros(spread: Spread) -> String {
    format!("{} ({}–{})", short(spread.median), short(spread.low), short(spread.high))
}

fn ratio_text(spread: Spread) -> String {
    format!("{:.2} ({:.2}–{:.2})", spread.median, spread.low, spread.high)
}

/// A number with three significant digits.
fn short(micros: f64) -> String {
    match micros {
        m if m < 9.95 => format!("{m:.1}"),
        m if m < 9_950.0 => format!("{m:.0}"),
        m => format!("{:.0},{:03.0}", (m / 1e3).floor(), (m % 1e3 / 10.0).floor() * 10.0),
    }
}
