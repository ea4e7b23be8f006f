//! A waiting pair without a stage that fits it: the marks were wiped, or `tls.*` changed, while the
//! webhook was away.

use super::pair::{TlsPair, agree, validity, verifies};
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
        let brings_its_ca = verifies(&self.waiting.chain(), self.write.incoming.ca_crt);
        let [old, new] =
            [(&written, true), (&waiting, brings_its_ca)].map(|(decided, is_trusted)| {
                let pair = decided.served;
                let is_valid = is_trusted && self.is_current(pair) && self.leaf_verifies(decided);
                (self.is_sound(pair), is_valid, validity(&pair.chain()))
            });
        // Its generator writes a fresh object again and again, so the answer must stay the same.
        let is_meant = self.brings_its_pair() && old.0 && old.1;
        let is_newer = new > old || (new == old && !self.is_served_replaced());
        if is_newer && !is_meant && self.is_sound(self.waiting) { waiting } else { written }
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
