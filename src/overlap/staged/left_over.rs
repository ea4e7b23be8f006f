//! A waiting pair without a stage that fits it: the marks were wiped, or `tls.*` changed, while the
//! webhook was away.

use super::pair::{Fitness, TlsPair, agree};
use super::{StageChange, StagedDecision, StagedWrite};
use crate::overlap::warning::Warning;

impl<'a> StagedWrite<'a> {
    /// Ends what is left of the stage. A valid pair that a generator brings goes into service; else
    /// the newer one of the written and the waiting pair, if it is valid.
    pub(super) fn end_left_over(&self) -> StagedDecision<'a> {
        if self.is_by_stranger() {
            let warning = Some(Warning::StagedStranger);
            return self.switch(self.written, StageChange::Ended, warning);
        }
        let ends = |pair| self.switch(pair, StageChange::Ended, Some(Warning::StagedBroken));
        let (written, waiting) = (ends(self.written), ends(self.waiting));
        // Peers of a waiting leaf need its CA from the writer, not from what is carried: a writer
        // who goes back to an older CA means the older pair.
        let brings_its_ca = self.verifies(self.waiting, self.write.incoming.ca_crt);
        let [old, mut new] = [&written, &waiting].map(|decided| {
            let (pair, anchors) = (decided.served, self.anchors(decided));
            let issuers = self.write.issuers;
            Fitness::of(issuers, &pair.chain(), self.is_sound(pair), anchors, self.write.now)
        });
        new.is_valid &= brings_its_ca;
        // Its generator writes a fresh object again and again, so the answer must stay the same.
        let is_meant = self.brings_its_pair() && old.is_fit();
        let is_better = new.is_sound && new.goes_before(&old, self.is_served_replaced());
        if is_better && !is_meant { waiting } else { written }
    }

    /// Whether certificate and key are there, and belong together as far as can be told.
    fn is_sound(&self, pair: TlsPair<'_>) -> bool {
        pair.is_whole() && agree(pair, self.served)
    }

    /// Whether this write, or one that the webhook missed, replaced the held pair.
    fn is_served_replaced(&self) -> bool {
        let held = self.stage.flatten().map(|stage| stage.held);
        self.written != self.served || held.is_some_and(|held| held != self.served.fingerprint())
    }
}
