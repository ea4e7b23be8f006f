//! Certificates and PEM. Only this module reads, writes and compares them.
//!
//! Pure: no clock, no I/O. Two certificates are the same if their DER is.

pub mod certs;
mod fields;
pub mod issuer;
pub mod pem;
pub mod strict;
