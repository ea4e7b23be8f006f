//! How a stage ends where the webhook is not called. The keeper and `drain` judge the two pairs as
//! the webhook does (`Fitness` in `staged`).

use jiff::Timestamp;

use crate::names;
use crate::overlap::outlook::PublicSecret;
use crate::overlap::staged::Fitness;
use crate::x509::certs::Fingerprint;
use crate::x509::issuer::Issuers;

/// How a stage ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageEnd {
    /// The waiting pair goes into service.
    Promote,
    /// The waiting pair is removed: the pair in service is newer, or only that one is valid.
    Drop,
}

/// How the stage of this Secret ends by its certificates alone; `None` if nothing waits, or if
/// neither leaf is valid, or if the Secret is immutable.
pub fn stage_end(secret: &PublicSecret<'_>, now: Timestamp) -> Option<StageEnd> {
    if !secret.waits() || secret.is_immutable {
        return None;
    }
    let issuers = Issuers::default();
    let fitness = |chain: Option<&[u8]>, has_key| {
        let is_sound = chain.is_some() && has_key;
        Fitness::of(&issuers, chain.unwrap_or_default(), is_sound, secret.ca_crt, now)
    };
    let waiting = fitness(secret.pending_tls_crt, secret.keys.contains(&names::PENDING_TLS_KEY));
    let served = fitness(secret.tls_crt, true);
    if !waiting.is_fit() && !served.is_fit() {
        return None;
    }
    let stage = secret.stage();
    let is = |chain: Option<&[u8]>, f| chain.map(Fingerprint::of) == Some(f);
    let is_replaced = stage.is_some_and(|stage| !is(secret.tls_crt, stage.held));
    let is_recorded =
        !is_replaced && stage.is_some_and(|stage| is(secret.pending_tls_crt, stage.pending));
    let promotes = waiting.is_fit() && is_recorded || waiting.goes_before(&served, is_replaced);
    Some(if promotes { StageEnd::Promote } else { StageEnd::Drop })
}
