//! The pure decision: the table and the laws of the design, and the edges that hurt.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod certificates;
mod edges;
mod issuers;
mod laws;
mod repairs;
mod scene;
mod table;
