//! All tests that need an API server. They run the program as it is installed, with its real
//! registration, RBAC and `ServiceAccount`s. `support` explains which control plane a test gets.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

use support::{helm, server};

mod alerts;
mod announce;
mod api_server;
mod cert_manager;
mod chart;
mod check;
mod check_pre;
mod control_plane;
mod demo;
mod distrust;
mod distrust_everywhere;
mod documented;
mod inspect;
mod keeper;
mod manifests;
mod scope;
mod serving_cert;
mod status;
mod upgrade;
mod write_latency;
