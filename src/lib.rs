//! A mutating admission webhook that gives every certificate generator in a Kubernetes cluster an
//! overlap of old and new CA when it rotates `ca.crt`.
//!
//! # The flow
//!
//! Data flows one way, and nothing is remembered between two requests:
//!
//! ```text
//! server::accept ──► admission::review ──► admission::guard ──► overlap::decide ──► admission::patch ──► response
//!  TCP, TLS, limits   borrowed wire types   Secrets we do not     pure: what to       add and remove
//!                                           touch                 carry, what to cut  operations only
//! ```
//!
//! # The rooms
//!
//! None uses what stands below it; `tests/pure/architecture.rs` holds the whole table.
//!
//! | room | knows | does |
//! | --- | --- | --- |
//! | [`names`] | nothing | the names that are the contract with users and manifests |
//! | `log`, [`metrics`] | nothing | log lines; what all metric families share |
//! | [`x509`] | certificates | reads and writes PEM, fields and fingerprints; finds issuers |
//! | [`overlap`] | certificates, time as an argument | decides; no clock, no I/O, no Kubernetes |
//! | [`server`] | sockets, TLS, HTTP | accept loop with limits, admin endpoints, drain |
//! | [`kubernetes`] | the Kubernetes API | what the rooms below share: client, calls that end, Secrets without keys |
//! | [`admission`] | `AdmissionReview`, HTTP | reads a review, guards, turns a decision into a patch |
//! | [`serving_cert`] | files, the Kubernetes API | where the server's own certificate comes from |
//! | [`keeper`] | the Kubernetes API, [`overlap`] | watches Secrets in an overlap, and asks the webhook to act |
//! | [`tools`] | all of the above | the other commands: `review`, `inspect`, `status`, `distrust`, `probe`, `simulate` |
//! | `run` | all of the above but [`tools`] | wires webhook and keeper; a part that ends, ends the process |
//! | [`cli`] | all of the above | turns flags into the configuration that the parts take |

// What is printed with `{:?}` may be a review or a Secret.
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
