//! The limit of open files of the process (`RLIMIT_NOFILE`).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a server opens besides the connections that it accepts: its ports, certificates, connections
/// to the API server.
const OTHERS: usize = 64;

/// Raises the soft limit to the hard one. The soft one is often 1024, for old programs, and a
/// connection without a file descriptor is not even accepted. Warns if a server that accepts so many
/// `connections` may need more.
pub(super) fn raise(connections: usize) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Some systems refuse a soft limit without bound. Then it stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let needed = connections + OTHERS;
    if let Some(limit) = getrlimit(Resource::Nofile).current
        && limit < u64::try_from(needed).unwrap_or(u64::MAX)
    {
        tracing::warn!(
            limit,
            needed,
            "the limit of open files is too small for all connections: raise the hard limit, or \
             lower --max-connections"
        );
    }
}
