//! The keeper: its decisions, and its reaction to a failing API server.

mod action;
mod due;
mod events;
mod faults;
mod memory;
