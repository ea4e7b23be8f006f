//! `ca-overlap inspect`: what a Secret holds, whose each certificate is, and what is wrong with it.
//!
//! ```text
//! source (file, standard input, cluster) ──► object ──► facts (overlap::outlook, pure) ──► lint ──► show
//! ```

mod facts;
mod lint;
mod object;
mod rule;
mod show;
mod source;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use self::facts::Facts;
use self::lint::Finding;
use self::object::Object;
pub use self::rule::Rule;
use super::cluster::AccessArgs;
use super::error::Error;
use super::output::Output;
use super::settings::SettingsArgs;

/// Explain the certificates of a Secret, and say what is wrong with them
///
/// Takes a Secret (JSON or YAML, also a list of them), a PEM file with the content of ca.crt, or the
/// name of a Secret in the cluster. Each certificate is shown with its role: the generator's own or
/// carried and until when, which one issued the leaf, which are expired. Then follows what is wrong
/// by the rules of lint. Private keys are never decoded or shown.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InspectArgs {
    /// A file, - for standard input, or a Secret of the cluster as NAMESPACE/NAME. Where a file of
    /// that path exists, it is the file that is read
    #[arg(value_name = "FILE|NAMESPACE/NAME")]
    pub(crate) what: String,

    /// The leaf and its chain (PEM), where a PEM file is inspected
    #[arg(long, value_name = "FILE", env = "CA_OVERLAP_LEAF")]
    pub(crate) leaf: Option<PathBuf>,

    /// What to print
    #[arg(short, long, value_parser = Output::one_of(Output::USUAL), default_value = "text", env = "CA_OVERLAP_OUTPUT")]
    pub(crate) output: Output,

    /// Rules that do not count; comma-separated, or several times
    #[arg(long, value_name = "RULE", value_enum, value_delimiter = ',', env = "CA_OVERLAP_IGNORE")]
    pub(crate) ignore: Vec<Rule>,

    /// Look as of this time (RFC 3339) instead of now
    #[arg(long, value_name = "TIME", env = "CA_OVERLAP_AT")]
    pub(crate) at: Option<Timestamp>,

    #[command(flatten)]
    settings: SettingsArgs,

    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

const EXAMPLES: &str = "Examples:
  ca-overlap inspect gateway/envoy
  ca-overlap inspect secret.yaml -o json
  ca-overlap inspect ca.pem --leaf tls.pem
  kubectl get secrets -n gateway -o json | ca-overlap inspect - --ignore same-subject

Exit code: 0 if nothing is wrong; 1 if a rule fires, or if something failed; 64 if the command line
is wrong. Why each rule matters: https://github.com/ca-overlap/ca-overlap/blob/main/docs/lint.md";

/// An object with what is known of it, and what is wrong with it.
struct Inspected<'a> {
    facts: Facts<'a>,
    findings: Vec<Finding>,
}

impl InspectArgs {
    /// Reads, looks, prints.
    pub(crate) async fn run(self) -> Result<ExitCode, Error> {
        let objects = source::read(&self.what, self.leaf.as_deref(), &self.access).await?;
        let now = self.at.unwrap_or_else(Timestamp::now);
        let rules = self.settings.rules();
        let inspect = |object| {
            let facts = Facts::of(object, &rules, now);
            let mut findings = lint::lint(&facts);
            findings.retain(|finding| !self.ignore.contains(&finding.rule));
            Inspected { facts, findings }
        };
        let inspected: Vec<_> = objects.iter().map(inspect).collect();
        self.output.print(|| show::to_text(&inspected), || show::document(&inspected))?;
        let is_fine = inspected.iter().all(|inspected| inspected.findings.is_empty());
        Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
