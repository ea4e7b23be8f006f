//! `make demo`: one CA rotation on a real API server, in three parts: without ca-overlap, with the
//! webhook alone, and with webhook and keeper as `overlays/full` installs them.
//!
//! ```text
//! rotation (the stages, the table) ──► setup (API server, generator, webhook, keeper)
//!        │                               │ Secrets
//!        └──► handshake (real TLS) ◄─────┘ ──► printer
//! ```

mod printer;
mod rotation;
mod setup;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use printer::Printer;
use setup::Setup;

/// Play a CA rotation on a real API server: without ca-overlap, with the webhook, with all of it
///
/// Starts etcd and an API server on loopback, runs a certificate generator that does not know
/// ca-overlap, and makes real TLS handshakes between peers with new files and peers with old ones.
///
/// Exit code: 0 if no handshake fails with webhook and keeper; 1 if one does, or on an error; 130 after Ctrl-C.
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
    /// Plays the third part without the keeper: the demo then has to fail.
    #[arg(long, env = "CA_OVERLAP_NO_KEEPER")]
    no_keeper: bool,
    /// Leaves everything running at the end, for a look around, until Ctrl-C.
    #[arg(long, env = "CA_OVERLAP_KEEP_RUNNING")]
    keep_running: bool,
}

const INTRODUCTION: &str = "\
One CA rotation, played three times: without ca-overlap, with its webhook alone,
and with webhook and keeper. API server, Secrets, generator and TLS handshakes
are real. A peer mounts a Secret: it trusts the CAs in ca.crt and shows the
certificate in tls.crt, its leaf. As with kubelets, new files reach some peers
earlier than others. (kept) marks a CA that ca-overlap put there.
";

/// As shells have it: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    run(&Args::parse()).await.unwrap_or_else(|e| {
        eprintln!("demo: {e:#}");
        ExitCode::FAILURE
    })
}

/// Everything that was started is gone when this returns.
async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let printer = Printer::of_standard_output();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // A future that is dropped drops what it started: processes and directory.
    tokio::select! {
        kept = play(args, printer) => {
            return Ok(if kept? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    printer.head("Interrupted: stopping everything that was started.");
    Ok(INTERRUPTED.into())
}

/// Tells whether the promise was kept.
async fn play(args: &Args, printer: Printer) -> anyhow::Result<bool> {
    printer.line(INTRODUCTION);
    let mut setup = Setup::start(args, printer).await?;
    let kept = rotation::play_all(&mut setup, printer, !args.no_keeper).await;
    if args.keep_running {
        printer.head("Still running; Ctrl-C ends it. Look around with");
        printer.line(&format!("    export KUBECONFIG={}", setup.kubeconfig().display()));
        printer.line(&format!("    {} get secrets -A", setup.kubectl().display()));
        std::future::pending::<()>().await;
    }
    kept
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
