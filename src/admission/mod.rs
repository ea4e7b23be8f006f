//! From an `AdmissionReview` to its answer.

pub mod handler;
