//! A pair as text: a leaf with its chain, and its private key.

use base64::prelude::*;

use crate::overlap::MAX_STORED_BLOCKS;
use crate::overlap::write;
use crate::x509::certs::{Bundle, Fingerprint};
use crate::x509::issuer::Issuers;
use crate::x509::pem::decoded_len;

/// The base64 values of a leaf with its chain, and of its private key. The key is compared as text
/// and passed on, never decoded.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct TlsPair<'a> {
    /// `tls.crt` or `pending.tls.crt`.
    pub crt: Option<&'a str>,
    /// `tls.key` or `pending.tls.key`.
    pub key: Option<&'a str>,
}

impl TlsPair<'_> {
    pub(super) fn is_whole(&self) -> bool {
        self.crt.is_some() && self.key.is_some()
    }

    /// The decoded chain; empty if it is not base64.
    pub(super) fn chain(&self) -> Vec<u8> {
        BASE64_STANDARD.decode(self.crt.unwrap_or_default()).unwrap_or_default()
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.chain())
    }

    /// The size of both values in bytes, decoded.
    pub(super) fn size(&self) -> usize {
        [self.crt, self.key].into_iter().flatten().map(decoded_len).sum()
    }

    /// Whether both leaves have the same public key. Private keys are not read.
    pub(super) fn has_key_of(&self, other: TlsPair<'_>) -> bool {
        let key = |pair: &TlsPair<'_>| {
            let chain = write::chain(Some(&pair.chain()));
            let leaf = chain.certificates().first()?.parsed()?;
            Some(leaf.public_key().raw.to_vec())
        };
        key(self).is_some_and(|mine| key(&other) == Some(mine))
    }
}

/// The first and the last second of the validity of the leaf of `chain`.
pub(crate) fn validity(chain: &[u8]) -> Option<(i64, i64)> {
    let chain = write::chain(Some(chain));
    let leaf = chain.certificates().first()?;
    Some((leaf.parsed()?.validity().not_before.timestamp(), leaf.not_after()))
}

/// Whether two pairs can both be right, as far as can be told without reading a key: one key has
/// one public key, and one certificate one key.
pub(super) fn agree(a: TlsPair<'_>, b: TlsPair<'_>) -> bool {
    match (a.crt == b.crt, a.key == b.key) {
        (true, true) | (false, false) => true,
        (true, false) => false,
        (false, true) => a.has_key_of(b),
    }
}

/// Whether the leaf of `chain` verifies against one of `anchors`, through the rest of the chain.
pub(crate) fn verifies(chain: &[u8], anchors: Option<&[u8]>) -> bool {
    let chain = write::chain(Some(chain));
    let anchors = Bundle::parse(anchors.unwrap_or_default(), MAX_STORED_BLOCKS).unwrap_or_default();
    Issuers::default().verifies(chain.certificates(), anchors.certificates())
}
