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
use futures::{StreamExt, stream};

use self::end::{EndResult, EndedBy, Obstacle};
use self::lease::HeldLease;
use super::cluster::{ScopeArgs, ScopedClient, report_unread};
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
    /// Give up after this time, such as 90s or 10m
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "5m", env = "CA_OVERLAP_TIMEOUT")]
    timeout: Duration,

    /// The name of the keeper's Lease
    #[arg(long, value_name = "NAME", default_value = names::KEEPER_LEASE, env = "CA_OVERLAP_LEASE")]
    lease: String,

    /// The namespace of the keeper's Lease
    #[arg(long, value_name = "NAME", default_value = names::NAMESPACE, env = "CA_OVERLAP_LEASE_NAMESPACE")]
    lease_namespace: String,

    /// What to print
    #[arg(short, long, value_parser = Output::one_of(Output::USUAL), default_value = "text", env = "CA_OVERLAP_OUTPUT")]
    output: Output,

    #[command(flatten)]
    cluster: ScopeArgs,
}

const EXAMPLES: &str = "Examples:
  ca-overlap drain -A
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
        let cluster = self.cluster.connect().await?;
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
            () = progress_line::during(line, end_all(&cluster, &drained)) => {}
            () = lease.keep() => {}
            () = tokio::time::sleep(self.timeout) => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        lease.release().await.map_err(failed("cannot give back the keeper's Lease"))?;
        let drained = drained.into_inner();
        self.output
            .print(|| report::to_text(&drained, &cluster.scope), || report::to_json(&drained))?;
        report_unread("the Secrets", &drained.unread);
        Ok(exit_code(drained.unread.is_empty(), drained.waiting.is_empty()))
    }
}

/// Ends stages until none is left, or only those that cannot end.
async fn end_all(cluster: &ScopedClient, drained: &RefCell<Drained>) {
    loop {
        let mut found = BTreeMap::new();
        let keep = |secret: SecretView| {
            if secret.view().waits() {
                found.insert(Key::of(&secret), secret);
            }
        };
        let unread = read_all(&cluster.client, &cluster.scope, None, keep).await;
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
