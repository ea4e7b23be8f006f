//! Staged mode: its rules, and every way in which a stage ends.

mod laws;
mod lease;
mod left_over;
mod obstacles;
pub(super) mod secret;
mod strangers;
mod table;
