//! The decision: which previous CAs stay in `ca.crt` beside the incoming CA, and for how long.
//!
//! This module is pure: it uses no clock, no I/O and no Kubernetes client. The time is an argument.
//! Start with [`decide()`]; it calls `retire` for a write that leaves `ca.crt` alone. [`staged`]
//! decides whether a new leaf waits. [`source`] finds what the readers of other Secrets trust as
//! well. [`ask`] defines what the keeper can ask for. [`outlook`] finds what is due for a Secret, and
//! when. [`action`], [`restart`] and [`stage_end`] choose what the keeper then does.

pub mod action;
mod announce;
pub mod announcement;
pub mod ask;
mod decide;
pub mod distrust;
pub mod exempt;
pub mod outlook;
pub mod record;
mod repair;
pub mod restart;
mod retire;
mod select;
pub mod settings;
pub mod source;
pub mod stage_end;
pub mod staged;
pub mod trust;
pub(crate) mod warning;
pub(crate) mod workload;
pub(crate) mod write;

pub use decide::decide;
pub use warning::Warning;
pub use write::{Case, Contents, Decision, RecordAfter, Write};

/// The most own certificates that a `ca.crt` may have. A `ca.crt` with more is a trust store, and
/// is left alone.
pub const MAX_OWN: usize = 64;

/// The most certificate blocks of an incoming `ca.crt` that are decoded: [`MAX_OWN`] own ones, and
/// as many carried ones that the generator writes back.
const MAX_BLOCKS: usize = 2 * MAX_OWN;

/// The most certificate blocks of a stored `ca.crt` that are decoded. It can hold [`MAX_BLOCKS`]
/// that a writer brought, and certificates that we appended to them.
pub(crate) const MAX_STORED_BLOCKS: usize = MAX_BLOCKS + MAX_OWN;
