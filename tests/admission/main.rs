//! The admission endpoint without sockets: a request in, an answer out, and json-patch as the
//! judge of the patch.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../benches/hostile.rs"]
mod shapes;

mod answers;
mod asks;
mod corpus;
mod guards;
mod hostile;
mod rig;
mod staged;
mod state;
