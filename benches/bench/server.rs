//! The measured programs, and their CPU time and memory.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use crate::client::{Connection, Target};
use crate::pki::Serving;

/// The core of the servers, and that of the client.
pub const CORES: [&str; 2] = ["0", "1"];

/// A program to compare.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The name in tables.
    pub name: &'static str,
    pub program: PathBuf,
    pub kind: Kind,
}

/// How a program is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours, with default flags.
    Product,
    /// Ours, with `--log-level warn`.
    QuietProduct,
    /// Reads the uid and allows.
    AllowAll,
    /// A webhook in Go.
    Peer,
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    pub rss: u64,
    pub rss_anon: u64,
}

/// A running server. It is killed when dropped.
pub struct Server {
    pub target: Target,
    child: Child,
}

impl Subject {
    pub fn binary_size(&self) -> Result<u64> {
        let metadata = std::fs::metadata(&self.program);
        Ok(metadata.with_context(|| self.program.display().to_string())?.len())
    }

    /// Starts it on the servers' core; does not wait.
    pub fn start(&self, serving: &Serving) -> Result<Server> {
        self.start_under(serving, &["taskset", "-c", CORES[0]])
    }

    /// Starts it under another command, which takes the program as its next arguments.
    pub fn start_under(&self, serving: &Serving, wrapper: &[&str]) -> Result<Server> {
        // The port was free a moment ago, and nothing else here takes ports.
        let address: SocketAddr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(&self.program);
        if matches!(self.kind, Kind::Product | Kind::QuietProduct) {
            command.args(["webhook", "--admin-listen", "127.0.0.1:0"]);
        }
        if self.kind == Kind::QuietProduct {
            command.args(["--log-level", "warn"]);
        }
        let mut child = command
            .args(["--listen", &address.to_string()])
            .arg("--tls-cert")
            .arg(serving.certificate())
            .arg("--tls-key")
            .arg(serving.key())
            .env("TOKIO_WORKER_THREADS", "1")
            .env("GOMAXPROCS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} {}", wrapper.join(" "), self.program.display()))?;
        // The log goes to a pipe that is read, as a container runtime does.
        if let Some(mut log) = child.stderr.take() {
            std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        }
        let allows_all = self.kind == Kind::AllowAll;
        let target = Target::new(address, serving.client.clone(), allows_all);
        Ok(Server { target, child })
    }

    /// Starts it and waits until it takes connections.
    pub async fn ready(&self, serving: &Serving) -> Result<Server> {
        let mut server = self.start(serving)?;
        server.dial().await?.close().await?;
        Ok(server)
    }
}

impl Server {
    /// Dials until the server listens.
    pub async fn dial(&mut self) -> Result<Connection> {
        let began = Instant::now();
        loop {
            if let Ok(stream) = TcpStream::connect(self.target.address).await {
                return Connection::handshake(&self.target, stream).await;
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended: {status}");
            }
            if began.elapsed() > Duration::from_secs(60) {
                bail!("the server does not listen after a minute");
            }
            // It spins, because a timer would round the time to the first answer up to milliseconds.
            tokio::task::yield_now().await;
        }
    }

    pub fn cpu(&self) -> Result<Duration> {
        cpu(self.child.id())
    }

    pub fn memory(&self) -> Result<Memory> {
        memory(self.child.id())
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) -> Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-s", name, &pid]).status()?;
        Ok(())
    }

    /// Waits for it to exit; says whether it did so in time.
    pub async fn ended(&mut self, limit: Duration) -> Result<bool> {
        let began = Instant::now();
        while began.elapsed() < limit {
            if self.child.try_wait()?.is_some() {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(false)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// User and system time of a process so far (`proc(5)`), in steps of 10 ms.
pub fn cpu(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).context("stat");
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}

/// Memory of a process.
pub fn memory(pid: u32) -> Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("status")?;
        let kib = line.split_whitespace().next().context("status")?.parse::<u64>()?;
        anyhow::Ok(kib * 1024)
    };
    Ok(Memory { rss: field("VmRSS:")?, rss_anon: field("RssAnon:")? })
}

/// Pins this process to the client's core.
pub fn pin_client() -> Result<()> {
    let pid = std::process::id().to_string();
    let output = Command::new("taskset").args(["-apc", CORES[1], &pid]).output();
    let output = output.context("taskset (package util-linux)")?;
    if !output.status.success() {
        bail!("taskset: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The absolute path of a program. The error says how to build it.
pub fn existing(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| format!("{}: run make bench-programs", path.display()))
}
