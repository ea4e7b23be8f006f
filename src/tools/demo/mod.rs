//! `ca-overlap demo`: a real API server, a legacy generator, and the incident that this program
//! is for — first without us, then with us.
//!
//! ```text
//! story (what happens, what must come out) ──► world (API server, webhook, generator)
//!        │                                        │ Secrets
//!        └──► handshake (real TLS) ◄──────────────┘ ──► view (tables, progress)
//! ```

mod handshake;
mod story;
mod view;
mod world;

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};

use super::control_plane;
use view::{Tone, View};
use world::World;

/// Play a CA rotation on a real API server, first without the webhook and then with it
///
/// Starts etcd and an API server on loopback, lets a generator loose that knows nothing of overlaps,
/// and shows by real TLS handshakes who refuses whom. Needs a checkout of the project: make demo
/// builds what is missing and runs it.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Directory with etcd, kube-apiserver and kubectl [default: `KUBEBUILDER_ASSETS`, else what
    /// make control-plane built].
    #[arg(long, env = "CA_OVERLAP_ASSETS", value_name = "DIR")]
    pub assets: Option<PathBuf>,
    /// Directory of the manifests that are installed.
    #[arg(long, env = "CA_OVERLAP_MANIFESTS", value_name = "DIR", default_value = "manifests")]
    pub manifests: PathBuf,
    /// The legacy generator [default: examples/legacy-certgen beside this program].
    #[arg(long, env = "CA_OVERLAP_GENERATOR", value_name = "FILE")]
    pub generator: Option<PathBuf>,
    /// Registers the webhook by URL even where a Service with a loopback ClusterIP works.
    #[arg(long, env = "CA_OVERLAP_BY_URL")]
    pub by_url: bool,
    /// Leaves everything running at the end, for a look around, until Ctrl-C.
    #[arg(long, env = "CA_OVERLAP_KEEP_RUNNING")]
    pub keep_running: bool,
}

const EXAMPLES: &str = "Examples:
  make demo
  ca-overlap demo --assets /usr/local/kubebuilder/bin
  ca-overlap demo --keep-running

Exit code: 0 if all was as promised; 1 if something was not, or failed; 64 if the command line is
wrong; 130 after Ctrl-C.";

/// How the demo ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that was shown is what the design promises.
    AsPromised,
    /// So many things were not.
    Differs(usize),
    /// Ctrl-C or SIGTERM.
    Interrupted,
}

impl Outcome {
    /// 0 as promised, 1 if not, 130 when interrupted (128 + SIGINT, as shells have it).
    pub fn exit_code(self) -> u8 {
        match self {
            Self::AsPromised => 0,
            Self::Differs(_) => 1,
            Self::Interrupted => 130,
        }
    }
}

/// What keeps the demo from being played.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control plane, the manifests or the webhook.
    #[error(transparent)]
    ControlPlane(#[from] control_plane::Error),
    /// The generator is not where it should be.
    #[error("no generator at {0}: run cargo build --example legacy-certgen, or set --generator")]
    NoGenerator(PathBuf),
    /// The generator failed.
    #[error("the generator {action} failed: {message}")]
    Generator {
        /// Its arguments.
        action: String,
        /// What it said.
        message: String,
    },
    /// Files in a Secret that no peer could use.
    #[error(transparent)]
    Peer(#[from] handshake::Broken),
    /// A Secret is not as a generator writes it.
    #[error("secret {name}: {message}")]
    Secret {
        /// Namespace and name.
        name: String,
        /// What is wrong; never content.
        message: String,
    },
    /// The manifests are not where they should be.
    #[error("no {0}: run in the repository, or set --manifests")]
    NoManifests(PathBuf),
    /// A file, the own executable, or signals cannot be used.
    #[error("cannot use {what}")]
    System {
        /// Which one.
        what: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

/// Plays the demo on standard output. Whatever was started is gone when this returns.
pub async fn run(args: &Args) -> Result<Outcome, Error> {
    let view = View::of_standard_output();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::system("SIGINT"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::system("SIGTERM"))?;
    // A future that is dropped drops what it started: processes and directory.
    tokio::select! {
        outcome = play(args, view) => outcome,
        _ = interrupt.recv() => Ok(interrupted(view)),
        _ = terminate.recv() => Ok(interrupted(view)),
    }
}

async fn play(args: &Args, view: View) -> Result<Outcome, Error> {
    view.line("ca-overlap demo: a rotation of a CA, first without and then with the webhook.");
    view.line("Everything is real: API server, Secrets, generator, registration, TLS handshakes.");
    view.line("");
    let mut world = World::start(args, view).await?;
    let outcome = story::tell(&mut world, view).await;
    let kept = matches!(outcome, Ok(Outcome::AsPromised));
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
    outcome
}

fn interrupted(view: View) -> Outcome {
    view.line("");
    view.line(&view.paint(Tone::Bold, "Interrupted: stopping everything that was started."));
    Outcome::Interrupted
}
