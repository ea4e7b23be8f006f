//! The seeds of the fuzz targets, judged by the oracles of `tests/fuzz` on every run of the test
//! suite, and the proof that those oracles say no where something is wrong.

#![allow(clippy::similar_names, reason = "a patch has paths, and what expires is expired")]

#[path = "../../fuzz/oracle/mod.rs"]
#[allow(dead_code, missing_docs, reason = "written for the fuzz targets")]
mod oracle;

mod controls;
mod pool;
mod seeds;
mod shapes;
