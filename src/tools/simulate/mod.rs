//! `ca-overlap simulate`: what CA rotations do to peers that talk mutual TLS, without us and with
//! each of the ways that this program has.
//!
//! ```text
//! plan (from the seed) ──► world (events in virtual time) ──► report (table, JSON), svg
//!                            │            │           │
//!                         cluster       keep        mesh ──► handshake (real TLS)
//!                    respond, as the   due, asks,   who can talk
//!                     webhook does     restarts     to whom
//! ```

mod api_server;
mod generator;
mod handshake;
mod mesh;
mod random;
mod report;
mod schedule;
mod simulation;
mod svg;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use humantime::parse_duration;
use serde_json::Value;

use self::handshake::Tls;
use self::report::SimulationReport;
use self::schedule::{Delay, Millis, Scenario, Schedule};
use self::simulation::{Simulation, StrategyResult};
use super::error::ToolError;
use super::output::Output;
use super::progress_line;
use crate::overlap::settings::{Keep, Window};

/// Show what CA rotations do to peers that talk mutual TLS
///
/// Plays the same rotations four times in virtual time: without ca-overlap, with bundling, in staged
/// mode, and in staged mode with restarts. Peers have their own copies of ca.crt, tls.crt and tls.key,
/// which follow the Secret as kubelets let them. Handshakes are real TLS 1.3, and what is stored is
/// decided by the code of the webhook and the keeper. The same seed gives the same result, to the
/// byte.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SimulateArgs {
    /// How many peers
    #[arg(long, value_name = "N", env = "CA_OVERLAP_PEERS", default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=1000))]
    peers: u16,

    /// How many Secrets, which the peers mount in turn
    #[arg(long, value_name = "N", env = "CA_OVERLAP_SECRETS", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    secrets: u16,

    /// How many of 100 peers read their files only when they start
    #[arg(long, value_name = "PERCENT", env = "CA_OVERLAP_NEVER_RELOAD", default_value_t = 25, value_parser = clap::value_parser!(u16).range(0..=100))]
    never_reload: u16,

    /// How many of 100 pairs talk mutual TLS; in the others the server alone shows a certificate
    #[arg(long, value_name = "PERCENT", env = "CA_OVERLAP_MUTUAL", default_value_t = 50, value_parser = clap::value_parser!(u16).range(0..=100))]
    mutual: u16,

    /// How many rotations
    #[arg(long, value_name = "N", env = "CA_OVERLAP_ROTATIONS", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rotations: u16,

    /// From one rotation to the next
    #[arg(long, value_name = "TIME", env = "CA_OVERLAP_INTERVAL", default_value = "20m", value_parser = parse_duration)]
    interval: Duration,

    /// Where all that is random comes from
    #[arg(long, value_name = "NUMBER", env = "CA_OVERLAP_SEED", default_value_t = 1)]
    seed: u64,

    #[command(flatten, next_help_heading = "How files follow the Secret")]
    files: FilesArgs,
    #[command(flatten, next_help_heading = "ca-overlap's own flags")]
    policy: OverlapArgs,
    #[command(flatten, next_help_heading = "What is measured and shown")]
    output: OutputArgs,
}

#[derive(Clone, Debug, Args)]
struct FilesArgs {
    /// How long a written Secret takes to the files of a peer
    #[arg(long, value_name = "WHICH", env = "CA_OVERLAP_DELAY", value_enum, default_value_t = Delay::Kubelet)]
    delay: Delay,

    /// A kubelet's syncFrequency: a pod is synced again after 1 to 1.5 times as long
    #[arg(long, value_name = "TIME", env = "CA_OVERLAP_SYNC_PERIOD", default_value = "60s", value_parser = parse_duration)]
    sync_period: Duration,

    /// How old a Secret in a kubelet's cache may be
    #[arg(long, value_name = "TIME", env = "CA_OVERLAP_CACHE_TTL", default_value = "15s", value_parser = parse_duration)]
    cache_ttl: Duration,

    /// The longest that a pod takes to start; a rollout starts a quarter of the pods at a time
    #[arg(long, value_name = "TIME", env = "CA_OVERLAP_STARTUP", default_value = "30s", value_parser = parse_duration)]
    startup: Duration,
}

#[derive(Clone, Debug, Args)]
struct OverlapArgs {
    /// How long the keeper lets files spread before it puts a new leaf into service
    #[arg(long, value_name = "TIME", env = "CA_OVERLAP_SETTLE", default_value = "120s", value_parser = parse_duration)]
    settle: Duration,

    /// How many previous CAs to carry, 0 to 8
    #[arg(long, value_name = "N", env = "CA_OVERLAP_KEEP", default_value = "1", value_parser = Keep::from_str)]
    keep: Keep,

    /// How long to carry them, such as 24h; none: until the next rotation
    #[arg(long, value_name = "TIME", env = "CA_OVERLAP_WINDOW", default_value = "none", value_parser = Window::from_str)]
    window: Window,
}

#[derive(Clone, Debug, Args)]
struct OutputArgs {
    /// Handshakes begin so often
    #[arg(long, value_name = "TIME", env = "CA_OVERLAP_TICK", default_value = "5s", value_parser = parse_duration)]
    tick: Duration,

    /// How many random pairs do a handshake at each tick [default: half of the peers, at most 6]
    #[arg(long, value_name = "N", env = "CA_OVERLAP_MEETINGS", value_parser = clap::value_parser!(u16).range(1..=1000))]
    meetings: Option<u16>,

    /// Draws the failures over time, too
    #[arg(long, value_name = "FILE", env = "CA_OVERLAP_SVG")]
    svg: Option<PathBuf>,

    /// What to print
    #[arg(short, long, value_parser = Output::one_of(&[Output::Text, Output::Json]), default_value = "text", env = "CA_OVERLAP_OUTPUT")]
    output: Output,
}

const EXAMPLES: &str = "Examples:
  ca-overlap simulate
  ca-overlap simulate --svg rotations.svg
  ca-overlap simulate --peers 100 --rotations 5 --seed 7 -o json
  ca-overlap simulate --settle 30s                          # too short: what does it cost?
  ca-overlap simulate --delay slowest --cache-ttl 60s --settle 180s

Exit code: 0 if staged mode did what it promises: no failure among peers that reload, and none at
all with restarts; 1 if there was one, or if something failed; 64 if the command line is wrong.";

/// What is done about a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// Nothing.
    None,
    /// The webhook.
    Bundle,
    /// Webhook and keeper.
    Staged,
    /// The same, and the keeper restarts what cannot reload.
    StagedRestart,
}

impl Strategy {
    const ALL: [Self; 4] = [Self::None, Self::Bundle, Self::Staged, Self::StagedRestart];

    fn is_staged(self) -> bool {
        matches!(self, Self::Staged | Self::StagedRestart)
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bundle => "bundle",
            Self::Staged => "staged",
            Self::StagedRestart => "staged + restart",
        }
    }
}

/// What must not happen.
fn inconsistent(what: &str) -> ToolError {
    ToolError::failed("the simulation contradicts itself", what)
}

impl SimulateArgs {
    /// Simulates, prints, draws.
    pub(crate) async fn run(self) -> Result<ExitCode, ToolError> {
        let scenario = self.scenario()?;
        let OutputArgs { svg, output, .. } = self.output;
        let seen = Arc::new(SimulationProgress::new(&scenario));
        let watched = Arc::clone(&seen);
        let work = tokio::task::spawn_blocking(move || simulate(Schedule::of(scenario), &watched));
        let report = progress_line::during(|| seen.told(), work).await;
        let gone = |_| inconsistent("it has ended early");
        let report = report.map_err(gone)??;
        if let Some(path) = svg {
            std::fs::write(&path, svg::draw(&report)).map_err(|error| {
                ToolError::failed(format!("cannot write {}", path.display()), error)
            })?;
        }
        output.print(|| report.to_text(), || report.to_json())?;
        Ok(if report.is_as_promised() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Checks what clap cannot.
    fn scenario(&self) -> Result<Scenario, ToolError> {
        let Self { peers, secrets, never_reload, mutual, rotations, interval, seed, .. } = self;
        let FilesArgs { delay, sync_period, cache_ttl, startup } = &self.files;
        let OverlapArgs { settle, keep, window } = &self.policy;
        let peers = usize::from(*peers);
        let secrets = usize::from(*secrets);
        if secrets > peers {
            return Err(ToolError::usage("--secrets", "must not be more than --peers"));
        }
        let meetings = self.output.meetings.map_or((peers / 2).min(MEETINGS), usize::from);
        let scenario = Scenario {
            peers,
            secrets,
            rotations: usize::from(*rotations),
            interval: time("--interval", *interval, MINUTE..=DAY)?,
            settle: Duration::from_millis(time("--settle", *settle, SECOND..=DAY)?),
            delay: *delay,
            sync_period: time("--sync-period", *sync_period, SECOND..=DAY)?,
            cache_ttl: time("--cache-ttl", *cache_ttl, 0..=DAY)?,
            mutual: u64::from(*mutual),
            never_reload: (peers * usize::from(*never_reload) + 50) / 100,
            startup: time("--startup", *startup, SECOND..=DAY)?,
            keep: *keep,
            window: *window,
            tick: time("--tick", self.output.tick, SECOND..=DAY)?,
            meetings,
            seed: *seed,
        };
        let handshakes = scenario.end() / scenario.tick * meetings as u64;
        if handshakes > MOST {
            let problem = format!(
                "this would be {handshakes} handshakes for each strategy, and {MOST} are allowed: \
                 make it longer, or set fewer --meetings"
            );
            return Err(ToolError::usage("--tick", problem));
        }
        Ok(scenario)
    }
}

const SECOND: Millis = 1_000;
const MINUTE: Millis = 60_000;
const DAY: Millis = 86_400_000;
/// Handshakes at once, unless told otherwise.
const MEETINGS: usize = 6;
/// Handshakes for each strategy: some minutes of work.
const MOST: u64 = 1_000_000;

fn time(
    flag: &'static str,
    time: Duration,
    range: std::ops::RangeInclusive<Millis>,
) -> Result<Millis, ToolError> {
    let millis = Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX);
    if range.contains(&millis) {
        return Ok(millis);
    }
    let [least, most] = [range.start(), range.end()].map(|m| Duration::from_millis(*m));
    let [least, most] = [least, most].map(humantime::format_duration);
    Err(ToolError::usage(flag, format!("must be from {least} to {most}")))
}

/// How far it is.
struct SimulationProgress {
    end: Millis,
    done: AtomicU64,
}

impl SimulationProgress {
    fn new(scenario: &Scenario) -> Self {
        Self { end: scenario.end(), done: AtomicU64::new(0) }
    }

    fn told(&self) -> String {
        let done = self.done.load(Ordering::Relaxed);
        let all = Strategy::ALL.len();
        let index = usize::try_from(done / self.end.max(1)).unwrap_or(all).min(all - 1);
        let percent = 100 * done / (self.end * all as u64).max(1);
        format!("simulating: {} ({} of {all}), {percent} %", Strategy::ALL[index].name(), index + 1)
    }
}

/// All strategies, one after another, with the same certificates.
fn simulate(schedule: Schedule, seen: &SimulationProgress) -> Result<SimulationReport, ToolError> {
    let scenario = &schedule.scenario;
    let generations = (0..=scenario.rotations)
        .map(|_| generator::generation(scenario.secrets))
        .collect::<Result<Vec<Vec<Value>>, _>>()
        .map_err(|error| ToolError::failed("cannot make certificates", error))?;
    let mut tls = Tls::new();
    let mut results: Vec<StrategyResult> = Vec::new();
    for (index, strategy) in Strategy::ALL.into_iter().enumerate() {
        let before = index as u64 * seen.end;
        let tell = |at| seen.done.store(before + at, Ordering::Relaxed);
        let simulation = Simulation::new(strategy, &schedule, &generations, &mut tls)?;
        results.push(simulation.run(&tell)?);
    }
    Ok(SimulationReport { schedule, results })
}
