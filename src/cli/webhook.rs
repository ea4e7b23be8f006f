//! `ca-overlap webhook`: its flags and their validation.

mod keeper_args;
mod limit_args;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use self::keeper_args::WebhookKeeperArgs;
use self::limit_args::LimitArgs;
use super::defaults::DefaultsArgs;
use super::{CommandError, UsageError};
use crate::admission::respond::Installation;
use crate::names;
use crate::overlap::settings::parse_time;
use crate::run::own_namespace;
use crate::run::webhook::{self, CertificateSource, WebhookConfig};
use crate::serving_cert::files::CertificateFiles;
use crate::serving_cert::manager::ManagerConfig;
use crate::serving_cert::objects::ObjectNames;
use crate::serving_cert::rotation::RotationTiming;

/// The examples and signals in `--help`.
const MORE: &str = "\
Examples:
  ca-overlap webhook --self-managed
  ca-overlap webhook --tls-cert /certs/tls.crt --tls-key /certs/tls.key
  ca-overlap webhook --self-managed --staged --window 7d --keep 2

Signals:
  SIGHUP   With --self-managed: rotate the webhook's own CA now. The new CA is added to the Secret
           and the caBundle, and issues after --trust-settle. The old CA is removed once everything
           it issued has expired. Send it to one replica or to all: during a rotation it does not
           start a second one. With --tls-* and for --client-ca: re-read the files now.
  SIGTERM  Drain, then exit; a second SIGTERM exits at once.";

/// Run the admission webhook
///
/// The webhook answers the API server's admission reviews of Secrets. When a Secret's ca.crt is
/// replaced, it appends the previous CA, so that clients trust both. It issues and renews its own
/// serving certificate (--self-managed), or takes it from files (--tls-cert, --tls-key).
///
/// Times are a number and a unit, such as 500ms, 30s, 5m, 24h or 7d.
#[derive(Clone, Debug, Args)]
#[command(after_help = MORE)]
pub(super) struct WebhookArgs {
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    certificate: CertificateArgs,
    #[command(flatten)]
    cluster: ObjectNameArgs,
    #[command(flatten)]
    authority: AuthorityArgs,
    #[command(flatten, next_help_heading = "Defaults for Secrets without a setting")]
    defaults: DefaultsArgs,
    #[command(flatten)]
    keeper: WebhookKeeperArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    drain: DrainArgs,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Addresses")]
struct ListenArgs {
    /// The address that the API server calls (HTTPS)
    #[arg(long, value_name = "ADDR", env = "CA_OVERLAP_LISTEN", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,

    /// The address of /livez, /readyz and /metrics (plain HTTP)
    #[arg(
        long,
        value_name = "ADDR",
        env = "CA_OVERLAP_ADMIN_LISTEN",
        default_value = "0.0.0.0:8081"
    )]
    admin_listen: SocketAddr,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Serving certificate (either --self-managed or --tls-*)")]
struct CertificateArgs {
    /// Issue the serving certificate: the CA is kept in a Secret and put into the caBundle
    #[arg(long, env = "CA_OVERLAP_SELF_MANAGED")]
    self_managed: bool,

    /// The certificate chain, PEM, leaf first; re-read when the file changes
    #[arg(long, value_name = "FILE", env = "CA_OVERLAP_TLS_CERT")]
    tls_cert: Option<PathBuf>,

    /// The private key, PEM: PKCS#8, SEC1 or PKCS#1; re-read when the file changes
    #[arg(long, value_name = "FILE", env = "CA_OVERLAP_TLS_KEY")]
    tls_key: Option<PathBuf>,

    /// Require client certificates from one of these CAs, PEM; re-read when the file changes
    ///
    /// Only for API servers that are configured to show a client certificate to webhooks.
    #[arg(long, value_name = "FILE", env = "CA_OVERLAP_CLIENT_CA")]
    client_ca: Option<PathBuf>,

    /// How often to check these files for changes
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_time,
        env = "CA_OVERLAP_TLS_RELOAD_INTERVAL",
        default_value = "5s"
    )]
    tls_reload_interval: Duration,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Object names")]
struct ObjectNameArgs {
    /// The webhook's namespace, whose Secrets are never changed [default: the pod's, else the
    /// kubeconfig's, else ca-overlap]
    #[arg(long, value_name = "NAME", value_parser = label, env = "CA_OVERLAP_NAMESPACE")]
    namespace: Option<String>,

    /// The webhook's Service
    #[arg(
        long,
        value_name = "NAME",
        value_parser = label,
        env = "CA_OVERLAP_SERVICE",
        default_value = names::SERVICE
    )]
    service: String,

    /// The Secret that holds the webhook's own CA
    #[arg(
        long,
        value_name = "NAME",
        value_parser = subdomain,
        env = "CA_OVERLAP_CA_SECRET",
        default_value = names::CA_SECRET
    )]
    ca_secret: String,

    /// The MutatingWebhookConfiguration whose caBundle the webhook sets
    #[arg(
        long,
        value_name = "NAME",
        value_parser = subdomain,
        env = "CA_OVERLAP_WEBHOOK_CONFIG",
        default_value = names::WEBHOOK_CONFIGURATION
    )]
    webhook_config: String,
}

#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "With --self-managed")]
struct AuthorityArgs {
    /// The lifetime of a CA; the next CA is added after two thirds of it
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_time,
        env = "CA_OVERLAP_CA_LIFETIME",
        default_value = "365d"
    )]
    ca_lifetime: Duration,

    /// The lifetime of a serving certificate, which is renewed after two thirds of it
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_time,
        env = "CA_OVERLAP_LEAF_LIFETIME",
        default_value = "7d"
    )]
    leaf_lifetime: Duration,

    /// How long a new CA is in the caBundle before it issues the serving certificate
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_time,
        env = "CA_OVERLAP_TRUST_SETTLE",
        default_value = "60s"
    )]
    trust_settle: Duration,

    /// How often the Secret and the caBundle are checked
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_time,
        env = "CA_OVERLAP_RECONCILE_INTERVAL",
        default_value = "60s"
    )]
    reconcile_interval: Duration,
}

#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Shutdown (SIGTERM)")]
struct DrainArgs {
    /// How long to keep accepting connections, because other nodes learn of the shutdown late
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_time,
        env = "CA_OVERLAP_DRAIN_DELAY",
        default_value = "15s"
    )]
    drain_delay: Duration,

    /// The time limit for all connections to end, from SIGTERM
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_time,
        env = "CA_OVERLAP_DRAIN_TIMEOUT",
        default_value = "110s"
    )]
    drain_timeout: Duration,
}

impl WebhookArgs {
    /// Runs the webhook until a signal ends it.
    pub(super) fn run(self) -> Result<ExitCode, CommandError> {
        webhook::run(self.validate()?)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Checks what clap cannot check.
    pub(super) fn validate(self) -> Result<WebhookConfig, UsageError> {
        let Self { listen, certificate, cluster, authority, defaults, keeper, limits, drain } =
            self;
        let ListenArgs { listen, admin_listen } = listen;
        if listen == admin_listen && listen.port() != 0 {
            return Err(UsageError::new("--admin-listen", "must differ from --listen"));
        }
        let DrainArgs { drain_delay, drain_timeout } = drain;
        if drain_timeout < drain_delay || drain_timeout > DAY {
            let problem = "must be at least --drain-delay, and at most a day";
            return Err(UsageError::new("--drain-timeout", problem));
        }
        let ObjectNameArgs { namespace, service, ca_secret, webhook_config } = cluster;
        let namespace = namespace.unwrap_or_else(own_namespace);
        let CertificateArgs { self_managed, tls_cert, tls_key, client_ca, tls_reload_interval } =
            certificate;
        let interval = positive("--tls-reload-interval", tls_reload_interval)?;
        let refuse = |flag, problem| Err(UsageError::new(flag, problem));
        let source = match (self_managed, tls_cert, tls_key) {
            (true, None, None) => {
                let (ca_lifetime, timing) = authority.validate()?;
                let dns_names = vec![
                    format!("{service}.{namespace}.svc"),
                    format!("{service}.{namespace}.svc.cluster.local"),
                ];
                let objects =
                    ObjectNames { namespace: namespace.clone(), secret: ca_secret, webhook_config };
                let settings = ManagerConfig {
                    dns_names,
                    ca_lifetime,
                    timing,
                    client_ca,
                    reload_interval: interval,
                };
                CertificateSource::SelfManaged(objects, settings)
            }
            (false, Some(cert), Some(key)) => {
                CertificateSource::Files(CertificateFiles { cert, key, client_ca, interval })
            }
            (true, ..) => {
                let problem = "cannot be combined with --tls-cert and --tls-key";
                return refuse("--self-managed", problem);
            }
            (false, Some(_), None) => return refuse("--tls-key", "is required with --tls-cert"),
            (false, None, Some(_)) => return refuse("--tls-cert", "is required with --tls-key"),
            (false, None, None) => {
                let problem = "no serving certificate: set this, or --tls-cert and --tls-key";
                return refuse("--self-managed", problem);
            }
        };
        let WebhookKeeperArgs { keeper_user, staged, keeper_lease, settle } = keeper;
        positive("--settle", settle)?;
        let (defaults, distrusted, audit) = defaults.defaults();
        let usual = Installation::new(defaults, namespace);
        let keeper_user = keeper_user.filter(|user| !user.is_empty());
        let keeper_user = keeper_user.unwrap_or_else(|| usual.keeper_user.clone());
        let limits = limits.validate()?;
        Ok(WebhookConfig {
            listen,
            admin_listen,
            source,
            installation: Installation { keeper_user, settle, audit, ..usual },
            distrusted,
            keeper_lease: staged.then_some(keeper_lease),
            limits,
            drain_delay,
            drain_timeout,
        })
    }
}

impl AuthorityArgs {
    /// The lifetime of a CA, and the other times of its rotation.
    fn validate(self) -> Result<(Duration, RotationTiming), UsageError> {
        let Self { ca_lifetime, leaf_lifetime, trust_settle, reconcile_interval } = self;
        positive("--reconcile-interval", reconcile_interval)?;
        if leaf_lifetime / 3 < reconcile_interval || leaf_lifetime < Duration::from_secs(3) {
            return Err(UsageError::new(
                "--leaf-lifetime",
                "must be at least 3s and three times --reconcile-interval, or a certificate may \
                 expire before it is renewed",
            ));
        }
        if ca_lifetime / 3 < leaf_lifetime.max(trust_settle + reconcile_interval * 2) {
            return Err(UsageError::new(
                "--ca-lifetime",
                "must be at least three times --leaf-lifetime, and three times the sum of \
                 --trust-settle and twice --reconcile-interval, or a CA may expire before the \
                 next one issues",
            ));
        }
        Ok((ca_lifetime, RotationTiming { leaf_lifetime, trust_settle, reconcile_interval }))
    }
}

const DAY: Duration = Duration::from_secs(86_400);

/// Accepts a time from a millisecond, the resolution of timers, to a day.
pub(super) fn positive(flag: &'static str, time: Duration) -> Result<Duration, UsageError> {
    if (Duration::from_millis(1)..=DAY).contains(&time) {
        return Ok(time);
    }
    Err(UsageError::new(flag, "must be from 1ms to a day"))
}

/// Accepts a DNS label (RFC 1123), such as the name of a namespace or Service.
pub(super) fn label(name: &str) -> Result<String, &'static str> {
    let fits = name.len() <= 63 && !name.contains('.');
    subdomain(name).ok().filter(|_| fits).ok_or("expected a DNS label such as ca-overlap")
}

/// Accepts a DNS subdomain (RFC 1123), such as the name of most objects.
pub(super) fn subdomain(name: &str) -> Result<String, &'static str> {
    let good = |part: &str| {
        let edges = !part.starts_with('-') && !part.ends_with('-') && !part.is_empty();
        edges && part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    if name.len() <= 253 && name.split('.').all(good) {
        return Ok(name.to_owned());
    }
    Err("expected a name of lower-case letters, digits, dots and dashes")
}

#[cfg(test)]
mod tests;
