//! Certificates and PEM: read, written and compared here, and nowhere else.
//!
//! Pure, and below everything: no clock, no I/O. Identity of a certificate is its exact DER.

pub mod certs;
mod fields;
pub mod issuer;
pub mod pem;
