//! When our CA is renewed, served and dropped. Pure: the time and what was read are arguments.
//!
//! It practises what the webhook preaches. A new CA is added to the Secret and to the caBundle
//! long before the old one ends; a leaf of it is served only once the API servers have had time to
//! read that caBundle; and the old CA goes when no leaf of it can be alive.
//!
//! ```text
//! add ───────────► settled ──► activate ─────────────────────────► drop the one before
//!  in Secret and     in the      written to the Secret before the    leaf lifetime and a
//!  caBundle          caBundle    first leaf of it is served          margin later
//! ```
//!
//! Ages of certificates go by the wall clock. What must not shrink when somebody sets that clock,
//! the waits between these steps, is measured by each process itself: [`Observed`].

use std::time::Duration;

use jiff::Timestamp;

use crate::x509::certs::Fingerprint;

/// What to do next, and whose leaf to serve once there is nothing left to do.
///
/// `generations` are in the order in which they were added.
pub(crate) fn plan(generations: &[Generation], now: Timestamp, settings: &Settings) -> Step {
    if let Some(gone) = generations.iter().find(|g| now >= g.not_after) {
        return Step::Drop(gone.id);
    }
    if let Some(superseded) = superseded(generations, now, settings) {
        return Step::Drop(superseded);
    }
    let usable: Vec<&Generation> = generations.iter().filter(|g| g.not_before <= now).collect();
    // All of the future: whoever made them, or we, have the wrong time. One CA more helps in the
    // first case; a clock that is set back again and again must not pile them up.
    let of_the_future = generations.last().filter(|_| generations.len() >= FORCED_LIMIT);
    let Some(newest) = usable.last().copied().or(of_the_future) else {
        return Step::Add;
    };
    if newest.is_due(now) {
        return Step::Add;
    }
    let serve = usable
        .iter()
        .rev()
        .copied()
        .find(|g| g.may_serve(settings))
        // Nothing has settled: the one trusted for longest. It may be of the future, which is as
        // likely our clock's fault. Of those that a new process finds, the newest that is active:
        // others have served it, and may be about to drop the ones before.
        .or_else(|| {
            let trusted = generations.iter().filter(|g| g.observed.trusted.is_some());
            trusted.max_by_key(|g| (g.observed.trusted, g.active.is_some()))
        })
        // The caBundle holds none of ours. What it held before, API servers may still go by.
        .or_else(|| generations.iter().rev().find(|g| g.active.is_some()))
        // None was ever served: there is nothing to wait for.
        .unwrap_or(newest);
    if serve.active.is_none() {
        return Step::Activate(serve.id);
    }
    Step::Serve(serve.id)
}

/// Whether a rotation that was asked for at `requested` begins now. To be asked where the plan
/// itself has nothing to write.
///
/// Every replica may be asked, at once or again and again: a CA that nobody serves yet, or that
/// was added since, answers them all. So does reaching [`FORCED_LIMIT`], until one is dropped:
/// an old CA is never dropped early to make room.
pub(crate) fn forced(
    generations: &[Generation],
    requested: Timestamp,
    now: Timestamp,
    settings: &Settings,
) -> Forced {
    let Some(newest) = generations.last() else {
        return Forced::InFlight;
    };
    // An `added` of the future is a clock that was set back, and answers nothing.
    let answered = newest.added <= now && since(newest.added, requested) <= settings.trust_settle;
    if newest.active.is_none() || answered {
        return Forced::InFlight;
    }
    if generations.len() >= FORCED_LIMIT {
        return Forced::Full;
    }
    Forced::Begin
}

/// Which of the CAs that a replica remembers have to go back to the Secret: all that are missing,
/// where it was emptied or damaged, or lacks the one whose leaf is being served.
///
/// Otherwise what is missing was dropped by another replica, rightly.
pub(crate) fn lost(
    found: &[Generation],
    damaged: bool,
    remembered: &[Generation],
    served: Option<Fingerprint>,
    now: Timestamp,
) -> Vec<Fingerprint> {
    let lacks = |id: Fingerprint| found.iter().all(|g| g.id != id);
    if !damaged && !found.is_empty() && !served.is_some_and(lacks) {
        return Vec::new();
    }
    remembered.iter().filter(|g| now < g.not_after && lacks(g.id)).map(|g| g.id).collect()
}

/// One CA of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Generation {
    /// Which.
    pub(crate) id: Fingerprint,
    /// `notBefore` of its certificate.
    pub(crate) not_before: Timestamp,
    /// `notAfter` of its certificate.
    pub(crate) not_after: Timestamp,
    /// Since when it stands in the Secret.
    pub(crate) added: Timestamp,
    /// Since when leaves of it may be served, as the Secret says.
    pub(crate) active: Option<Timestamp>,
    /// What this process has seen of it.
    pub(crate) observed: Observed,
}

/// What a process has seen by itself, and for how long, by a clock that nobody sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// In the caBundle, each time it looked.
    pub(crate) trusted: Option<Duration>,
    /// Active in the Secret.
    pub(crate) active: Option<Duration>,
}

/// The lengths of time that the plan goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `--leaf-lifetime`.
    pub(crate) leaf_lifetime: Duration,
    /// `--trust-settle`: from a CA's being in the caBundle to the first leaf of it.
    pub(crate) trust_settle: Duration,
    /// `--reconcile-interval`.
    pub(crate) reconcile_interval: Duration,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Write to the Secret that leaves of it are served from now on, then ask again.
    Activate(Fingerprint),
    /// Add a new CA to the Secret, then ask again.
    Add,
    /// Remove it from the Secret, then ask again.
    Drop(Fingerprint),
    /// Nothing to write: serve a leaf of it.
    Serve(Fingerprint),
}

/// What comes of a forced rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forced {
    /// A new CA is added now.
    Begin,
    /// There are [`FORCED_LIMIT`] CAs: none is added.
    Full,
    /// One was added already: none is added.
    InFlight,
}

/// More than are ever needed at once; further ones would only make the caBundle grow.
pub(crate) const MAX_GENERATIONS: usize = 8;

/// With this many CAs a forced rotation has to wait until an old one was dropped; only a CA that
/// is due has its successor all the same.
pub(crate) const FORCED_LIMIT: usize = 4;

/// Allows for clocks that differ between nodes. More than a leaf's life would be of no use: to a
/// clock that is so far ahead the leaf has expired anyway.
const SKEW: Duration = Duration::from_secs(600);

impl Generation {
    /// Whether two thirds of its life are over.
    fn is_due(&self, now: Timestamp) -> bool {
        let life = self.not_after.duration_since(self.added).as_millis();
        now.duration_since(self.added).as_millis() * 3 >= life * 2
    }

    /// Whether every API server that follows its caBundle trusts it by now: we have waited, or
    /// another replica has before it made it active. The first of all is active without a wait.
    fn may_serve(&self, settings: &Settings) -> bool {
        let another_waited = self.active.is_some_and(|active| active != self.added);
        self.observed
            .trusted
            .is_some_and(|trusted| another_waited || trusted >= settings.trust_settle)
    }
}

/// How long it was from one moment to another; nothing where that came first.
fn since(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// The oldest that has a successor which everyone has been serving for longer than a leaf lives.
fn superseded(
    generations: &[Generation],
    now: Timestamp,
    settings: &Settings,
) -> Option<Fingerprint> {
    let (oldest, newer) = generations.split_first()?;
    let rounds = settings.reconcile_interval * 2;
    let last_leaf = settings.leaf_lifetime + rounds + SKEW.min(settings.leaf_lifetime);
    // By then every replica that reaches the API server has followed, whatever our clock says.
    let followed = settings.trust_settle + rounds;
    let replaced = newer.iter().any(|g| {
        g.observed.trusted.is_some()
            && g.not_before <= now
            && g.active.is_some_and(|active| since(active, now) >= last_leaf)
            && g.observed.active.is_some_and(|known| known >= followed)
    });
    (replaced || generations.len() > MAX_GENERATIONS).then_some(oldest.id)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
