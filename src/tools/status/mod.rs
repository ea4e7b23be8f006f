//! `ca-overlap status`: every rotation in flight, what happens next and when, and what is wrong.
//!
//! ```text
//! secrets (by label) ──► row (overlap::outlook, pure) ──► show (table, JSON, YAML)
//!        live, by watch ──┘
//! ```

mod live;
mod row;
mod show;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;

use self::row::Rotation;
pub(super) use self::row::next;
use super::cluster::ClusterArgs;
use super::error::Error;
use super::output::Output;
use super::settings::SettingsArgs;
use crate::kubernetes::list::Unread;
use crate::kubernetes::secret_view::SecretView;
use crate::names;

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

    #[command(flatten)]
    settings: SettingsArgs,

    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

const EXAMPLES: &str = "Examples:
  ca-overlap status -A
  ca-overlap status -n gateway --watch
  ca-overlap status -A -o json

Exit code: 0 if all is well; 1 if there is a problem, or if something failed; 64 if the command line
is wrong.";

/// The labels by which Secrets are found: those with a rotation in flight, and those that people
/// have put in our care.
const SELECTORS: [&str; 2] = [names::PHASE, names::MODE];

/// Secrets by namespace and name.
type Key = (String, String);

impl StatusArgs {
    /// Reads, computes, prints.
    pub(crate) async fn run(self) -> Result<ExitCode, Error> {
        let cluster = self.cluster.connect().await?;
        let rules = self.settings.rules();
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
