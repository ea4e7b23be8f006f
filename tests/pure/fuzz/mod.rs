//! The seeds of the fuzz targets, judged by the oracles of `tests/fuzz` in every run of the test
//! suite, and negative controls for those oracles.

#![allow(clippy::similar_names, reason = "a patch has paths, and what expires is expired")]

#[path = "../../fuzz/oracle/mod.rs"]
#[allow(dead_code, missing_docs, reason = "written for the fuzz targets")]
mod oracle;

mod controls;
mod pool;
mod seeds;
mod shapes;
