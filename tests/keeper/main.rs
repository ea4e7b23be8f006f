//! The keeper: its decisions, and the real program beside the real webhook on a real API server.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod choice;
mod due;
mod election;
mod faults;
mod kills;
mod left;
mod memory;
mod news;
mod promote;
mod proxy;
mod quiet;
mod repair;
mod restart;
mod retire;
mod rollout;
mod scale;
mod scene;
mod workload;
