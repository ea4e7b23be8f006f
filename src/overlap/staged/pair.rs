//! A pair as text: a leaf with its chain, and its private key.

use base64::prelude::*;
use jiff::Timestamp;

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

/// How fit a pair is for service, the most important first. Webhook and keeper compare by it the two
/// pairs of a Secret that no stage describes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fitness {
    /// Whether certificate and key are there, and belong together as far as can be told.
    pub(crate) is_sound: bool,
    /// Whether the leaf has not expired, and verifies.
    pub(crate) is_valid: bool,
    /// The first and the last second of its validity.
    validity: Option<(i64, i64)>,
}

impl Fitness {
    /// Judges the pair with this chain, where `ca.crt` is `anchors`.
    pub(crate) fn of(
        issuers: &Issuers,
        chain: &[u8],
        is_sound: bool,
        anchors: Option<&[u8]>,
        now: Timestamp,
    ) -> Self {
        let is_valid = is_current(chain, now) && verifies(issuers, chain, anchors);
        Self { is_sound, is_valid, validity: validity(chain) }
    }

    /// Whether both that can be judged are good.
    pub(crate) fn is_fit(&self) -> bool {
        self.is_sound && self.is_valid
    }

    /// Whether this waiting pair goes into service rather than `served`. Of two equal ones the
    /// waiting one is the generator's latest, unless `served` replaced the held one since.
    pub(crate) fn goes_before(&self, served: &Self, is_replaced: bool) -> bool {
        self > served || (self == served && !is_replaced)
    }
}

fn validity(chain: &[u8]) -> Option<(i64, i64)> {
    let chain = write::chain(Some(chain));
    let leaf = chain.certificates().first()?;
    Some((leaf.parsed()?.validity().not_before.timestamp(), leaf.not_after()))
}

/// Whether the leaf of `chain` has not expired.
pub(super) fn is_current(chain: &[u8], now: Timestamp) -> bool {
    let chain = write::chain(Some(chain));
    chain.certificates().first().is_some_and(|leaf| !leaf.is_expired(now))
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
pub(super) fn verifies(issuers: &Issuers, chain: &[u8], anchors: Option<&[u8]>) -> bool {
    let chain = write::chain(Some(chain));
    let anchors = Bundle::parse(anchors.unwrap_or_default(), MAX_STORED_BLOCKS).unwrap_or_default();
    issuers.verifies(chain.certificates(), anchors.certificates())
}
