//! The keeper: what has to happen to a Secret after the webhook has acted (DESIGN §8).
//!
//! ```text
//! watches, by label ──► controller ──► reconcile: read, due, ask ──► the webhook, in the same request
//!                          │   ▲                                              │
//!                       events └──────────────── what it made of it ◄─────────┘
//! ```
//!
//! It never writes data, and reads no private key. One replica acts, by a Lease; the others keep
//! their view of the Secrets warm.

mod backoff;
pub mod controller;
pub mod events;
pub mod lease;
pub mod memory;
pub mod metrics;
#[cfg(test)]
mod mock;
mod queue;
pub mod reconcile;
mod running;
pub mod secrets;
pub mod tracked;
pub mod workloads;
