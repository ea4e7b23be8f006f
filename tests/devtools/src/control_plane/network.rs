//! Loopback addresses: a range of ClusterIPs, free ports, and a proxy in place of kube-proxy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::task::{JoinHandle, JoinSet};

use super::{Error, random};

/// The port that is bound while a range is in use. It is high, so binding it needs no privilege.
const CLAIM_PORT: u16 = 20_443;
const ATTEMPTS: usize = 20;

/// The range from which the API server allocates ClusterIPs.
#[derive(Debug)]
pub(crate) struct ClusterIps {
    prefix: [u8; 3],
    next: AtomicU8,
    /// A socket in the range, so that another control plane on this machine takes another range.
    /// `None` if the range is not on loopback.
    claim: Option<TcpListener>,
}

impl ClusterIps {
    /// Claims a random `127.X.Y.0/24`. If the system has only 127.0.0.1 (macOS), the range is an
    /// ordinary private one, on which no program can listen.
    pub(crate) fn claim() -> Result<Self, Error> {
        let mut refused = None;
        for _ in 0..ATTEMPTS {
            let [x, y] = random::<2>()?;
            // 127.0.* is used by DNS resolvers and by people.
            let prefix = [127, 16 + x % 224, y];
            match TcpListener::bind((Ipv4Addr::new(prefix[0], prefix[1], prefix[2], 1), CLAIM_PORT))
            {
                Ok(claim) => {
                    return Ok(Self { prefix, next: AtomicU8::new(1), claim: Some(claim) });
                }
                Err(e) if e.kind() == std::io::ErrorKind::AddrNotAvailable => {
                    return Ok(Self { prefix: [10, 99, 0], next: AtomicU8::new(1), claim: None });
                }
                Err(e) => refused = Some(e),
            }
        }
        Err(Error::Network {
            what: "range of ClusterIPs",
            source: refused.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into()),
        })
    }

    /// In CIDR notation.
    pub(crate) fn range(&self) -> String {
        let [a, b, c] = self.prefix;
        format!("{a}.{b}.{c}.0/24")
    }

    pub(crate) fn on_loopback(&self) -> bool {
        self.claim.is_some()
    }

    /// The next unused address, or `None` when the range is used up. `.1` is the API server's own
    /// Service. The API server allocates from .17 on while there are free addresses there.
    pub(crate) fn next(&self) -> Option<Ipv4Addr> {
        let [a, b, c] = self.prefix;
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                (last < 254).then_some(last + 1)
            })
            .ok()
            .map(|last| Ipv4Addr::new(a, b, c, last + 1))
    }
}

/// A port that is free now. Another program can take it before it is used, so callers must retry.
pub fn free_port(address: IpAddr) -> Result<u16, Error> {
    TcpListener::bind((address, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| Error::Network { what: "port", source })
}

/// Checks that this process can listen on `address`. Port 443 needs root or a lowered
/// `net.ipv4.ip_unprivileged_port_start`, and macOS has 127.0.0.1 as its only loopback address.
pub fn can_listen(address: SocketAddr) -> Result<(), std::io::Error> {
    TcpListener::bind(address).map(drop)
}

/// Listens on one address and distributes new connections over several backends in turn. It skips a
/// backend that refuses. If all refuse, it closes the connection.
#[derive(Debug)]
pub struct ServiceProxy {
    accepting: JoinHandle<()>,
    backends: Arc<Mutex<Vec<SocketAddr>>>,
}

impl ServiceProxy {
    /// Starts to listen on `address`. The tokio runtime must outlive the proxy.
    pub async fn start(address: SocketAddr, backends: Vec<SocketAddr>) -> Result<Self, Error> {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .map_err(|source| Error::Network { what: "port 443", source })?;
        let backends = Arc::new(Mutex::new(backends));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&backends)));
        Ok(Self { accepting, backends })
    }

    /// Sends new connections to these backends from now on.
    pub fn set_backends(&self, backends: Vec<SocketAddr>) {
        *self.backends.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = backends;
    }
}

impl Drop for ServiceProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: tokio::net::TcpListener, backends: Arc<Mutex<Vec<SocketAddr>>>) {
    let turn = AtomicUsize::new(0);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let mut order =
                    backends.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
                if !order.is_empty() {
                    let first = turn.fetch_add(1, Ordering::Relaxed) % order.len();
                    order.rotate_left(first);
                }
                connections.spawn(relay(client, order));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(mut client: tokio::net::TcpStream, backends: Vec<SocketAddr>) {
    for backend in backends {
        if let Ok(mut server) = tokio::net::TcpStream::connect(backend).await {
            let _ = client.set_nodelay(true);
            let _ = server.set_nodelay(true);
            // Both sides see the end of the connection, whatever the reason.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn two_ranges_differ_and_addresses_do_not_repeat() {
        let (one, two) = (ClusterIps::claim().unwrap(), ClusterIps::claim().unwrap());
        assert!(one.range() != two.range() || !one.on_loopback());
        let all: Vec<_> = std::iter::from_fn(|| one.next()).collect();
        assert_eq!(all.len(), 253);
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
    }

    /// A backend that answers each connection with `number`.
    async fn backend(number: u8) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(&[number]).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn connections_are_distributed_and_dead_backends_skipped() {
        let dead = "127.0.0.1:1".parse().unwrap();
        let front =
            SocketAddr::from(([127, 0, 0, 1], free_port(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap()));
        let proxy = ServiceProxy::start(front, vec![backend(1).await, dead, backend(2).await])
            .await
            .unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let mut stream = tokio::net::TcpStream::connect(front).await.unwrap();
            seen.push(stream.read_u8().await.unwrap());
        }
        assert_eq!(seen, [1, 2, 2]);
        proxy.set_backends(vec![backend(3).await]);
        let mut stream = tokio::net::TcpStream::connect(front).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 3);
    }
}
