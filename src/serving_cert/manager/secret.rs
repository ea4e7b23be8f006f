//! The Secret's part of a round: repairs it, takes the steps of the rotation, begins a forced one.

use std::time::Instant;

use jiff::Timestamp;

use super::super::authority::{Authorities, CaSecretContent};
use super::super::issue::Authority;
use super::super::objects::CaSecret;
use super::super::rotation::{self, ForcedRotation, RotationStep};
use super::{Manager, RoundError};
use crate::x509::certs::Fingerprint;

impl Manager {
    /// Takes the steps of the rotation, and writes the Secret if they changed it. Returns the CAs,
    /// and the CA whose leaf to serve.
    pub(super) async fn settle_secret(
        &mut self,
        secret: &mut CaSecret,
    ) -> Result<(Authorities, Fingerprint), RoundError> {
        let (mut authorities, mut changed) = self.read_secret(secret)?;
        let now = Timestamp::now();
        let mut adding = false;
        for _ in 0..4 * rotation::MAX_CAS {
            match self.next(&authorities, now) {
                RotationStep::Activate(id) => authorities.activate(id, now),
                RotationStep::Add => self.add(&mut authorities, now)?,
                RotationStep::Drop(id) => {
                    tracing::debug!("dropping a CA whose leaves have all expired");
                    authorities.drop(id);
                }
                RotationStep::Serve(_) if !adding && self.begins_rotation(&authorities, now) => {
                    adding = true;
                    self.add(&mut authorities, now)?;
                }
                RotationStep::Serve(id) => {
                    if changed {
                        authorities.store(secret)?;
                        self.objects.replace_secret(secret).await?;
                        tracing::info!(
                            object = self.objects.secret_name(),
                            cas = authorities.certificates().len(),
                            "updated the CAs in the Secret"
                        );
                    }
                    // Only after the write: a rotation that was not written must be tried again.
                    self.forced = None;
                    if adding {
                        tracing::info!("the forced rotation has begun, a new CA was added");
                    }
                    return Ok((authorities, id));
                }
            }
            changed = true;
        }
        Err(RoundError::Unsettled)
    }

    /// Reads the Secret, and restores what it has lost. Returns whether that changed it.
    fn read_secret(&self, secret: &CaSecret) -> Result<(Authorities, bool), RoundError> {
        let CaSecretContent { mut authorities, damaged } = Authorities::of(secret);
        let object = self.objects.secret_name();
        if damaged {
            tracing::warn!(object, "the Secret has unusable content, repairing it");
        }
        let lost = rotation::lost_cas(
            &self.facts(&authorities),
            damaged,
            &self.facts(&self.authorities),
            self.leaf.as_ref().map(|leaf| leaf.issuer),
            Timestamp::now(),
        );
        if !lost.is_empty() {
            tracing::warn!(object, cas = lost.len(), "the Secret has lost CAs, restoring them");
            authorities.restore(&self.authorities, &lost)?;
        }
        Ok((authorities, damaged || !lost.is_empty()))
    }

    fn add(&self, authorities: &mut Authorities, now: Timestamp) -> Result<(), RoundError> {
        let new = Authority::generate(now, self.config.ca_lifetime)?;
        tracing::debug!(not_after = %new.facts().not_after, "proposing a CA");
        authorities.add(new, now);
        Ok(())
    }

    /// Whether a requested rotation begins in this round. Logs why it does not.
    fn begins_rotation(&mut self, authorities: &Authorities, now: Timestamp) -> bool {
        let Some(requested) = self.forced else { return false };
        let cas = self.facts(authorities);
        match rotation::decide_forced(&cas, requested, now, &self.config.timing) {
            ForcedRotation::Begin => true,
            ForcedRotation::InFlight => {
                tracing::info!("a rotation is already in progress, no second one is started");
                self.forced = None;
                false
            }
            ForcedRotation::Full => {
                tracing::warn!(
                    cas = cas.len(),
                    "cannot force a rotation: too many CAs are still needed; try again when the \
                     oldest one has been dropped"
                );
                self.forced = None;
                false
            }
        }
    }

    /// Remembers `authorities`, the content of the Secret, and since when each is active.
    pub(super) fn remember(&mut self, authorities: Authorities) {
        let before = std::mem::take(&mut self.active);
        let now = Instant::now();
        let active = self.facts(&authorities).into_iter().filter(|ca| ca.active.is_some());
        self.active =
            active.map(|ca| (ca.id, before.get(&ca.id).copied().unwrap_or(now))).collect();
        self.authorities = authorities;
    }
}
