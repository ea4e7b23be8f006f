//! From a review to the pure decision about a staged rotation, and back to a patch.

use super::patch::PatchBuilder;
use super::review::Secret;
use super::review::pairs::Pairs;
use crate::names;
use crate::overlap::settings::{Mode, Settings};
use crate::overlap::staged::{
    self, KeeperHealth, Stage, StageChange, StagedDecision, StagedWrite, TlsPair,
};
use crate::overlap::{self, Decision, Warning, Write};

/// Whether a pair waits in this Secret, or is said to.
pub(super) fn is_marked(secret: &Secret<'_>) -> bool {
    secret.annotation(names::STAGED).is_some()
        || secret.label(names::PHASE) == Some(names::PHASE_STAGED)
}

/// Whether an update may have to do with a stage. Only then its private keys are looked at.
pub(super) fn concerns(
    object: &Secret<'_>,
    old: &Secret<'_>,
    settings: &Settings,
    keeper: KeeperHealth,
) -> bool {
    let may_begin = keeper != KeeperHealth::Absent
        && settings.mode == Mode::Staged
        && object.ca_crt() != old.ca_crt();
    may_begin || is_marked(old) || is_marked(object)
}

/// Why this Secret cannot be staged, whatever is written: somebody would look at its pair, or at
/// other values that go with it.
pub(super) fn obstacle(
    object: &Secret<'_>,
    old: &Secret<'_>,
    pairs: &Pairs<'_>,
) -> Option<Warning> {
    let is_owned = |s: &Secret<'_>| s.annotation(names::CERT_MANAGER_CERTIFICATE).is_some();
    if is_owned(object) || is_owned(old) {
        return Some(Warning::StagedCertManager);
    }
    pairs.has_other_keys().then_some(Warning::StagedOtherKeys)
}

/// What is to be stored, as a patch makes it.
pub(super) struct Plan<'a> {
    pub(super) decision: Decision,
    pub(super) change: Option<StageChange>,
    served: TlsPair<'a>,
    pub(super) waiting: Option<(TlsPair<'a>, Stage)>,
    staging: Option<(&'a Pairs<'a>, StagedWrite<'a>)>,
}

impl<'a> Plan<'a> {
    /// For a write that has nothing to do with a stage.
    pub(super) fn unstaged(write: &Write<'a>) -> Self {
        Self {
            decision: overlap::decide(write),
            change: None,
            served: TlsPair::default(),
            waiting: None,
            staging: None,
        }
    }

    pub(super) fn staged(pairs: &'a Pairs<'a>, staging: StagedWrite<'a>) -> Self {
        let StagedDecision { decision, served, waiting, change } = staged::decide(&staging);
        Self { decision, change, served, waiting, staging: Some((pairs, staging)) }
    }

    /// Decided again, as another write.
    pub(super) fn again(self, write: &Write<'a>) -> Self {
        let Some((pairs, staging)) = self.staging else { return Self::unstaged(write) };
        let is_wanted = staging.is_wanted && write.may_change_data;
        Self::staged(pairs, StagedWrite { write: *write, is_wanted, ..staging })
    }

    /// Decided again, with nothing waiting: its annotation has no room.
    pub(super) fn unheld(self) -> Self {
        let Self { staging, .. } = self;
        let Some((pairs, staging)) = staging else { return Self { staging, ..self } };
        Self::staged(pairs, StagedWrite { obstacle: Some(Warning::AnnotationsFull), ..staging })
    }

    /// The annotation; word for word the stored one where nothing has changed.
    pub(super) fn annotation(&self, stored: Option<&str>) -> Option<String> {
        let (_, stage) = self.waiting.as_ref()?;
        let same = stored.filter(|text| Stage::parse(text).as_ref() == Ok(stage));
        Some(same.map_or_else(|| stage.to_annotation(), str::to_owned))
    }

    /// Writes the pairs where they should stand. `tls.*` is never removed, and nothing is left
    /// under `pending.*` where nothing waits.
    pub(super) fn write_pairs(&self, patch: &mut PatchBuilder<'_>) {
        let Some((pairs, _)) = &self.staging else { return };
        let (written, left) = (pairs.written(), pairs.written_waiting());
        let waiting = self.waiting.map(|(pair, _)| pair).unwrap_or_default();
        patch.value(names::TLS_CRT, written.crt, self.served.crt.or(written.crt));
        patch.value(names::TLS_KEY, written.key, self.served.key.or(written.key));
        patch.value(names::PENDING_TLS_CRT, left.crt, waiting.crt);
        patch.value(names::PENDING_TLS_KEY, left.key, waiting.key);
    }
}
