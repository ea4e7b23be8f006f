//! The decision: what stays bundled beside the incoming CA, and for how long.
//!
//! Pure: no clock, no I/O, no Kubernetes client. The time is an argument. Read [`decide()`] first:
//! it is the heart; `retire` is its counterpart for writes that leave `ca.crt` alone. What the keeper
//! may ask for stands in [`ask`]; what is due when, in [`outlook`], and what follows from that, in
//! [`choice`] and [`restart`].

pub mod ask;
pub mod choice;
mod decide;
pub mod leave;
pub mod outlook;
pub mod policy;
pub mod record;
mod repair;
pub mod restart;
mod retire;
mod select;
pub mod staged;
pub(crate) mod warning;
pub(crate) mod workload;
pub(crate) mod write;

pub use decide::decide;
pub use warning::Warning;
pub use write::{Case, Contents, Decision, RecordAfter, Write};

/// More own certificates than this in one `ca.crt` are a trust store, not a rotation.
pub const MAX_OWN: usize = 64;

/// More certificate blocks than this in a write are not even decoded: 64 own ones, and room for
/// all that we could have carried and the generator echoes.
const MAX_BLOCKS: usize = 2 * MAX_OWN;

/// What is stored may have what we added to as many.
pub(crate) const MAX_STORED_BLOCKS: usize = MAX_BLOCKS + MAX_OWN;
