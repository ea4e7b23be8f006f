//! The admission endpoint without sockets: a request in, an answer out, and json-patch as the
//! judge of the patch.

#[path = "../../../benches/hostile.rs"]
pub(crate) mod shapes;

mod answers;
mod asks;
mod corpus;
mod guards;
mod hostile;
mod rig;
mod staged;
mod state;
