//! Sockets, TLS and HTTP: the way in for the API server, and for those who watch us.
//!
//! The API server keeps idle connections for 90 s and does not repeat a POST on a connection that
//! was closed under it. So nothing here closes a connection that it may be about to use: it is
//! asked to close by `Connection: close` on a response, and left alone otherwise until it has been
//! idle for longer than that.

pub mod accept;
pub mod admin;
mod crowd;
pub mod drain;
mod eager;
pub mod metrics;
mod opening;
mod self_check;
pub mod tls;
