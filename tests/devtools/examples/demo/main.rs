//! `make demo`: a real API server, a legacy generator, and the incident that `ca-overlap` is for —
//! first without it, then with it.
//!
//! ```text
//! story (what happens, what must come out) ──► world (API server, webhook, generator)
//!        │                                        │ Secrets
//!        └──► handshake (real TLS) ◄──────────────┘ ──► view
//! ```

mod story;
mod view;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use view::View;
use world::World;

/// Play a CA rotation on a real API server, first without the webhook and then with it
///
/// Starts etcd and an API server on loopback, lets a generator loose that knows nothing of overlaps,
/// and shows by real TLS handshakes who refuses whom.
///
/// Exit code: 0 if all was as promised; 1 if something was not, or failed; 130 after Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "demo", max_term_width = 100)]
struct Args {
    /// Directory with etcd, kube-apiserver and kubectl [default: `KUBEBUILDER_ASSETS`, else what
    /// make control-plane built].
    #[arg(long, env = "CA_OVERLAP_ASSETS", value_name = "DIR")]
    assets: Option<PathBuf>,
    /// Directory of the manifests that are installed.
    #[arg(long, env = "CA_OVERLAP_MANIFESTS", value_name = "DIR", default_value = "manifests")]
    manifests: PathBuf,
    /// The program [default: ca-overlap in the directory above this one].
    #[arg(long, env = "CA_OVERLAP_PROGRAM", value_name = "FILE")]
    program: Option<PathBuf>,
    /// The legacy generator [default: legacy-certgen beside this one].
    #[arg(long, env = "CA_OVERLAP_GENERATOR", value_name = "FILE")]
    generator: Option<PathBuf>,
    /// Registers the webhook by URL even where a Service with a loopback ClusterIP works.
    #[arg(long, env = "CA_OVERLAP_BY_URL")]
    by_url: bool,
    /// Leaves everything running at the end, for a look around, until Ctrl-C.
    #[arg(long, env = "CA_OVERLAP_KEEP_RUNNING")]
    keep_running: bool,
}

/// As shells have it: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    run(&Args::parse()).await.unwrap_or_else(|e| {
        eprintln!("demo: {e:#}");
        ExitCode::FAILURE
    })
}

/// Whatever was started is gone when this returns.
async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let view = View::of_standard_output();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // A future that is dropped drops what it started: processes and directory.
    tokio::select! {
        differences = play(args, view) => {
            return Ok(if differences? == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    view.head("Interrupted: stopping everything that was started.");
    Ok(INTERRUPTED.into())
}

/// Gives the number of things that were not as promised.
async fn play(args: &Args, view: View) -> anyhow::Result<usize> {
    view.line("A rotation of a CA, first without ca-overlap and then with it.");
    view.line("Everything is real: API server, Secrets, generator, registration, TLS handshakes.");
    view.line("");
    let mut world = World::start(args, view).await?;
    let differences = story::tell(&mut world, view).await;
    let kept = matches!(differences, Ok(0));
    if let Some(log) = world.webhook_log_tail().filter(|_| !kept) {
        view.head("The last lines of the webhook's log");
        view.line(&log);
    }
    if args.keep_running {
        view.head("Still running; Ctrl-C ends it. Look around with");
        view.line(&format!("    export KUBECONFIG={}", world.kubeconfig().display()));
        view.line(&format!("    {} get secrets -A", world.kubectl().display()));
        std::future::pending::<()>().await;
    }
    differences
}

impl Args {
    fn generator(&self) -> anyhow::Result<PathBuf> {
        let beside = || own_directory().map(|examples| examples.join("legacy-certgen"));
        existing("generator", self.generator.clone().map_or_else(beside, Ok)?)
    }

    fn program(&self) -> anyhow::Result<PathBuf> {
        let above = || own_directory().map(|examples| examples.with_file_name("ca-overlap"));
        existing("program", self.program.clone().map_or_else(above, Ok)?)
    }
}

fn own_directory() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().unwrap_or(Path::new(".")).to_owned())
}

/// It is started in another directory, so the path becomes an absolute one.
fn existing(flag: &str, path: PathBuf) -> anyhow::Result<PathBuf> {
    anyhow::ensure!(
        path.is_file(),
        "no {flag} at {}: run make demo, or set --{flag}",
        path.display()
    );
    Ok(std::path::absolute(path)?)
}
