//! Plans one write: asks `overlap` for a decision, staged or not, and writes its pairs into a
//! patch.

use super::patch::PatchBuilder;
use super::review::ReviewedSecret;
use super::review::pairs::Pairs;
use crate::names;
use crate::overlap::settings::{Mode, Settings};
use crate::overlap::staged::{
    self, KeeperHealth, Stage, StageChange, StagedDecision, StagedWrite, TlsPair,
};
use crate::overlap::{self, Decision, Warning, Write};

/// Whether a pair waits in this Secret, or its annotation or label says so. Both can get lost while
/// the webhook is away, and the data stays.
pub(super) fn is_staged(secret: &ReviewedSecret<'_>) -> bool {
    secret.annotation(names::STAGED).is_some()
        || secret.label(names::PHASE) == Some(names::PHASE_STAGED)
        || names::PENDING.into_iter().any(|key| secret.has_key(key))
}

/// Whether an update may begin, change or end a stage. Only then its private keys are read.
pub(super) fn may_involve_stage(
    object: &ReviewedSecret<'_>,
    old: &ReviewedSecret<'_>,
    settings: &Settings,
    keeper: KeeperHealth,
) -> bool {
    let may_begin = keeper != KeeperHealth::Absent
        && settings.mode == Mode::Staged
        && object.ca_crt() != old.ca_crt();
    may_begin || [object, old].into_iter().any(is_staged)
}

/// Why this Secret cannot be staged: cert-manager checks its pair, or it has other values that must
/// match the pair.
pub(super) fn obstacle(
    object: &ReviewedSecret<'_>,
    old: &ReviewedSecret<'_>,
    pairs: &Pairs<'_>,
) -> Option<Warning> {
    let is_owned = |s: &ReviewedSecret<'_>| s.annotation(names::CERT_MANAGER_CERTIFICATE).is_some();
    if is_owned(object) || is_owned(old) {
        return Some(Warning::StagedCertManager);
    }
    pairs.has_other_keys().then_some(Warning::StagedOtherKeys)
}

/// The warnings about the settings of this Secret, its mode and its stored record.
pub(super) fn state_warnings(
    object: &ReviewedSecret<'_>,
    settings: &Settings,
    keeper: KeeperHealth,
    record_is_unreadable: bool,
) -> Vec<Warning> {
    let mut warnings = settings.warnings.clone();
    if record_is_unreadable {
        warnings.push(Warning::RecordUnreadable);
    }
    let wants_stage = settings.mode == Mode::Staged && object.ca_crt().is_some();
    if wants_stage && keeper == KeeperHealth::Absent {
        warnings.push(Warning::StagedUnavailable);
    }
    warnings
}

/// What the patch of one write makes the API server store.
pub(super) struct WritePlan<'a> {
    pub(super) decision: Decision,
    pub(super) change: Option<StageChange>,
    pub(super) served: TlsPair<'a>,
    pub(super) waiting: Option<(TlsPair<'a>, Stage)>,
    /// Whether the pairs, and what marks a stage, stay as they are stored.
    pub(super) keeps_stage: bool,
    staging: Option<(&'a Pairs<'a>, StagedWrite<'a>)>,
}

impl<'a> WritePlan<'a> {
    /// Plans a write that involves no stage.
    pub(super) fn unstaged(write: &Write<'a>) -> Self {
        Self {
            decision: overlap::decide(write),
            change: None,
            served: TlsPair::default(),
            waiting: None,
            keeps_stage: false,
            staging: None,
        }
    }

    /// Plans a write that leaves the pairs as they are stored, for a writer who must not change them.
    pub(super) fn keeping_stage(write: &Write<'a>) -> Self {
        Self { keeps_stage: true, ..Self::unstaged(write) }
    }

    /// Plans a write that may involve a stage.
    pub(super) fn staged(pairs: &'a Pairs<'a>, staging: StagedWrite<'a>) -> Self {
        let decided = staged::decide(&staging);
        Self::of(decided, pairs, staging)
    }

    /// Plans the creation of an object, which is both the stored and the incoming one.
    pub(super) fn created(pairs: &'a Pairs<'a>, staging: StagedWrite<'a>) -> Self {
        let decided = staged::decide_created(&staging);
        Self::of(decided, pairs, staging)
    }

    fn of(decided: StagedDecision<'a>, pairs: &'a Pairs<'a>, staging: StagedWrite<'a>) -> Self {
        let StagedDecision { decision, served, waiting, change } = decided;
        let staging = Some((pairs, staging));
        Self { decision, change, served, waiting, keeps_stage: false, staging }
    }

    /// Plans again, for a changed `write`.
    pub(super) fn decide_again(self, write: &Write<'a>) -> Self {
        let Some((pairs, staging)) = self.staging else {
            return Self { keeps_stage: self.keeps_stage, ..Self::unstaged(write) };
        };
        let is_wanted = staging.is_wanted && write.may_change_data;
        Self::staged(pairs, StagedWrite { write: *write, is_wanted, ..staging })
    }

    /// Plans again without a waiting pair, because its annotation does not fit.
    pub(super) fn without_waiting_pair(self) -> Self {
        let Self { staging, .. } = self;
        let Some((pairs, staging)) = staging else { return Self { staging, ..self } };
        Self::staged(pairs, StagedWrite { obstacle: Some(Warning::AnnotationsFull), ..staging })
    }

    /// The annotation `staged` of the Secret with this uid. An unchanged stage that names it keeps
    /// the stored text, byte for byte.
    pub(super) fn annotation(&self, stored: Option<&str>, uid: Option<&str>) -> Option<String> {
        if self.keeps_stage {
            return stored.map(str::to_owned);
        }
        let (_, stage) = self.waiting.as_ref()?;
        let same = stored.filter(|text| Stage::of_object(text, uid) == Ok((*stage, true)));
        Some(same.map_or_else(|| stage.to_annotation(uid), str::to_owned))
    }

    /// Writes the pairs to `tls.*` and `pending.*`. Never removes `tls.*`; removes `pending.*` if
    /// no pair waits.
    pub(super) fn write_pairs(&self, patch: &mut PatchBuilder<'_>) {
        let Some((pairs, _)) = &self.staging else { return };
        let (written, written_waiting) = (pairs.written(), pairs.written_waiting());
        let waiting = self.waiting.map(|(pair, _)| pair).unwrap_or_default();
        patch.value(names::TLS_CRT, written.crt, self.served.crt.or(written.crt));
        patch.value(names::TLS_KEY, written.key, self.served.key.or(written.key));
        patch.value(names::PENDING_TLS_CRT, written_waiting.crt, waiting.crt);
        patch.value(names::PENDING_TLS_KEY, written_waiting.key, waiting.key);
    }
}
