//! The suite on a real cluster: nodes, pods, kubelets, Services. It installs the product as its
//! users do, rotates CAs by a Job, and looks at what real peers make of it.
//!
//! It needs a cluster that has the images of `make node-images`, and is its own: it installs and
//! uninstalls. `make node-test` brings one up; `CA_OVERLAP_TEST_KUBECONFIG` names another.
//! Without one nothing can be tested, so these tests are ignored unless they are asked for, and
//! fail then:
//!
//! ```text
//! CA_OVERLAP_TEST_KUBECONFIG=FILE cargo test --test cluster -- --ignored --test-threads=1
//! ```

// Clippy's exception for tests does not reach their helper functions.
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
mod outage;
mod peers;
mod readme;
mod records;
mod rollouts;
mod security;
mod uninstall;
