//! `ca-overlap probe`: does a server still resume TLS sessions from before its certificate was
//! rotated? Clients that do are never shown the new one.
//!
//! ```text
//! connect (one handshake) ──► observe (which handshakes, and when) ──► verdict (pure) ──► show
//!    session · trust
//! ```

mod connect;
mod observe;
mod session;
mod show;
mod trust;
mod verdict;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use humantime::parse_duration;
use rustls::pki_types::ServerName;

use self::connect::{Client, Refused, Settings};
pub(crate) use self::connect::{Target, Version};
use self::observe::{Doing, Observer, Pace};
use self::trust::{Identity, Trust};
use super::error::Error;
use super::output::Output;
use super::progress;

/// Finds servers that resume TLS sessions across a rotation of their certificate
///
/// A server that gets a new certificate and keeps its ticket keys, or its session cache, lets
/// clients resume old sessions. These clients never see the new certificate, some for days.
///
/// The probe connects, holds what the server gives it to resume with, and tries it again while it
/// looks at the certificate that new connections get. With --watch it goes on until that certificate
/// is another one, and then tries what it held from before. Nothing but handshakes is sent.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ProbeArgs {
    /// The server, such as gateway.example:443
    #[arg(value_name = "HOST:PORT")]
    pub(crate) target: Target,

    /// Go on until the certificate was rotated
    #[arg(short, long, env = "CA_OVERLAP_WATCH")]
    pub(crate) watch: bool,

    /// What to print
    #[arg(short, long, value_parser = Output::one_of(Output::USUAL), default_value = "text", env = "CA_OVERLAP_OUTPUT")]
    pub(crate) output: Output,

    /// The version of TLS to probe; both, each by itself, if it is not given
    #[arg(long, value_name = "VERSION", value_enum, env = "CA_OVERLAP_TLS")]
    pub(crate) tls: Option<Version>,

    /// The name to ask for (SNI) and to expect in the certificate, if it is not HOST
    #[arg(long, value_name = "NAME", env = "CA_OVERLAP_SERVER_NAME", value_parser = server_name)]
    pub(crate) server_name: Option<ServerName<'static>>,

    /// A file with the CAs to trust (PEM) instead of those that this machine trusts
    #[arg(long, value_name = "FILE", env = "CA_OVERLAP_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,

    /// Take any certificate, such as a self-signed one
    #[arg(long, env = "CA_OVERLAP_INSECURE", conflicts_with = "ca_file")]
    pub(crate) insecure: bool,

    /// A client certificate with its chain (PEM), for servers that ask for one
    #[arg(long, value_name = "FILE", env = "CA_OVERLAP_CERT", requires = "key")]
    pub(crate) cert: Option<PathBuf>,

    /// The private key of the client certificate (PEM)
    #[arg(long, value_name = "FILE", env = "CA_OVERLAP_KEY", requires = "cert")]
    pub(crate) key: Option<PathBuf>,

    /// Application protocols to offer (ALPN), for servers that insist, such as h2,http/1.1
    #[arg(long, value_name = "LIST", env = "CA_OVERLAP_ALPN", value_delimiter = ',', value_parser = protocol)]
    pub(crate) alpn: Vec<String>,

    #[command(flatten)]
    pub(crate) times: Times,
}

/// How long, and how often.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Times {
    /// With --watch, how often to look, 10ms to 60s; tickets that live shorter are not noticed
    #[arg(long, value_name = "DURATION", env = "CA_OVERLAP_INTERVAL", default_value = "2s", value_parser = interval)]
    pub(crate) interval: Duration,

    /// With --watch, when to give up, such as 30m; never, if it is not given
    #[arg(long, value_name = "DURATION", env = "CA_OVERLAP_TIMEOUT", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,

    /// For how long every new connection must get the new certificate before the rotation counts as
    /// done; more where several replicas are rotated one after another
    #[arg(long, value_name = "DURATION", env = "CA_OVERLAP_PROBE_SETTLE", default_value = "5s", value_parser = parse_duration)]
    pub(crate) settle: Duration,

    /// How long a connection and its handshake may take
    #[arg(long, value_name = "DURATION", env = "CA_OVERLAP_HANDSHAKE_TIMEOUT", default_value = "5s", value_parser = limit)]
    pub(crate) handshake_timeout: Duration,
}

const EXAMPLES: &str = "Examples:
  ca-overlap probe gateway.example:443
  ca-overlap probe gateway.example:443 --watch --timeout 30m
  ca-overlap probe localhost:8443 --server-name api.shop.svc --ca-file ca.crt --watch
  ca-overlap probe 10.0.0.7:9443 --insecure --cert tls.crt --key tls.key --tls 1.3 -o json

Verdicts: `rotates tickets`, `RESUMES ACROSS ROTATION`, `no resumption`, `certificate unchanged so
far`. Exit code: 1 if a session resumed across a rotation, if a certificate is not trusted, or if
something failed; 64 if the command line is wrong; else 0.";

impl ProbeArgs {
    /// Connects, watches, reports.
    pub(crate) async fn run(self) -> Result<ExitCode, Error> {
        let trust = self.trust()?;
        let settings = self.settings()?;
        let refused = |error| Error::failed("the TLS configuration was refused", error);
        let clients = self.clients(&settings).map_err(refused)?;
        let doing = Doing::default();
        let begin = join_all(clients.iter().map(|client| Observer::begin(client, &trust, &doing)));
        let told = || format!("probing {}, {} handshakes", self.target, doing.handshakes.get());
        let mut results = progress::during(told, begin).await;
        let going: Vec<_> =
            results.iter_mut().flatten().filter(|observer| !observer.is_final()).collect();
        if self.watch && !going.is_empty() {
            eprintln!("ca-overlap: watching {}: rotate its certificate now, or wait", self.target);
            let pace = Pace { interval: self.times.interval, settle: self.times.settle };
            let watching = join_all(going.into_iter().map(|observer| observer.watch(pace)));
            let told = || self.told(&doing);
            progress::during(told, self.until_enough(watching)).await;
        }
        let versions = clients.iter().map(|client| client.version).zip(results);
        let report = show::Report::new(&self.target, &settings, self.watch, versions.collect());
        if self.output == Output::Text {
            report.failures().iter().for_each(|failure| eprintln!("ca-overlap: {failure}"));
        }
        self.output.print(|| show::to_text(&report), || show::to_json(&report))?;
        Ok(if report.is_fine() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Ends when the work does, when time is up, or at Ctrl-C: what was found by then is shown.
    async fn until_enough(&self, work: impl Future) {
        let limited = async {
            match self.times.timeout {
                Some(limit) => drop(tokio::time::timeout(limit, work).await),
                None => drop(work.await),
            }
        };
        tokio::select! {
            () = limited => {}
            // Where the signal cannot be caught, it ends the process by itself.
            Ok(()) = tokio::signal::ctrl_c() => {}
        }
    }

    fn told(&self, doing: &Doing) -> String {
        let (target, handshakes) = (&self.target, doing.handshakes.get());
        if doing.settling.get() {
            format!("{target} has a new certificate, waiting until no old one is served")
        } else {
            format!("watching {target}, {handshakes} handshakes, Ctrl-C ends")
        }
    }

    fn trust(&self) -> Result<Trust, Error> {
        match &self.ca_file {
            Some(path) => Trust::in_file(path),
            None if self.insecure => Ok(Trust::in_anything()),
            None => Trust::in_system(),
        }
    }

    fn settings(&self) -> Result<Settings, Error> {
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Identity::of_files(cert, key)?,
            _ => Identity::none(),
        };
        Ok(Settings {
            target: self.target.clone(),
            name: self.server_name.clone().unwrap_or_else(|| self.target.name()),
            identity: Arc::new(identity),
            alpn: self.alpn.clone(),
            limit: self.times.handshake_timeout,
        })
    }

    fn clients(&self, settings: &Settings) -> Result<Vec<Client>, rustls::Error> {
        let versions = self.tls.map_or(Version::ALL.to_vec(), |version| vec![version]);
        versions.into_iter().map(|version| Client::new(settings, version)).collect()
    }
}

fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    let name = ServerName::try_from(text.to_owned());
    name.map_err(|_| "expected a DNS name or an IP address".to_owned())
}

/// RFC 7301 §3.1.
fn protocol(text: &str) -> Result<String, String> {
    let is_right = (1..=255).contains(&text.len());
    is_right.then(|| text.to_owned()).ok_or_else(|| "expected names of 1 to 255 bytes".to_owned())
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text).map_err(|error| error.to_string())?;
    let is_right = (Duration::from_millis(10)..=Duration::from_secs(60)).contains(&interval);
    is_right.then_some(interval).ok_or_else(|| "expected 10ms to 60s".to_owned())
}

fn limit(text: &str) -> Result<Duration, String> {
    let limit = parse_duration(text).map_err(|error| error.to_string())?;
    (!limit.is_zero()).then_some(limit).ok_or_else(|| "must not be 0".to_owned())
}
