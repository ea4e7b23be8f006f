//! The keeper: what has to happen to a Secret after the webhook has acted (DESIGN §8).
//!
//! ```text
//! watches, by label ──► controller ──► act: read, due, ask ──► the webhook, in the same request
//!                          │   ▲                                        │
//!                       events └───────────── what it made of it ◄──────┘
//! ```
//!
//! It never writes data, and reads no private key. One replica acts, by a Lease; the others keep
//! their view of the Secrets warm.

pub mod act;
pub mod agenda;
pub mod api;
pub mod controller;
pub mod events;
pub mod lease;
pub mod memory;
pub mod metrics;
#[cfg(test)]
mod mock;
pub mod retries;
pub mod running;
pub mod tracked;
pub mod watches;
pub mod workloads;
