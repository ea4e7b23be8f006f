//! Writes through a real API server with the real registration: Service, caBundle, RBAC and
//! `ServiceAccount`.

mod asks;
mod availability;
pub mod canary;
mod concurrency;
mod corpus;
mod generators;
mod guards;
mod limits;
mod match_conditions;
mod setup;
mod stage_ends;
mod staged;
pub mod strangers;
mod table;
mod verbs;
