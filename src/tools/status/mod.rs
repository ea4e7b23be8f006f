//! `ca-overlap status`: lists the rotations in flight, what happens next and what is wrong.
//!
//! ```text
//! secrets (by label) ──► row (overlap::outlook, pure) ──► report (table, JSON, YAML)
//!              watch ──────┘
//! ```

mod report;
mod row;
mod told;
mod watch;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use jiff::Timestamp;
use serde_json::json;

use self::row::Rotation;
pub(super) use self::row::next;
use self::told::Told;
use super::cluster::{InstallationArgs, ScopeArgs, report_unread};
use super::complete;
use super::error::{ToolError, exit_code};
use super::output::{self, Output};
use super::registration::{self, Registration};
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
    /// Look at these Secrets only, as NAMESPACE/NAME or NAME
    #[arg(value_name = "SECRET", add = ArgValueCompleter::new(complete::secrets))]
    secrets: Vec<String>,

    /// Keep watching and print each change
    #[arg(short, long)]
    pub(crate) watch: bool,

    /// Output format; with --watch, each change is one JSON line or one YAML document
    #[arg(short, long, value_parser = Output::one_of(Output::TABLE), default_value = "text")]
    pub(crate) output: Output,

    #[command(flatten)]
    settings: ServerArgs,

    #[command(flatten)]
    pub(crate) cluster: ScopeArgs,

    #[command(flatten, next_help_heading = "Cluster")]
    installation: InstallationArgs,
}

const EXAMPLES: &str = "Examples:
  ca-overlap status -A
  ca-overlap status -n gateway --watch
  ca-overlap status gateway/envoy
  ca-overlap status -A -o json

Exit code: 0 if no Secret has a problem; 1 if one has, if a restart failed, or if the webhook is not
called; 2 if something could not be read or reached; 64 if the command line is wrong.

A rotation in mode staged that could not be staged has the phase overlap, and says why.";

/// The label selectors: Secrets with a rotation in flight, and Secrets with the label `mode`.
const SELECTORS: [&str; 2] = [names::PHASE, names::MODE];

impl StatusArgs {
    /// Reads the Secrets and prints the table, or watches them.
    pub(crate) async fn run(self) -> Result<ExitCode, ToolError> {
        let names = self.cluster.named(&self.secrets)?;
        if self.watch && self.output == Output::Name {
            return Err(ToolError::usage("--output", "name does not go with --watch"));
        }
        let cluster = self.cluster.connect().await?.narrowed(&names);
        let installed_in = &self.installation.ca_overlap_namespace;
        let mut rules = self.settings.rules_of(&cluster.client, installed_in).await;
        rules.defaults.distrusted = registration::distrusted(&cluster.client, installed_in).await;
        let registration = Registration::read(&cluster.client).await;
        registration.warn();
        if self.watch {
            registration.problem().iter().for_each(|problem| eprintln!("ca-overlap: {problem}"));
            if registration == Registration::Audit {
                eprintln!("ca-overlap: nothing is changed (--audit)");
            }
            watch::run(&cluster, &names, &rules, self.output).await?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut secrets: BTreeMap<Key, SecretView> = BTreeMap::new();
        // All Secrets, a page at a time: no label need lead to a leaf that waits.
        let keep = |secret: SecretView| {
            let key = Key::of(&secret);
            let is_labelled = SELECTORS.iter().any(|label| secret.label(label).is_some());
            if is_labelled || secret.view().waits() || !names.is_empty() {
                secrets.insert(key, secret);
            } else {
                secrets.remove(&key);
            }
        };
        let mut unread: Vec<Unread> = cluster.secrets(&names, keep).await;
        let told = Told::read(&cluster, registration == Registration::Audit).await;
        let now = Timestamp::now();
        let mut rotations = Vec::new();
        let mut others: BTreeMap<String, Vec<SecretView>> = BTreeMap::new();
        for (key, secret) in &secrets {
            let failed = told.failed_restart(key);
            let Some(mut rotation) = Rotation::of(secret, failed, &rules, now) else { continue };
            if rotation.phase.as_deref() == Some(names::PHASE_STAGED) {
                // A Secret that is waited for may have no label.
                let namespace = key.namespace().to_owned();
                if !others.contains_key(&namespace) {
                    let mut all = Vec::new();
                    let scope = Namespaces::One(namespace.clone());
                    let keep = |it: SecretView| {
                        if it.view().group().is_some() || it.is_tls() {
                            all.push(it);
                        }
                    };
                    let more = read_all(&cluster.client, &scope, None, keep).await;
                    unread.extend(more);
                    others.insert(namespace.clone(), all);
                }
                let others = others.get(&namespace).map(Vec::as_slice).unwrap_or_default();
                rotation.name_awaited(secret, others, &rules, now);
            }
            rotations.push(rotation);
        }
        let is_complete = unread.is_empty();
        self.output.print(
            || {
                if self.output == Output::Name {
                    return output::names(rotations.iter().map(|it| it.name.as_str()));
                }
                let seen = report::Seen { rotations: &rotations, is_complete, now };
                let is_wide = self.output == Output::Wide;
                report::to_text(&seen, &registration, &cluster, is_wide)
                    + &report::audit(&registration, &told.would)
            },
            || {
                let fields = json!({"registration": registration.to_json(), "rotations": rotations,
                       "unread": unread, "audit": told.would});
                output::document("RotationList", fields)
            },
        )?;
        report_unread("the Secrets", &unread);
        let is_fine = registration.problem().is_none()
            && rotations.iter().all(|rotation| rotation.problems.is_empty());
        Ok(exit_code(is_complete, is_fine))
    }
}
