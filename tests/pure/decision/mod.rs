//! The pure decision: the table and the laws of the design, and the edges that hurt.

mod certificates;
mod edges;
mod issuers;
mod laws;
mod repairs;
mod scene;
mod table;
