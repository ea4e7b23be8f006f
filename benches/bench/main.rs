//! Compares the webhook with others: `make bench`. docs/performance.md explains the figures.
//!
//! ```text
//! main ──► session (who, in which order) ──► load (closed, open, churn) ──► client ──► check
//!   │         rates, extremes                    server (the programs, /proc)
//!   └────► results (JSON) ──► bars, report (markdown), plot (SVG)
//! ```

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "figures of a measurement, far from the limits of their types"
)]
#![allow(unreachable_pub, reason = "marks what other modules use")]

mod bars;
mod check;
mod client;
mod extremes;
mod load;
mod pki;
mod plot;
mod profile;
mod rates;
mod report;
mod results;
mod reviews;
mod server;
mod session;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use self::pki::Serving;
use self::results::{AGAIN, ALLOW_ALL, CONTROLLER_RUNTIME, Machine, OURS, Results, STDLIB};
use self::reviews::Reviews;
use self::server::{Kind, Subject, existing, pin_client};
use self::session::{Plan, Session};

/// Compares the webhook with others
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Measure, and write JSON, markdown and SVG
    Run(Run),
    /// Put the results of a session into docs/
    Publish {
        /// The JSON file of the session
        results: PathBuf,
    },
}

#[derive(clap::Args)]
struct Run {
    /// How much
    #[arg(long, value_enum)]
    mode: Mode,
    /// The program to measure
    #[arg(long)]
    program: PathBuf,
    /// The allow-all server
    #[arg(long, default_value = "target/release/allow_all")]
    allow_all: PathBuf,
    /// The directory of the Go webhooks
    #[arg(long, default_value = "target/bench/bin")]
    peers: PathBuf,
    /// Where results go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Everything, in about 25 minutes
    Full,
    /// The main scenarios, in about 2 minutes
    Quick,
    /// Everything, too short for figures: whether the measurements work
    Trial,
    /// Our program alone
    Measure,
    /// Instructions per request alone, ours and allow-all
    Instructions,
    /// Where the instructions of a request go, ours and allow-all; both with symbols
    Profile,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Action::Publish { results } => publish(&results),
        Action::Run(run) => {
            let (mut ended, mut stopped) =
                (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            // Every branch drops the servers, which ends them.
            tokio::select! {
                outcome = run.run() => outcome,
                _ = ended.recv() => bail!("terminated"),
                _ = stopped.recv() => bail!("interrupted"),
            }
        }
    }
}

impl Run {
    async fn run(self) -> Result<()> {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let subjects = self.subjects()?;
        pin_client()?;
        let (serving, reviews) = (Serving::new()?, Reviews::new()?);
        let mode = self.mode.to_possible_value().map(|v| v.get_name().to_owned());
        let mut results = Results {
            mode: mode.unwrap_or_default(),
            machine: Machine::read(),
            ..Results::default()
        };
        results.machine.load.0 = load_average();
        let plan = self.mode.plan();
        let mut session =
            Session { plan, subjects: &subjects, serving: &serving, reviews: &reviews, results };
        if self.mode == Mode::Profile {
            println!("{}", session.profile().await?);
            return Ok(());
        }
        let outcome = self.phases(&mut session).await;
        let mut results = session.results;
        if let Err(error) = &outcome {
            results.not_measured.push(format!("everything after this error: {error:#}"));
        }
        results.machine.load.1 = load_average();
        // The results so far are written even after an error.
        self.write(&results)?;
        outcome
    }

    async fn phases(&self, session: &mut Session<'_>) -> Result<()> {
        if self.mode == Mode::Instructions {
            return session.instructions().await;
        }
        session.starts().await.context("starts")?;
        session.memory().await.context("memory")?;
        session.compare().await?;
        if self.mode == Mode::Measure {
            return Ok(());
        }
        eprintln!("rates and latencies");
        session.knees().await.context("knees")?;
        session.latencies().await.context("latencies")?;
        session.hostile().await.context("hostile bodies")?;
        session.log_line().await.context("log lines")?;
        if self.mode == Mode::Quick {
            return Ok(());
        }
        eprintln!("memory over many calls, instructions");
        session.flat().await.context("memory over many calls")?;
        session.instructions().await.context("instructions")
    }

    fn subjects(&self) -> Result<Vec<Subject>> {
        let subject =
            |name, path: &Path, kind| anyhow::Ok(Subject { name, program: existing(path)?, kind });
        let ours = subject(OURS, &self.program, Kind::Product)?;
        if self.mode == Mode::Measure {
            return Ok(vec![ours]);
        }
        let allow_all = subject(ALLOW_ALL, &self.allow_all, Kind::AllowAll)?;
        if matches!(self.mode, Mode::Instructions | Mode::Profile) {
            return Ok(vec![ours, allow_all]);
        }
        Ok(vec![
            ours,
            subject(STDLIB, &self.peers.join("stdlib"), Kind::Peer)?,
            subject(AGAIN, &self.program, Kind::Product)?,
            subject(CONTROLLER_RUNTIME, &self.peers.join("controller-runtime"), Kind::Peer)?,
            allow_all,
        ])
    }

    fn write(&self, results: &Results) -> Result<()> {
        std::fs::create_dir_all(&self.out)?;
        let file = |extension: &str| self.out.join(format!("{}.{extension}", results.mode));
        std::fs::write(file("json"), serde_json::to_vec_pretty(results)?)?;
        let markdown = report::markdown(results);
        std::fs::write(file("md"), &markdown)?;
        std::fs::write(file("svg"), plot::svg(results))?;
        println!("{markdown}");
        for reason in results.void() {
            eprintln!("VOID: {reason}");
        }
        Ok(())
    }
}

impl Mode {
    fn plan(self) -> Plan {
        let (second, millis) = (Duration::from_secs(1), Duration::from_millis);
        match self {
            Self::Full => Plan {
                rounds: 12,
                cell: second,
                open: second * 10,
                step: second * 2,
                starts: 50,
                flat: &[10_000, 250_000, 500_000, 1_000_000],
                all: true,
            },
            Self::Trial => Plan {
                rounds: 2,
                cell: millis(50),
                open: millis(200),
                step: millis(100),
                starts: 3,
                flat: &[1_000, 2_000],
                all: true,
            },
            _ => Plan {
                rounds: if self == Self::Measure { 3 } else { 4 },
                cell: millis(300),
                open: second,
                step: millis(400),
                starts: if self == Self::Measure { 50 } else { 10 },
                flat: &[],
                all: false,
            },
        }
    }
}

impl Machine {
    fn read() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown CPU");
        let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            let text = output.ok().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
            text.filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".into())
        };
        Self {
            cpu: format!("{model}, {cores} cores"),
            kernel: said("uname", &["-r"]),
            commit: said("git", &["describe", "--always", "--dirty"]),
            date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%MZ").to_string(),
            load: (0.0, 0.0),
        }
    }
}

fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default()
}

/// Writes a session into docs/performance.md, between the marks, and its picture.
fn publish(file: &Path) -> Result<()> {
    const DOCUMENT: &str = "docs/performance.md";
    const MARKS: [&str; 2] =
        ["<!-- results: written by make bench-publish -->\n", "<!-- end of results -->\n"];
    let text = std::fs::read(file).with_context(|| file.display().to_string())?;
    let results: Results = serde_json::from_slice(&text)?;
    if results.mode != "full" {
        bail!("a session of mode {} is too short to publish: make bench", results.mode);
    }
    if let Some(reason) = results.void().first() {
        bail!("the session is void: {reason}");
    }
    let document = std::fs::read_to_string(DOCUMENT)?;
    let (before, rest) = document.split_once(MARKS[0]).context("no mark in the document")?;
    let (_, after) = rest.split_once(MARKS[1]).context("no end mark in the document")?;
    let picture = "![CPU per admission, four servers](figures/performance.svg)";
    let results_text = report::markdown(&results);
    let block = format!("{}\n{picture}\n\n{results_text}\n{}", MARKS[0], MARKS[1]);
    std::fs::write(DOCUMENT, format!("{before}{block}{after}"))?;
    std::fs::create_dir_all("docs/figures")?;
    std::fs::write("docs/figures/performance.svg", plot::svg(&results))?;
    println!("wrote {DOCUMENT} and docs/figures/performance.svg");
    Ok(())
}
