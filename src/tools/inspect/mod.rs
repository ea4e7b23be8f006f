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
use clap_complete::engine::ArgValueCompleter;
use jiff::Timestamp;

use self::facts::Facts;
use self::lint::Finding;
use self::object::InspectedObject;
pub use self::rule::Rule;
use self::source::Source;
use super::cluster::{InstallationArgs, ScopeArgs, ScopedClient, report_unread};
use super::complete;
use super::error::{ToolError, exit_code};
use super::output::Output;
use super::registration::{self, Registration};
use super::server_args::ServerArgs;

/// Explain the certificates of a Secret and check them for problems
///
/// Reads a Secret or a list of Secrets (JSON or YAML), a PEM file with the content of ca.crt, or
/// Secrets of the cluster. Shows each certificate with its role: the generator's own, or carried and
/// until when; which one issued the leaf; which are expired. Then lists the lint rules that fire.
/// Private keys are never decoded or shown.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InspectArgs {
    /// Files, - for standard input, or Secrets of the cluster as NAMESPACE/NAME, or with -n as NAME. A
    /// file of that path is preferred. Without any: all Secrets in scope that hold certificates
    #[arg(
        value_name = "FILE|SECRET",
        add = ArgValueCompleter::new(complete::files_and_secrets),
        required_unless_present_any = ["all_namespaces", "namespace", "selector"]
    )]
    pub(crate) what: Vec<String>,

    /// The leaf with its chain (PEM or DER), if FILE is a PEM file
    #[arg(long, value_name = "FILE")]
    pub(crate) leaf: Option<PathBuf>,

    /// Output format
    #[arg(short, long, value_parser = Output::one_of(Output::USUAL), default_value = "text")]
    pub(crate) output: Output,

    /// Ignore these rules; separate them by commas or repeat the flag
    #[arg(long, value_name = "RULE", value_enum, value_delimiter = ',')]
    pub(crate) ignore: Vec<Rule>,

    /// Check as of this time (RFC 3339) instead of now
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<Timestamp>,

    #[command(flatten)]
    settings: ServerArgs,

    #[command(flatten)]
    pub(crate) cluster: ScopeArgs,

    #[command(flatten, next_help_heading = "Cluster")]
    installation: InstallationArgs,
}

const EXAMPLES: &str = "Examples:
  ca-overlap inspect gateway/envoy
  ca-overlap inspect -n gateway -l app=envoy
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
        let sources = source::sort(&self.what, &self.cluster)?;
        if self.leaf.is_some() && !matches!(sources[..], [Source::File(_)]) {
            return Err(source::leaf_beside_secret());
        }
        let is_scope = sources.is_empty();
        let has_secrets = is_scope || sources.iter().any(|it| matches!(it, Source::Secret(_)));
        let cluster = if has_secrets { Some(self.connect(&sources).await?) } else { None };
        let mut rules = self.settings.rules();
        let mut registration = None;
        if let Some(cluster) = &cluster {
            let installed_in = &self.installation.ca_overlap_namespace;
            rules = self.settings.rules_of(&cluster.client, installed_in).await;
            rules.defaults.distrusted =
                registration::distrusted(&cluster.client, installed_in).await;
            registration = Some(Registration::read(&cluster.client).await);
        }
        let now = self.at.unwrap_or_else(Timestamp::now);
        let mut inspected = report::Inspected::new(self.output, is_scope);
        let mut take = |object: &InspectedObject| {
            let facts = Facts::of(object, &rules, now);
            let mut findings = lint::lint(&facts);
            findings.retain(|finding| !self.ignore.contains(&finding.rule));
            inspected.push(&Inspection { facts, findings });
        };
        let mut unread = Vec::new();
        for source in &sources {
            match (source, &cluster) {
                (Source::File(path), _) => {
                    source::of_file(path, self.leaf.as_deref())?.iter().for_each(&mut take);
                }
                (Source::Secret(name), Some(cluster)) => {
                    let mut object = source::fetch(cluster, *name).await?;
                    object.registration.clone_from(&registration);
                    take(&object);
                }
                (Source::Secret(_), None) => {}
            }
        }
        if let Some(cluster) = cluster.as_ref().filter(|_| is_scope) {
            unread = source::scan(cluster, registration.as_ref(), take).await;
            if inspected.is_empty() && unread.is_empty() {
                eprintln!("ca-overlap: no Secret with certificates in {}", cluster.place());
            }
        }
        inspected.print(registration.as_ref(), &unread)?;
        report_unread("the Secrets", &unread);
        registration.iter().for_each(Registration::warn);
        let is_called = registration.as_ref().is_none_or(|it| it.problem().is_none());
        Ok(exit_code(unread.is_empty(), inspected.is_fine() && is_called))
    }

    /// The cluster. An argument that is no file may be meant as one.
    async fn connect(&self, sources: &[Source<'_>]) -> Result<ScopedClient, ToolError> {
        let first = sources.iter().find_map(|source| match source {
            Source::Secret((_, name)) => Some(name),
            Source::File(_) => None,
        });
        self.cluster.connect().await.map_err(|error| match first {
            Some(name) => ToolError::Failed(format!("there is no file {name}, and {error}")),
            None => error,
        })
    }
}
