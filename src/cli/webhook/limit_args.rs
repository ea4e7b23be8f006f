//! The limits of the webhook's port.

use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::{DAY, positive};
use crate::cli::UsageError;
use crate::overlap::settings::parse_time;
use crate::server::accept::Limits;

#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// The most connections at a time, 1 to 65536
    ///
    /// One peer, which is an IPv4 address or an IPv6 /64, may have half of them. Where all are taken,
    /// a further connection replaces one without a request, of the peer that has the most.
    #[arg(
        long,
        value_name = "N",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=65_536),
        env = "CA_OVERLAP_MAX_CONNECTIONS",
        default_value = "1024"
    )]
    max_connections: usize,

    /// The time limit for a TLS handshake
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_time,
        env = "CA_OVERLAP_HANDSHAKE_TIMEOUT",
        default_value = "10s"
    )]
    handshake_timeout: Duration,

    /// The time limit for the header of a connection's first request, and for each body
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_time,
        env = "CA_OVERLAP_REQUEST_TIMEOUT",
        default_value = "10s"
    )]
    request_timeout: Duration,

    /// How long an idle connection stays open; more than 90s and at most a day
    ///
    /// The API server keeps idle connections for 90s. A call fails if the webhook closes the
    /// connection first, and the API server does not repeat it.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_time,
        env = "CA_OVERLAP_IDLE_TIMEOUT",
        default_value = "120s"
    )]
    idle_timeout: Duration,

    /// The largest request body, 1KiB to 64MiB; a review of two Secrets of 1 MiB takes 2.8 MB
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = size,
        env = "CA_OVERLAP_MAX_BODY",
        default_value = "8MiB"
    )]
    max_body: usize,

    /// The memory for all request bodies together, at least twice --max-body
    ///
    /// It should be at most a quarter of the memory limit. A body that finds none within two
    /// seconds is answered with 503.
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = memory,
        env = "CA_OVERLAP_BODY_MEMORY",
        default_value = "64MiB"
    )]
    body_memory: usize,
}

impl LimitArgs {
    /// Checks what clap cannot check.
    pub(super) fn validate(self) -> Result<Limits, UsageError> {
        let Self { max_connections, handshake_timeout, request_timeout, .. } = self;
        let Self { idle_timeout, max_body, body_memory, .. } = self;
        positive("--handshake-timeout", handshake_timeout)?;
        positive("--request-timeout", request_timeout)?;
        if idle_timeout <= API_SERVER_IDLE || idle_timeout > DAY {
            return Err(UsageError::new(
                "--idle-timeout",
                "must be more than 90s and at most a day: the API server keeps idle connections \
                 for 90s, and its call fails if the webhook closes one first",
            ));
        }
        if body_memory / 2 < max_body {
            return Err(UsageError::new("--body-memory", "must be at least twice --max-body"));
        }
        Ok(Limits {
            max_connections,
            body_memory,
            max_body,
            handshake_timeout,
            request_timeout,
            idle_timeout,
        })
    }
}

/// How long client-go, and so the API server, keeps idle connections.
const API_SERVER_IDLE: Duration = Duration::from_secs(90);

/// Parses a number of bytes, or a number with `KiB` or `MiB`.
pub(super) fn size(text: &str) -> Result<usize, &'static str> {
    bytes(text)
        .filter(|bytes| (1 << 10..=64 << 20).contains(bytes))
        .ok_or("expected a size from 1KiB to 64MiB, such as 8MiB")
}

/// As [`size`], with more room.
fn memory(text: &str) -> Result<usize, &'static str> {
    bytes(text)
        .filter(|bytes| (2 << 10..=64 << 30).contains(bytes))
        .ok_or("expected a size from 2KiB to 65536MiB, such as 64MiB")
}

fn bytes(text: &str) -> Option<usize> {
    let (number, unit) = match (text.strip_suffix("KiB"), text.strip_suffix("MiB")) {
        (Some(number), _) => (number, 1 << 10),
        (_, Some(number)) => (number, 1 << 20),
        _ => (text, 1),
    };
    number.trim().parse::<usize>().ok()?.checked_mul(unit)
}
