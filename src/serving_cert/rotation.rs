//! Decides when our CA is renewed, served and dropped. Pure: the time and the objects are
//! arguments.
//!
//! A new CA is added to the Secret and to the caBundle long before the old one expires. A leaf of
//! it is served once the API servers have had time to read that caBundle. The old CA is dropped
//! once everything it issued has expired.
//!
//! ```text
//! add ───────────► settled ──► activate ─────────────────────────► drop the one before
//!  in Secret and     in the      written to the Secret before the    leaf lifetime and a
//!  caBundle          caBundle    first leaf of it is served          margin later
//! ```
//!
//! The wall clock gives the age of a certificate. The waits between these steps must not shrink
//! when that clock is set, so each process measures them with its monotonic clock: [`Observed`].

use std::time::Duration;

use jiff::Timestamp;

use crate::x509::certs::Fingerprint;

/// The next step: a change of the Secret, or the CA whose leaf to serve if no change is left.
///
/// `cas` are in the order in which they were added.
pub(crate) fn next_step(cas: &[CaFacts], now: Timestamp, timing: &RotationTiming) -> RotationStep {
    if let Some(gone) = cas.iter().find(|ca| now >= ca.not_after) {
        return RotationStep::Drop(gone.id);
    }
    if let Some(superseded) = superseded(cas, now, timing) {
        return RotationStep::Drop(superseded);
    }
    let usable: Vec<&CaFacts> = cas.iter().filter(|ca| ca.not_before <= now).collect();
    // No CA is valid yet: their maker's clock or ours is wrong. One more CA helps in the first
    // case. In the second, a clock that is set back repeatedly must not add CAs without limit.
    let not_valid_yet = cas.last().filter(|_| cas.len() >= FORCED_LIMIT);
    let Some(newest) = usable.last().copied().or(not_valid_yet) else {
        return RotationStep::Add;
    };
    if newest.is_due(now) {
        return RotationStep::Add;
    }
    let serve = usable
        .iter()
        .rev()
        .copied()
        .find(|ca| ca.may_serve(timing))
        // None has settled: take the one that has been trusted for longest. It may not be valid
        // yet, since our clock may be the wrong one. A new process finds all equally old, and takes
        // the newest active one: other replicas serve it, and may soon drop the older ones.
        .or_else(|| {
            let trusted = cas.iter().filter(|ca| ca.observed.trusted.is_some());
            trusted.max_by_key(|ca| (ca.observed.trusted, ca.active.is_some()))
        })
        // The caBundle holds none of our CAs. API servers may still use what it held before.
        .or_else(|| cas.iter().rev().find(|ca| ca.active.is_some()))
        // None was served yet: there is nothing to wait for.
        .unwrap_or(newest);
    if serve.active.is_none() {
        return RotationStep::Activate(serve.id);
    }
    RotationStep::Serve(serve.id)
}

/// Whether a rotation that was requested at `requested` begins now. Call it when [`next_step`] asks
/// for no change.
///
/// Every replica may get the request, at once or repeatedly. A CA that is not active yet, or that
/// was added since, answers all of them. At [`FORCED_LIMIT`] no rotation begins until a CA is
/// dropped: an old CA is never dropped early to make room.
pub(crate) fn decide_forced(
    cas: &[CaFacts],
    requested: Timestamp,
    now: Timestamp,
    timing: &RotationTiming,
) -> ForcedRotation {
    let Some(newest) = cas.last() else {
        return ForcedRotation::InFlight;
    };
    // An `added` in the future comes from a clock that was set back: it answers no request.
    let answered = newest.added <= now && since(newest.added, requested) <= timing.trust_settle;
    if newest.active.is_none() || answered {
        return ForcedRotation::InFlight;
    }
    if cas.len() >= FORCED_LIMIT {
        return ForcedRotation::Full;
    }
    ForcedRotation::Begin
}

/// Which remembered CAs to restore in the Secret: all missing ones, if the Secret is empty or
/// damaged, or lacks the CA whose leaf is served.
///
/// Otherwise another replica has dropped the missing ones, correctly.
pub(crate) fn lost_cas(
    found: &[CaFacts],
    damaged: bool,
    remembered: &[CaFacts],
    served: Option<Fingerprint>,
    now: Timestamp,
) -> Vec<Fingerprint> {
    let lacks = |id: Fingerprint| found.iter().all(|ca| ca.id != id);
    if !damaged && !found.is_empty() && !served.is_some_and(lacks) {
        return Vec::new();
    }
    remembered.iter().filter(|ca| now < ca.not_after && lacks(ca.id)).map(|ca| ca.id).collect()
}

/// One of our CAs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CaFacts {
    /// The fingerprint of its certificate.
    pub(crate) id: Fingerprint,
    /// `notBefore` of its certificate.
    pub(crate) not_before: Timestamp,
    /// `notAfter` of its certificate.
    pub(crate) not_after: Timestamp,
    /// When it was added to the Secret.
    pub(crate) added: Timestamp,
    /// When it became active, as the Secret says: its leaves may be served.
    pub(crate) active: Option<Timestamp>,
    /// What this process has observed of it.
    pub(crate) observed: Observed,
}

/// What this process has observed of a CA, and for how long, by its monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// How long it has been in the caBundle, at every look.
    pub(crate) trusted: Option<Duration>,
    /// How long it has been active in the Secret.
    pub(crate) active: Option<Duration>,
}

/// The times that the rotation uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RotationTiming {
    /// `--leaf-lifetime`.
    pub(crate) leaf_lifetime: Duration,
    /// `--trust-settle`: how long a CA is in the caBundle before its first leaf is served.
    pub(crate) trust_settle: Duration,
    /// `--reconcile-interval`.
    pub(crate) reconcile_interval: Duration,
}

/// The next step of the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RotationStep {
    /// Mark it as active in the Secret, then decide again.
    Activate(Fingerprint),
    /// Add a new CA to the Secret, then decide again.
    Add,
    /// Remove it from the Secret, then decide again.
    Drop(Fingerprint),
    /// Serve a leaf of it. The Secret needs no change.
    Serve(Fingerprint),
}

/// The decision about a forced rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForcedRotation {
    /// It begins: add a new CA.
    Begin,
    /// There are already [`FORCED_LIMIT`] CAs: add none.
    Full,
    /// A rotation is in progress: add none.
    InFlight,
}

/// The most CAs that are kept. No rotation needs so many; the limit bounds the caBundle.
pub(crate) const MAX_CAS: usize = 8;

/// With this many CAs no forced rotation begins until an old one is dropped. A CA that is due gets
/// its successor even then.
pub(crate) const FORCED_LIMIT: usize = 4;

/// The difference of clocks between nodes that is tolerated. It counts at most as much as a leaf's
/// lifetime: to a clock that is further ahead the leaf has expired anyway.
const SKEW: Duration = Duration::from_secs(600);

impl CaFacts {
    /// Whether two thirds of its lifetime have passed.
    fn is_due(&self, now: Timestamp) -> bool {
        let life = self.not_after.duration_since(self.added).as_millis();
        now.duration_since(self.added).as_millis() * 3 >= life * 2
    }

    /// Whether every API server has had time to trust it: this process has waited, or another
    /// replica waited before it made the CA active. Only the very first CA is active without a
    /// wait.
    fn may_serve(&self, timing: &RotationTiming) -> bool {
        let another_waited = self.active.is_some_and(|active| active != self.added);
        self.observed
            .trusted
            .is_some_and(|trusted| another_waited || trusted >= timing.trust_settle)
    }
}

/// The time between `from` and `to`, or zero if `to` is earlier.
fn since(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// The oldest CA, if all replicas have served a newer one for longer than a leaf's lifetime.
fn superseded(cas: &[CaFacts], now: Timestamp, timing: &RotationTiming) -> Option<Fingerprint> {
    let (oldest, newer) = cas.split_first()?;
    let rounds = timing.reconcile_interval * 2;
    let last_leaf = timing.leaf_lifetime + rounds + SKEW.min(timing.leaf_lifetime);
    // By this time every replica that reaches the API server has switched, whatever our clock says.
    let followed = timing.trust_settle + rounds;
    let replaced = newer.iter().any(|ca| {
        ca.observed.trusted.is_some()
            && ca.not_before <= now
            && ca.active.is_some_and(|active| since(active, now) >= last_leaf)
            && ca.observed.active.is_some_and(|known| known >= followed)
    });
    (replaced || cas.len() > MAX_CAS).then_some(oldest.id)
}

#[cfg(test)]
mod cluster_model;
#[cfg(test)]
mod tests;
