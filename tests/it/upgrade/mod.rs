//! An upgrade from an earlier build, and a rollback to it, with both programs and the manifests of
//! both, on a real API server. `make upgrade-test` builds the earlier one and names it.

mod handover;
mod setup;
mod side_by_side;
