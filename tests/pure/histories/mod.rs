//! The webhook and the keeper together, over random histories of one Secret: writes, deadlines,
//! outages of either, clock changes. Their pure parts run on a virtual clock.

mod laws;
mod system;
