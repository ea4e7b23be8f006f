//! The admission endpoint without sockets: a request in, an answer out, and json-patch as the
//! judge of the patch.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/pki.rs"]
mod pki;

mod answers;
mod asks;
mod corpus;
mod guards;
mod hostile;
mod rig;
mod staged;
mod state;
