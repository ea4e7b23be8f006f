//! One connection: a handshake, then the tickets that follow it.

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

use super::session::{Session, SessionStore};
use super::trust::{AcceptAnyCertificate, ClientCertificate};
use crate::server::tls::provider;
use crate::tools::text::printable;

/// How long to wait for tickets after the handshake if the server does not close the connection.
const LINGER: Duration = Duration::from_secs(2);

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// A DNS name or an IP address.
    pub(crate) host: String,
    /// 1 to 65535.
    pub(crate) port: u16,
}

impl Endpoint {
    /// The name that a client expects in the server's certificate.
    pub(super) fn name(&self) -> ServerName<'static> {
        // Parsing accepts only names and addresses, so the fallback is never used.
        let name = ServerName::try_from(self.host.clone());
        name.unwrap_or(ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into()))
    }
}

impl FromStr for Endpoint {
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

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TlsVersion {
    /// RFC 5246
    #[value(name = "1.2")]
    Tls12,
    /// RFC 8446
    #[value(name = "1.3")]
    Tls13,
}

impl TlsVersion {
    pub(super) const ALL: [Self; 2] = [Self::Tls12, Self::Tls13];
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Tls12 { "1.2" } else { "1.3" })
    }
}

/// The result of a successful handshake.
#[derive(Debug)]
pub(super) struct Handshake {
    /// Whether the server resumed the offered session.
    pub(super) resumed: bool,
    /// The server's certificates, leaf first. After a resumption: those of the first handshake.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The sessions and tickets that the server sent.
    pub(super) sessions: Vec<Session>,
}

/// Why a connection or its handshake failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("cannot connect to {0}: {1}")]
    Connect(Endpoint, io::Error),
    #[error("{0} does not offer TLS {1}")]
    Version(Endpoint, TlsVersion),
    #[error("{0} does not answer with TLS (STARTTLS is not supported)")]
    NoTls(Endpoint),
    #[error(
        "{0} rejects connections without a client certificate ({1}); name one with --cert and --key"
    )]
    NoClientCertificate(Endpoint, String),
    #[error("{0} rejects the client certificate ({1})")]
    ClientCertificate(Endpoint, String),
    #[error("TLS handshake with {0} failed: {1}")]
    Handshake(Endpoint, String),
    #[error("no answer from {0} within {1:?}")]
    Timeout(Endpoint, Duration),
}

/// Makes connections that differ only in the session that they offer.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) endpoint: Endpoint,
    pub(super) name: ServerName<'static>,
    pub(super) version: TlsVersion,
    certificate: Arc<ClientCertificate>,
    config: ClientConfig,
    limit: Duration,
}

/// How all connections of a run are made.
#[derive(Clone, Debug)]
pub(super) struct ClientOptions {
    pub(super) endpoint: Endpoint,
    /// The name for SNI and for checking the certificate.
    pub(super) name: ServerName<'static>,
    pub(super) certificate: Arc<ClientCertificate>,
    /// Application protocols to offer; none by default.
    pub(super) alpn: Vec<String>,
    /// For connecting and the handshake.
    pub(super) limit: Duration,
}

impl Client {
    pub(super) fn new(settings: &ClientOptions, version: TlsVersion) -> Result<Self, Error> {
        let ClientOptions { endpoint, name, certificate, alpn, limit } = settings.clone();
        let versions = if version == TlsVersion::Tls12 { &[&TLS12] } else { &[&TLS13] };
        // rustls resumes only with the same verifier and client certificate as in the first
        // handshake, so both are made once.
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAnyCertificate::new()))
            .with_client_cert_resolver(certificate.clone());
        config.alpn_protocols = alpn.into_iter().map(String::into_bytes).collect();
        Ok(Self { endpoint, name, version, certificate, config, limit })
    }

    /// Makes a full handshake, as a new client does.
    pub(super) async fn full(&self) -> Result<Handshake, ConnectionError> {
        self.shake(None).await
    }

    /// Tries to resume `session`. A server that refuses makes a full handshake instead.
    pub(super) async fn resume(&self, session: Session) -> Result<Handshake, ConnectionError> {
        self.shake(Some(session)).await
    }

    async fn shake(&self, offered: Option<Session>) -> Result<Handshake, ConnectionError> {
        let store = Arc::new(SessionStore::new(offered));
        let mut config = self.config.clone();
        config.resumption = Resumption::store(store.clone());
        let connected = timeout(self.limit, self.connect(Arc::new(config))).await;
        let mut stream = connected
            .map_err(|_| ConnectionError::Timeout(self.endpoint.clone(), self.limit))??;
        let (resumed, chain) = {
            let (_, connection) = stream.get_ref();
            let chain = connection.peer_certificates().unwrap_or_default();
            let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
            (resumed, chain.iter().map(|c| c.clone().into_owned()).collect())
        };
        // A server may keep the connection open after our close_notify. Then the tickets that have
        // arrived within the limit count.
        if let Ok(Err(error)) = timeout(self.limit.min(LINGER), until_end(&mut stream)).await
            && self.is_refusal(&error)
        {
            return Err(self.refused(&error));
        }
        Ok(Handshake { resumed, chain, sessions: store.take_received() })
    }

    async fn connect(
        &self,
        config: Arc<ClientConfig>,
    ) -> Result<TlsStream<TcpStream>, ConnectionError> {
        let Endpoint { host, port } = &self.endpoint;
        let stream = TcpStream::connect((host.as_str(), *port)).await;
        let stream =
            stream.map_err(|error| ConnectionError::Connect(self.endpoint.clone(), error))?;
        let connected = TlsConnector::from(config).connect(self.name.clone(), stream).await;
        connected.map_err(|error| self.refused(&error))
    }

    /// Whether an error after the handshake means that the server refused us. In TLS 1.3 a client
    /// finishes before the server has checked the client's certificate.
    fn is_refusal(&self, error: &io::Error) -> bool {
        self.version == TlsVersion::Tls13 && matches!(cause(error), Some(Error::AlertReceived(_)))
    }

    fn refused(&self, error: &io::Error) -> ConnectionError {
        let endpoint = self.endpoint.clone();
        match cause(error) {
            Some(
                Error::AlertReceived(AlertDescription::ProtocolVersion)
                | Error::PeerIncompatible(
                    PeerIncompatible::ServerDoesNotSupportTls12Or13
                    | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
                ),
            ) => ConnectionError::Version(endpoint, self.version),
            Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
                ConnectionError::NoTls(endpoint)
            }
            Some(Error::AlertReceived(alert)) if self.certificate.request().is_some() => {
                let alert = format!("alert {alert:?}");
                if self.certificate.is_given() {
                    ConnectionError::ClientCertificate(endpoint, alert)
                } else {
                    ConnectionError::NoClientCertificate(endpoint, alert)
                }
            }
            _ => ConnectionError::Handshake(endpoint, printable(&error.to_string())),
        }
    }
}

/// Sends `close_notify` and reads until the server closes. In TLS 1.3 tickets come some time after
/// the handshake, and some servers (`BoringSSL`) send them only together with other data. All of
/// them send their tickets before they close.
async fn until_end(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    // If the server has closed already, the error of reading says more than that of writing.
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
    fn endpoints() {
        let parsed = |text: &str| text.parse::<Endpoint>().map(|t| (t.host.clone(), t.port, t));
        for (text, host, port) in [
            ("a.example:443", "a.example", 443),
            ("127.0.0.1:8443", "127.0.0.1", 8443),
            ("[::1]:443", "::1", 443),
            ("localhost:65535", "localhost", 65535),
        ] {
            let (h, p, endpoint) = parsed(text).unwrap();
            assert_eq!((h.as_str(), p), (host, port));
            assert_eq!(endpoint.to_string(), text);
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
