//! `ca-overlap status`: every rotation in flight, what happens next and when, and what is wrong.
//!
//! ```text
//! secrets (by label) ──► row (keeper::due, pure) ──► show (table, JSON, YAML)
//!        live, by watch ──┘
//! ```

mod live;
mod row;
mod show;

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use humantime::parse_duration;
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;

use self::row::Rotation;
pub(super) use self::row::next;
use super::cluster::{ClusterArgs, ConnectError};
use super::output::Output;
use crate::kubernetes::list::Unread;
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::outlook::Rules;
use crate::overlap::policy::{Defaults, Window};

/// Show every CA rotation in flight
///
/// A rotation is in flight while a Secret carries a previous CA, or while a new leaf waits. Secrets
/// with the label ca-overlap.dev/mode are shown as well if there is a problem with them.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArgs {
    /// Go on and show each change as it happens
    #[arg(short, long, env = "CA_OVERLAP_WATCH")]
    pub(crate) watch: bool,

    /// What to print; with --watch one object a line, or one document, for each change
    #[arg(short, long, value_parser = Output::one_of(Output::USUAL), default_value = "text", env = "CA_OVERLAP_OUTPUT")]
    pub(crate) output: Output,

    /// How long the webhook carries a previous CA where the Secret says nothing; as its own flag
    #[arg(long, value_name = "DURATION", env = "CA_OVERLAP_WINDOW", default_value = "none", value_parser = Window::from_str)]
    pub(crate) window: Window,

    /// How long the keeper lets files spread before it promotes a leaf; as its own flag
    #[arg(long, value_name = "DURATION", env = "CA_OVERLAP_SETTLE", default_value = "120s", value_parser = parse_duration)]
    pub(crate) settle: Duration,

    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

const EXAMPLES: &str = "Examples:
  ca-overlap status -A
  ca-overlap status -n gateway --watch
  ca-overlap status -A -o json

Exit code: 0 if all is well; 1 if there is a problem, or if something failed; 64 if the command line
is wrong.";

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatusError {
    /// No cluster.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The API server does not let us watch.
    #[error("cannot watch Secrets in {scope}: {error}")]
    Watch { scope: String, error: String },
    /// The result cannot be written.
    #[error("cannot write the result: {0}")]
    Write(#[from] io::Error),
}

/// The labels by which Secrets are found: those with a rotation in flight, and those that people
/// have put in our care.
const SELECTORS: [&str; 2] = [names::PHASE, names::MODE];

/// Secrets by namespace and name.
type Key = (String, String);

impl StatusArgs {
    /// Reads, computes, prints.
    pub(crate) async fn run(self) -> Result<ExitCode, StatusError> {
        let cluster = self.cluster.connect().await?;
        let defaults = Defaults { window: self.window, ..Defaults::default() };
        let rules = Rules { defaults, settle: self.settle };
        if self.watch {
            live::run(&cluster, &rules, self.output).await?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut secrets: BTreeMap<Key, SecretView> = BTreeMap::new();
        let mut unread: Vec<Unread> = Vec::new();
        for selector in SELECTORS {
            let keep = |secret: SecretView| {
                secrets.insert(key(&secret), secret);
            };
            let more = cluster.read_secrets(Some(selector), keep).await;
            unread.extend(more.into_iter().filter(|new| !unread.contains(new)).collect::<Vec<_>>());
        }
        let now = Timestamp::now();
        let rotations: Vec<Rotation> =
            secrets.values().filter_map(|secret| Rotation::of(secret, &rules, now)).collect();
        self.output.print(
            || show::to_text(&rotations, &unread, &cluster.scope, now),
            || json!({"rotations": rotations, "unread": unread}),
        )?;
        let is_fine = unread.is_empty() && rotations.iter().all(|r| r.problems.is_empty());
        Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn key(secret: &SecretView) -> Key {
    (secret.namespace().unwrap_or_default(), secret.name_any())
}
