//! The decision: what stays bundled beside the incoming CA, and for how long.
//!
//! Pure: no clock, no I/O, no Kubernetes client. The time is an argument.

pub mod policy;
