//! Staged mode (DESIGN §4.4): trust first, the new leaf later.
//!
//! On a rotation `ca.crt` is bundled at once, but the Secret goes on serving the *held* pair, and
//! the new one *waits* under `pending.*` until the keeper, which sees when the trust has spread,
//! asks to promote it. Whatever goes wrong in between ends in an ordinary overlap with the pair
//! that the generator means in service.

mod pair;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};

use super::MAX_STORED_BLOCKS;
use super::decide as decision;
use super::record::{Entry, Record};
use super::warning::Warning;
use super::write::{self, Case, Contents, Decision, RecordAfter, Write};
use crate::x509::certs::{Bundle, Certificate, Fingerprint};
use crate::x509::issuer::Issuers;

pub use pair::TlsPair;

use pair::verifies;

/// How often another pair may take the place of the waiting one. A generator that goes on issuing
/// does so because it does not find its pair in service.
const MAX_MOVES: u8 = 2;

/// The held leaf must live at least this long, or ten times as long as the keeper waits.
const MIN_HELD_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// A staged rotation: the annotation `ca-overlap.dev/staged`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// When the pair that waits now was put aside.
    pub since: Timestamp,
    /// The SHA-256 of `tls.crt`, which is still served: of the decoded value's bytes.
    pub held: Fingerprint,
    /// The SHA-256 of `pending.tls.crt`, which waits.
    pub pending: Fingerprint,
    /// How often another pair took the place of the waiting one.
    pub moved: u8,
}

/// An annotation that is not what we write. Never says what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a JSON object with since, held, pending and moved")]
pub struct ParseStageError;

impl Stage {
    /// Reads the annotation.
    pub fn parse(text: &str) -> Result<Self, ParseStageError> {
        serde_json::from_str(text).map_err(|_| ParseStageError)
    }

    /// The annotation's value.
    pub fn to_annotation(&self) -> String {
        // Writing strings and dates to memory has no way to fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What is known of the keeper, without which nothing would be promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeeperHealth {
    /// Staged mode is not switched on.
    Absent,
    /// We have just started and have not seen its Lease yet.
    Unknown,
    /// Its Lease has run out.
    Lost,
    /// Its Lease is fresh.
    Alive,
}

/// One update of a Secret that is staged, or might be.
pub struct StagedWrite<'a> {
    /// The update; its room counts for nothing here.
    pub write: Write<'a>,
    /// How many bytes there are for all pairs, and for `ca.crt` to grow.
    pub room: usize,
    /// The stored `tls.*`.
    pub served: TlsPair<'a>,
    /// The stored `pending.*`.
    pub waiting: TlsPair<'a>,
    /// The incoming `tls.*`.
    pub written: TlsPair<'a>,
    /// The stored annotation, if there is one, and what it says.
    pub stage: Option<Option<Stage>>,
    /// Whether the mode is `staged` and data may be changed.
    pub is_wanted: bool,
    /// Whether all of it is meant: a fresh object, not one that was made of the stored one.
    pub is_fresh_object: bool,
    /// Whether somebody would promote it.
    pub keeper: KeeperHealth,
    /// How long the keeper waits before it promotes.
    pub settle: Duration,
    /// What the keeper asks to be promoted.
    pub promote: Option<Fingerprint>,
    /// Why this Secret cannot be staged, if its keys or its owner say so.
    pub obstacle: Option<Warning>,
}

/// What is to be stored.
pub struct StagedDecision<'a> {
    /// About `ca.crt` and the record.
    pub decision: Decision,
    /// What becomes `tls.*`.
    pub served: TlsPair<'a>,
    /// What becomes `pending.*`, and the annotation.
    pub waiting: Option<(TlsPair<'a>, Stage)>,
    /// What has happened to the stage, if there is or was one.
    pub change: Option<StageChange>,
}

/// What has happened to the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum StageChange {
    /// A new pair waits.
    Begun,
    /// It goes on as it was.
    Kept,
    /// Another pair has taken the place of the waiting one.
    Moved,
    /// The waiting pair is in service.
    Promoted,
    /// The generator went back to the held pair.
    Cancelled,
    /// It came to an early end; the pair that the generator means is in service.
    Ended,
}

/// Decides about one update. Deterministic, and total, as [`decision::decide`] is.
pub fn decide<'a>(staging: &StagedWrite<'a>) -> StagedDecision<'a> {
    let is_left_over = staging.stage.is_some() || staging.waiting != TlsPair::default();
    match staging.recorded() {
        Some(stage) => staging.go_on(&stage),
        // Somebody wrote while we were away: what stands in `tls.*` is newer than what waits.
        None if is_left_over => {
            staging.plain(staging.written, Some(StageChange::Ended), Some(Warning::StagedBroken))
        }
        None => staging.begin(),
    }
}

impl<'a> StagedWrite<'a> {
    /// The stored stage, if both pairs are still the recorded ones.
    fn recorded(&self) -> Option<Stage> {
        let stage = self.stage??;
        let is_true = self.served.is_whole()
            && self.waiting.is_whole()
            && self.served.fingerprint() == stage.held
            && self.waiting.fingerprint() == stage.pending;
        is_true.then_some(stage)
    }

    /// Nothing is staged yet.
    fn begin(&self) -> StagedDecision<'a> {
        let plain = self.plain(self.written, None, None);
        let has_new_leaf = self.served.is_whole()
            && self.written.is_whole()
            && self.served.crt != self.written.crt;
        let is_race = plain.decision.case == Case::Rotation
            && has_new_leaf
            && !verifies(&self.written.chain(), self.write.stored.ca_crt);
        if !self.is_wanted || !is_race {
            return plain;
        }
        let held = self.served.fingerprint();
        let stage = self.stage_of(self.written, held, 0);
        self.hold(self.written, stage, StageChange::Begun)
            .unwrap_or_else(|warning| plain.told(warning))
    }

    /// A pair waits.
    fn go_on(&self, stage: &Stage) -> StagedDecision<'a> {
        let meant = self.meant();
        if !self.is_wanted || self.write.incoming.ca_crt.is_none() {
            return self.serve(meant, StageChange::Ended, None);
        }
        if matches!(self.keeper, KeeperHealth::Absent | KeeperHealth::Lost) {
            return self.serve(meant, StageChange::Ended, Some(self.no_keeper()));
        }
        if self.must_not_be_held() {
            return self.serve(meant, StageChange::Promoted, None);
        }
        let is_changed = self.write.stored.ca_crt != self.write.incoming.ca_crt;
        if self.promote == Some(stage.pending) && !is_changed && self.written == self.served {
            return self.serve(self.waiting, StageChange::Promoted, None);
        }
        if is_changed && self.is_written_back() {
            return self.serve(self.served, StageChange::Cancelled, None);
        }
        let held = if meant == self.waiting {
            self.hold(self.waiting, *stage, StageChange::Kept)
        } else if !is_changed {
            return self.serve(meant, StageChange::Ended, None);
        } else if stage.moved >= MAX_MOVES {
            Err(Warning::StagedMoved)
        } else {
            self.hold(meant, self.stage_of(meant, stage.held, stage.moved + 1), StageChange::Moved)
        };
        held.unwrap_or_else(|warning| self.serve(meant, StageChange::Ended, Some(warning)))
    }

    /// The pair that the generator means. What a write leaves as it stands it may never have
    /// looked at: there the waiting pair is meant, which it would have found without us. A write
    /// of half a pair is completed likewise.
    fn meant(&self) -> TlsPair<'a> {
        let (written, served, waiting) = (self.written, self.served, self.waiting);
        let is_reapply = self.write.stored.ca_crt == self.write.incoming.ca_crt;
        if self.is_fresh_object && !(is_reapply && written == served) {
            return written;
        }
        match (written.crt == served.crt, written.key == served.key) {
            (true, true) => waiting,
            (true, false) => TlsPair { crt: waiting.crt, ..written },
            // A renewal may keep the key, and that of the pair which it does not see.
            (false, true) if written.crt == waiting.crt => waiting,
            (false, true) if written.has_key_of(waiting) && !written.has_key_of(served) => {
                TlsPair { key: waiting.key, ..written }
            }
            (false, _) => written,
        }
    }

    /// Whether the generator went back to the held pair: said by a fresh object that holds it, or
    /// by its CA.
    fn is_written_back(&self) -> bool {
        let is_rollback = || self.plain(self.served, None, None).decision.case == Case::Rollback;
        self.written == self.served && (self.is_fresh_object || is_rollback())
    }

    /// Whether the held leaf is of no use any more: expired, or of a CA that is distrusted.
    fn must_not_be_held(&self) -> bool {
        let chain = write::chain(Some(&self.served.chain()));
        let expired = chain.certificates().first().is_none_or(|l| l.is_expired(self.write.now));
        let distrusted = |c: &Certificate| write::is_distrusted(c, self.write.settings);
        expired
            || (!self.write.settings.distrust.is_empty()
                && self.issuers_of_held().iter().any(distrusted))
    }

    /// The stored certificates that issued the held chain.
    fn issuers_of_held(&self) -> Vec<Certificate> {
        let chain = write::chain(Some(&self.served.chain()));
        let text = self.write.stored.ca_crt.unwrap_or_default();
        let stored = Bundle::parse(text, MAX_STORED_BLOCKS).unwrap_or_default();
        let found = Issuers::default().of_chain(&chain, stored.certificates(), &std::iter::empty());
        found.into_iter().map(|index| stored.certificates()[index].clone()).collect()
    }

    /// Keeps the stored pair in service, while `waiting` waits.
    fn hold(
        &self,
        waiting: TlsPair<'a>,
        stage: Stage,
        change: StageChange,
    ) -> Result<StagedDecision<'a>, Warning> {
        if let Some(obstacle) = self.obstacle {
            return Err(obstacle);
        }
        if change != StageChange::Kept {
            self.may_put_aside(waiting)?;
        }
        let pairs = self.served.size() + waiting.size();
        let room = self.room.checked_sub(pairs).ok_or(Warning::StagedNoRoom)?;
        let held = self.served.chain();
        let incoming = Contents { tls_crt: Some(&held), ..self.write.incoming };
        let decision = decision::decide(&Write { incoming, room, ..self.write });
        let anchors = decision.ca_crt.as_deref().or(incoming.ca_crt);
        if !verifies(&held, anchors) || !verifies(&waiting.chain(), anchors) {
            return Err(Warning::StagedUnverified);
        }
        Ok(StagedDecision {
            decision,
            served: self.served,
            waiting: Some((waiting, stage)),
            change: Some(change),
        })
    }

    fn may_put_aside(&self, waiting: TlsPair<'a>) -> Result<(), Warning> {
        if self.keeper != KeeperHealth::Alive {
            return Err(self.no_keeper());
        }
        let belongs = waiting.key != self.served.key || waiting.has_key_of(self.served);
        if !waiting.is_whole() || !belongs {
            return Err(Warning::StagedUnverified);
        }
        let needed = MIN_HELD_LIFE.max(self.settle.saturating_mul(10)).as_secs();
        let held = write::chain(Some(&self.served.chain()));
        let left = held.certificates().first().map(|l| l.not_after() - self.write.now.as_second());
        let lives = left.and_then(|left| u64::try_from(left).ok()).is_some_and(|l| l >= needed);
        if lives { Ok(()) } else { Err(Warning::StagedLeafExpires) }
    }

    fn no_keeper(&self) -> Warning {
        match self.keeper {
            KeeperHealth::Absent => Warning::StagedUnavailable,
            _ => Warning::StagedNoKeeper,
        }
    }

    fn stage_of(&self, waiting: TlsPair<'a>, held: Fingerprint, moved: u8) -> Stage {
        // As all dates that people read: without fractions.
        let now = self.write.now;
        let since = Timestamp::from_second(now.as_second()).unwrap_or(now);
        Stage { since, held, pending: waiting.fingerprint(), moved }
    }

    /// Ends the stage with `pair` in service. A pair that waits and does not verify any more is not
    /// put there while the held one does, unless the write itself brings it: then it is the
    /// generator's turn.
    fn serve(
        &self,
        pair: TlsPair<'a>,
        change: StageChange,
        warning: Option<Warning>,
    ) -> StagedDecision<'a> {
        let outcome = self.switch(pair, change, warning);
        if self.written != self.served || self.is_good(&outcome) {
            return outcome;
        }
        let held =
            self.plain(self.served, Some(StageChange::Ended), Some(Warning::StagedUnverified));
        if self.is_good(&held) { held } else { outcome }
    }

    /// Whether the leaf in service verifies.
    fn is_good(&self, outcome: &StagedDecision<'_>) -> bool {
        let anchors = outcome.decision.ca_crt.as_deref().or(self.write.incoming.ca_crt);
        verifies(&outcome.served.chain(), anchors)
    }

    /// Puts `pair` into service. If that is another leaf than before, the overlap for its peers
    /// begins only now, whatever the dates of what is carried.
    fn switch(
        &self,
        pair: TlsPair<'a>,
        change: StageChange,
        warning: Option<Warning>,
    ) -> StagedDecision<'a> {
        let record = self.write.record.filter(|_| pair != self.served).map(|r| self.anew(r));
        let Some(record) = record else { return self.plain(pair, Some(change), warning) };
        let write = Write { record: Some(&record), ..self.write };
        let mut outcome = self.plain_of(&write, pair, Some(change), warning);
        if outcome.decision.record == RecordAfter::AsStored && self.write.record != Some(&record) {
            outcome.decision.record = RecordAfter::Set(record.clone());
        }
        outcome
    }

    fn anew(&self, record: &Record) -> Record {
        let issuers: Vec<_> = self.issuers_of_held().iter().map(Certificate::fingerprint).collect();
        let window = self.write.settings.window.length();
        let anew = |entry: &Entry| {
            if issuers.contains(&entry.sha256) {
                Entry::starting(entry.sha256, self.write.now, window)
            } else {
                *entry
            }
        };
        Record::new(record.entries().iter().map(anew).collect())
    }

    /// An ordinary overlap with `pair` in service.
    fn plain(
        &self,
        pair: TlsPair<'a>,
        change: Option<StageChange>,
        warning: Option<Warning>,
    ) -> StagedDecision<'a> {
        self.plain_of(&self.write, pair, change, warning)
    }

    fn plain_of(
        &self,
        write: &Write<'_>,
        pair: TlsPair<'a>,
        change: Option<StageChange>,
        warning: Option<Warning>,
    ) -> StagedDecision<'a> {
        let chain = pair.chain();
        let incoming = Contents { tls_crt: pair.crt.map(|_| &*chain), ..write.incoming };
        let room = self.room.saturating_sub(pair.size());
        let decision = decision::decide(&Write { incoming, room, ..*write });
        let outcome = StagedDecision { decision, served: pair, waiting: None, change };
        match warning {
            None => outcome,
            Some(warning) => outcome.told(warning),
        }
    }
}

impl StagedDecision<'_> {
    fn told(mut self, warning: Warning) -> Self {
        if !self.decision.warnings.contains(&warning) {
            self.decision.warnings.push(warning);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_survives_printing_and_nothing_else_is_one() {
        let stage = Stage {
            since: "2026-03-01T10:00:00Z".parse().unwrap(),
            held: Fingerprint::of(b"held"),
            pending: Fingerprint::of(b"pending"),
            moved: 1,
        };
        assert_eq!(Stage::parse(&stage.to_annotation()), Ok(stage));
        for text in ["", "{}", "[]", r#"{"since":"2026-03-01T10:00:00Z","moved":1}"#] {
            assert_eq!(Stage::parse(text), Err(ParseStageError), "{text}");
        }
    }
}
