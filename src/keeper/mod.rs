//! The keeper: acts on Secrets after the webhook has changed them (docs/design.md, "The keeper").
//!
//! ```text
//! watches, by label ──► controller ──► reconcile: read, due, ask ──► the webhook, in the same request
//!                          │   ▲                                              │
//!                       events └──────────────── the Secret, as stored ◄──────┘
//! ```
//!
//! It writes no data, save to end a stage where the webhook is not called, and it reads no private
//! key. The replica that holds the Lease acts; the
//! others only watch, so that they can take over at once.

mod announcing;
pub mod audit;
mod backoff;
pub mod ca_bundles;
pub mod controller;
pub mod election;
pub mod events;
pub mod fair;
mod groups;
pub mod memory;
pub mod metrics;
#[cfg(test)]
mod mock;
pub mod overflow;
pub mod pace;
mod queue;
pub mod reconcile;
mod renew;
pub mod secrets;
mod sightings;
mod sweep;
mod tasks;
pub mod tracked;
mod trust;
mod turns;
pub mod workloads;
