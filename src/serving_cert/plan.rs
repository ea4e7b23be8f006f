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

use jiff::{SignedDuration, Timestamp};

/// What to do next, and whose leaf to serve once there is nothing left to do.
///
/// `generations` are in the order in which they were added.
pub fn plan(generations: &[Generation], now: Timestamp, settings: &Settings) -> Step {
    if let Some(gone) = generations.iter().find(|g| now >= g.not_after) {
        return Step::Drop(gone.id);
    }
    if let Some(superseded) = superseded(generations, now, settings) {
        return Step::Drop(superseded);
    }
    let usable: Vec<&Generation> = generations.iter().filter(|g| g.not_before <= now).collect();
    let Some(newest) = usable.last() else {
        return Step::Add;
    };
    if newest.is_due(now) {
        return Step::Add;
    }
    let serve = usable
        .iter()
        .rev()
        .find(|g| g.may_serve(now, settings))
        // Nothing has settled: the one trusted for longest.
        .or_else(|| usable.iter().find(|g| g.seen.is_some()))
        // None of ours is trusted: there is nothing to wait for.
        .unwrap_or(newest);
    if serve.active.is_none() {
        return Step::Activate(serve.id);
    }
    Step::Serve(serve.id)
}

/// One CA of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Which.
    pub id: Id,
    /// `notBefore` of its certificate.
    pub not_before: Timestamp,
    /// `notAfter` of its certificate.
    pub not_after: Timestamp,
    /// Since when it stands in the Secret.
    pub added: Timestamp,
    /// Since when leaves of it may be served, as the Secret says.
    pub active: Option<Timestamp>,
    /// Since when this process has found it in the caBundle, each time it looked.
    pub seen: Option<Timestamp>,
}

/// The SHA-256 of a CA's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(pub [u8; 32]);

/// The lengths of time that the plan goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `--leaf-lifetime`.
    pub leaf_lifetime: SignedDuration,
    /// `--trust-settle`: from a CA's being in the caBundle to the first leaf of it.
    pub trust_settle: SignedDuration,
    /// `--reconcile-interval`.
    pub reconcile_interval: SignedDuration,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write to the Secret that leaves of it are served from now on, then ask again.
    Activate(Id),
    /// Add a new CA to the Secret, then ask again.
    Add,
    /// Remove it from the Secret, then ask again.
    Drop(Id),
    /// Nothing to write: serve a leaf of it.
    Serve(Id),
}

/// More than are ever needed at once; further ones would only make the caBundle grow.
pub const MAX_GENERATIONS: usize = 8;

/// Allows for clocks that differ between nodes.
const SKEW: SignedDuration = SignedDuration::from_mins(10);

impl Generation {
    /// Whether two thirds of its life are over.
    fn is_due(&self, now: Timestamp) -> bool {
        let life = self.not_after.duration_since(self.added).as_millis();
        now.duration_since(self.added).as_millis() * 3 >= life * 2
    }

    /// Whether every API server that follows its caBundle trusts it by now.
    fn may_serve(&self, now: Timestamp, settings: &Settings) -> bool {
        self.seen.is_some_and(|seen| {
            // Active: another replica has waited already, and we follow it.
            self.active.is_some()
                || now.duration_since(seen.max(self.added)) >= settings.trust_settle
        })
    }
}

/// The oldest that has a successor which everyone has been serving for longer than a leaf lives.
fn superseded(generations: &[Generation], now: Timestamp, settings: &Settings) -> Option<Id> {
    let (oldest, newer) = generations.split_first()?;
    let last_leaf = settings.leaf_lifetime + settings.reconcile_interval * 2 + SKEW;
    let replaced = newer.iter().any(|g| {
        g.seen.is_some()
            && g.not_before <= now
            && g.active.is_some_and(|active| now.duration_since(active) >= last_leaf)
    });
    (replaced || generations.len() > MAX_GENERATIONS).then_some(oldest.id)
}

#[cfg(test)]
mod tests;
