//! `ca-overlap announce`: makes Secrets trust a CA before anybody shows a leaf of it.
//!
//! ```text
//! file (of the CAs) ──► Secrets in scope ──► listed (the annotation, pure) ──► read back ──► report
//! ```

mod listed;
mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use self::listed::{CaOutcome, Change};
use self::report::{AnnounceReport, SecretOutcome};
use super::annotate::{self, Annotation, DryRunArgs, Written};
use super::cluster::{InstallationArgs, ScopeArgs, ScopedClient, report_unread};
use super::complete;
use super::documents::{self, as_pem};
use super::elsewhere;
use super::error::ToolError;
use super::output::Output;
use crate::kubernetes::key::Key;
use crate::kubernetes::list::Unread;
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::settings::parse_time;
use crate::x509::certs::{Bundle, Certificate, Fingerprint};

/// The field manager of what the command writes, in `managedFields`.
const MANAGER: &str = "ca-overlap-announce";

/// Make Secrets trust a CA before its first leaf is shown
///
/// Run it before a planned rotation. It adds the next CA to the annotation ca-overlap.dev/announce
/// of each Secret in scope that has a ca.crt, and the webhook appends the CA to ca.crt in the same
/// request. When files have reached every pod, rotate: peers then trust both CAs, whichever of them
/// has new files first. When the generator writes the announced CA, it is the generator's own, and
/// the one before is carried as after any rotation.
///
/// Without the names of Secrets it looks at a whole namespace, or with -A at all of them. Run it
/// with --dry-run first: the API server and the webhook then answer as they answer the real request,
/// and nothing is stored.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AnnounceArgs {
    /// A file of CA certificates (PEM or DER), all of which are announced; - reads standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Look at these Secrets only, as NAMESPACE/NAME or NAME
    #[arg(value_name = "SECRET", add = ArgValueCompleter::new(complete::secrets))]
    pub(crate) secrets: Vec<String>,

    /// How long they are announced, such as 12h or 30d
    #[arg(
        long = "for",
        value_name = "TIME",
        value_parser = parse_time,
        default_value = "30d"
    )]
    pub(crate) length: Duration,

    /// Take the announcement back
    #[arg(long)]
    pub(crate) withdraw: bool,

    #[command(flatten)]
    pub(crate) trial: DryRunArgs,

    /// What to print
    #[arg(short, long, value_parser = Output::one_of(Output::TABLE), default_value = "text")]
    pub(crate) output: Output,

    #[command(flatten)]
    pub(crate) cluster: ScopeArgs,
    #[command(flatten, next_help_heading = "Cluster")]
    pub(crate) installation: InstallationArgs,
}

const EXAMPLES: &str = "Examples:
  ca-overlap announce next-ca.pem -n shop --for 30d --dry-run
  ca-overlap announce next-ca.pem -n shop --for 30d
  ca-overlap announce next-ca.pem shop/api shop/db
  ca-overlap announce next-ca.pem -n shop --withdraw

Exit code: 0 if every Secret that was looked at trusts the CA now, or does not announce it any more;
1 if one does not follow, or there is none; 2 if something could not be read; 64 if the command line
is wrong.";

impl AnnounceArgs {
    /// Annotates the Secrets in scope and prints the result.
    pub(crate) async fn run(self) -> Result<ExitCode, ToolError> {
        let names = self.cluster.named(&self.secrets)?;
        let now = Timestamp::now();
        let cas = read(&self.file, now)?;
        let change = if self.withdraw { Change::Withdraw } else { self.announce(now)? };
        let cluster = self.cluster.connect().await?.narrowed(&names);
        let (secrets, unread) = if names.is_empty() {
            self.find(&cluster, &cas, change).await
        } else {
            cluster.fetch(&names).await
        };
        let done = self.write(&cluster, secrets, &cas, change, now).await;
        let mut report = AnnounceReport {
            cas,
            change,
            done,
            unread,
            places: Vec::new(),
            dry_run: self.trial.dry_run,
            place: cluster.place(),
            is_part: cluster.is_part(),
            output: self.output,
        };
        if self.withdraw && self.cluster.is_everything() {
            let wanted: Vec<Fingerprint> =
                report.cas.iter().map(Certificate::fingerprint).collect();
            let (places, more) = elsewhere::search(&cluster.client, &wanted).await;
            report.places = places;
            report.unread.extend(more);
        }
        self.output.print(|| report.to_text(), || report.to_json())?;
        report_unread("everything", &report.unread);
        Ok(report.exit_code())
    }

    fn announce(&self, now: Timestamp) -> Result<Change, ToolError> {
        let end = SignedDuration::try_from(self.length).ok().and_then(|l| now.checked_add(l).ok());
        // Without fractions of a second, because people read it.
        let end = end.and_then(|end| Timestamp::from_second(end.as_second()).ok());
        end.filter(|end| *end > now)
            .map(Change::Until)
            .ok_or_else(|| ToolError::usage("--for", "expected at least a second"))
    }

    /// The Secrets in scope that the change is about, sorted by namespace and name.
    async fn find(
        &self,
        cluster: &ScopedClient,
        cas: &[Certificate],
        change: Change,
    ) -> (Vec<SecretView>, Vec<Unread>) {
        let mut found = BTreeMap::new();
        let own = &self.installation.ca_overlap_namespace;
        let keep = |secret: SecretView| {
            let key = Key::of(&secret);
            if key.namespace() != own && listed::is_concerned(&secret, cas, change) {
                found.insert(key, secret);
            } else {
                found.remove(&key);
            }
        };
        let unread = cluster.read_secrets(keep).await;
        (found.into_values().collect(), unread)
    }

    async fn write(
        &self,
        cluster: &ScopedClient,
        secrets: Vec<SecretView>,
        cas: &[Certificate],
        change: Change,
        now: Timestamp,
    ) -> Vec<SecretOutcome> {
        let annotation =
            Annotation { key: names::ANNOUNCE, manager: MANAGER, dry_run: self.trial.dry_run };
        let one = |secret: SecretView| async move {
            let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
            let value = |secret: &SecretView| listed::annotation(secret, cas, change, now);
            let written = annotation.write(&cluster.client, secret, value).await;
            let result = written.map(|after| match after {
                Written::Is(after) => listed::results(&after, cas, change, now),
                Written::Planned => vec![CaOutcome::Planned; cas.len()],
                Written::Gone => vec![CaOutcome::Gone; cas.len()],
            });
            SecretOutcome { namespace, name, result }
        };
        annotate::each(secrets, one).await
    }
}

/// Reads the CAs. None may be one that the webhook would leave out.
fn read(path: &Path, now: Timestamp) -> Result<Vec<Certificate>, ToolError> {
    let bundle = as_pem(documents::read(path)?);
    let bundle = bundle.and_then(|pem| Bundle::parse(&pem, usize::MAX).ok()).unwrap_or_default();
    if bundle.is_empty() {
        return Err(ToolError::expected(path.display(), "CA certificates, as PEM or DER"));
    }
    for (index, certificate) in bundle.certificates().iter().enumerate() {
        let problem = if !certificate.is_ca() {
            "is not a CA".to_owned()
        } else if certificate.is_expired(now) {
            "is expired".to_owned()
        } else if let Some(flaw) = certificate.flaw() {
            format!("is rejected by some readers, with the whole file that it is in: {flaw}")
        } else {
            continue;
        };
        let which = format!("certificate {} {problem}", index + 1);
        return Err(ToolError::failed(path.display(), which));
    }
    Ok(bundle.certificates().to_vec())
}
