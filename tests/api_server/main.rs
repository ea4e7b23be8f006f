//! On a real API server, through the real registration: Service, caBundle, RBAC, `ServiceAccount`.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod asks;
mod availability;
mod canary;
mod concurrency;
mod corpus;
mod generators;
mod guards;
mod limits;
mod quiet;
mod scene;
mod stage_ends;
mod staged;
mod table;
mod verbs;
