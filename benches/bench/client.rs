//! One connection: hand-written HTTP/1.1 over TLS, because the client runs on the server's machine
//! and must cost little.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::check;
use crate::reviews::Review;

/// The server, and the answers that are already checked.
pub struct Target {
    pub address: SocketAddr,
    pub name: ServerName<'static>,
    pub client: Arc<ClientConfig>,
    /// The server never patches.
    pub allows_all: bool,
    /// The last body that was checked in full, by the index of the review.
    accepted: RefCell<Vec<Vec<u8>>>,
}

impl Target {
    pub fn new(address: SocketAddr, client: Arc<ClientConfig>, allows_all: bool) -> Self {
        let name = ServerName::from(address.ip());
        Self { address, name, client, allows_all, accepted: RefCell::default() }
    }

    /// Compares every answer byte by byte with one that was checked in full. One that differs, for
    /// example in the second of the record, is checked in full.
    fn check(&self, review: &Review, body: &[u8]) -> Result<()> {
        let mut accepted = self.accepted.borrow_mut();
        if accepted.len() <= review.index {
            accepted.resize(review.index + 1, Vec::new());
        }
        let known = &mut accepted[review.index];
        if known.as_slice() != body {
            check::answer(review, body, self.allows_all)?;
            *known = body.to_vec();
        }
        Ok(())
    }
}

/// A keep-alive connection.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

/// The needed parts of the head of an answer.
struct Head {
    status: u16,
    end: usize,
    /// `None` for chunks.
    length: Option<usize>,
}

impl Connection {
    pub async fn dial(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(target.address).await?;
        Self::handshake(target, stream).await
    }

    pub async fn handshake(target: &Target, stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(target.client.clone());
        let stream = connector.connect(target.name.clone(), stream).await?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    /// The protocol version, the cipher suite and the key exchange group.
    pub fn negotiated(&self) -> String {
        let (_, tls) = self.stream.get_ref();
        let version = tls.protocol_version().and_then(|v| v.as_str()).unwrap_or("?");
        let suite = tls.negotiated_cipher_suite().and_then(|s| s.suite().as_str()).unwrap_or("?");
        let group = tls.negotiated_key_exchange_group();
        let group = group.map_or("?".into(), |g| g.name().as_str().unwrap_or("?").to_owned());
        format!("{version}, {suite}, {group}")
    }

    /// One review, one checked answer.
    pub async fn call(&mut self, target: &Target, review: &Review) -> Result<()> {
        let (status, body) = self.exchange(&review.wire).await?;
        ensure!(status == 200, "status {status}: {}", String::from_utf8_lossy(body));
        target.check(review, body)
    }

    /// Sends bytes and gives the status and the body of the answer.
    pub async fn exchange(&mut self, wire: &[u8]) -> Result<(u16, &[u8])> {
        self.stream.write_all(wire).await?;
        self.stream.flush().await?;
        self.buffer.clear();
        let head = loop {
            if let Some(head) = head(&self.buffer)? {
                break head;
            }
            self.more().await?;
        };
        if let Some(length) = head.length {
            while self.buffer.len() < head.end + length {
                self.more().await?;
            }
            ensure!(self.buffer.len() == head.end + length, "bytes behind the answer");
            return Ok((head.status, &self.buffer[head.end..]));
        }
        while !self.buffer[head.end..].ends_with(b"0\r\n\r\n") {
            self.more().await?;
        }
        self.unchunk(head.end)?;
        Ok((head.status, &self.buffer))
    }

    /// Shuts the connection down, so that the server closes it too.
    pub async fn close(mut self) -> Result<()> {
        Ok(self.stream.shutdown().await?)
    }

    async fn more(&mut self) -> Result<()> {
        self.buffer.reserve(8 * 1024);
        let read = self.stream.read_buf(&mut self.buffer).await?;
        ensure!(read > 0, "the server closed the connection");
        Ok(())
    }

    /// Replaces the buffer by the content of the chunks that start at `from`.
    fn unchunk(&mut self, from: usize) -> Result<()> {
        let (mut body, mut at) = (Vec::new(), from);
        loop {
            let line = self.buffer[at..].windows(2).position(|w| w == b"\r\n");
            let line = at + line.context("a chunk without its size")?;
            let size = usize::from_str_radix(str::from_utf8(&self.buffer[at..line])?, 16)?;
            if size == 0 {
                self.buffer = body;
                return Ok(());
            }
            let chunk = self.buffer.get(line + 2..line + 2 + size).context("a short chunk")?;
            body.extend_from_slice(chunk);
            at = line + 2 + size + 2;
        }
    }
}

/// The head of an answer once it is complete.
fn head(buffer: &[u8]) -> Result<Option<Head>> {
    let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = str::from_utf8(&buffer[..end])?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?;
    let mut length = None;
    let mut chunked = false;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.trim() == "chunked";
        }
    }
    if length.is_none() && !chunked {
        bail!("an answer without a length");
    }
    Ok(Some(Head { status: status.parse()?, end: end + 4, length }))
}
