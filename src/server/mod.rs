//! Sockets, TLS and HTTP, for the webhook port and the admin port.
//!
//! The API server keeps idle connections for 90 s, and does not repeat a POST on a connection that
//! the server closes. So the server keeps a connection open until it has been idle for longer than
//! that. To close it earlier, the server sends `Connection: close` with a response.

pub mod accept;
pub mod admin;
mod bodies;
pub mod drain;
pub mod metrics;
mod self_check;
mod shares;
mod stream;
pub mod tls;
