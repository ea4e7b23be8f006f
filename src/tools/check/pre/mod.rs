//! `ca-overlap check --pre`: what stands in the way of an installation, and the plan: what would
//! happen to each Secret. Reads only.
//!
//! ```text
//! version, rights, cert-manager ──► lines ──────────────────────────────┐
//! Secrets (pages) ──► planner (the webhook's own code) ──► plan ─┐      ├─► report
//! pods (pages) ──► readers ──────────────────────────────────────┴──────┘
//! ```

mod cluster;
mod plan;
mod readers;
mod report;

use std::collections::BTreeMap;
use std::process::ExitCode;

use jiff::Timestamp;

use self::plan::{Planned, Planner};
use super::report::{Line, exit_code_of};
use super::{objects, rights};
use crate::kubernetes::explain::{Audience, explain};
use crate::kubernetes::key::Key;
use crate::kubernetes::list::Unread;
use crate::tools::cluster::ScopedClient;
use crate::tools::error::ToolError;
use crate::tools::output::Output;
use crate::tools::plain;

/// The plan for all Secrets in scope.
type Plan = BTreeMap<Key, Planned>;

/// Makes the checks and the plan, and prints both.
pub(super) async fn run(
    cluster: &ScopedClient,
    installed_in: &str,
    output: Output,
) -> Result<ExitCode, ToolError> {
    let client = &cluster.client;
    let failed =
        |error| ToolError::failed("cannot reach the API server", explain(&error, Audience::Caller));
    let version = plain::get(client, "/version").await.map_err(failed)?.unwrap_or_default();
    let mut lines = vec![
        objects::kubernetes(&version),
        rights::to_create(client, installed_in).await,
        rights::to_give(client, installed_in).await,
        cluster::webhooks(client).await,
    ];
    let mut planner = Planner::new(installed_in, Timestamp::now())?;
    let (issuers, line) = cluster::cert_manager(cluster).await;
    planner.issuers = issuers;
    lines.push(line);
    match cluster::namespaces_off(cluster).await {
        Ok(off) => planner.off = off?,
        Err(error) => lines.push(Line::unread("namespaces", &error)),
    }
    let mut plan = Plan::new();
    let keep = |secret| plan.extend(planner.plan(&secret).map(|it| (Key::of(&secret), it)));
    let unread = cluster.read_secrets(keep).await;
    lines.extend(unread_line("secrets", &unread));
    let note = |secret: &Key, reader, how| {
        if let Some(it) = plan.get_mut(secret) {
            it.readers.entry(reader).or_default().insert(how);
        }
    };
    let unread_pods = &readers::read(cluster, note).await;
    lines.extend(unread_line("pods", unread_pods));
    let report = report::Report { lines: &lines, plan: &plan, scope: &cluster.scope, unread_pods };
    output.print(|| report.to_text(), || report.to_json())?;
    Ok(exit_code_of(&lines))
}

/// What could not be read of these objects.
fn unread_line(objects: &'static str, unread: &[Unread]) -> Option<Line> {
    let Unread { namespace, error } = unread.first()?;
    let namespace = namespace.as_deref().unwrap_or("all namespaces");
    let more = match unread.len() {
        1 => String::new(),
        all => format!(" (and in {} more)", all - 1),
    };
    Some(Line::unknown(objects, format!("in {namespace}{more}: {error}")))
}
