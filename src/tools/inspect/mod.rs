//! `ca-overlap inspect`: explains the certificates of a Secret and checks them by lint rules.
//!
//! ```text
//! source (file, stdin, cluster) ──► object ──► facts (overlap::outlook, pure) ──► lint ──► report
//! ```

mod facts;
mod lint;
mod object;
mod report;
mod rule;
mod source;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use self::facts::Facts;
use self::lint::Finding;
use self::object::InspectedObject;
pub use self::rule::Rule;
use super::cluster::{InstallationArgs, KubeconfigArgs};
use super::error::ToolError;
use super::output::Output;
use super::registration::{self, Registration};
use super::server_args::ServerArgs;

/// Explain the certificates of a Secret and check them for problems
///
/// Reads a Secret or a list of Secrets (JSON or YAML), a PEM file with the content of ca.crt, or a
/// Secret of the cluster. Shows each certificate with its role: the generator's own, or carried and
/// until when; which one issued the leaf; which are expired. Then lists the lint rules that fire.
/// Private keys are never decoded or shown.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InspectArgs {
    /// A file, - for standard input, or a Secret of the cluster as NAMESPACE/NAME. A file of that
    /// path is preferred
    #[arg(value_name = "FILE|NAMESPACE/NAME")]
    pub(crate) what: String,

    /// The leaf with its chain (PEM or DER), if FILE is a PEM file
    #[arg(long, value_name = "FILE", env = "CA_OVERLAP_LEAF")]
    pub(crate) leaf: Option<PathBuf>,

    /// Output format
    #[arg(short, long, value_parser = Output::one_of(Output::USUAL), default_value = "text", env = "CA_OVERLAP_OUTPUT")]
    pub(crate) output: Output,

    /// Ignore these rules; separate them by commas or repeat the flag
    #[arg(long, value_name = "RULE", value_enum, value_delimiter = ',', env = "CA_OVERLAP_IGNORE")]
    pub(crate) ignore: Vec<Rule>,

    /// Check as of this time (RFC 3339) instead of now
    #[arg(long, value_name = "TIME", env = "CA_OVERLAP_AT")]
    pub(crate) at: Option<Timestamp>,

    #[command(flatten)]
    settings: ServerArgs,

    #[command(flatten)]
    pub(crate) access: KubeconfigArgs,

    #[command(flatten, next_help_heading = "Cluster")]
    installation: InstallationArgs,
}

const EXAMPLES: &str = "Examples:
  ca-overlap inspect gateway/envoy
  ca-overlap inspect secret.yaml -o json
  ca-overlap inspect ca.pem --leaf tls.pem
  kubectl get secrets -n gateway -o json | ca-overlap inspect - --ignore same-subject

Exit code: 0 if no rule fires; 1 if a rule fires, or if the webhook is not called; 2 if something
could not be read or reached; 64 if the command line is wrong. docs/lint.md says why each rule
matters.";

/// The facts about an object and the rules that fired.
struct Inspection<'a> {
    facts: Facts<'a>,
    findings: Vec<Finding>,
}

impl InspectArgs {
    /// Reads the objects, checks them and prints the result.
    pub(crate) async fn run(self) -> Result<ExitCode, ToolError> {
        let leaf = self.leaf.as_deref();
        let (objects, client) = source::read(&self.what, leaf, &self.access).await?;
        let rules = match client {
            None => self.settings.rules(),
            Some(client) => {
                let installed_in = &self.installation.ca_overlap_namespace;
                let mut rules = self.settings.rules_of(&client, installed_in).await;
                rules.defaults.distrusted = registration::distrusted(&client, installed_in).await;
                rules
            }
        };
        let now = self.at.unwrap_or_else(Timestamp::now);
        let inspect = |object| {
            let facts = Facts::of(object, &rules, now);
            let mut findings = lint::lint(&facts);
            findings.retain(|finding| !self.ignore.contains(&finding.rule));
            Inspection { facts, findings }
        };
        let inspected: Vec<_> = objects.iter().map(inspect).collect();
        self.output.print(|| report::to_text(&inspected), || report::document(&inspected))?;
        let registrations = || objects.iter().filter_map(|object| object.registration.as_ref());
        registrations().for_each(Registration::warn);
        let is_fine = inspected.iter().all(|inspected| inspected.findings.is_empty())
            && registrations().all(|registration| registration.problem().is_none());
        Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
