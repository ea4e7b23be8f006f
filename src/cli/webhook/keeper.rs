//! What the webhook is told of the keeper.

use std::time::Duration;

use clap::Args;
use humantime::parse_duration;

use super::subdomain;
use crate::names;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "The keeper")]
pub(super) struct KeeperArgs {
    /// The user that may ask by the annotation ca-overlap.dev/ask [default: the ServiceAccount
    /// ca-overlap-keeper of our own namespace]
    #[arg(long, value_name = "USER", env = "CA_OVERLAP_KEEPER_USER")]
    pub(super) keeper_user: Option<String>,

    /// Allow mode=staged: the new leaf waits until the new CA has spread. Needs the keeper, which
    /// promotes it; its Lease is watched
    #[arg(long, env = "CA_OVERLAP_STAGED")]
    pub(super) staged: bool,

    /// The keeper's Lease, in our own namespace
    #[arg(
        long,
        value_name = "NAME",
        value_parser = subdomain,
        env = "CA_OVERLAP_KEEPER_LEASE",
        default_value = names::KEEPER_LEASE
    )]
    pub(super) keeper_lease: String,

    /// How long the keeper waits before it promotes, as it is told; a leaf that lives less than ten
    /// times as long is not held
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_duration,
        env = "CA_OVERLAP_SETTLE",
        default_value = "120s"
    )]
    pub(super) settle: Duration,
}
