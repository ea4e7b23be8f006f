//! `ca-overlap keeper`: its flags and their validation.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::defaults::DefaultsArgs;
use super::webhook::{label, positive, subdomain};
use super::{CommandError, UsageError};
use crate::keeper::election::ElectionConfig;
use crate::keeper::pace::DEFAULT_RATE;
use crate::names;
use crate::overlap::outlook::Rules;
use crate::overlap::settings::parse_time;
use crate::run::keeper::{self as run, KeeperConfig};
use crate::run::own_namespace;

/// The examples and signals in `--help`.
const MORE: &str = "\
Examples:
  ca-overlap keeper
  ca-overlap keeper --settle 10m --window 7d
  ca-overlap keeper --namespace trust --identity keeper-0 --log-format json

Signals:
  SIGTERM  Release the Lease, then exit; a second SIGTERM exits at once.";

/// Run the keeper, which retires previous CAs, promotes new leaves and repairs missed writes
///
/// The keeper watches the Secrets with a label of ca-overlap. When a CA is due to be retired or a
/// leaf to be promoted, or when the webhook missed a write, it asks the webhook by an annotation to
/// act. It also restarts workloads that a Secret names. It writes data only to end a stage
/// where the webhook is not called (--group-wait). Several replicas elect
/// a leader by a Lease. The keeper needs the webhook.
///
/// Times are a number and a unit, such as 500ms, 30s, 5m, 24h or 7d.
#[derive(Clone, Debug, Args)]
#[command(after_help = MORE)]
pub(super) struct KeeperArgs {
    /// How long a new CA takes to reach every reader of a Secret
    ///
    /// A staged leaf waits this long after the last change of ca.crt in its group.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_time,
        env = "CA_OVERLAP_SETTLE",
        default_value = "300s"
    )]
    settle: Duration,

    /// The longest wait for the other Secrets of a group, and for the webhook [default: three times
    /// --settle]
    ///
    /// A staged leaf that is ready itself then goes into service without them. Where the webhook is
    /// not called, because its registration is gone or the Namespace is opted out, the keeper moves
    /// the waiting pair into service, and becomes the manager of the fields tls.crt and tls.key.
    #[arg(long, value_name = "TIME", value_parser = parse_time, env = "CA_OVERLAP_GROUP_WAIT")]
    group_wait: Option<Duration>,

    /// Announce the CAs of cert-manager's CA issuers ahead of their leaves
    ///
    /// As soon as the Secret of such an issuer holds another CA, all Secrets that cert-manager
    /// issues by it trust this CA, too. It needs the right to watch issuers
    /// (components/cert-manager-issuers), and does nothing where cert-manager is not installed.
    #[arg(long, env = "CA_OVERLAP_FOLLOW_ISSUERS")]
    follow_issuers: bool,

    /// The namespace of the Secrets of cluster issuers: cert-manager's flag of the same name
    #[arg(
        long,
        value_name = "NAME",
        value_parser = label,
        env = "CA_OVERLAP_CLUSTER_RESOURCE_NAMESPACE",
        default_value = "cert-manager"
    )]
    cluster_resource_namespace: String,

    /// Renew the leaves of cert-manager's CA issuers after their CA
    ///
    /// When all Secrets of an issuer have trusted its new CA for --settle, cert-manager issues the
    /// leaves of the previous CA again, a few at a time. It needs --follow-issuers, and the right to
    /// mark Certificates (components/cert-manager-renewals).
    #[arg(long, env = "CA_OVERLAP_RENEW_LEAVES")]
    renew_leaves: bool,

    /// The most writes a second for announcements
    #[arg(
        long,
        value_name = "NUMBER",
        env = "CA_OVERLAP_ANNOUNCE_RATE",
        default_value_t = DEFAULT_RATE
    )]
    announce_rate: NonZeroU32,

    /// The address of /livez, /readyz and /metrics (plain HTTP)
    #[arg(
        long,
        value_name = "ADDR",
        env = "CA_OVERLAP_ADMIN_LISTEN",
        default_value = "0.0.0.0:8082"
    )]
    admin_listen: SocketAddr,

    #[command(flatten)]
    election: ElectionArgs,
    #[command(
        flatten,
        next_help_heading = "Defaults for Secrets without a setting (set as for the webhook)"
    )]
    defaults: DefaultsArgs,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Leader election")]
struct ElectionArgs {
    /// The namespace of the Lease [default: the pod's, else the kubeconfig's, else ca-overlap]
    #[arg(long, value_name = "NAME", value_parser = label, env = "CA_OVERLAP_NAMESPACE")]
    namespace: Option<String>,

    /// The name of the Lease
    #[arg(
        long,
        value_name = "NAME",
        value_parser = subdomain,
        env = "CA_OVERLAP_LEASE",
        default_value = names::KEEPER_LEASE
    )]
    lease: String,

    /// How long the Lease is valid without a renewal, in whole seconds from 3s to 1h
    ///
    /// After a crash of the leader, no replica acts for this long.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_time,
        env = "CA_OVERLAP_LEASE_DURATION",
        default_value = "15s"
    )]
    lease_duration: Duration,

    /// The name of this replica, unique among the replicas [default: the host name]
    #[arg(long, value_name = "NAME", value_parser = subdomain, env = "CA_OVERLAP_IDENTITY")]
    identity: Option<String>,
}

impl KeeperArgs {
    /// Runs the keeper until a signal ends it.
    pub(super) fn run(self) -> Result<ExitCode, CommandError> {
        run::run(self.validate()?)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Checks what clap cannot check.
    pub(super) fn validate(self) -> Result<KeeperConfig, UsageError> {
        let Self {
            settle,
            group_wait,
            follow_issuers,
            cluster_resource_namespace,
            renew_leaves,
            announce_rate,
            admin_listen,
            election,
            defaults,
        } = self;
        let group_wait = group_wait.unwrap_or_else(|| settle.saturating_mul(3));
        let ElectionArgs { namespace, lease, lease_duration, identity } = election;
        positive("--settle", settle)?;
        positive("--group-wait", group_wait)?;
        if renew_leaves && !follow_issuers {
            return Err(UsageError::new("--renew-leaves", "needs --follow-issuers"));
        }
        let is_whole = lease_duration.subsec_nanos() == 0;
        if !is_whole || !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&lease_duration) {
            let problem = "must be whole seconds from 3s to 1h";
            return Err(UsageError::new("--lease-duration", problem));
        }
        let (defaults, distrusted, audit) = defaults.defaults();
        let identity = identity.map_or_else(|| own_name(host_name().as_deref()), Ok)?;
        let election = ElectionConfig {
            namespace: namespace.unwrap_or_else(own_namespace),
            lease,
            identity: if audit { format!("{}-{identity}", names::AUDIT_HOLDER) } else { identity },
            duration: lease_duration,
        };
        let rules = Rules { defaults, settle };
        Ok(KeeperConfig {
            admin_listen,
            election,
            group_wait,
            announce_rate,
            cluster_resource_namespace: follow_issuers.then_some(cluster_resource_namespace),
            renew_leaves,
            rules,
            distrusted,
            audit,
        })
    }
}

const SHORTEST_LEASE: Duration = Duration::from_secs(3);
const LONGEST_LEASE: Duration = Duration::from_secs(3600);

/// The host name; in a pod it is the name of the pod.
fn host_name() -> Option<String> {
    let of_file = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    std::env::var("HOSTNAME").ok().or_else(of_file)
}

/// The identity from the host name. There is no fixed fallback, because two replicas of one name
/// would both act as the holder of the Lease.
fn own_name(host: Option<&str>) -> Result<String, UsageError> {
    let name = host.unwrap_or_default().trim().to_lowercase();
    subdomain(&name).map_err(|_| {
        let problem = "is required, because the host name is missing or not a valid name";
        UsageError::new("--identity", problem)
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;
    use crate::overlap::settings::Defaults;

    fn config(flags: &[&str]) -> Result<KeeperConfig, String> {
        let line = [&["ca-overlap", "keeper"], flags].concat();
        let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        let Command::Keeper(args) = cli.command else { unreachable!() };
        args.validate().map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let config = config(&["--namespace", "n", "--identity", "keeper-0"]).unwrap();
        assert_eq!(config.admin_listen.to_string(), "0.0.0.0:8082");
        assert_eq!(config.rules.settle, Duration::from_secs(300));
        assert_eq!(config.group_wait, config.rules.settle * 3);
        assert_eq!(config.announce_rate.get(), 200);
        assert_eq!(config.cluster_resource_namespace, None);
        assert!(!config.renew_leaves);
        assert_eq!(config.rules.defaults, Defaults::default());
        assert_eq!(config.election.lease, names::KEEPER_LEASE);
        assert_eq!(config.election.duration, Duration::from_secs(15));
        assert_eq!((&*config.election.namespace, &*config.election.identity), ("n", "keeper-0"));
    }

    #[test]
    fn leaves_are_renewed_only_where_issuers_are_followed() {
        let error = config(&["--renew-leaves"]).unwrap_err();
        assert!(error.contains("--renew-leaves") && error.contains("--follow-issuers"), "{error}");
        assert!(config(&["--renew-leaves", "--follow-issuers"]).unwrap().renew_leaves);
    }

    #[test]
    fn an_error_names_its_flag() {
        for (flags, flag) in [
            (["--lease-duration", "2s"], "--lease-duration"),
            (["--lease-duration", "3500ms"], "--lease-duration"),
            (["--settle", "0s"], "--settle"),
            (["--group-wait", "0s"], "--group-wait"),
            (["--identity", "A pod"], "--identity"),
            (["--namespace", "a.b"], "--namespace"),
        ] {
            let error = config(&flags).unwrap_err();
            assert!(error.contains(flag), "{error}");
        }
    }

    #[test]
    fn a_host_name_that_is_not_a_valid_name_is_not_used_as_identity() {
        assert_eq!(own_name(Some("Keeper-0\n")).unwrap(), "keeper-0");
        for host in [None, Some(""), Some("a_b"), Some("-")] {
            let error = own_name(host).unwrap_err().to_string();
            assert!(error.contains("--identity"), "{error}");
        }
    }
}
