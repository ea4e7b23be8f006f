//! The keeper: its decisions, and the real program beside the real webhook on a real API server.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod choice;
mod due;
mod election;
mod left;
mod memory;
mod news;
mod promote;
mod repair;
mod restart;
mod retire;
mod scale;
mod scene;
