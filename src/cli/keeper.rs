//! `ca-overlap keeper`: its flags, and the configuration that they make.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use humantime::parse_duration;

use super::policy::PolicyArgs;
use super::webhook::{label, positive, subdomain};
use super::{Failure, UsageError};
use crate::keeper::lease;
use crate::names;
use crate::overlap::outlook::Rules;
use crate::run::keeper::{self as run, Config};
use crate::run::own_namespace;

/// Examples, and what signals do, for `--help`.
const MORE: &str = "\
Examples:
  ca-overlap keeper
  ca-overlap keeper --settle 5m --window 7d
  ca-overlap keeper --namespace trust --identity keeper-0 --log-format json

Signals:
  SIGTERM  Give the Lease back, then end; a second one ends at once.";

/// Run the keeper: retire what is over, promote what has settled, repair what was missed
///
/// Watches the Secrets in an overlap, and asks the webhook by an annotation to act; it never writes
/// data itself. Several replicas elect one that acts, by a Lease. Needs the webhook.
#[derive(Clone, Debug, Args)]
#[command(after_help = MORE)]
pub(super) struct KeeperArgs {
    /// How long files take to reach every reader of a Secret: a staged leaf waits for that long
    /// after the last Secret of its group was written
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_duration,
        env = "CA_OVERLAP_SETTLE",
        default_value = "120s"
    )]
    settle: Duration,

    /// Where /livez, /readyz and /metrics are, by plain HTTP
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
        next_help_heading = "For Secrets that do not say it themselves (as the webhook has them)"
    )]
    policy: PolicyArgs,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Which replica acts")]
struct ElectionArgs {
    /// The namespace of the Lease [default: the pod's own, else the kubeconfig's, else ca-overlap]
    #[arg(long, value_name = "NAME", value_parser = label, env = "CA_OVERLAP_NAMESPACE")]
    namespace: Option<String>,

    /// The Lease
    #[arg(
        long,
        value_name = "NAME",
        value_parser = subdomain,
        env = "CA_OVERLAP_LEASE",
        default_value = names::KEEPER_LEASE
    )]
    lease: String,

    /// How long the Lease holds without a renewal: how long nobody acts after a crash
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_duration,
        env = "CA_OVERLAP_LEASE_DURATION",
        default_value = "15s"
    )]
    lease_duration: Duration,

    /// Who we are, unlike any other replica [default: the host's name, which is the pod's]
    #[arg(long, value_name = "NAME", value_parser = subdomain, env = "CA_OVERLAP_IDENTITY")]
    identity: Option<String>,
}

impl KeeperArgs {
    /// Runs the keeper until it is told to end.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        run::run(self.validate()?)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Checks what clap cannot.
    pub(super) fn validate(self) -> Result<Config, UsageError> {
        let Self { settle, admin_listen, election, policy } = self;
        let ElectionArgs { namespace, lease, lease_duration, identity } = election;
        positive("--settle", settle)?;
        let is_whole = lease_duration.subsec_nanos() == 0;
        if !is_whole || !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&lease_duration) {
            let problem = "must be whole seconds, from 3s to 1h";
            return Err(UsageError::new("--lease-duration", problem));
        }
        let election = lease::Settings {
            namespace: namespace.unwrap_or_else(own_namespace),
            lease,
            identity: identity.map_or_else(|| own_name(host_name().as_deref()), Ok)?,
            duration: lease_duration,
        };
        let rules = Rules { defaults: policy.defaults(), settle };
        Ok(Config { admin_listen, election, rules })
    }
}

const SHORTEST_LEASE: Duration = Duration::from_secs(3);
const LONGEST_LEASE: Duration = Duration::from_secs(3600);

/// The host's name: in a pod, that of the pod.
fn host_name() -> Option<String> {
    let of_file = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    std::env::var("HOSTNAME").ok().or_else(of_file)
}

/// Never a fixed name: two replicas that both believe to be the holder would both act.
fn own_name(host: Option<&str>) -> Result<String, UsageError> {
    let name = host.unwrap_or_default().trim().to_lowercase();
    subdomain(&name).map_err(|_| {
        let problem = "is needed, because the host's name cannot tell the replicas apart";
        UsageError::new("--identity", problem)
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;
    use crate::overlap::settings::Defaults;

    fn config(flags: &[&str]) -> Result<Config, String> {
        let line = [&["ca-overlap", "keeper"], flags].concat();
        let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        let Command::Keeper(args) = cli.command else { unreachable!() };
        args.validate().map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let config = config(&["--namespace", "n", "--identity", "keeper-0"]).unwrap();
        assert_eq!(config.admin_listen.to_string(), "0.0.0.0:8082");
        assert_eq!(config.rules.settle, Duration::from_secs(120));
        assert_eq!(config.rules.defaults, Defaults::default());
        assert_eq!(config.election.lease, names::KEEPER_LEASE);
        assert_eq!(config.election.duration, Duration::from_secs(15));
        assert_eq!((&*config.election.namespace, &*config.election.identity), ("n", "keeper-0"));
    }

    #[test]
    fn what_cannot_work_is_named() {
        for (flags, flag) in [
            (["--lease-duration", "2s"], "--lease-duration"),
            (["--lease-duration", "3500ms"], "--lease-duration"),
            (["--settle", "0s"], "--settle"),
            (["--identity", "A pod"], "--identity"),
            (["--namespace", "a.b"], "--namespace"),
        ] {
            let error = config(&flags).unwrap_err();
            assert!(error.contains(flag), "{error}");
        }
    }

    #[test]
    fn a_host_without_a_usable_name_is_no_identity() {
        assert_eq!(own_name(Some("Keeper-0\n")).unwrap(), "keeper-0");
        for host in [None, Some(""), Some("a_b"), Some("-")] {
            let error = own_name(host).unwrap_err().to_string();
            assert!(error.contains("--identity"), "{error}");
        }
    }
}
