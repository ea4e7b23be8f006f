//! TLS servers of other projects: nginx, `openssl s_server`, and one with Go's standard library.

use std::io::Write as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::skip::skip;
use devtools::certs::{self, Identity};

/// The time limit of each wait, far above what any of them takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// The pause between two polls.
const SOON: Duration = Duration::from_millis(10);
/// The name in the certificates.
pub(crate) const NAME: &str = "server.test";

/// A CA, and a file with a leaf and its key.
pub(crate) struct Files {
    directory: TempDir,
    ca: Identity,
}

impl Files {
    pub(crate) fn new() -> Self {
        let (directory, ca) = (tempfile::tempdir().unwrap(), certs::ca_named("Server CA"));
        let files = Self { directory, ca };
        files.write("ca.pem", &files.ca.pem);
        files.rotate();
        files
    }

    /// Replaces the leaf and its key atomically.
    pub(crate) fn rotate(&self) {
        self.rotate_to(&self.ca);
    }

    /// Replaces the leaf and its key by those of another CA.
    pub(crate) fn rotate_to(&self, ca: &Identity) {
        let Identity { pem, key, .. } = ca.leaf(NAME);
        let next = self.write("next.pem", &format!("{pem}{key}"));
        std::fs::rename(next, self.pair()).unwrap();
    }

    /// Writes a client certificate from `ca` and its key, and returns the two paths.
    pub(crate) fn client(&self, ca: &Identity) -> [String; 2] {
        let Identity { pem, key, .. } = ca.leaf("client");
        [self.write("client.crt", &pem), self.write("client.key", &key)]
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    pub(crate) fn ca(&self) -> String {
        self.path("ca.pem")
    }

    /// The file with the leaf and its key. It is one file, so that a server always reads a matching
    /// pair.
    pub(crate) fn pair(&self) -> String {
        self.path(&format!("{NAME}.pem"))
    }
}

/// A running server. It ends when this value is dropped or the test process ends: its parent is a
/// shell that reads from this process. Each line that the shell reads is a signal for the server.
pub(crate) struct Server {
    shell: Child,
    lifeline: Option<ChildStdin>,
    log: PathBuf,
    pub(crate) port: u16,
}

/// Ends the server with TERM, so that nginx can end its workers.
const GUARD: &str = r#"
"$@" </dev/null &
child=$!
while read -r signal; do kill -s "$signal" "$child"; done
kill -s TERM "$child" 2>/dev/null
wait "$child"
"#;

impl Server {
    fn start(files: &Files, command: &mut Command) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let log = PathBuf::from(files.path(&format!("server-{number}.log")));
        let output = std::fs::File::create(&log).unwrap();
        let mut guard = Command::new("/bin/sh");
        guard.args(["-c", GUARD, "guard"]).arg(command.get_program()).args(command.get_args());
        guard.process_group(0).stdin(Stdio::piped());
        guard.stdout(output.try_clone().unwrap()).stderr(output);
        let mut shell = guard.spawn().unwrap();
        let lifeline = shell.stdin.take();
        Self { shell, lifeline, log, port: 0 }
    }

    pub(crate) fn signal(&mut self, name: &str) {
        writeln!(self.lifeline.as_mut().unwrap(), "{name}").unwrap();
    }

    /// Makes the Go server replace its certificate, and waits for it.
    pub(crate) fn exchange(&mut self) {
        let exchanged = |server: &Self| server.log().matches("EXCHANGED").count();
        let before = exchanged(self);
        self.signal("HUP");
        wait_for(|| (exchanged(self) > before).then_some(()), || self.log());
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn target(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let _ = self.shell.wait();
    }
}

/// Polls until `look` returns a value.
fn wait_for<T>(look: impl Fn() -> Option<T>, log: impl Fn() -> String) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}; the server's log:\n{}", log());
        pause();
    }
}

#[allow(clippy::disallowed_methods, reason = "there is no tokio runtime here")]
fn pause() {
    std::thread::sleep(SOON);
}

/// Checks that a program can be run. If not, the test is skipped, or fails if `CI=true`.
fn found(test: &str, program: &str, arguments: &[&str], install: &str) -> Option<()> {
    let output = Command::new(program).args(arguments).output();
    if output.is_ok_and(|output| output.status.success()) {
        return Some(());
    }
    skip(test, &format!("{program} is missing: {install}"))
}

/// Starts nginx with `settings` for its only server. `@` stands for the directory of `files`.
pub(crate) fn nginx(test: &str, files: &Files, settings: &str) -> Option<Server> {
    const INSTALL: &str = "apt-get install --no-install-recommends nginx-light";
    // Debian installs it in a directory that is only on root's PATH.
    let program = ["nginx", "/usr/sbin/nginx"]
        .into_iter()
        .find(|program| Command::new(program).arg("-v").output().is_ok());
    let Some(program) = program else {
        return skip(test, &format!("nginx is missing: {INSTALL}"));
    };
    // nginx cannot print a port that the system chose, so it gets a port that was free just now.
    let mut tries = 0..5;
    while tries.next().is_some() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let content = NGINX.replace("PORT", &port.to_string()).replace("SETTINGS", settings);
        let content = content.replace('@', files.directory.path().to_str().unwrap());
        let configuration = files.write("nginx.conf", &content);
        let prefix = files.path("");
        let mut command = Command::new(program);
        command.args(["-p", &prefix, "-c", &configuration, "-e", "stderr"]);
        let mut server = Server::start(files, &mut command);
        server.port = port;
        let taken = || server.log().contains("Address already in use");
        let is_up = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        let state = || if taken() { Some(false) } else { is_up().then_some(true) };
        if wait_for(state, || server.log()) {
            return Some(server);
        }
    }
    panic!("other programs took every port that was tried");
}

const NGINX: &str = "
daemon off;
user root;
worker_processes 1;
pid @/nginx.pid;
error_log stderr notice;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path @/body;
    proxy_temp_path @/proxy;
    fastcgi_temp_path @/fastcgi;
    uwsgi_temp_path @/uwsgi;
    scgi_temp_path @/scgi;
    server {
        listen 127.0.0.1:PORT ssl;
        ssl_protocols TLSv1.2 TLSv1.3;
        SETTINGS
    }
}
";

/// Starts `openssl s_server` on a port; 0 means any port.
pub(crate) fn s_server(test: &str, files: &Files, port: u16, arguments: &[&str]) -> Option<Server> {
    found(test, "openssl", &["version"], "apt-get install openssl")?;
    let (accept, pair) = (format!("127.0.0.1:{port}"), files.pair());
    let mut command = Command::new("openssl");
    // Without -www it would end at the end of its standard input.
    command.args(["s_server", "-www", "-accept", &accept, "-cert", &pair, "-key", &pair]);
    let mut server = Server::start(files, command.args(arguments));
    // It prints the port only if the system chose it.
    let found = |log: &str| {
        let line = log.lines().find(|line| line.starts_with("ACCEPT"))?;
        line.rsplit_once(':').map_or(Some(port), |(_, port)| port.trim().parse().ok())
    };
    server.port = wait_for(|| found(&server.log()), || server.log());
    Some(server)
}

/// Starts the Go server of `tests/static/probe/server`.
pub(crate) fn go(test: &str, files: &Files, arguments: &[&str]) -> Option<Server> {
    found(test, "go", &["version"], "see https://go.dev/doc/install")?;
    let mut command = Command::new(built());
    command.args(["-pair", &files.pair()]).args(arguments);
    let mut server = Server::start(files, &mut command);
    let found = |log: &str| {
        let line = log.lines().find(|line| line.starts_with("LISTEN"))?;
        line.rsplit_once(':')?.1.parse().ok()
    };
    server.port = wait_for(|| found(&server.log()), || server.log());
    Some(server)
}

/// Starts a load balancer on a port that it returns: each connection goes to one of these ports, chosen
/// by a fixed series of random numbers. It ends with the process.
pub(crate) fn balancer(ports: Vec<u16>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut state = 1_u64;
        for client in listener.incoming().map_while(Result::ok) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let chosen = ports[(state >> 33) as usize % ports.len()];
            let Ok(server) = TcpStream::connect(("127.0.0.1", chosen)) else { continue };
            let (to_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            for (mut from, mut to) in [(client, to_server), (server, to_client)] {
                std::thread::spawn(move || {
                    // Either end may close first.
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    port
}

/// Starts the webhook with the pair as certificate files.
pub(crate) fn webhook(files: &Files) -> Server {
    let (program, pair) = (crate::support::binary::path(), files.pair());
    let mut command = Command::new(program);
    command.args(["--log-format", "json", "webhook", "--listen", "127.0.0.1:0"]);
    command.args(["--admin-listen", "127.0.0.1:0", "--tls-cert", &pair, "--tls-key", &pair]);
    let mut server = Server::start(files, &mut command);
    let found = |log: &str| {
        let line = log.lines().find(|line| line.contains("\"listening\""))?;
        let address = line.split("\"webhook\":\"").nth(1)?.split('"').next()?;
        address.rsplit_once(':')?.1.parse().ok()
    };
    server.port = wait_for(|| found(&server.log()), || server.log());
    server
}

fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/static/probe/server");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("probe-server");
        let mut build = Command::new("go");
        build.arg("-C").arg(source).args(["build", "-trimpath", "-buildvcs=false", "-o"]);
        let output = build.arg(&program).arg(".").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        program
    })
}
