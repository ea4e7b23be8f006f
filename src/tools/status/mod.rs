//! `ca-overlap status`: lists the rotations in flight, what happens next and what is wrong.
//!
//! ```text
//! secrets (by label) ──► row (overlap::outlook, pure) ──► report (table, JSON, YAML)
//!              watch ──────┘
//! ```

mod report;
mod row;
mod watch;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use self::row::Rotation;
pub(super) use self::row::next;
use super::cluster::ScopeArgs;
use super::error::ToolError;
use super::output::Output;
use super::server_args::ServerArgs;
use crate::kubernetes::key::Key;
use crate::kubernetes::list::{Namespaces, Unread, read_all};
use crate::kubernetes::secret_view::SecretView;
use crate::names;

/// Show every CA rotation in flight
///
/// A rotation is in flight while a Secret carries a previous CA or a new leaf waits. Secrets with
/// the label ca-overlap.dev/mode are also shown if they have a problem.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArgs {
    /// Keep watching and print each change
    #[arg(short, long, env = "CA_OVERLAP_WATCH")]
    pub(crate) watch: bool,

    /// Output format; with --watch, each change is one JSON line or one YAML document
    #[arg(short, long, value_parser = Output::one_of(Output::USUAL), default_value = "text", env = "CA_OVERLAP_OUTPUT")]
    pub(crate) output: Output,

    #[command(flatten)]
    settings: ServerArgs,

    #[command(flatten)]
    pub(crate) cluster: ScopeArgs,
}

const EXAMPLES: &str = "Examples:
  ca-overlap status -A
  ca-overlap status -n gateway --watch
  ca-overlap status -A -o json

Exit code: 0 if no Secret has a problem; 1 if one has, or if something failed; 64 if the command
line is wrong.";

/// The label selectors: Secrets with a rotation in flight, and Secrets with the label `mode`.
const SELECTORS: [&str; 2] = [names::PHASE, names::MODE];

impl StatusArgs {
    /// Reads the Secrets and prints the table, or watches them.
    pub(crate) async fn run(self) -> Result<ExitCode, ToolError> {
        let cluster = self.cluster.connect().await?;
        let rules = self.settings.rules();
        if self.watch {
            watch::run(&cluster, &rules, self.output).await?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut secrets: BTreeMap<Key, SecretView> = BTreeMap::new();
        // All Secrets, a page at a time: no label need lead to a leaf that waits.
        let keep = |secret: SecretView| {
            let key = Key::of(&secret);
            let is_labelled = SELECTORS.iter().any(|label| secret.label(label).is_some());
            if is_labelled || secret.view().waits() {
                secrets.insert(key, secret);
            } else {
                secrets.remove(&key);
            }
        };
        let mut unread: Vec<Unread> = cluster.read_secrets(None, keep).await;
        let now = Timestamp::now();
        let mut rotations = Vec::new();
        let mut groups: BTreeMap<String, Vec<SecretView>> = BTreeMap::new();
        for (key, secret) in &secrets {
            let Some(mut rotation) = Rotation::of(secret, &rules, now) else { continue };
            if rotation.phase.as_deref() == Some(names::PHASE_STAGED)
                && secret.view().group().is_some()
            {
                // A Secret of the group may have no label.
                let namespace = key.namespace().to_owned();
                if !groups.contains_key(&namespace) {
                    let mut all = Vec::new();
                    let scope = Namespaces::One(namespace.clone());
                    let keep = |it: SecretView| {
                        if it.view().group().is_some() {
                            all.push(it);
                        }
                    };
                    let more = read_all(&cluster.client, &scope, None, keep).await;
                    unread.extend(more);
                    groups.insert(namespace.clone(), all);
                }
                let group = groups.get(&namespace).map(Vec::as_slice).unwrap_or_default();
                rotation.name_awaited(secret, group, &rules, now);
            }
            rotations.push(rotation);
        }
        self.output.print(
            || report::to_text(&rotations, &unread, &cluster.scope, now),
            || json!({"rotations": rotations, "unread": unread}),
        )?;
        let is_fine = unread.is_empty() && rotations.iter().all(|r| r.problems.is_empty());
        Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
