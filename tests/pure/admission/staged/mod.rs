//! Staged mode: every rule, and every way out.

mod histories;
mod obstacles;
mod table;
mod wire;
mod world;
