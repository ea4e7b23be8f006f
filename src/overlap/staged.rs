//! Staged mode (docs/design.md, "Staged mode"): the new CA first, the new leaf later.
//!
//! At a rotation `ca.crt` is bundled at once. The *held* pair stays in service, and the new pair
//! *waits* under `pending.*`. When the new CA has reached all peers, the keeper asks to promote the
//! waiting pair. If anything goes wrong before that, the stage ends early. Then the pair that the
//! generator intends goes into service, as in mode `bundle`.

mod created;
mod left_over;
mod pair;

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};

use super::MAX_STORED_BLOCKS;
use super::announce;
use super::decide as decision;
use super::record::{self, Entry, Record};
use super::warning::Warning;
use super::write::{self, Case, Contents, Decision, RecordAfter, Write};
use crate::x509::certs::{Bundle, Certificate, Fingerprint};

pub use created::decide_created;
pub(crate) use pair::Fitness;
pub use pair::TlsPair;
use pair::{is_current, verifies};

/// How often another pair may replace the waiting one. A generator that keeps issuing pairs does so
/// because it does not find its pair in service.
const MAX_MOVES: u8 = 2;

/// A leaf is held only if at least this much of its life is left, or ten times the settle time if
/// that is longer.
const MIN_HELD_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// The state of a staged rotation: the annotation `ca-overlap.dev/staged`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// When the waiting pair began to wait.
    pub since: Timestamp,
    /// The SHA-256 of the decoded `tls.crt`, which holds the held leaf.
    pub held: Fingerprint,
    /// The SHA-256 of the decoded `pending.tls.crt`, which holds the waiting leaf.
    pub pending: Fingerprint,
    /// How often another pair has replaced the waiting one.
    pub moved: u8,
}

/// The error for an annotation that does not parse. It never quotes the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a JSON object with since, held, pending and moved")]
pub struct ParseStageError;

impl Stage {
    /// Reads the annotation, whatever object it names.
    pub fn parse(text: &str) -> Result<Self, ParseStageError> {
        Self::of_object(text, None).map(|(stage, _)| stage)
    }

    /// Reads the annotation of the Secret with this uid. One that names another uid came with a
    /// copy of another Secret, and is an error. Also says whether it names this uid, so that it
    /// needs no change.
    pub fn of_object(text: &str, uid: Option<&str>) -> Result<(Self, bool), ParseStageError> {
        let written: WrittenStage<'_> = serde_json::from_str(text).map_err(|_| ParseStageError)?;
        let WrittenStage { since, held, pending, moved, uid: written } = written;
        if !record::is_believed(written.as_deref(), uid) {
            return Err(ParseStageError);
        }
        let is_complete = uid.is_none() || written.as_deref() == uid;
        Ok((Self { since, held, pending, moved }, is_complete))
    }

    /// The annotation's value, for the Secret with this uid.
    pub fn to_annotation(&self, uid: Option<&str>) -> String {
        let Self { since, held, pending, moved } = *self;
        let written = WrittenStage { since, held, pending, moved, uid: uid.map(Cow::Borrowed) };
        // Writing strings and dates to memory cannot fail.
        serde_json::to_string(&written).unwrap_or_default()
    }
}

/// The state as the annotation holds it.
#[derive(Serialize, Deserialize)]
struct WrittenStage<'a> {
    since: Timestamp,
    held: Fingerprint,
    pending: Fingerprint,
    moved: u8,
    /// The uid of the Secret that it was written for. The first edition wrote none.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    uid: Option<Cow<'a, str>>,
}

/// Whether the keeper is alive. Without it no waiting pair is promoted on time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeeperHealth {
    /// Staged mode is not enabled.
    Absent,
    /// The webhook has just started and has not seen the keeper's Lease yet.
    Unknown,
    /// Its Lease has expired.
    Lost,
    /// Its Lease is fresh.
    Alive,
}

/// One update of a Secret that is staged, or could be.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about the write")]
pub struct StagedWrite<'a> {
    /// The update. Its `room` is not used.
    pub write: Write<'a>,
    /// The free bytes for all pairs together, and for `ca.crt` to grow.
    pub room: usize,
    /// The stored `tls.*`.
    pub served: TlsPair<'a>,
    /// The stored `pending.*`.
    pub waiting: TlsPair<'a>,
    /// The incoming `tls.*`.
    pub written: TlsPair<'a>,
    /// The stored annotation: `None` if there is none, and `Some(None)` if it does not parse.
    pub stage: Option<Option<Stage>>,
    /// Whether the mode is `staged` and data may be changed.
    pub is_wanted: bool,
    /// Whether the writer sends a fresh object, not one that was made from the stored object.
    pub is_fresh_object: bool,
    /// Whether the keeper is alive to promote it.
    pub keeper: KeeperHealth,
    /// `--settle`: how long the keeper waits before it promotes.
    pub settle: Duration,
    /// The fingerprint of the waiting pair that the keeper asks to promote, as in
    /// [`Stage::pending`].
    pub promote: Option<Fingerprint>,
    /// Whether someone asks to end the stage with the waiting pair in service.
    pub unstage: bool,
    /// Why this Secret cannot be staged, if there is a reason.
    pub obstacle: Option<Warning>,
}

/// What to store.
pub struct StagedDecision<'a> {
    /// The decision about `ca.crt` and the record.
    pub decision: Decision,
    /// The pair to store in `tls.*`.
    pub served: TlsPair<'a>,
    /// The pair to store in `pending.*`, with the annotation.
    pub waiting: Option<(TlsPair<'a>, Stage)>,
    /// What happened to the stage, if there is or was one.
    pub change: Option<StageChange>,
}

/// What happened to a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum StageChange {
    /// It began: a new pair waits.
    Begun,
    /// It continues unchanged.
    Kept,
    /// Another pair replaced the waiting one.
    Moved,
    /// The waiting pair went into service.
    Promoted,
    /// The generator went back to the held pair.
    Cancelled,
    /// It ended early. The pair that the generator intends is in service.
    Ended,
}

/// Decides what to store for one update. Deterministic and total, as [`decision::decide`] is.
pub fn decide<'a>(staging: &StagedWrite<'a>) -> StagedDecision<'a> {
    let is_left_over = staging.stage.is_some() || staging.waiting != TlsPair::default();
    match staging.recorded() {
        Some(stage) => staging.proceed(&stage),
        None if is_left_over => staging.end_left_over(),
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

    /// Whether the writer may not read the Secret. His pair then goes into service as he writes it,
    /// so that the answer holds no other key.
    fn is_by_stranger(&self) -> bool {
        self.obstacle == Some(Warning::StagedStranger)
    }

    /// Decides about a write while no pair waits. This is where a stage begins.
    fn begin(&self) -> StagedDecision<'a> {
        let plain = self.plain(self.written, None, None);
        let has_new_leaf = self.served.is_whole()
            && self.written.is_whole()
            && self.served.crt != self.written.crt;
        let is_race = plain.decision.case == Case::Rotation
            && has_new_leaf
            && !self.verifies(self.written, self.known().as_deref());
        if !self.is_wanted || !is_race {
            return plain;
        }
        let held = self.served.fingerprint();
        let stage = self.stage_of(self.written, held, 0);
        self.hold(self.written, stage, StageChange::Begun)
            .unwrap_or_else(|warning| plain.not_staged(warning, self.write.now))
    }

    /// The stored `ca.crt` without what is announced: what this Secret was told ahead of time says
    /// nothing of its peers.
    fn known(&self) -> Option<Cow<'a, [u8]>> {
        let text = self.write.stored.ca_crt?;
        let announced = announce::fingerprints(self.write.record);
        if announced.is_empty() {
            return Some(Cow::Borrowed(text));
        }
        let bundle = Bundle::parse(text, MAX_STORED_BLOCKS).unwrap_or_default();
        Some(Cow::Owned(bundle.without(text, |c| announced.contains(&c.fingerprint()))))
    }

    /// Decides about a write while a pair waits.
    fn proceed(&self, stage: &Stage) -> StagedDecision<'a> {
        let intended = self.intended();
        if !self.is_wanted || self.write.incoming.ca_crt.is_none() {
            return self.serve(intended, StageChange::Ended, None);
        }
        let is_changed = self.write.stored.ca_crt != self.write.incoming.ca_crt;
        let is_untouched = !is_changed && self.written == self.served;
        if self.unstage && is_untouched {
            return self.serve(self.waiting, StageChange::Promoted, None);
        }
        if matches!(self.keeper, KeeperHealth::Absent | KeeperHealth::Lost) {
            return self.serve(intended, StageChange::Ended, Some(self.no_keeper()));
        }
        if self.must_not_be_held() {
            return self.serve(intended, StageChange::Promoted, None);
        }
        if self.promote == Some(stage.pending) && is_untouched {
            return self.serve(self.waiting, StageChange::Promoted, None);
        }
        if is_changed && self.is_written_back() {
            return self.serve(self.served, StageChange::Cancelled, None);
        }
        let held = if intended == self.waiting {
            self.hold(self.waiting, *stage, StageChange::Kept)
        } else if !is_changed {
            return self.serve(intended, StageChange::Ended, None);
        } else if stage.moved >= MAX_MOVES {
            Err(Warning::StagedMoved)
        } else {
            self.hold(
                intended,
                self.stage_of(intended, stage.held, stage.moved + 1),
                StageChange::Moved,
            )
        };
        held.unwrap_or_else(|warning| self.serve(intended, StageChange::Ended, Some(warning)))
    }

    /// The pair that the generator intends. A writer that leaves a value unchanged may never have
    /// read it. It then intends the waiting value, which it would have found without ca-overlap. A
    /// write of half a pair is completed by the same rule.
    fn intended(&self) -> TlsPair<'a> {
        let (written, served, waiting) = (self.written, self.served, self.waiting);
        if self.is_by_stranger() || self.brings_its_pair() {
            return written;
        }
        match (written.crt == served.crt, written.key == served.key) {
            (true, true) => waiting,
            (true, false) => TlsPair { crt: waiting.crt, ..written },
            // A renewal can reuse a key: the held one, which the writer sees, or the waiting one,
            // which it does not see.
            (false, true) if written.crt == waiting.crt => waiting,
            (false, true) if written.has_key_of(waiting) && !written.has_key_of(served) => {
                TlsPair { key: waiting.key, ..written }
            }
            (false, _) => written,
        }
    }

    /// Whether the writer sends a pair that it did not read from the Secret.
    fn brings_its_pair(&self) -> bool {
        let is_reapply = self.write.stored.ca_crt == self.write.incoming.ca_crt;
        self.is_fresh_object && !(is_reapply && self.written == self.served)
    }

    /// Whether the generator went back to the held pair: it writes a fresh object with that pair,
    /// or its CA.
    fn is_written_back(&self) -> bool {
        let is_rollback = || self.plain(self.served, None, None).decision.case == Case::Rollback;
        self.written == self.served && (self.is_fresh_object || is_rollback())
    }

    /// Whether the held leaf must go out of service: it has expired, or its CA is distrusted.
    fn must_not_be_held(&self) -> bool {
        let distrusted = |c: &Certificate| write::is_distrusted(c, self.write.settings);
        !is_current(&self.served.chain(), self.write.now)
            || (!self.write.settings.distrust.is_empty()
                && self.issuers_of_held().iter().any(distrusted))
    }

    /// The stored certificates that issued the held chain.
    fn issuers_of_held(&self) -> Vec<Certificate> {
        let chain = write::chain(Some(&self.served.chain()));
        let text = self.write.stored.ca_crt.unwrap_or_default();
        let stored = Bundle::parse(text, MAX_STORED_BLOCKS).unwrap_or_default();
        let issuers = self.write.issuers;
        let found = issuers.of_chain(&chain, stored.certificates(), &std::iter::empty());
        found.into_iter().map(|index| stored.certificates()[index].clone()).collect()
    }

    /// Holds the stored pair in service while `waiting` waits. Returns the reason if that is not
    /// possible.
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
            self.check_may_wait(waiting)?;
        }
        let pairs = self.served.size() + waiting.size();
        let room = self.room.checked_sub(pairs).ok_or(Warning::StagedNoRoom)?;
        let held = self.served.chain();
        let incoming = Contents { tls_crt: Some(&held), ..self.write.incoming };
        let decision = decision::decide(&Write { incoming, room, ..self.write });
        let anchors = decision.ca_crt.as_deref().or(incoming.ca_crt);
        if !self.verifies(self.served, anchors) || !self.verifies(waiting, anchors) {
            return Err(Warning::StagedUnverified);
        }
        Ok(StagedDecision {
            decision,
            served: self.served,
            waiting: Some((waiting, stage)),
            change: Some(change),
        })
    }

    /// Checks that a new pair may wait. Returns the reason if it may not.
    fn check_may_wait(&self, waiting: TlsPair<'a>) -> Result<(), Warning> {
        if self.keeper != KeeperHealth::Alive {
            return Err(self.no_keeper());
        }
        let belongs = waiting.key != self.served.key || waiting.has_key_of(self.served);
        if !waiting.is_whole() || !belongs || !is_current(&waiting.chain(), self.write.now) {
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
        // Without fractions of a second, because people read it.
        let now = self.write.now;
        let since = Timestamp::from_second(now.as_second()).unwrap_or(now);
        Stage { since, held, pending: waiting.fingerprint(), moved }
    }

    /// Ends the stage with `pair` in service. If a waiting pair does not verify any more, or has
    /// expired, but the held pair is valid, the held pair stays, and the generator must issue again.
    /// A pair that the write itself brings goes into service in any case.
    fn serve(
        &self,
        pair: TlsPair<'a>,
        change: StageChange,
        warning: Option<Warning>,
    ) -> StagedDecision<'a> {
        let decided = self.switch(pair, change, warning);
        if self.written != self.served || self.is_leaf_valid(&decided) {
            return decided;
        }
        let held =
            self.plain(self.served, Some(StageChange::Ended), Some(Warning::StagedUnverified));
        if self.is_leaf_valid(&held) { held } else { decided }
    }

    /// Whether the leaf in service has not expired, and verifies.
    fn is_leaf_valid(&self, decided: &StagedDecision<'_>) -> bool {
        is_current(&decided.served.chain(), self.write.now)
            && self.verifies(decided.served, self.anchors(decided))
    }

    /// The `ca.crt` that is stored.
    fn anchors<'d>(&'d self, decided: &'d StagedDecision<'_>) -> Option<&'d [u8]> {
        decided.decision.ca_crt.as_deref().or(self.write.incoming.ca_crt)
    }

    /// Whether the leaf of `pair` verifies against one of `anchors`.
    fn verifies(&self, pair: TlsPair<'_>, anchors: Option<&[u8]>) -> bool {
        verifies(self.write.issuers, &pair.chain(), anchors)
    }

    /// Puts `pair` into service. If its leaf is new, the overlap for its peers begins now, so the
    /// dates of the held leaf's carried CAs start again.
    fn switch(
        &self,
        pair: TlsPair<'a>,
        change: StageChange,
        warning: Option<Warning>,
    ) -> StagedDecision<'a> {
        let record = self.write.record.filter(|_| pair != self.served).map(|r| self.restarted(r));
        let Some(record) = record else { return self.plain(pair, Some(change), warning) };
        let write = Write { record: Some(&record), ..self.write };
        let mut decided = self.plain_of(&write, pair, Some(change), warning);
        if decided.decision.record == RecordAfter::AsStored && self.write.record != Some(&record) {
            decided.decision.record = RecordAfter::Set(record.clone());
        }
        decided
    }

    /// The record, with new dates for the CAs of the held leaf.
    fn restarted(&self, record: &Record) -> Record {
        let issuers: Vec<_> = self.issuers_of_held().iter().map(Certificate::fingerprint).collect();
        let window = self.write.settings.window.length();
        let restarted = |entry: &Entry| {
            if entry.announced.is_none() && issuers.contains(&entry.sha256) {
                let starting = Entry::starting(entry.sha256, self.write.now, window);
                Entry { successor_since: entry.successor_since, ..starting }
            } else {
                *entry
            }
        };
        Record::new(record.entries().iter().map(restarted).collect())
    }

    /// Decides without a stage, as in mode `bundle`, with `pair` in service.
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
        let decided = StagedDecision { decision, served: pair, waiting: None, change };
        match warning {
            None => decided,
            Some(warning) => decided.not_staged(warning, self.write.now),
        }
    }
}

impl StagedDecision<'_> {
    /// Warns, and notes in the record why the pair of this write is not staged.
    fn not_staged(mut self, warning: Warning, now: Timestamp) -> Self {
        if let RecordAfter::Set(record) = &mut self.decision.record {
            record.note_not_staged(warning, now);
        }
        self.with_warning(warning)
    }

    fn with_warning(mut self, warning: Warning) -> Self {
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
    fn a_stage_parses_back_and_other_text_does_not() {
        let stage = Stage {
            since: "2026-03-01T10:00:00Z".parse().unwrap(),
            held: Fingerprint::of(b"held"),
            pending: Fingerprint::of(b"pending"),
            moved: 1,
        };
        let (plain, own) = (stage.to_annotation(None), stage.to_annotation(Some("1")));
        assert_eq!(Stage::parse(&own), Ok(stage));
        for (text, uid, expected) in [
            (&plain, None, Ok((stage, true))),
            (&plain, Some("1"), Ok((stage, false))),
            (&own, None, Ok((stage, true))),
            (&own, Some("1"), Ok((stage, true))),
            (&own, Some("2"), Err(ParseStageError)),
        ] {
            assert_eq!(Stage::of_object(text, uid), expected, "{text} of {uid:?}");
        }
        for text in ["", "{}", "[]", r#"{"since":"2026-03-01T10:00:00Z","moved":1}"#] {
            assert_eq!(Stage::parse(text), Err(ParseStageError), "{text}");
        }
    }
}
