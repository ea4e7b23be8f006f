//! `ca-overlap check`: is the installation sound?
//!
//! ```text
//! objects of the cluster (plain JSON) ──► lines: certainly good, bad, or unknown ──► report
//! ```

mod dry_run;
mod objects;
mod pre;
mod report;
mod rights;

use std::process::ExitCode;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use kube::Client;
use serde_json::json;

use self::report::{Line, exit_code_of};
use super::cluster::{self, InstallationArgs, KubeconfigArgs, ScopedClient};
use super::error::ToolError;
use super::installed::{Installed, Server};
use super::output::{self, Output};
use super::{complete, plain, registration};
use crate::kubernetes::explain::{Audience, explain};
use crate::kubernetes::list::Namespaces;
use crate::kubernetes::pages;

/// Check the installation: is the webhook called, does the keeper act, do their flags fit?
///
/// Reads the registration, the Deployments, the endpoints and the keeper's Lease, and asks the API
/// server for the rights of webhook and keeper. One dry-run write of a Secret, which stores
/// nothing, shows whether the webhook answers. A line each: ✓ is good, ✗ is not and says what to do,
/// – could not be checked with your rights.
///
/// With --pre, before anything is installed: may you install it, and what would happen to each
/// Secret? Shows who reads it, and which readers never see a new file. Nothing is written.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {
    /// Check before the installation, and show the plan
    #[arg(long)]
    pre: bool,

    /// The namespace of the dry-run write, one that is not opted out [default: default]; with --pre,
    /// the only one to look at [default: all]
    #[arg(
        short,
        long,
        value_name = "NAME",
        value_parser = cluster::namespace,
        add = ArgValueCompleter::new(complete::namespaces)
    )]
    namespace: Option<String>,

    /// With --pre, look at all namespaces, as it does by default; overrides --namespace
    #[arg(short = 'A', long, requires = "pre")]
    all_namespaces: bool,

    /// With --pre, look at the Secrets with these labels only, such as app=envoy,tier!=test
    #[arg(short = 'l', long, value_name = "LABELS", requires = "pre")]
    selector: Option<String>,

    /// Output format
    #[arg(short, long, value_parser = Output::one_of(Output::USUAL), default_value = "text")]
    output: Output,

    #[command(flatten)]
    access: KubeconfigArgs,

    #[command(flatten, next_help_heading = "Cluster")]
    installation: InstallationArgs,
}

const EXAMPLES: &str = "Examples:
  ca-overlap check
  ca-overlap check -n gateway -o json
  ca-overlap check --ca-overlap-namespace trust
  ca-overlap check --pre
  ca-overlap check --pre -n gateway -o json

Exit code: 0 if all is well; 1 if a check failed; 2 if none failed, but something could not be
checked; 64 if the command line is wrong.";

impl CheckArgs {
    /// Makes the checks and prints a line for each.
    pub(crate) async fn run(self) -> Result<ExitCode, ToolError> {
        let installed_in = &self.installation.ca_overlap_namespace;
        let namespace = self.namespace.as_deref();
        if self.pre {
            let scope = match self.namespace {
                Some(name) if !self.all_namespaces => Namespaces::One(name),
                _ => Namespaces::All,
            };
            let client = pages::paged(self.access.connect().await?);
            let Self { selector, .. } = self;
            let cluster = ScopedClient {
                client,
                scope,
                namespace: TARGET.to_owned(),
                selector,
                is_named: false,
            };
            return pre::run(&cluster, installed_in, self.output).await;
        }
        if namespace == Some(installed_in) {
            let problem = "is the namespace of ca-overlap, where the webhook is never called";
            return Err(ToolError::usage("--namespace", problem));
        }
        let client = self.access.connect().await?;
        let lines = lines(&client, installed_in, namespace.unwrap_or(TARGET)).await?;
        let checks = || json!({"checks": report::to_json(&lines)});
        let document = || output::document("CheckReport", checks());
        self.output.print(|| report::to_text(&lines), document)?;
        Ok(exit_code_of(&lines))
    }
}

/// The namespace of the dry-run write.
const TARGET: &str = "default";

/// All checks, in the order in which one leads to the next.
async fn lines(client: &Client, namespace: &str, target: &str) -> Result<Vec<Line>, ToolError> {
    let failed =
        |error| ToolError::failed("cannot reach the API server", explain(&error, Audience::Caller));
    let version = plain::get(client, "/version").await.map_err(failed)?.unwrap_or_default();
    let mut lines = vec![objects::kubernetes(&version)];
    let installed = Installed::read(client, namespace).await;
    let found = installed.as_ref().map(Clone::clone).unwrap_or_default();
    let Installed { webhook, keeper } = &found;
    let webhook = webhook.as_ref();
    let is_staged = webhook.is_some_and(|it| it.is_on("--staged"));
    match registration::registrations(client).await {
        Err(error) => lines.push(Line::unread("registration", &error)),
        Ok(all) => match all.first() {
            None => lines.push(Line::bad(
                "registration",
                registration::NONE,
                "apply the manifests again",
            )),
            Some(it) => {
                lines.push(objects::registration(it, webhook));
                lines.push(objects::ca_bundle(client, namespace, it, webhook).await);
                lines.push(objects::endpoints(client, it).await);
            }
        },
    }
    lines.push(dry_run::write(client, target).await);
    if let Err(error) = &installed {
        lines.push(Line::unread("deployments", error));
        return Ok(lines);
    }
    lines.push(match webhook {
        Some(server) => objects::deployment("webhook", server, namespace),
        None => Line::bad(
            "webhook",
            format!("there is no Deployment of it in namespace {namespace}"),
            "if it is installed elsewhere, name the namespace: --ca-overlap-namespace",
        ),
    });
    lines.push(match keeper {
        Some(server) => objects::deployment("keeper", server, namespace),
        None if is_staged => Line::bad(
            "keeper",
            "not installed, and the webhook runs with --staged: nothing is staged",
            "install components/keeper, or remove --staged from the webhook",
        ),
        None => Line::good("keeper", "not installed: previous CAs stay until the next write"),
    });
    if let Some(keeper) = keeper {
        lines.push(objects::lease(client, namespace, keeper).await);
    }
    if let (Some(webhook), Some(keeper)) = (webhook, keeper) {
        lines.push(objects::versions(webhook, keeper));
    }
    lines.extend(webhook.map(|webhook| objects::flags(webhook, keeper.as_ref())));
    let servers: [(_, Option<&Server>); 2] =
        [("webhookRights", webhook), ("keeperRights", keeper.as_ref())];
    for (name, server) in servers {
        if let Some(server) = server {
            lines.push(rights::line(client, name, server, is_staged, namespace).await);
        }
    }
    Ok(lines)
}
