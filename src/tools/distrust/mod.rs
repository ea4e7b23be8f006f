//! `ca-overlap distrust`: takes a compromised CA out of every Secret that carries it, now.
//!
//! ```text
//! wanted (which CAs) ──► secrets (who holds them) ──► act (annotate, read back) ──► show
//!                                                      plan (pure)
//! ```

mod act;
mod plan;
mod show;
mod wanted;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use futures::StreamExt;
use futures::stream;
use kube::{Api, ResourceExt};

use self::act::Done;
use self::show::Report;
use super::cluster::{Cluster, ClusterArgs};
use super::error::Error;
use super::output::Output;
use super::progress;
use crate::kubernetes::explain::{Audience, explain};
use crate::kubernetes::key;
use crate::kubernetes::list::Unread;
use crate::kubernetes::secret_view::SecretView;
use crate::x509::certs::Fingerprint;

/// How many Secrets are written at a time.
const AT_ONCE: usize = 8;

/// Take a compromised CA out of every Secret that carries it
///
/// Finds each Secret whose ca.crt holds the CA, and adds its fingerprint to the annotation
/// ca-overlap.dev/distrust. Where the webhook carries the CA, it drops it in that same request, and
/// never carries it again. Where the CA is the generator's own, only the generator can replace it;
/// these Secrets are listed.
///
/// Run it with --dry-run first: the API server and the webhook then answer as for the real thing,
/// and nothing is stored.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DistrustArgs {
    /// The SHA-256 fingerprint of the certificate, or a file with certificates (PEM or DER), all of
    /// which are distrusted; - reads standard input
    #[arg(value_name = "FINGERPRINT|FILE")]
    pub(crate) ca: String,

    /// These Secrets alone, as NAMESPACE/NAME or NAME
    #[arg(value_name = "SECRET")]
    pub(crate) secrets: Vec<String>,

    /// Show what would happen, and store nothing
    #[arg(long, env = "CA_OVERLAP_DRY_RUN")]
    pub(crate) dry_run: bool,

    /// What to print
    #[arg(short, long, value_parser = Output::one_of(Output::USUAL), default_value = "text", env = "CA_OVERLAP_OUTPUT")]
    pub(crate) output: Output,

    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

const EXAMPLES: &str = "Examples:
  ca-overlap distrust stolen-ca.pem -A --dry-run
  ca-overlap distrust stolen-ca.pem -A
  ca-overlap distrust 5E:2C:…:9A gateway/envoy

Exit code: 0 if no Secret in scope holds the CA any more; 1 if one still does, if a leaf needs the
CA, or if something failed; 64 if the command line is wrong.";

impl DistrustArgs {
    /// Finds, annotates, reads back, reports.
    pub(crate) async fn run(self) -> Result<ExitCode, Error> {
        let names = self.names()?;
        let wanted = wanted::read(&self.ca)?;
        let cluster = self.cluster.connect().await?;
        let fingerprints: Vec<Fingerprint> = wanted.iter().map(|w| w.fingerprint).collect();
        let (found, unread) = if names.is_empty() {
            find(&cluster, &fingerprints).await
        } else {
            fetch(&cluster, names, &fingerprints).await
        };
        let done = self.act(&cluster, found, &fingerprints).await;
        let report = Report { wanted, done, unread, dry_run: self.dry_run, scope: cluster.scope };
        self.output.print(|| show::to_text(&report), || show::to_json(&report))?;
        Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// The Secrets that were named, by namespace, if one was given, and name.
    fn names(&self) -> Result<Vec<(Option<&str>, &str)>, Error> {
        if self.cluster.all_namespaces && !self.secrets.is_empty() {
            return Err(Error::usage("--all-namespaces", "does not go with names of Secrets"));
        }
        let no_name = |text: &String| {
            let problem = "is no name of a Secret: expected NAMESPACE/NAME or NAME";
            Error::usage("SECRET", format!("{text} {problem}"))
        };
        self.secrets.iter().map(|text| key::parse(text).ok_or_else(|| no_name(text))).collect()
    }

    async fn act(
        &self,
        cluster: &Cluster,
        found: Vec<SecretView>,
        wanted: &[Fingerprint],
    ) -> Vec<Done> {
        let all = found.len();
        let finished = std::cell::Cell::new(0_usize);
        let work = stream::iter(found)
            .map(|secret| act::distrust(&cluster.client, secret, wanted, self.dry_run))
            .buffered(AT_ONCE)
            .inspect(|_| finished.set(finished.get() + 1))
            .collect();
        let told = || format!("writing Secrets, {} of {all}", finished.get());
        progress::during(told, work).await
    }
}

/// The Secrets in scope that hold one of the CAs, by namespace and name.
async fn find(cluster: &Cluster, wanted: &[Fingerprint]) -> (Vec<SecretView>, Vec<Unread>) {
    let mut found = BTreeMap::new();
    let keep = |secret: SecretView| {
        let key = (secret.namespace(), secret.name_any());
        if plan::holds(&secret, wanted) {
            found.insert(key, secret);
        } else {
            found.remove(&key);
        }
    };
    let unread = cluster.read_secrets(None, keep).await;
    (found.into_values().collect(), unread)
}

/// The Secrets of these names that hold one of the CAs. One that does not exist is a failure: it
/// was asked for.
async fn fetch(
    cluster: &Cluster,
    names: Vec<(Option<&str>, &str)>,
    wanted: &[Fingerprint],
) -> (Vec<SecretView>, Vec<Unread>) {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for (namespace, name) in names {
        let namespace = namespace.unwrap_or(&cluster.namespace);
        let secrets = Api::<SecretView>::namespaced(cluster.client.clone(), namespace);
        let error = match secrets.get_opt(name).await {
            Ok(Some(secret)) => {
                found.extend(plan::holds(&secret, wanted).then_some(secret));
                continue;
            }
            Ok(None) => format!("there is no Secret {namespace}/{name}"),
            Err(error) => explain(&error, Audience::Caller),
        };
        failures.push(Unread { namespace: Some(namespace.to_owned()), error });
    }
    (found, failures)
}
