//! The picture: for each strategy, the share of pairs that cannot connect, over time.

use std::fmt::Write as _;

use super::Strategy;
use super::mesh::{NEVER, OutageSample};
use super::report::{SimulationReport, span};
use super::schedule::{Millis, Scenario, Schedule};
use super::simulation::StrategyResult;
use crate::tools::text::counted;

/// Sizes and positions, in pixels.
const WIDTH: u64 = 960;
const LEFT: u64 = 52;
const RIGHT: u64 = 16;
const TOP: u64 = 78;
const LANE: u64 = 106;
const LABEL: u64 = 24;
const PLOT: u64 = 56;
const BOTTOM: u64 = 66;

/// The distance from a plot to the line of text below it.
const CAPTION: u64 = 21;

/// Light and dark colours. The background is drawn, because the page may not follow the colour
/// scheme of the reader's system.
const STYLE: &str = "\
text{font-family:sans-serif;font-size:13px;fill:#1f2328}
.title{font-size:17px;font-weight:bold}.name{font-weight:bold}.small{font-size:12px;fill:#59636e}
.ground{fill:#fff}.plot{fill:#f6f8fa}.grid{stroke:#d1d9e0}.rotation{stroke:#59636e}
.reload{fill:#cf222e}.never{fill:#d4a72c}.promoted{fill:#0969da}.restart{stroke:#1a7f37}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}
.ground{fill:#0d1117}.plot{fill:#161b22}.grid{stroke:#30363d}.rotation{stroke:#9198a1}
.reload{fill:#ff7b72}.never{fill:#9e6a03}.promoted{fill:#58a6ff}.restart{stroke:#3fb950}}
";

/// Draws the picture.
pub(super) fn draw(report: &SimulationReport) -> String {
    let scenario = &report.schedule.scenario;
    let height = TOP + LANE * report.results.len() as u64 + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-labelledby=\"title text\">\n"
    );
    let [first, second] = report.head();
    let title = "Peers that cannot talk while a CA rotates";
    let _ = writeln!(svg, "<title id=\"title\">{title}</title>");
    let _ = writeln!(svg, "<desc id=\"text\">{first} {second} {}</desc>", description(report));
    let _ = writeln!(svg, "<style>{STYLE}</style>");
    let _ = writeln!(svg, "<rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\"/>");
    text(&mut svg, "title", LEFT, 26, "start", title);
    text(&mut svg, "small", LEFT, 46, "start", &first);
    text(&mut svg, "small", LEFT, 63, "start", &second);
    for (index, result) in report.results.iter().enumerate() {
        lane(&mut svg, &report.schedule, result, TOP + LANE * index as u64);
    }
    axis(&mut svg, scenario, height - BOTTOM);
    legend(&mut svg, height - 14);
    svg.push_str("</svg>\n");
    svg
}

/// The description for screen readers.
fn description(report: &SimulationReport) -> String {
    let line =
        |result: &StrategyResult| format!("{}: {}.", result.strategy.name(), summary(result));
    report.results.iter().map(line).collect::<Vec<_>>().join(" ")
}

fn summary(result: &StrategyResult) -> String {
    let (all, reload) = (result.all(), result.reloading());
    if all.is_clean() {
        return format!("no failure in {}", counted(all.handshakes, "handshake"));
    }
    let failed = format!("{} of {} handshakes failed", all.failures, all.handshakes);
    if reload.is_clean() {
        return format!("{failed}, none among peers that reload");
    }
    let (failures, longest) = (reload.failures, span(reload.longest_outage));
    format!("{failed}, {failures} among peers that reload (a pair for up to {longest})")
}

/// What is seen in a lane.
fn caption(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::None => {
            "Files change at different times. Until then old and new reject each other."
        }
        Strategy::Bundle => {
            "New files hold both CAs. A peer with old files still rejects a new leaf."
        }
        Strategy::Staged => {
            "New leaves wait until all files hold the new CA. A peer that never reloads misses it."
        }
        Strategy::StagedRestart => {
            "Peers that never reload are restarted for the new CA, and again for the new leaf."
        }
        Strategy::CertManager => {
            "The CA is renewed first, and each leaf later. Files hold the new CA only from then on."
        }
        Strategy::CertManagerAnnounce => {
            "All Secrets trust the new CA as soon as the issuer has it, before anybody shows a leaf \
             of it."
        }
    }
}

fn lane(svg: &mut String, schedule: &Schedule, result: &StrategyResult, top: u64) {
    let scenario = &schedule.scenario;
    let (top, bottom) = (top + LABEL, top + LABEL + PLOT);
    let name = result.strategy.name();
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\"><tspan class=\"name\">{name}</tspan><tspan class=\"small\" \
         dx=\"10\">{}</tspan></text>",
        top - 7,
        summary(result),
    );
    let _ = writeln!(
        svg,
        "<rect class=\"plot\" x=\"{LEFT}\" y=\"{top}\" width=\"{}\" height=\"{PLOT}\"/>",
        columns(),
    );
    text(svg, "small", LEFT - 6, top + 10, "end", "100 %");
    text(svg, "small", LEFT - 6, bottom, "end", "0");
    let shares = Shares::of(scenario, result);
    // The higher area first; the area of peers that reload covers its lower part.
    area(svg, "never", bottom, &shares.all);
    area(svg, "reload", bottom, &shares.reload);
    for start in scenario.starts() {
        let x = place(scenario, start);
        let _ = writeln!(
            svg,
            "<path class=\"rotation\" stroke-dasharray=\"3 3\" d=\"M{x} {top}V{bottom}\"/>"
        );
    }
    let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {bottom}h{}\"/>", columns());
    text(svg, "small", LEFT, bottom + CAPTION, "start", caption(result.strategy));
    let columns = |times: &[Millis]| {
        let mut columns: Vec<u64> = times.iter().map(|at| place(scenario, *at)).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    };
    for x in columns(&result.restarts) {
        let _ = writeln!(svg, "<path class=\"restart\" d=\"M{x} {}v6\"/>", bottom + 2);
    }
    // New leaves at nearly the same time are one mark.
    let renewals = || schedule.renewals.iter().flat_map(|of| &of[..scenario.secrets]).copied();
    let mut leaves = if result.strategy.is_cert_manager() {
        columns(&renewals().collect::<Vec<_>>())
    } else {
        columns(&result.promotions)
    };
    leaves.dedup_by(|next, kept| *next < *kept + 8);
    for x in leaves {
        let _ = writeln!(svg, "<path class=\"promoted\" d=\"M{x} {}l-4 7h8z\"/>", bottom + 1);
    }
}

/// The width of a plot: one column for each pixel.
fn columns() -> u64 {
    WIDTH - LEFT - RIGHT
}

fn place(scenario: &Scenario, at: Millis) -> u64 {
    LEFT + at * columns() / scenario.end().max(1)
}

/// The share of pairs that cannot connect, as a height in pixels: the maximum of each column.
struct Shares {
    reload: Vec<u64>,
    /// All pairs: those that never reload on top.
    all: Vec<u64>,
}

impl Shares {
    fn of(scenario: &Scenario, result: &StrategyResult) -> Self {
        let pairs: usize = result.classes.iter().map(|class| class.pairs).sum();
        // Rounded up, so that a single failure is visible.
        let height = |failing: usize| (PLOT * failing as u64).div_ceil(pairs.max(1) as u64);
        let columns = usize::try_from(columns()).unwrap_or_default();
        let mut shares = Self { reload: vec![0; columns], all: vec![0; columns] };
        let ends = result.samples.iter().skip(1).map(|moment| moment.at).chain([scenario.end()]);
        for (OutageSample { at, failing }, end) in result.samples.iter().zip(ends) {
            let all: usize = failing.iter().sum();
            let reload = all - failing[NEVER];
            let [from, to] = [*at, end].map(|at| place(scenario, at) - LEFT);
            let columns = usize::try_from(from).unwrap_or_default()
                ..=usize::try_from(to).unwrap_or_default().min(columns - 1);
            for column in columns {
                let (low, high) = (&mut shares.reload[column], &mut shares.all[column]);
                *low = (*low).max(height(reload));
                *high = (*high).max(height(all));
            }
        }
        shares
    }
}

/// An area above the base line, in steps. Draws nothing if all heights are 0.
fn area(svg: &mut String, class: &str, bottom: u64, heights: &[u64]) {
    if heights.iter().all(|height| *height == 0) {
        return;
    }
    let mut path = format!("M{LEFT} {bottom}");
    let mut level = 0;
    for (column, height) in heights.iter().enumerate() {
        if *height != level {
            level = *height;
            let _ = write!(path, "H{}V{}", LEFT + column as u64, bottom - level);
        }
    }
    let _ = writeln!(svg, "<path class=\"{class}\" d=\"{path}H{}V{bottom}z\"/>", LEFT + columns());
}

/// The time axis, with about ten ticks at round times.
fn axis(svg: &mut String, scenario: &Scenario, y: u64) {
    const STEPS: [u64; 9] = [1, 2, 5, 10, 20, 60, 120, 360, 1440];
    let minutes = scenario.end() / 60_000;
    let step = STEPS.into_iter().find(|step| minutes / step <= 13).unwrap_or(1440);
    for minute in (0..=minutes).step_by(usize::try_from(step).unwrap_or(1)) {
        let x = place(scenario, minute * 60_000);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{x} {y}v4\"/>");
        text(svg, "small", x, y + 17, "middle", &format!("{minute}m"));
    }
}

/// What colours and marks mean, each `(class, path, text)`.
fn legend(svg: &mut String, y: u64) {
    let entries = [
        ("reload", "v-10h10v10z", "both peers reload their files"),
        ("never", "v-10h10v10z", "one never reloads until restarted"),
        ("rotation", "m4 1v-12", "the CA rotates"),
        ("promoted", "m5 -9l-4 7h8z", "new leaves go into service"),
        ("restart", "m5 -1v-8", "a pod restarts"),
    ];
    let mut x = LEFT;
    for (class, shape, what) in entries {
        let dashes = if class == "rotation" { " stroke-dasharray=\"3 3\"" } else { "" };
        let _ = writeln!(svg, "<path class=\"{class}\"{dashes} d=\"M{x} {y}{shape}\"/>");
        text(svg, "small", x + 15, y, "start", what);
        // As wide as the text is with common fonts.
        x += 32 + what.len() as u64 * 6;
    }
}

fn text(svg: &mut String, class: &str, x: u64, y: u64, anchor: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}
