//! The admission endpoint without sockets: a request in, an answer out. json-patch applies each patch.

#[path = "../../../benches/hostile.rs"]
pub(crate) mod shapes;

mod announced;
mod answers;
mod asks;
pub(crate) mod audit;
mod copies;
mod create;
mod distrusted;
mod endpoint;
mod guards;
mod hostile;
mod recorded;
mod sources;
mod staged;
mod state;
