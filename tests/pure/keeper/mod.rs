//! The keeper: its decisions, and what it does where the API server fails.

mod choice;
mod due;
mod events;
mod faults;
mod memory;
