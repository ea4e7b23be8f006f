//! Logging to standard error, and the report of a panic.

mod queue;

use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry as Metrics;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;

use self::queue::Queue;

/// Starts logging to standard error and installs the panic hook.
///
/// `level` applies to our own lines. Libraries log at `warn` at most. The Kubernetes client logs at
/// `error` only, because it prints bodies that it cannot parse, and these can hold Secrets. A
/// second call keeps the first subscriber.
///
/// A server must not stop because nobody reads its log, so its lines pass through a bounded queue
/// and a thread. A command writes them itself.
pub(crate) fn init(level: Level, format: Format, is_server: bool) -> Log {
    let libraries = level.0.min(LevelFilter::WARN);
    let filter = Targets::new()
        .with_default(libraries)
        .with_target("kube_client", LevelFilter::ERROR)
        .with_target("ca_overlap", level.0);
    let log = Log { queue: is_server.then(start_queue).flatten() };
    let lines = fmt::layer().with_writer(Output(log.queue.clone())).with_ansi(colour());
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Format::Json => lines.json().flatten_event(true).boxed(),
        Format::Text => lines.with_target(false).boxed(),
    };
    let subscriber = Registry::default().with(lines).with(filter);
    // Fails only if a subscriber is installed already, as in tests. That one stays.
    drop(tracing::subscriber::set_global_default(subscriber));
    std::panic::set_hook(Box::new(report_panic));
    log
}

/// Registers the metric of the log in `registry`, whose prefix is `ca_overlap`.
pub(crate) fn register(registry: &mut Metrics) {
    registry.register(
        "log_lines_dropped",
        "Log lines dropped because standard error took no more",
        DROPPED.clone(),
    );
}

/// The process has one log, so it has one count.
static DROPPED: LazyLock<Counter> = LazyLock::new(Counter::default);

/// The log of the process. When it is dropped, also by a panic, what is queued is written, unless
/// standard error takes longer than [`PATIENCE`].
#[must_use]
pub(crate) struct Log {
    queue: Option<Arc<Queue>>,
}

/// How long the end of a server waits for standard error.
const PATIENCE: Duration = Duration::from_secs(1);

impl Log {
    /// Prints a line that is no event, after what was logged before.
    pub(crate) fn print(&self, line: &str) {
        // Where standard error cannot be written to, nothing else can help.
        drop(Output(self.queue.clone()).make_writer().write_all(format!("{line}\n").as_bytes()));
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.end(PATIENCE);
        }
    }
}

/// Starts the thread that writes. Without it, whoever logs writes.
fn start_queue() -> Option<Arc<Queue>> {
    let queue = Arc::new(Queue::new(DROPPED.clone()));
    let writer = Arc::clone(&queue);
    let report =
        |lines| tracing::warn!(lines, "standard error was blocked, log lines were dropped");
    let thread = thread::Builder::new().name("log".into());
    thread.spawn(move || writer.write(io::stderr(), report)).ok()?;
    Some(queue)
}

/// Where lines go: to the queue, or else to standard error.
struct Output(Option<Arc<Queue>>);

impl<'a> MakeWriter<'a> for Output {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Output {
    /// Takes a whole line: the subscriber writes each at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Some(queue) => queue.push(line),
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `--log-level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(LevelFilter);

impl FromStr for Level {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(Self(match s {
            "error" => LevelFilter::ERROR,
            "warn" => LevelFilter::WARN,
            "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            "trace" => LevelFilter::TRACE,
            _ => return Err("expected error, warn, info, debug or trace"),
        }))
    }
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// One JSON object per line.
    Json,
    /// Text for people.
    Text,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("expected text or json"),
        }
    }
}

/// Whether to use colour: on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Logs where a task panicked. The message is left out, because it can quote data of a request.
fn report_panic(info: &PanicHookInfo<'_>) {
    let (file, line) = info.location().map_or(("?", 0), |at| (at.file(), at.line()));
    tracing::error!(file, line, "a task panicked");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_formats_of_the_help_text_parse() {
        for level in ["error", "warn", "info", "debug", "trace"] {
            assert!(level.parse::<Level>().is_ok(), "{level}");
        }
        assert!("verbose".parse::<Level>().is_err());
        assert_eq!("json".parse(), Ok(Format::Json));
        assert_eq!("text".parse(), Ok(Format::Text));
        assert!("xml".parse::<Format>().is_err());
    }

    #[test]
    fn a_panic_writes_what_is_queued() {
        let queue = Arc::new(Queue::default());
        let log = Log { queue: Some(Arc::clone(&queue)) };
        let writer = thread::spawn(move || {
            let mut written = Vec::new();
            queue.write(&mut written, |_| {});
            written
        });
        let panicked = std::panic::catch_unwind(move || {
            log.print("last words");
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.is_err());
        assert_eq!(writer.join().unwrap(), b"last words\n");
    }
}
