//! One connection: a handshake, and what comes after it.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, Error, HandshakeKind, InvalidMessage, PeerIncompatible,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::session::{Session, Store};
use super::trust::{Identity, Later};
use crate::server::tls::provider;
use crate::tools::text::printable;

/// How long to wait for what a server sends after the handshake, if it does not close.
const LINGER: Duration = Duration::from_secs(2);

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// A name or an address.
    pub(crate) host: String,
    /// 1 to 65535.
    pub(crate) port: u16,
}

impl Target {
    /// What a client expects to find there.
    pub(super) fn name(&self) -> ServerName<'static> {
        // Parsing let only names and addresses through.
        let name = ServerName::try_from(self.host.clone());
        name.unwrap_or(ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into()))
    }
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected HOST:PORT, such as gateway.example:443 or [::1]:443";
        let (host, port) = text.rsplit_once(':').ok_or(EXPECTED)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(EXPECTED)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_right = match bare {
            Some(address) => address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()),
            None => !host.contains(':') && ServerName::try_from(host).is_ok(),
        };
        let host = bare.unwrap_or(host).to_owned();
        is_right.then_some(Self { host, port }).ok_or(EXPECTED)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Version {
    /// RFC 5246
    #[value(name = "1.2")]
    Tls12,
    /// RFC 8446
    #[value(name = "1.3")]
    Tls13,
}

impl Version {
    pub(super) const ALL: [Self; 2] = [Self::Tls12, Self::Tls13];
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Tls12 { "1.2" } else { "1.3" })
    }
}

/// What came of a handshake that succeeded.
#[derive(Debug)]
pub(super) struct Handshake {
    /// Whether it resumed what it was given.
    pub(super) resumed: bool,
    /// The server's certificates, leaf first. Of a resumed handshake: those of the first one.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// What it may be resumed with.
    pub(super) sessions: Vec<Session>,
}

/// Why a handshake did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("cannot connect to {0}: {1}")]
    Connect(Target, io::Error),
    #[error("{0} does not offer TLS {1}")]
    Version(Target, Version),
    #[error("no TLS on {0}: what came is no TLS record (STARTTLS is not supported)")]
    NoTls(Target),
    #[error(
        "{0} refuses connections without a client certificate ({1}); name one with --cert and --key"
    )]
    NoClientCertificate(Target, String),
    #[error("{0} refuses the client certificate ({1})")]
    ClientCertificate(Target, String),
    #[error("TLS handshake with {0} failed: {1}")]
    Handshake(Target, String),
    #[error("no answer from {0} within {1:?}")]
    Timeout(Target, Duration),
}

/// Makes connections that differ in what they offer to resume, and in nothing else.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) target: Target,
    pub(super) name: ServerName<'static>,
    pub(super) version: Version,
    identity: Arc<Identity>,
    config: ClientConfig,
    limit: Duration,
}

/// How all connections of a run are made.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) target: Target,
    /// What is asked for by SNI, and what the certificate must be for.
    pub(super) name: ServerName<'static>,
    pub(super) identity: Arc<Identity>,
    /// Application protocols to offer; none by default.
    pub(super) alpn: Vec<String>,
    /// For connecting and the handshake.
    pub(super) limit: Duration,
}

impl Client {
    pub(super) fn new(settings: &Settings, version: Version) -> Result<Self, Error> {
        let Settings { target, name, identity, alpn, limit } = settings.clone();
        let versions = if version == Version::Tls12 { &[&TLS12] } else { &[&TLS13] };
        // rustls resumes only with the very verifier and identity of the first handshake, so both
        // are made once.
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Later::new()))
            .with_client_cert_resolver(identity.clone());
        config.alpn_protocols = alpn.into_iter().map(String::into_bytes).collect();
        Ok(Self { target, name, version, identity, config, limit })
    }

    /// A handshake as of a client that was never here.
    pub(super) async fn full(&self) -> Result<Handshake, Refused> {
        self.shake(None).await
    }

    /// Tries to resume `session`; a server that does not want to makes a full handshake of it.
    pub(super) async fn resume(&self, session: Session) -> Result<Handshake, Refused> {
        self.shake(Some(session)).await
    }

    async fn shake(&self, offered: Option<Session>) -> Result<Handshake, Refused> {
        let store = Arc::new(Store::new(offered));
        let mut config = self.config.clone();
        config.resumption = Resumption::store(store.clone());
        let connected = timeout(self.limit, self.connect(Arc::new(config))).await;
        let mut stream =
            connected.map_err(|_| Refused::Timeout(self.target.clone(), self.limit))??;
        let (resumed, chain) = {
            let (_, connection) = stream.get_ref();
            let chain = connection.peer_certificates().unwrap_or_default();
            let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
            (resumed, chain.iter().map(|c| c.clone().into_owned()).collect())
        };
        // A server that goes on after our end is left alone; what has come by then counts.
        if let Ok(Err(error)) = timeout(self.limit.min(LINGER), until_end(&mut stream)).await
            && self.is_refusal(&error)
        {
            return Err(self.refused(&error));
        }
        Ok(Handshake { resumed, chain, sessions: store.take_received() })
    }

    async fn connect(&self, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, Refused> {
        let Target { host, port } = &self.target;
        let stream = TcpStream::connect((host.as_str(), *port)).await;
        let stream = stream.map_err(|error| Refused::Connect(self.target.clone(), error))?;
        let connected = TlsConnector::from(config).connect(self.name.clone(), stream).await;
        connected.map_err(|error| self.refused(&error))
    }

    /// In TLS 1.3 a client has finished before the server has seen the client's certificate.
    fn is_refusal(&self, error: &io::Error) -> bool {
        self.version == Version::Tls13 && matches!(cause(error), Some(Error::AlertReceived(_)))
    }

    fn refused(&self, error: &io::Error) -> Refused {
        let target = self.target.clone();
        match cause(error) {
            Some(
                Error::AlertReceived(AlertDescription::ProtocolVersion)
                | Error::PeerIncompatible(
                    PeerIncompatible::ServerDoesNotSupportTls12Or13
                    | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
                ),
            ) => Refused::Version(target, self.version),
            Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
                Refused::NoTls(target)
            }
            Some(Error::AlertReceived(alert)) if self.identity.asked().is_some() => {
                let alert = format!("alert {alert:?}");
                if self.identity.is_somebody() {
                    Refused::ClientCertificate(target, alert)
                } else {
                    Refused::NoClientCertificate(target, alert)
                }
            }
            _ => Refused::Handshake(target, printable(&error.to_string())),
        }
    }
}

/// Says that nothing more will come from us, and reads until the server says the same. In TLS 1.3
/// tickets come after the handshake, at no certain time, and some servers (`BoringSSL`) write them
/// only together with something else. All of them write what they have before they close.
async fn until_end(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    // Where the server has closed already, reading says more about it than writing.
    let _ = stream.shutdown().await;
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

fn cause(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let parsed = |text: &str| text.parse::<Target>().map(|t| (t.host.clone(), t.port, t));
        for (text, host, port) in [
            ("a.example:443", "a.example", 443),
            ("127.0.0.1:8443", "127.0.0.1", 8443),
            ("[::1]:443", "::1", 443),
            ("localhost:65535", "localhost", 65535),
        ] {
            let (h, p, target) = parsed(text).unwrap();
            assert_eq!((h.as_str(), p), (host, port));
            assert_eq!(target.to_string(), text);
        }
        for text in [
            "",
            "a",
            ":443",
            "a:",
            "a:0",
            "a:65536",
            "a:b",
            "::1:443",
            "[a]:443",
            "a b:1",
            "[127.0.0.1]:1",
            "https://a:443",
            "-a-:1_",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
