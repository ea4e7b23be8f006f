//! The admission endpoint without sockets: a request in, an answer out, and json-patch as the
//! judge of the patch.
#![allow(unreachable_pub)]

#[path = "../support/pki.rs"]
mod pki;

mod answers;
mod guards;
mod hostile;
mod rig;
mod state;
