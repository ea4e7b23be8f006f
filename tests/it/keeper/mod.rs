//! The keeper as the real program, with the real webhook on a real API server.

mod alone;
mod audit;
mod distrust;
mod drain;
mod election;
mod exempt;
pub mod kills;
mod log;
pub mod promote;
pub mod proxy;
mod repair;
mod restart;
mod retire;
mod rollout;
mod scale;
pub mod setup;
mod steady_state;
mod tenants;
pub mod trust;
pub mod workload;
