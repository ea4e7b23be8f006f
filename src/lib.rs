//! A mutating admission webhook for Kubernetes that gives every certificate generator an overlap of
//! the old and the new CA when it rotates `ca.crt`.
//!
//! # How a request flows
//!
//! Data flows one way, and the webhook keeps nothing between two requests:
//!
//! ```text
//! server::accept ──► admission::review ──► admission::guard ──► overlap::decide ──► admission::patch ──► response
//!  TCP, TLS, limits   borrowed wire types   Secrets we do not     pure: what to       add and remove
//!                                           touch                 carry, to remove    operations only
//! ```
//!
//! # Modules
//!
//! A module does not use those below it. `tests/pure/architecture.rs` checks who may use whom.
//!
//! | module | knows | does |
//! | --- | --- | --- |
//! | [`names`] | nothing | defines the names of the contract with users and manifests |
//! | `log`, [`metrics`] | nothing | sets up logging; shared parts of all metrics |
//! | [`x509`] | certificates | reads and writes PEM, fields and fingerprints; finds issuers |
//! | [`overlap`] | certificates, time as an argument | decides what to carry, and what is due; no clock, no I/O |
//! | [`server`] | sockets, TLS, HTTP | accepts connections within limits, serves the admin endpoints, drains |
//! | [`kubernetes`] | the Kubernetes API | makes the client and calls with timeouts; reads Secrets without private keys |
//! | [`admission`] | `AdmissionReview`, HTTP | reads a review, checks the guards, turns a decision into a patch |
//! | [`serving_cert`] | files, the Kubernetes API | provides the server's own certificate |
//! | [`keeper`] | the Kubernetes API, [`overlap`] | watches Secrets with an overlap, and asks the webhook to act |
//! | [`tools`] | all of the above | runs the other commands: `review`, `inspect`, `status`, `distrust`, `drain`, `probe`, `simulate` |
//! | `run` | all of the above but [`tools`] | starts webhook and keeper; ends the process when one of their tasks ends |
//! | [`cli`] | all of the above | turns flags into the configuration of the other modules |

// A value printed with `{:?}` can be a review or a Secret.
#![cfg_attr(not(test), warn(clippy::use_debug))]

pub mod admission;
pub mod cli;
pub mod keeper;
pub mod kubernetes;
mod log;
pub mod metrics;
pub mod names;
pub mod overlap;
mod run;
pub mod server;
pub mod serving_cert;
pub mod tools;
pub mod x509;
