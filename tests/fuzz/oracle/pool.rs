//! The certificates of the histories. `tests/pure/fuzz/pool.rs` generates them.

use std::sync::LazyLock;

use super::x509;

/// Roots of one name with and without key ids, a renewal, expired ones, a chain, a cycle.
pub static AUTHORITIES: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| x509::certificates(include_bytes!("../pool/authorities.pem")));

/// Leaves of some of them.
pub static LEAVES: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| x509::certificates(include_bytes!("../pool/leaves.pem")));
