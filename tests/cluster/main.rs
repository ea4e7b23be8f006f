//! The suite for a real cluster with nodes, pods, kubelets and Services. It installs the product as
//! users do, rotates CAs with a Job, and checks the handshakes of real peers.
//!
//! It needs a cluster for itself, because it installs and uninstalls, with the images of
//! `make node-images`. `make kind-test` starts one; `CA_OVERLAP_TEST_KUBECONFIG` names another.
//! These tests are ignored by default, and fail without a cluster:
//!
//! ```text
//! CA_OVERLAP_TEST_KUBECONFIG=FILE cargo test --test cluster -- --ignored --test-threads=1
//! ```

// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

use support::helm as helm_program;

mod agent;
mod cluster;
mod handshakes;
mod helm;
mod load;
mod long;
mod nodes;
mod outage;
mod peers;
mod readme;
mod records;
mod rollouts;
mod security;
mod uninstall;
