//! The pure decision: the table and the laws of the design, and edge cases.

mod announced;
mod certificates;
mod edges;
mod issuers;
mod laws;
mod repairs;
mod secret;
mod table;
