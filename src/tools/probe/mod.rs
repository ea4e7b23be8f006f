//! `ca-overlap probe`: finds servers that resume TLS sessions from before their certificate was
//! rotated. Clients that resume never see the new certificate.
//!
//! ```text
//! connect (one handshake) ──► observe (a series of them) ──► evidence (pure) ──► report
//!    session · trust
//! ```

mod connect;
mod evidence;
mod observe;
mod report;
mod session;
mod trust;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use rustls::pki_types::ServerName;

use self::connect::{Client, ClientOptions, ConnectionError};
pub(crate) use self::connect::{Endpoint, TlsVersion};
use self::observe::{Observer, Pace, ProbeProgress};
use self::trust::{ClientCertificate, Trust};
use super::error::{ToolError, exit_code};
use super::output::Output;
use super::progress_line;
use crate::overlap::settings::parse_time;

/// Find servers that resume TLS sessions across a rotation of their certificate
///
/// A server that gets a new certificate but keeps its ticket keys or its session cache lets clients
/// resume old sessions. Some of these clients do not see the new certificate for days.
///
/// The probe connects, keeps the tickets or sessions that the server gives it, and resumes with
/// them while it looks at the certificate that new connections get. With --watch it continues until
/// that certificate changes, and then resumes with the tickets or sessions from before. It sends
/// nothing but handshakes.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ProbeArgs {
    /// The server, such as gateway.example:443
    #[arg(value_name = "HOST:PORT")]
    pub(crate) endpoint: Endpoint,

    /// Continue until the certificate is rotated
    #[arg(short, long)]
    pub(crate) watch: bool,

    /// Output format
    #[arg(short, long, value_parser = Output::one_of(Output::USUAL), default_value = "text")]
    pub(crate) output: Output,

    /// The TLS version to probe [default: both]
    #[arg(long, value_name = "VERSION", value_enum)]
    pub(crate) tls: Option<TlsVersion>,

    /// The name for SNI and for checking the certificate [default: HOST]
    #[arg(long, value_name = "NAME", value_parser = server_name)]
    pub(crate) server_name: Option<ServerName<'static>>,

    /// A file with the CAs to trust (PEM) [default: the CAs that this machine trusts]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,

    /// Accept any certificate, such as a self-signed one
    #[arg(long, conflicts_with = "ca_file")]
    pub(crate) insecure: bool,

    /// A client certificate with its chain (PEM), for servers that request one
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,

    /// The private key of the client certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,

    /// Application protocols to offer (ALPN), for servers that require one, such as h2,http/1.1
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = protocol)]
    pub(crate) alpn: Vec<String>,

    #[command(flatten)]
    pub(crate) times: Times,
}

/// Flags for durations.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Times {
    /// With --watch, how often to check, 10ms to 60s, less than the lifetime of a ticket
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval)]
    pub(crate) interval: Duration,

    /// With --watch, when to stop, such as 30m [default: never]
    #[arg(long, value_name = "DURATION", value_parser = parse_time)]
    pub(crate) timeout: Option<Duration>,

    /// How long every new connection must get the new certificate before the rotation counts as
    /// complete; set it longer if several replicas are rotated one after another
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_time)]
    pub(crate) settle: Duration,

    /// Time limit for a connection and its handshake
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = limit)]
    pub(crate) handshake_timeout: Duration,
}

const EXAMPLES: &str = "Examples:
  ca-overlap probe gateway.example:443
  ca-overlap probe gateway.example:443 --watch --timeout 30m
  ca-overlap probe localhost:8443 --server-name api.shop.svc --ca-file ca.crt --watch
  ca-overlap probe 10.0.0.7:9443 --insecure --cert tls.crt --key tls.key --tls 1.3 -o json

Verdicts: `rotates tickets`, `RESUMES ACROSS ROTATION`, `no resumption`, `certificate unchanged so
far`. Exit code: 1 if a session resumed across a rotation, if a new certificate is not trusted, or
if a connection failed; 2 if none succeeded; 64 if the command line is wrong; else 0.";

impl ProbeArgs {
    /// Probes the server and prints the report.
    pub(crate) async fn run(self) -> Result<ExitCode, ToolError> {
        let trust = self.trust()?;
        let settings = self.settings()?;
        let refused = |error| ToolError::failed("the TLS configuration is invalid", error);
        let clients = self.clients(&settings).map_err(refused)?;
        let progress = ProbeProgress::default();
        let begin =
            join_all(clients.iter().map(|client| Observer::begin(client, &trust, &progress)));
        let text =
            || format!("probing {}, {} handshakes", self.endpoint, progress.handshakes.get());
        let mut results = progress_line::during(text, begin).await;
        let going: Vec<_> =
            results.iter_mut().flatten().filter(|observer| !observer.is_final()).collect();
        if self.watch && !going.is_empty() {
            eprintln!(
                "ca-overlap: watching {}: rotate its certificate now, or wait",
                self.endpoint
            );
            let pace = Pace { interval: self.times.interval, settle: self.times.settle };
            let watching = join_all(going.into_iter().map(|observer| observer.watch(pace)));
            let text = || self.progress_text(&progress);
            progress_line::during(text, self.until_enough(watching)).await;
        }
        let versions = clients.iter().map(|client| client.version).zip(results);
        let report =
            report::ProbeReport::new(&self.endpoint, &settings, self.watch, versions.collect());
        if self.output == Output::Text {
            report.failures().iter().for_each(|failure| eprintln!("ca-overlap: {failure}"));
        }
        self.output.print(|| report::to_text(&report), || report::to_json(&report))?;
        Ok(exit_code(report.failures().is_empty(), report.is_fine()))
    }

    /// Runs `work` until it ends, until the timeout or until Ctrl-C. The report shows what was
    /// found by then.
    async fn until_enough(&self, work: impl Future) {
        let limited = async {
            match self.times.timeout {
                Some(limit) => drop(tokio::time::timeout(limit, work).await),
                None => drop(work.await),
            }
        };
        tokio::select! {
            () = limited => {}
            // If the signal cannot be caught, it ends the process.
            Ok(()) = tokio::signal::ctrl_c() => {}
        }
    }

    fn progress_text(&self, progress: &ProbeProgress) -> String {
        let (endpoint, handshakes) = (&self.endpoint, progress.handshakes.get());
        if progress.settling.get() {
            format!("{endpoint} has a new certificate, waiting until it serves no old one")
        } else {
            format!("watching {endpoint}, {handshakes} handshakes, press Ctrl-C to stop")
        }
    }

    fn trust(&self) -> Result<Trust, ToolError> {
        match &self.ca_file {
            Some(path) => Trust::in_file(path),
            None if self.insecure => Ok(Trust::any()),
            None => Trust::in_system(),
        }
    }

    fn settings(&self) -> Result<ClientOptions, ToolError> {
        let certificate = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => ClientCertificate::of_files(cert, key)?,
            _ => ClientCertificate::none(),
        };
        Ok(ClientOptions {
            endpoint: self.endpoint.clone(),
            name: self.server_name.clone().unwrap_or_else(|| self.endpoint.name()),
            certificate: Arc::new(certificate),
            alpn: self.alpn.clone(),
            limit: self.times.handshake_timeout,
        })
    }

    fn clients(&self, settings: &ClientOptions) -> Result<Vec<Client>, rustls::Error> {
        let versions = self.tls.map_or(TlsVersion::ALL.to_vec(), |version| vec![version]);
        versions.into_iter().map(|version| Client::new(settings, version)).collect()
    }
}

fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    let name = ServerName::try_from(text.to_owned());
    name.map_err(|_| "expected a DNS name or an IP address".to_owned())
}

/// Parses the name of an application protocol (RFC 7301 §3.1).
fn protocol(text: &str) -> Result<String, String> {
    let is_right = (1..=255).contains(&text.len());
    is_right.then(|| text.to_owned()).ok_or_else(|| "expected names of 1 to 255 bytes".to_owned())
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_time(text)?;
    let is_right = (Duration::from_millis(10)..=Duration::from_secs(60)).contains(&interval);
    is_right.then_some(interval).ok_or_else(|| "expected 10ms to 60s".to_owned())
}

fn limit(text: &str) -> Result<Duration, String> {
    let limit = parse_time(text)?;
    (!limit.is_zero()).then_some(limit).ok_or_else(|| "must not be 0".to_owned())
}
