//! The Secret's part of a round: heal it, do what the plan says, and begin what was forced.

use std::time::Instant;

use jiff::Timestamp;

use super::super::api::Secret;
use super::super::authority::{Authorities, Found};
use super::super::issue::Authority;
use super::super::plan::{self, Forced, Step};
use super::{Manager, RoundError};
use crate::x509::certs::Fingerprint;

impl Manager {
    /// Does what the plan says, writes the Secret if that changed anything, and says whose leaf to
    /// serve.
    pub(super) async fn settle_secret(
        &mut self,
        secret: &mut Secret,
    ) -> Result<(Authorities, Fingerprint), RoundError> {
        let (mut authorities, mut changed) = self.found(secret)?;
        let now = Timestamp::now();
        let mut adding = false;
        for _ in 0..4 * plan::MAX_GENERATIONS {
            match self.next(&authorities, now) {
                Step::Activate(id) => authorities.activate(id, now),
                Step::Add => self.add(&mut authorities, now)?,
                Step::Drop(id) => {
                    tracing::debug!("dropping a CA of which no leaf can be alive");
                    authorities.drop(id);
                }
                Step::Serve(_) if !adding && self.begins_rotation(&authorities, now) => {
                    adding = true;
                    self.add(&mut authorities, now)?;
                }
                Step::Serve(id) => {
                    if changed {
                        authorities.store(secret)?;
                        self.cluster.replace_secret(secret).await?;
                        tracing::info!(
                            object = self.cluster.secret_name(),
                            cas = authorities.certificates().len(),
                            "the CAs were written"
                        );
                    }
                    // Only now: what was not written has to be asked for again.
                    self.forced = None;
                    if adding {
                        tracing::info!("the forced rotation has begun: a new CA was added");
                    }
                    return Ok((authorities, id));
                }
            }
            changed = true;
        }
        Err(RoundError::Unsettled)
    }

    /// What the Secret holds, with what it has lost, and whether that is a change.
    fn found(&self, secret: &Secret) -> Result<(Authorities, bool), RoundError> {
        let Found { mut authorities, damaged } = Authorities::of(secret);
        let object = self.cluster.secret_name();
        if damaged {
            tracing::warn!(object, "it holds what cannot be used, and is healed");
        }
        let lost = plan::lost(
            &self.generations(&authorities),
            damaged,
            &self.generations(&self.authorities),
            self.leaf.as_ref().map(|leaf| leaf.issuer),
            Timestamp::now(),
        );
        if !lost.is_empty() {
            tracing::warn!(object, cas = lost.len(), "it has lost CAs, and gets them back");
            authorities.restore(&self.authorities, &lost)?;
        }
        Ok((authorities, damaged || !lost.is_empty()))
    }

    fn add(&self, authorities: &mut Authorities, now: Timestamp) -> Result<(), RoundError> {
        let new = Authority::generate(now, self.settings.ca_lifetime)?;
        tracing::debug!(not_after = %new.facts().not_after, "proposing a CA");
        authorities.add(new, now);
        Ok(())
    }

    /// Whether a rotation was asked for and begins with this round; says so where it does not.
    fn begins_rotation(&mut self, authorities: &Authorities, now: Timestamp) -> bool {
        let Some(requested) = self.forced else { return false };
        let generations = self.generations(authorities);
        match plan::forced(&generations, requested, now, &self.settings.plan) {
            Forced::Begin => true,
            Forced::InFlight => {
                tracing::info!("a rotation is in flight already: none is forced beside it");
                self.forced = None;
                false
            }
            Forced::Full => {
                tracing::warn!(
                    cas = generations.len(),
                    "no rotation is forced: too many CAs are still needed; try again when the \
                     oldest has been dropped"
                );
                self.forced = None;
                false
            }
        }
    }

    /// The Secret is as `authorities` now.
    pub(super) fn remember(&mut self, authorities: Authorities) {
        let before = std::mem::take(&mut self.active);
        let now = Instant::now();
        let active = self.generations(&authorities).into_iter().filter(|g| g.active.is_some());
        self.active = active.map(|g| (g.id, before.get(&g.id).copied().unwrap_or(now))).collect();
        self.authorities = authorities;
    }
}
