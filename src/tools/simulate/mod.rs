//! `ca-overlap simulate`: simulates CA rotations and their effect on TLS peers, without ca-overlap
//! and with each of its modes.
//!
//! ```text
//! schedule (from the seed) ──► simulation (events in virtual time) ──► report (table, JSON), svg
//!                                │              │             │
//!                            api_server    keeper_loop      mesh ──► handshake (real TLS)
//!                         (calls respond,  (due, asks,  (which peers
//!                         as webhooks do)   restarts)    can connect)
//! ```

mod api_server;
pub(super) mod generator;
mod handshake;
mod mesh;
mod random;
mod report;
mod schedule;
mod simulation;
mod svg;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use self::handshake::Tls;
use self::report::SimulationReport;
use self::schedule::{Delay, Millis, Scenario, Schedule};
use self::simulation::{Simulation, StrategyResult};
use super::error::ToolError;
use super::output::Output;
use super::progress_line;
use crate::overlap::settings::{Keep, Window, parse_time, time_to_text};

/// Simulate CA rotations and count the TLS handshakes that fail
///
/// Runs the same rotations six times in virtual time. A legacy generator rotates without
/// ca-overlap, with bundling, in staged mode, and in staged mode with restarts. cert-manager renews
/// its CA first and each leaf later, with bundling, and with announcements and restarts. Each peer
/// has its own copies of ca.crt, tls.crt and tls.key, which a kubelet updates with a delay.
/// Handshakes are real TLS 1.3, and the code of the webhook and the keeper decides what is stored.
/// The same flags give the same output, byte for byte.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SimulateArgs {
    /// Number of peers
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=1000))]
    peers: u16,

    /// Number of Secrets; peer 1 mounts the first, peer 2 the second, and so on in turn
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    secrets: u16,

    /// Percentage of peers that read their files only when they start
    #[arg(long, value_name = "PERCENT", default_value_t = 25, value_parser = clap::value_parser!(u16).range(0..=100))]
    never_reload: u16,

    /// Percentage of pairs that use mutual TLS; in the others only the server has a certificate
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u16).range(0..=100))]
    mutual: u16,

    /// Number of rotations
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rotations: u16,

    /// Time from one rotation to the next
    #[arg(long, value_name = "TIME", default_value = "20m", value_parser = parse_time)]
    interval: Duration,

    /// Seed of the random numbers
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
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
    /// How long it takes until the files of a peer follow its Secret
    #[arg(long, value_name = "WHICH", value_enum, default_value_t = Delay::Kubelet)]
    delay: Delay,

    /// The kubelet's syncFrequency: it syncs a pod again after 1 to 1.5 times this time
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    sync_period: Duration,

    /// The maximum age of a Secret in the kubelet's cache
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_time)]
    cache_ttl: Duration,

    /// The longest time that a pod takes to start; a rollout restarts a quarter of the pods at a
    /// time
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    startup: Duration,
}

#[derive(Clone, Debug, Args)]
struct OverlapArgs {
    /// The keeper's --settle: how long it waits before it promotes a new leaf. cert-manager renews
    /// each leaf one to two times as long after the CA
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = parse_time)]
    settle: Duration,

    /// How many previous CAs to carry, 0 to 8
    #[arg(long, value_name = "N", default_value = "1", value_parser = Keep::from_str)]
    keep: Keep,

    /// How long to carry them, such as 24h; none means until the next rotation
    #[arg(long, value_name = "TIME", default_value = "none", value_parser = Window::from_str)]
    window: Window,
}

#[derive(Clone, Debug, Args)]
struct OutputArgs {
    /// Time between two rounds of handshakes
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_time)]
    tick: Duration,

    /// Number of random pairs that do a handshake in each round [default: half of the peers, at
    /// most 6]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    meetings: Option<u16>,

    /// Also draw the failures over time, as an SVG picture
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Output format
    #[arg(short, long, value_parser = Output::one_of(&[Output::Text, Output::Json]), default_value = "text")]
    output: Output,
}

const EXAMPLES: &str = "Examples:
  ca-overlap simulate
  ca-overlap simulate --svg rotations.svg
  ca-overlap simulate --peers 100 --rotations 5 --seed 7 -o json
  ca-overlap simulate --settle 30s                          # too short: see what it costs
  ca-overlap simulate --delay slowest --cache-ttl 60s --settle 180s

Exit code: 0 if no handshake failed between peers that reload in staged mode, and none at all with
restarts or announcements; 1 if one did; 2 if something failed; 64 if the command line is wrong.";

/// How ca-overlap handles the rotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// ca-overlap is not installed.
    None,
    /// The webhook bundles the CAs.
    Bundle,
    /// Webhook and keeper stage each rotation.
    Staged,
    /// As `Staged`, and the keeper restarts pods that do not reload.
    StagedRestart,
    /// The Secrets are cert-manager's, and the webhook bundles the CAs.
    CertManager,
    /// As `CertManager`, and the keeper announces the issuer's CA, and restarts pods that do not
    /// reload.
    CertManagerAnnounce,
}

impl Strategy {
    const ALL: [Self; 6] = [
        Self::None,
        Self::Bundle,
        Self::Staged,
        Self::StagedRestart,
        Self::CertManager,
        Self::CertManagerAnnounce,
    ];

    fn is_staged(self) -> bool {
        matches!(self, Self::Staged | Self::StagedRestart)
    }

    fn is_cert_manager(self) -> bool {
        matches!(self, Self::CertManager | Self::CertManagerAnnounce)
    }

    fn restarts(self) -> bool {
        matches!(self, Self::StagedRestart | Self::CertManagerAnnounce)
    }

    fn has_keeper(self) -> bool {
        self.is_staged() || self == Self::CertManagerAnnounce
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bundle => "bundle",
            Self::Staged => "staged",
            Self::StagedRestart => "staged + restart",
            Self::CertManager => "cert-manager",
            Self::CertManagerAnnounce => "cert-manager + announce",
        }
    }
}

/// The error of a bug in the simulation.
fn inconsistent(what: &str) -> ToolError {
    ToolError::failed("the simulation contradicts itself", what)
}

impl SimulateArgs {
    /// Runs the simulation, prints the report and draws the picture.
    pub(crate) async fn run(self) -> Result<ExitCode, ToolError> {
        let scenario = self.scenario()?;
        let OutputArgs { svg, output, .. } = self.output;
        let unwritten = |path: &Path, error: io::Error| {
            ToolError::failed(format!("cannot write {}", path.display()), error)
        };
        // Opened before the work of half a minute.
        let svg = svg.map(|path| match File::create(&path) {
            Ok(file) => Ok((path, file)),
            Err(error) => Err(unwritten(&path, error)),
        });
        let svg = svg.transpose()?;
        let progress = Arc::new(SimulationProgress::new(&scenario));
        let watched = Arc::clone(&progress);
        let work = tokio::task::spawn_blocking(move || simulate(Schedule::of(scenario), &watched));
        let report = progress_line::during(|| progress.text(), work).await;
        let early = |_| inconsistent("its thread ended early");
        let report = report.map_err(early)??;
        if let Some((path, mut file)) = svg {
            let drawn = svg::draw(&report);
            file.write_all(drawn.as_bytes()).map_err(|error| unwritten(&path, error))?;
        }
        output.print(|| report.to_text(), || report.to_json())?;
        Ok(if report.is_as_promised() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Builds the scenario. Checks what clap cannot check.
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
        if handshakes > MAX_HANDSHAKES {
            let problem = format!(
                "must be longer, or --meetings fewer: this makes {handshakes} handshakes for each \
                 strategy, and {MAX_HANDSHAKES} are allowed"
            );
            return Err(ToolError::usage("--tick", problem));
        }
        Ok(scenario)
    }
}

const SECOND: Millis = 1_000;
const MINUTE: Millis = 60_000;
const DAY: Millis = 86_400_000;
/// The default number of pairs in each round.
const MEETINGS: usize = 6;
/// The limit for each strategy: that many take some minutes.
const MAX_HANDSHAKES: u64 = 1_000_000;

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
    let [least, most] = [least, most].map(time_to_text);
    Err(ToolError::usage(flag, format!("must be from {least} to {most}")))
}

/// The progress of the simulation, for the progress line.
struct SimulationProgress {
    end: Millis,
    done: AtomicU64,
}

impl SimulationProgress {
    fn new(scenario: &Scenario) -> Self {
        Self { end: scenario.end(), done: AtomicU64::new(0) }
    }

    fn text(&self) -> String {
        let done = self.done.load(Ordering::Relaxed);
        let all = Strategy::ALL.len();
        let index = usize::try_from(done / self.end.max(1)).unwrap_or(all).min(all - 1);
        let percent = 100 * done / (self.end * all as u64).max(1);
        format!("simulating: {} ({} of {all}), {percent} %", Strategy::ALL[index].name(), index + 1)
    }
}

/// Simulates all strategies in turn, with the same certificates.
fn simulate(
    schedule: Schedule,
    progress: &SimulationProgress,
) -> Result<SimulationReport, ToolError> {
    let scenario = &schedule.scenario;
    let generations = (0..=scenario.rotations)
        .map(|_| generator::generation(scenario.secrets))
        .collect::<Result<Vec<Vec<Value>>, _>>()
        .map_err(|error| ToolError::failed("cannot make certificates", error))?;
    let mut tls = Tls::new();
    let mut results: Vec<StrategyResult> = Vec::new();
    for (index, strategy) in Strategy::ALL.into_iter().enumerate() {
        let before = index as u64 * progress.end;
        let tell = |at| progress.done.store(before + at, Ordering::Relaxed);
        let simulation = Simulation::new(strategy, &schedule, &generations, &mut tls)?;
        results.push(simulation.run(&tell)?);
    }
    Ok(SimulationReport { schedule, results })
}
