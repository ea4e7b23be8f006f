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
//! # The modules
//!
//! | module | knows | does |
//! | --- | --- | --- |
//! | [`overlap`] | certificates, time as an argument | decides; no clock, no I/O, no Kubernetes |
//! | [`admission`] | `AdmissionReview`, HTTP | reads a review, guards, turns a decision into a patch |
//! | [`server`] | sockets, TLS, HTTP | accept loop with limits, admin endpoints, drain |
//! | [`serving_cert`] | files, the Kubernetes API | where the server's own certificate comes from |
//! | [`keeper`] | the Kubernetes API, `overlap` | watches Secrets in an overlap, and asks the webhook to act |
//! | [`webhook`] | all of the above | wires them together, and ends them |
//! | [`tools`] | all of the above | the other commands: `review`, `inspect`, `status`, `distrust`, `probe`, `simulate` |
//! | [`log`], [`metrics`] | nothing | log lines; what all metric families share |
//! | [`names`] | nothing | the names that are the contract with users and manifests |

// What is printed with `{:?}` may be a review or a Secret.
#![cfg_attr(not(test), warn(clippy::use_debug))]

pub mod admission;
pub mod cli;
pub mod keeper;
pub mod kubernetes;
pub mod log;
pub mod metrics;
pub mod names;
pub mod overlap;
pub mod run;
pub mod server;
pub mod serving_cert;
pub mod tools;
pub mod x509;
