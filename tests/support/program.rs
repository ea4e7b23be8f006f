//! The real program with certificates from files, on free ports. It is killed when dropped.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::server::{Client, within};
use devtools::certs::{self, Identity};

/// A directory with a certificate and its key.
pub(crate) struct Files {
    directory: tempfile::TempDir,
    key: String,
    pub(crate) ca: Identity,
}

impl Files {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = certs::ca_named("files");
        let Identity { pem, key, .. } = ca.leaf("127.0.0.1");
        std::fs::write(directory.path().join("tls.crt"), pem).unwrap();
        std::fs::write(directory.path().join("tls.key"), key).unwrap();
        let key = directory.path().join("tls.key").display().to_string();
        Self { directory, key, ca }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn cert(&self) -> String {
        self.path("tls.crt").display().to_string()
    }

    pub(crate) fn key(&self) -> String {
        self.key.clone()
    }

    pub(crate) fn key_ref(&self) -> &str {
        &self.key
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }
}

/// Asks the reader of a log to pause: it tells the first, and waits until the other is dropped.
type Pause = Arc<Mutex<Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>>>;

/// A running `ca-overlap webhook`.
pub(crate) struct Program {
    child: Child,
    files: Files,
    log: Arc<Mutex<String>>,
    lines: watch::Receiver<usize>,
    pause: Pause,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Program {
    pub(crate) fn command() -> Command {
        let mut command = Command::new(super::binary::path());
        command.stdin(Stdio::null());
        command
    }

    /// Starts it with certificate files.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let files = Files::new();
        let (cert, key) = (files.cert(), files.key());
        let files_arguments = ["--tls-cert", &cert, "--tls-key", &key];
        let arguments = [&files_arguments, arguments].concat();
        Self::spawn_by(Self::command(), files, &arguments, &[]).await
    }

    /// Starts it with any arguments and environment. Its ports are known when this returns.
    pub(crate) async fn spawn(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::spawn_by(Self::command(), Files::new(), arguments, environment).await
    }

    /// Starts it by the caller's command, to which the arguments are added.
    pub(crate) async fn spawn_by(
        mut command: Command,
        files: Files,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut child = command
            .args(["--log-format", "json", "webhook", "--listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0"])
            .args(arguments)
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pause = Pause::default();
        let (log, lines) = follow(child.stderr.take().unwrap(), pause.clone());
        let unknown = ([127, 0, 0, 1], 0).into();
        let mut program = Self { child, files, log, lines, pause, listen: unknown, admin: unknown };
        let text = program.wait_for_log("\"listening\"").await;
        let line = text.lines().find(|line| line.contains("\"listening\"")).unwrap();
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let address = |field: &str| {
            let found = line["fields"].get(field).or_else(|| line.get(field)).unwrap();
            found.as_str().unwrap().parse().unwrap()
        };
        (program.listen, program.admin) = (address("webhook"), address("admin"));
        program
    }

    /// Its resident memory without file pages, in KiB (`RssAnon` of proc(5)).
    pub(crate) fn anonymous(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    pub(crate) async fn client(&self) -> Client<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.listen).await.unwrap();
        let config = Arc::new(self.files.ca.client(rustls::ALL_VERSIONS));
        let name = ServerName::from(self.listen.ip());
        Client(TlsConnector::from(config).connect(name, tcp).await.unwrap())
    }

    pub(crate) async fn admin(&self, path: &str) -> (u16, String) {
        let mut client = Client(TcpStream::connect(self.admin).await.unwrap());
        let answer = client.get(path).await.unwrap();
        (answer.status, String::from_utf8(answer.body).unwrap())
    }

    pub(crate) async fn metrics(&self) -> String {
        let (status, text) = self.admin("/metrics").await;
        assert_eq!(status, StatusCode::OK.as_u16());
        text
    }

    /// Waits until the log contains `text`, and gives the log.
    pub(crate) async fn wait_for_log(&mut self, text: &str) -> String {
        let log = self.log.clone();
        let holds = |_: &usize| log.lock().unwrap().contains(text);
        let waited = within(self.lines.wait_for(holds)).await.is_ok();
        let log = log.lock().unwrap().clone();
        assert!(waited, "the program ended before it said {text}:\n{log}");
        log
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        // The log ends with the process.
        within(async { while self.lines.changed().await.is_ok() {} }).await;
        self.child.wait().unwrap()
    }

    /// Fills the pipe of its standard error, and reads nothing until the guard is dropped.
    pub(crate) async fn blocked_log(&self) -> oneshot::Sender<()> {
        let ((paused, is_paused), (guard, resumed)) = (oneshot::channel(), oneshot::channel());
        *self.pause.lock().unwrap() = Some((paused, resumed));
        let pipe = format!("/proc/{}/fd/2", self.child.id());
        // A line for a reader that waits for one.
        File::options().write(true).open(&pipe).unwrap().write_all(b"\n").unwrap();
        within(is_paused).await.unwrap();
        fill(&pipe);
        guard
    }

    /// Waits for its end, whether or not its log is read.
    pub(crate) async fn exited(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it by two signals, and gives its whole log.
    pub(crate) async fn stop(mut self) -> String {
        self.signal("TERM");
        self.wait_for_log("draining").await;
        self.signal("TERM");
        self.ended().await;
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Writes to a pipe until it takes no more.
pub(crate) fn fill(pipe: &str) {
    const O_NONBLOCK: i32 = 0o4000;
    // Opened again, so that the program's own descriptor still blocks.
    let mut writer = File::options().write(true).custom_flags(O_NONBLOCK).open(pipe).unwrap();
    let error = loop {
        if let Err(error) = writer.write(&[b'\n'; 4096]) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
}

/// Runs a command that fails at once. Gives its exit code and its standard error.
pub(crate) fn fails(arguments: &[&str]) -> (i32, String) {
    let output = Program::command().args(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Collects the log line by line; the receiver ends with the process.
fn follow(
    stderr: std::process::ChildStderr,
    pause: Pause,
) -> (Arc<Mutex<String>>, watch::Receiver<usize>) {
    let log = Arc::new(Mutex::new(String::new()));
    let (sender, lines) = watch::channel(0);
    let collected = log.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut log = collected.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
            drop(log);
            sender.send_modify(|count| *count += 1);
            let asked = pause.lock().unwrap().take();
            if let Some((paused, resumed)) = asked {
                paused.send(()).unwrap();
                drop(resumed.blocking_recv());
            }
        }
    });
    (log, lines)
}
