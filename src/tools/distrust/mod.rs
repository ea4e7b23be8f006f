//! `ca-overlap distrust`: removes a compromised CA from every Secret that carries it.
//!
//! ```text
//! argument (the CAs) ─┬► list (of the cluster) ──► replicas (that use it) ───────┬► report
//!                     ├► found (in a Secret, pure) ──► annotate (and read back) ─┤
//!                     └► elsewhere (than in Secrets) ────────────────────────────┘
//! ```

mod annotate;
mod argument;
mod found;
mod list;
mod replicas;
mod report;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueHint};
use clap_complete::engine::ArgValueCompleter;
use kube::ResourceExt;

use self::annotate::SecretOutcome;
use self::replicas::Replica;
use self::report::{DistrustReport, EverywhereReport};
use super::annotate::{DryRun, DryRunArgs};
use super::cluster::{InstallationArgs, ScopeArgs, ScopedClient, report_unread};
use super::complete;
use super::elsewhere;
use super::error::ToolError;
use super::output::Output;
use crate::kubernetes::list::Unread;
use crate::kubernetes::secret_view::SecretView;
use crate::overlap::settings::parse_time;
use crate::x509::certs::Fingerprint;

/// The field manager of what the command writes, in `managedFields`.
const MANAGER: &str = "ca-overlap-distrust";

/// Remove a compromised CA from every Secret that carries it
///
/// Finds each Secret whose ca.crt holds the CA, and adds the CA's fingerprint to the annotation
/// ca-overlap.dev/distrust. If the webhook carries the CA there, it drops the CA in the same
/// request and never carries it again. If the generator wrote the CA, only the generator can
/// replace it: the command lists these Secrets.
///
/// With -A, and without --selector, the command first adds the CA to the list of the cluster, the ConfigMap
/// ca-overlap-distrusted, so that no Secret of any namespace carries it again. It waits until every
/// replica of webhook and keeper uses the list. Then it reports where else the CA is: in
/// ConfigMaps, and in the caBundles of webhooks, CustomResourceDefinitions and APIServices. It
/// changes none of these.
///
/// Run it with --dry-run first: the API server and the webhook then answer as they answer the real
/// request, and nothing is stored.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DistrustArgs {
    /// The SHA-256 fingerprint of the CA, or a file of certificates (PEM or DER), all of which are
    /// distrusted; - reads standard input
    #[arg(value_name = "FINGERPRINT|FILE", value_hint = ValueHint::FilePath)]
    pub(crate) ca: String,

    /// Look at these Secrets only, as NAMESPACE/NAME or NAME
    #[arg(value_name = "SECRET", add = ArgValueCompleter::new(complete::secrets))]
    pub(crate) secrets: Vec<String>,

    #[command(flatten)]
    pub(crate) trial: DryRunArgs,

    /// With -A: how long to wait until every replica uses the list of the cluster
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_time,
        default_value = "3m"
    )]
    pub(crate) timeout: Duration,

    /// What to print
    #[arg(short, long, value_parser = Output::one_of(Output::TABLE), default_value = "text")]
    pub(crate) output: Output,

    #[command(flatten)]
    pub(crate) cluster: ScopeArgs,
    #[command(flatten, next_help_heading = "Cluster")]
    pub(crate) installation: InstallationArgs,
}

const EXAMPLES: &str = "Examples:
  ca-overlap distrust stolen-ca.pem -A --dry-run
  ca-overlap distrust stolen-ca.pem -A
  ca-overlap distrust 5E:2C:…:9A gateway/envoy

Exit code: 0 if nothing that was looked at holds the CA any more; 1 if it was found elsewhere or
remains, or if a leaf needs it; 2 if something could not be read, or if a replica does not use the
list; 64 if the command line is wrong.";

impl DistrustArgs {
    /// Finds the Secrets, annotates them and prints the result.
    pub(crate) async fn run(self) -> Result<ExitCode, ToolError> {
        let names = self.cluster.named(&self.secrets)?;
        let wanted = argument::read(&self.ca)?;
        let cluster = self.cluster.connect().await?.narrowed(&names);
        let dry_run = self.trial.dry_run;
        let fingerprints: Vec<Fingerprint> = wanted.iter().map(|w| w.fingerprint).collect();
        // The list comes first, so that nothing brings the CA back behind us.
        let listed = if !self.cluster.is_everything() {
            None
        } else if dry_run == DryRun::Client {
            Some(Ok(None))
        } else {
            let namespace = &self.installation.ca_overlap_namespace;
            let is_trial = dry_run == DryRun::Server;
            let added = list::add(&cluster.client, namespace, &wanted, is_trial).await;
            Some(added.map(Some))
        };
        let (mut done, mut unread) = if names.is_empty() {
            self.sweep(&cluster, &fingerprints).await
        } else {
            let (mut found, unread) = cluster.fetch(&names).await;
            found.retain(|secret| found::holds(secret, &fingerprints));
            (self.annotate(&cluster, found, &fingerprints).await, unread)
        };
        let everywhere = match listed {
            None => None,
            Some(listed) => {
                let replicas = self.replicas(&cluster, &listed).await;
                if dry_run == DryRun::None {
                    // Until then a replica may have brought the CA back somewhere.
                    let (again, unread_again) = self.sweep(&cluster, &fingerprints).await;
                    done.extend(again);
                    unread = unread_again;
                }
                let (places, more) = elsewhere::search(&cluster.client, &fingerprints).await;
                unread.extend(more);
                let namespace = self.installation.ca_overlap_namespace.clone();
                Some(EverywhereReport { namespace, listed, replicas, places })
            }
        };
        let report = DistrustReport {
            wanted,
            done: done.into_values().collect(),
            unread,
            everywhere,
            dry_run,
            place: cluster.place(),
            is_part: cluster.is_part(),
            output: self.output,
        };
        self.output.print(|| report::to_text(&report), || report::to_json(&report))?;
        report_unread("everything", &report.unread);
        Ok(report.exit_code())
    }

    /// Annotates all Secrets in scope that hold one of the CAs.
    async fn sweep(&self, cluster: &ScopedClient, wanted: &[Fingerprint]) -> (Done, Vec<Unread>) {
        let (found, unread) = find(cluster, wanted).await;
        (self.annotate(cluster, found, wanted).await, unread)
    }

    /// The replicas, once they use the list or the time is over.
    async fn replicas(
        &self,
        cluster: &ScopedClient,
        listed: &Result<Option<Fingerprint>, String>,
    ) -> Result<Vec<Replica>, String> {
        let namespace = &self.installation.ca_overlap_namespace;
        match listed {
            Ok(Some(sha256)) if self.trial.dry_run == DryRun::None => {
                replicas::wait(&cluster.client, namespace, *sha256, self.timeout).await
            }
            _ => Ok(Vec::new()),
        }
    }

    async fn annotate(
        &self,
        cluster: &ScopedClient,
        found: Vec<SecretView>,
        wanted: &[Fingerprint],
    ) -> Done {
        let dry_run = self.trial.dry_run;
        let one = async |secret| annotate::distrust(&cluster.client, secret, wanted, dry_run).await;
        let outcomes = super::annotate::each(found, one).await.into_iter();
        outcomes.map(|it| ((it.namespace.clone(), it.name.clone()), it)).collect()
    }
}

/// The results by namespace and name.
type Done = BTreeMap<(String, String), SecretOutcome>;

/// The Secrets in scope that hold one of the CAs, sorted by namespace and name.
async fn find(cluster: &ScopedClient, wanted: &[Fingerprint]) -> (Vec<SecretView>, Vec<Unread>) {
    let mut found = BTreeMap::new();
    let keep = |secret: SecretView| {
        let key = (secret.namespace(), secret.name_any());
        if found::holds(&secret, wanted) {
            found.insert(key, secret);
        } else {
            found.remove(&key);
        }
    };
    let unread = cluster.read_secrets(keep).await;
    (found.into_values().collect(), unread)
}
