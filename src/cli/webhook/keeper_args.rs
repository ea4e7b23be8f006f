//! The webhook's flags about the keeper.

use std::time::Duration;

use clap::Args;

use super::subdomain;
use crate::names;
use crate::overlap::settings::parse_time;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "The keeper")]
pub(super) struct WebhookKeeperArgs {
    /// The user that may write the annotation ca-overlap.dev/ask [default: the ServiceAccount
    /// ca-overlap-keeper in the webhook's namespace]
    #[arg(long, value_name = "USER", env = "CA_OVERLAP_KEEPER_USER")]
    pub(super) keeper_user: Option<String>,

    /// Allow the mode staged: a new leaf waits until readers have the new CA
    ///
    /// Needs the keeper, which puts the leaf into service. The webhook watches the keeper's Lease,
    /// and stages nothing while no keeper holds it.
    #[arg(long, env = "CA_OVERLAP_STAGED")]
    pub(super) staged: bool,

    /// The name of the keeper's Lease, in the webhook's namespace
    #[arg(
        long,
        value_name = "NAME",
        value_parser = subdomain,
        env = "CA_OVERLAP_KEEPER_LEASE",
        default_value = names::KEEPER_LEASE
    )]
    pub(super) keeper_lease: String,

    /// How long the keeper waits before it promotes a new leaf; set it as for the keeper
    ///
    /// A rotation is not staged if the old leaf expires within 24h, or within ten times this time.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_time,
        env = "CA_OVERLAP_SETTLE",
        default_value = "300s"
    )]
    pub(super) settle: Duration,
}
