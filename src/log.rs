//! Logging to standard error, and the report of a panic.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;

/// Starts logging to standard error and installs the panic hook.
///
/// `level` applies to our own lines. Libraries log at `warn` at most. The Kubernetes client logs at
/// `error` only, because it prints bodies that it cannot parse, and these can hold Secrets. A
/// second call keeps the first subscriber.
pub(crate) fn init(level: Level, format: Format) {
    let libraries = level.0.min(LevelFilter::WARN);
    let filter = Targets::new()
        .with_default(libraries)
        .with_target("kube_client", LevelFilter::ERROR)
        .with_target("ca_overlap", level.0);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colour());
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Format::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
        Format::Text => lines.with_target(false).with_filter(filter).boxed(),
    };
    // Fails only if a subscriber is installed already, as in tests. That one stays.
    drop(tracing::subscriber::set_global_default(Registry::default().with(lines)));
    std::panic::set_hook(Box::new(report_panic));
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
}
