//! The results as a picture: one panel for each scenario, with its own scale. Bars begin at zero, so
//! that their lengths are in proportion.

use std::fmt::Write as _;

use crate::results::{ALLOW_ALL, CONTROLLER_RUNTIME, OURS, Results, STDLIB, Spread};

/// Program, class of its bar.
const BARS: [(&str, &str); 4] =
    [(OURS, "ours"), (ALLOW_ALL, "floor"), (STDLIB, "std"), (CONTROLLER_RUNTIME, "cr")];
const PANELS: [&str; 6] =
    ["bundle-3k", "bundle-8k", "nothing-8k", "bundle-2m8", "nothing-2m8", "churn-8k"];

const WIDTH: f64 = 880.0;
const COLUMN: f64 = WIDTH / 2.0;
const MARGIN: f64 = 20.0;
const HEAD: f64 = 88.0;
const PANEL: f64 = 132.0;
const ROW: f64 = 22.0;
const LABEL: f64 = 132.0;
const BAR: f64 = 160.0;

const STYLE: &str = "
  text { font-family: system-ui, sans-serif; font-size: 12px; fill: #24292f }
  .paper { fill: #ffffff }
  .title { font-size: 17px; font-weight: 600 }
  .head { font-size: 13px; font-weight: 600 }
  .quiet { fill: #57606a }
  .ours { fill: #0969da }
  .floor { fill: none; stroke: #57606a; stroke-dasharray: 3 2 }
  .std { fill: #8c959f }
  .cr { fill: #c4cad1 }
  .spread { stroke: #24292f; stroke-width: 1.2 }
  .base { stroke: #8c959f; stroke-width: 1 }
  .label { text-anchor: end }
  .strong { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .paper { fill: #0d1117 }
    .quiet { fill: #9198a1 }
    .ours { fill: #58a6ff }
    .floor { stroke: #9198a1 }
    .std { fill: #6e7681 }
    .cr { fill: #484f58 }
    .spread { stroke: #e6edf3 }
    .base { stroke: #6e7681 }
  }
";

/// The picture of the measured scenarios.
pub fn svg(results: &Results) -> String {
    let panels: Vec<_> = PANELS
        .iter()
        .filter_map(|id| results.scenarios.iter().find(|scenario| scenario.id == *id))
        .collect();
    let rows = panels.len().div_ceil(2);
    let height = HEAD + rows as f64 * PANEL + 34.0;
    let mut body = String::new();
    for (at, scenario) in panels.into_iter().enumerate() {
        let x = MARGIN + (at % 2) as f64 * COLUMN;
        let y = HEAD + (at / 2) as f64 * PANEL;
        panel(&mut body, results, &scenario.id, &scenario.title, (x, y));
    }
    let machine = &results.machine;
    let rounds = results.cells.iter().map(|cell| cell.round + 1).max().unwrap_or(0);
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="CPU per admission request of ca-overlap, an allow-all server, and webhooks on Go's standard library and on controller-runtime">
<style>{STYLE}</style>
<rect class="paper" width="{WIDTH}" height="{height}" rx="6"/>
<text class="title" x="{MARGIN}" y="30">CPU per admission request (shorter is better)</text>
<text class="quiet" x="{MARGIN}" y="50">User and system time of the server, TLS included, on one core. Each panel has its own scale, from zero.</text>
<text class="quiet" x="{MARGIN}" y="66">Dashed: the floor of our stack, a server that reads the uid and allows. In brackets: times ca-overlap.</text>
{body}<text class="quiet" x="{MARGIN}" y="{}">Median of {rounds} rounds; thin line: interval of the median. {}, commit {}, {}.</text>
</svg>
"#,
        height - 14.0,
        escape(&machine.cpu),
        escape(&machine.commit),
        escape(machine.date.split('T').next().unwrap_or_default())
    )
}

fn panel(out: &mut String, results: &Results, id: &str, title: &str, (x, y): (f64, f64)) {
    let found: Vec<(&str, &str, Spread)> = BARS
        .iter()
        .filter_map(|(program, class)| Some((*program, *class, results.micros(id, program)?)))
        .collect();
    let longest = found.iter().map(|(_, _, spread)| spread.high).fold(0.0, f64::max);
    let ours = results.micros(id, OURS).map(|spread| spread.median);
    let scale = |micros: f64| micros / longest * BAR;
    let zero = x + LABEL;
    let title = escape(title);
    // Writing to a string cannot fail.
    let _ = writeln!(out, r#"<text class="head" x="{x}" y="{}">{title}</text>"#, y + 14.0);
    for (row, (program, class, spread)) in found.into_iter().enumerate() {
        let top = y + 24.0 + row as f64 * ROW;
        let (middle, text) = (top + 7.5, top + 12.0);
        let strong = if program == OURS { " strong" } else { "" };
        let times = match ours {
            Some(ours) if program != OURS => format!(" ({:.1} ×)", spread.median / ours),
            _ => String::new(),
        };
        let label = format!("{}{times}", time(spread.median));
        let (width, low, high) =
            (scale(spread.median).max(1.0), scale(spread.low), scale(spread.high));
        let _ = write!(
            out,
            r#"<text class="label{strong}" x="{:.1}" y="{text:.1}">{program}</text>
<rect class="{class}" x="{zero:.1}" y="{top:.1}" width="{width:.1}" height="15" rx="2"/>
<line class="spread" x1="{:.1}" x2="{:.1}" y1="{middle:.1}" y2="{middle:.1}"/>
<text class="quiet{strong}" x="{:.1}" y="{text:.1}">{label}</text>
"#,
            zero - 8.0,
            zero + low,
            zero + high,
            zero + high.max(width) + 7.0,
        );
    }
    let (top, end) = (y + 20.0, y + 22.0 + 4.0 * ROW);
    let _ = writeln!(
        out,
        r#"<line class="base" x1="{zero:.1}" x2="{zero:.1}" y1="{top:.1}" y2="{end:.1}"/>"#
    );
}

/// A time with two or three significant digits.
fn time(micros: f64) -> String {
    match micros {
        m if m < 9.95 => format!("{m:.1} µs"),
        m if m < 999.5 => format!("{m:.0} µs"),
        m if m < 9_950.0 => format!("{:.2} ms", m / 1e3),
        m => format!("{:.1} ms", m / 1e3),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
