//! `ca-overlap drain`: ends every stage before an uninstall.
//!
//! ```text
//! take the Lease ──► find (pages of Secrets) ──► end each ──► again until none waits ──► release
//! ```

mod end;
mod lease;
mod report;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use futures::{StreamExt, stream};

use self::end::{EndResult, EndedBy, Obstacle};
use self::lease::HeldLease;
use super::annotate::DryRun;
use super::cluster::{ScopeArgs, ScopedClient, SecretName, namespace, report_unread};
use super::complete;
use super::error::{ToolError, exit_code};
use super::output::Output;
use super::progress_line;
use crate::kubernetes::explain::{Audience, explain};
use crate::kubernetes::key::Key;
use crate::kubernetes::list::{Unread, read_all};
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::settings::parse_time;

/// How many Secrets are written at the same time.
const AT_ONCE: usize = 8;
/// The pause before Secrets are read again.
const PAUSE: Duration = Duration::from_secs(2);

/// End every staged rotation: the waiting leaves go into service
///
/// Run it before you uninstall ca-overlap, remove staged mode, or opt out a Namespace. It holds the
/// keeper's Lease, so that nothing new is staged, and asks the webhook to put each waiting pair
/// into service. Where the webhook is not called, it moves the pair itself. It waits until nothing
/// is under pending.tls.crt and pending.tls.key in any Secret in scope.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DrainArgs {
    /// Look at these Secrets only, as NAMESPACE/NAME or NAME
    #[arg(value_name = "SECRET", add = ArgValueCompleter::new(complete::secrets))]
    secrets: Vec<String>,

    /// Give up after this time, such as 90s or 10m
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "5m")]
    timeout: Duration,

    /// The name of the keeper's Lease
    #[arg(long, value_name = "NAME", default_value = names::KEEPER_LEASE)]
    lease: String,

    /// The namespace of the keeper's Lease
    #[arg(long, value_name = "NAME", default_value = names::NAMESPACE, value_parser = namespace, add = ArgValueCompleter::new(complete::namespaces))]
    lease_namespace: String,

    /// List what waits, and end nothing. The Lease is not taken, and only this program answers: client
    /// is its one value
    #[arg(
        long,
        value_name = "WHO",
        num_args = 0..=1,
        require_equals = true,
        default_value = "none",
        default_missing_value = "client"
    )]
    dry_run: DryRun,

    /// What to print
    #[arg(short, long, value_parser = Output::one_of(Output::USUAL), default_value = "text")]
    output: Output,

    #[command(flatten)]
    cluster: ScopeArgs,
}

const EXAMPLES: &str = "Examples:
  ca-overlap drain -A
  ca-overlap drain -A --dry-run
  ca-overlap drain -n gateway --timeout 10m

Exit code: 0 if nothing waits any more; 1 if a leaf still waits; 2 if something could not be read or
reached; 64 if the command line is wrong.";

/// What was done, and what is left.
#[derive(Default)]
struct Drained {
    ended: BTreeMap<Key, EndedBy>,
    waiting: BTreeMap<Key, Obstacle>,
    unread: Vec<Unread>,
}

impl DrainArgs {
    /// Ends all stages in scope and prints the result.
    pub(crate) async fn run(self) -> Result<ExitCode, ToolError> {
        let names = self.cluster.named(&self.secrets)?;
        if self.dry_run == DryRun::Server {
            let problem = "server is not possible, because the Lease can only be held by a write; \
                           use --dry-run=client";
            return Err(ToolError::usage("--dry-run", problem));
        }
        let cluster = self.cluster.connect().await?.narrowed(&names);
        if self.dry_run == DryRun::Client {
            let (found, unread) = find(&cluster, &names).await;
            let waiting = found.into_keys().map(|key| (key, Obstacle::trial())).collect();
            let drained = Drained { waiting, unread, ..Drained::default() };
            return self.report(&cluster, &drained);
        }
        let failed = |what: &'static str| {
            move |error: kube::Error| ToolError::failed(what, explain(&error, Audience::Caller))
        };
        let lease = HeldLease::take(&cluster.client, &self.lease_namespace, &self.lease);
        let lease = lease.await.map_err(failed("cannot take the keeper's Lease"))?;
        let drained = RefCell::new(Drained::default());
        let line = || {
            let Drained { ended, waiting, .. } = &*drained.borrow();
            format!("ending stages, {} done, {} left", ended.len(), waiting.len())
        };
        tokio::select! {
            () = progress_line::during(line, end_all(&cluster, &names, &drained)) => {}
            () = lease.keep() => {}
            () = tokio::time::sleep(self.timeout) => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        lease.release().await.map_err(failed("cannot give back the keeper's Lease"))?;
        self.report(&cluster, &drained.into_inner())
    }

    fn report(&self, cluster: &ScopedClient, drained: &Drained) -> Result<ExitCode, ToolError> {
        let is_trial = self.dry_run != DryRun::None;
        self.output.print(
            || report::to_text(drained, &cluster.place(), is_trial),
            || report::to_json(drained, is_trial),
        )?;
        report_unread("the Secrets", &drained.unread);
        Ok(exit_code(drained.unread.is_empty(), drained.waiting.is_empty()))
    }
}

/// The Secrets in scope in which something waits, and what could not be read.
async fn find(
    cluster: &ScopedClient,
    names: &[SecretName<'_>],
) -> (BTreeMap<Key, SecretView>, Vec<Unread>) {
    let mut found = BTreeMap::new();
    let keep = |secret: SecretView| {
        if secret.view().waits() {
            found.insert(Key::of(&secret), secret);
        }
    };
    let unread = if names.is_empty() {
        read_all(&cluster.client, &cluster.scope, cluster.selector.as_deref(), keep).await
    } else {
        cluster.secrets(names, keep).await
    };
    (found, unread)
}

/// Ends stages until none is left, or only those that cannot end.
async fn end_all(cluster: &ScopedClient, names: &[SecretName<'_>], drained: &RefCell<Drained>) {
    loop {
        let (found, unread) = find(cluster, names).await;
        let unknown = || Obstacle { reason: "not ended in time".to_owned(), is_final: false };
        let waiting = found.keys().map(|key| (key.clone(), unknown())).collect();
        let ended = {
            let mut drained = drained.borrow_mut();
            (drained.unread, drained.waiting) = (unread, waiting);
            drained.ended.len()
        };
        let client = &cluster.client;
        let mut ends = stream::iter(found)
            .map(|(key, secret)| async move { (key, end::end(client, secret).await) })
            .buffer_unordered(AT_ONCE);
        while let Some((key, result)) = ends.next().await {
            let mut drain = drained.borrow_mut();
            match result {
                EndResult::Ended(by) => {
                    drain.waiting.remove(&key);
                    drain.ended.insert(key, by);
                }
                EndResult::Waits(obstacle) => {
                    drain.waiting.insert(key, obstacle);
                }
            }
        }
        // After a change it looks again: a write may have staged before the webhook saw the Lease.
        let is_unchanged = drained.borrow().ended.len() == ended;
        if is_unchanged && drained.borrow().waiting.values().all(|obstacle| obstacle.is_final) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
