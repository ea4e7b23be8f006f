//! Answers one admission request: guards, settings, decision, patch. Pure: no clock and no I/O.

use jiff::Timestamp;
use json_patch::Patch;

pub use super::answer::{Answer, Installation, MAX_DATA, NO_CHANGE, SETTLE, WOULD_CHANGE};
use super::ask_outcome::AskOutcome;
use super::create;
pub use super::decision::AdmissionDecision;
use super::guard::{self, SkipReason};
use super::patch::{AnnotationsFull, PatchBuilder};
use super::review::pairs::Pairs;
use super::review::{AdmissionRequest, ReviewedSecret};
use super::values::{self, Values};
use super::write_plan::{self, WritePlan};
use crate::names;
use crate::overlap::announcement::Announcing;
use crate::overlap::ask::Ask;
use crate::overlap::exempt::{self, Exemption};
use crate::overlap::record::{ParseRecordError, Record};
use crate::overlap::settings::{Mode, Settings};
use crate::overlap::source::{self, Previous};
use crate::overlap::staged::{KeeperHealth, Stage, StageChange, StagedWrite};
use crate::overlap::warning::push_once;
use crate::overlap::workload;
use crate::overlap::{Case, Contents, RecordAfter, Warning, Write};
use crate::x509::issuer::Issuers;

/// Answers `request`, which arrived at `now`. `keeper` says whether a keeper would promote.
pub fn respond(
    request: &AdmissionRequest<'_>,
    installation: &Installation,
    keeper: KeeperHealth,
    now: Timestamp,
) -> Answer {
    let answer = answer(request, installation, keeper, now);
    if installation.audit { answer.audited() } else { answer }
}

/// The answer without `--audit`.
fn answer(
    request: &AdmissionRequest<'_>,
    installation: &Installation,
    keeper: KeeperHealth,
    now: Timestamp,
) -> Answer {
    let skip = guard::skip(request, &installation.own_namespace);
    let (object, old) = match (&request.object, &request.old_object) {
        (Some(object), Some(old)) => (object, old),
        (Some(object), None) if skip.is_none() || skip == Some(SkipReason::Immutable) => {
            return create::answer(request, object, skip, installation, keeper, now);
        }
        _ => {
            return Answer::without_change(AdmissionDecision::Skipped(
                skip.unwrap_or(SkipReason::NotASecretUpdate),
            ));
        }
    };
    // After this write nothing can change any more, so the waiting pair goes into service now, and
    // its key leaves `pending.*`.
    let closes_stage = skip == Some(SkipReason::Immutable)
        && old.immutable != Some(true)
        && [object, old].into_iter().any(write_plan::is_staged);
    match skip {
        Some(SkipReason::Immutable) if !closes_stage => {
            let user = request.user();
            let ask_outcome = AskOutcome::read(object, old, user, &installation.keeper_user);
            return immutable(object, old, &ask_outcome);
        }
        Some(skip) if !closes_stage => {
            return Answer::without_change(AdmissionDecision::Skipped(skip));
        }
        _ => {}
    }
    let update = Update {
        request,
        object,
        old,
        is_fresh_object: request.is_fresh_object(),
        record: old.annotation(names::CARRIED).map(|text| Record::of_object(text, old.uid())),
        ask_outcome: AskOutcome::read(object, old, request.user(), &installation.keeper_user),
        closes_stage,
        keeper,
        keeper_user: &installation.keeper_user,
    };
    update.answer(installation, now)
}

/// Leaves the data of an immutable Secret alone. Removes an ask, because one that stays tells the
/// keeper that no webhook answered, and restores settings that the keeper asks for. The previous CAs
/// stay as they are stored: who may only annotate the Secret must not spread a CA.
fn immutable(
    object: &ReviewedSecret<'_>,
    old: &ReviewedSecret<'_>,
    ask_outcome: &AskOutcome,
) -> Answer {
    let mut answer = Answer::without_change(AdmissionDecision::Skipped(SkipReason::Immutable));
    let mut patch = PatchBuilder::new(object);
    let previous = old.annotation(names::PREVIOUS).map(str::to_owned);
    if patch.annotation(names::PREVIOUS, previous).is_err() {
        patch.without_annotation(names::PREVIOUS);
    }
    if object.annotation(names::ASK).is_none() {
        answer.patch = patch.build();
        return answer;
    }
    patch.without_annotation(names::ASK);
    let ask = ask_outcome.ask().filter(|ask| !ask.settings().is_empty());
    for (key, value) in ask.map_or(&[][..], Ask::settings) {
        if names::LABEL_SETTINGS.contains(key) {
            patch.label(key, Some(value));
        } else if patch.annotation(key, Some(value.clone())).is_err() {
            push_once(&mut answer.warnings, Warning::AnnotationsFull);
        }
    }
    answer.patch = patch.build();
    answer.asked = ask.map(Ask::name);
    if ask.is_none() {
        answer.warnings.push(Warning::AskRefused);
    }
    answer
}

mod restore;

/// An update of a Secret that passed the guards.
struct Update<'a> {
    request: &'a AdmissionRequest<'a>,
    object: &'a ReviewedSecret<'a>,
    old: &'a ReviewedSecret<'a>,
    is_fresh_object: bool,
    /// The stored record, and whether it names the uid of the Secret.
    record: Option<Result<(Record, bool), ParseRecordError>>,
    ask_outcome: AskOutcome,
    /// Whether this write makes the Secret immutable while a pair waits.
    closes_stage: bool,
    keeper: KeeperHealth,
    keeper_user: &'a str,
}

impl Update<'_> {
    fn answer(&self, installation: &Installation, now: Timestamp) -> Answer {
        let settings = Settings::read(self.raw_settings(), &installation.defaults);
        let record = self.record.as_ref().and_then(|record| Some(&record.as_ref().ok()?.0));
        let pairs = write_plan::may_involve_stage(self.object, self.old, &settings, self.keeper)
            .then(|| self.request.pairs());
        let is_settled = pairs.is_none() && self.is_settled(record, &settings);
        let values = if is_settled {
            Values::unread(self.object)
        } else {
            Values::decode(self.object, self.old)
        };
        let exempt = self.exempt(&settings, (!is_settled).then(|| values.incoming()));
        let mut warnings = self.warnings(&settings);
        // Settings are restored, and stages end, even where the data is exempt.
        let is_possible =
            |ask: &&Ask| exempt.is_none() || !ask.settings().is_empty() || **ask == Ask::Unstage;
        let ask = self.ask_outcome.ask().filter(is_possible);
        let repair = match ask {
            Some(Ask::Repair(repair)) => repair.certificates.as_slice(),
            _ => &[],
        };
        let issuers = Issuers::default();
        let announcing = match ask {
            Some(Ask::Announce(list)) => Announcing::Asked(list),
            _ => Announcing::AsBefore,
        };
        let write = Write {
            now,
            stored: values.stored(),
            incoming: values.incoming(),
            record,
            settings: &settings,
            may_change_data: exempt.is_none(),
            room: MAX_DATA.saturating_sub(self.object.data_size()),
            repair,
            issuers: &issuers,
            announcing,
        };
        let mut plan = match &pairs {
            None => WritePlan::unstaged(&write),
            Some(pairs) if self.leaves_the_stage_to_readers(pairs, ask) => {
                WritePlan::keeping_stage(&write)
            }
            Some(pairs) => WritePlan::staged(pairs, self.staging(pairs, &write, ask, installation)),
        };
        // With a record the next write shows whether its writer dropped our keys.
        if plan.decision.record == RecordAfter::Gone && self.brings_a_setting() {
            plan.decision.record = RecordAfter::Set(Record::default());
        }
        let (WritePlan { decision, change, .. }, patch) = self.patch(plan, &write, &mut warnings);
        let asked = ask.filter(|ask| match ask {
            Ask::Promote(_) => change == Some(StageChange::Promoted),
            Ask::Unstage => matches!(change, Some(StageChange::Promoted | StageChange::Ended)),
            Ask::Retire | Ask::Repair(_) | Ask::Announce(_) => true,
        });
        if asked.is_none() && self.ask_outcome.ask().is_some() {
            warnings.push(Warning::AskRefused);
        }
        // The other warnings say that something was not kept: nothing is kept in an exempt Secret.
        let applies = |w: &Warning| exempt.is_none() || *w == Warning::DistrustedOwn;
        for warning in decision.warnings.iter().copied().filter(applies) {
            push_once(&mut warnings, warning);
        }
        if self.request.is_by_person() && decision.appended > 0 && ask.is_none() {
            warnings.push(Warning::AddedBack);
        }
        Answer {
            decision: match (exempt, decision.case) {
                _ if self.closes_stage => AdmissionDecision::Skipped(SkipReason::Immutable),
                (None, case) | (_, case @ (Case::NoCa | Case::Unchanged)) => {
                    AdmissionDecision::Case(case)
                }
                (Some(reason), _) => AdmissionDecision::Exempt(reason),
            },
            patch,
            warnings,
            record: match decision.record {
                RecordAfter::AsStored => record.cloned().unwrap_or_default(),
                RecordAfter::Gone => Record::default(),
                RecordAfter::Set(record) => record,
            },
            appended: decision.appended,
            announced: decision.announced,
            cut: decision.cut,
            asked: asked.map(Ask::name),
            staged: change.map(Into::into),
            audit: None,
        }
    }

    /// Why the data must not be changed. `None` without `incoming`: that data does not change.
    fn exempt(&self, settings: &Settings, incoming: Option<Contents<'_>>) -> Option<Exemption> {
        if self.closes_stage {
            return Some(Exemption::Off);
        }
        let Contents { ca_crt, tls_crt } = incoming?;
        exempt::exemption(self.object, settings, ca_crt, tls_crt)
    }

    /// The warnings that do not depend on the decision.
    fn warnings(&self, settings: &Settings) -> Vec<Warning> {
        let record_is_unreadable = self.record.as_ref().is_some_and(Result::is_err);
        let mut warnings =
            write_plan::state_warnings(self.object, settings, self.keeper, record_is_unreadable);
        warnings.extend(self.ask_outcome.warning());
        let restart = self.setting(names::RESTART);
        if restart.is_some_and(|text| workload::parse_list(text).1 > 0) {
            warnings.push(Warning::RestartUnreadable);
        }
        if self.lacks_a_setting(|key, text| !names::is_restored(key, text)) {
            warnings.push(Warning::SettingTooLong);
        }
        // A fresh object lacks all of them, whatever its writer wants.
        if !self.is_fresh_object && self.lacks_a_setting(names::is_restored) {
            warnings.push(Warning::SettingKept);
        }
        warnings
    }

    fn staging<'b>(
        &self,
        pairs: &'b Pairs<'b>,
        write: &Write<'b>,
        ask: Option<&Ask>,
        installation: &Installation,
    ) -> StagedWrite<'b> {
        // One who writes the pairs as they are stored has them already.
        let is_by_stranger = self.request.is_by_stranger && !pairs.are_as_stored();
        StagedWrite {
            write: *write,
            room: (MAX_DATA + pairs.incoming_size()).saturating_sub(self.object.data_size()),
            served: pairs.served(),
            waiting: pairs.waiting(),
            written: pairs.written(),
            stage: self
                .old
                .annotation(names::STAGED)
                .map(|text| Stage::of_object(text, self.old.uid()).ok().map(|(stage, _)| stage)),
            is_wanted: write.settings.mode == Mode::Staged && write.may_change_data,
            is_fresh_object: self.is_fresh_object,
            keeper: self.keeper,
            settle: installation.settle,
            promote: match ask {
                Some(Ask::Promote(fingerprint)) if !is_by_stranger => Some(*fingerprint),
                _ => None,
            },
            unstage: ask == Some(&Ask::Unstage) && !is_by_stranger,
            obstacle: self
                .obstacle(write.settings, installation, is_by_stranger)
                .or_else(|| write_plan::obstacle(self.object, self.old, pairs)),
        }
    }

    /// Why this write cannot begin or keep a stage, if there is a reason. The answer to a write holds
    /// the stored object, and with it the held key, so only those who may read the Secret stage. The
    /// mode counts as it is stored: a write that sets it must not show its writer that key at once.
    fn obstacle(
        &self,
        settings: &Settings,
        installation: &Installation,
        is_by_stranger: bool,
    ) -> Option<Warning> {
        if is_by_stranger {
            return Some(Warning::StagedStranger);
        }
        let stored = Settings::read(self.old.raw_settings(), &installation.defaults);
        let is_new = settings.mode == Mode::Staged && stored.mode != Mode::Staged;
        is_new.then_some(Warning::StagedLater)
    }

    /// Whether a stage is left as it is: a writer who may not read the Secret leaves the pairs
    /// alone. It ends if the Secret becomes immutable, or if he asks for that. This shows no key
    /// that he does not write himself.
    fn leaves_the_stage_to_readers(&self, pairs: &Pairs<'_>, ask: Option<&Ask>) -> bool {
        let must_end = self.closes_stage || ask == Some(&Ask::Unstage);
        self.request.is_by_stranger && pairs.are_as_stored() && !must_end
    }

    /// Whether the answer depends on no certificate: `ca.crt` does not change, and none of it is
    /// carried or distrusted. This holds for most writes, and saves decoding.
    fn is_settled(&self, record: Option<&Record>, settings: &Settings) -> bool {
        self.object.ca_crt() == self.old.ca_crt()
            && self.ask_outcome.ask().is_none()
            && record.is_none_or(Record::is_empty)
            && !self.is_source()
            && settings.distrust.is_empty()
            && settings.announce.is_empty()
    }

    /// Builds the patch. Where the annotations have no room, it decides again without repair, then
    /// without announcements, then without a waiting pair, then without changes to the data: without
    /// a record a carried certificate would count as the generator's own.
    fn patch<'b>(
        &self,
        plan: WritePlan<'b>,
        write: &Write<'b>,
        warnings: &mut Vec<Warning>,
    ) -> (WritePlan<'b>, Option<Patch>) {
        if let Ok(patch) = self.build(write, &plan, warnings) {
            return (plan, patch);
        }
        push_once(warnings, Warning::AnnotationsFull);
        if !write.repair.is_empty() {
            push_once(warnings, Warning::RepairIncomplete);
            let write = Write { repair: &[], ..*write };
            return self.patch(plan.decide_again(&write), &write, warnings);
        }
        if !matches!(write.announcing, Announcing::Nothing) {
            let write = Write { announcing: Announcing::Nothing, ..*write };
            return self.patch(plan.decide_again(&write), &write, warnings);
        }
        if plan.waiting.is_some() {
            return self.patch(plan.without_waiting_pair(), write, warnings);
        }
        let as_written = Write { may_change_data: false, ..*write };
        let mut plan = plan.decide_again(&as_written);
        plan.decision.record = RecordAfter::Gone;
        let patch = self.build(&as_written, &plan, warnings).unwrap_or_default();
        (plan, patch)
    }

    fn build(
        &self,
        write: &Write<'_>,
        plan: &WritePlan<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Option<Patch>, AnnotationsFull> {
        let decision = &plan.decision;
        let mut patch = PatchBuilder::new(self.object);
        patch.without_annotation(names::ASK);
        let uid = self.old.uid();
        let record = match &decision.record {
            RecordAfter::Gone => None,
            RecordAfter::Set(record) => Some(record),
            RecordAfter::AsStored => write.record,
        };
        let is_carrying = record.is_some_and(|record| !record.is_empty());
        // The stored text, byte for byte, if it says the same: another spelling of the same record
        // would turn every re-apply into a change.
        let stored = self.old.annotation(names::CARRIED).filter(|_| record == write.record);
        let is_complete = matches!(self.record, Some(Ok((_, true))));
        let carried = stored.filter(|_| is_complete).map(str::to_owned);
        let carried = carried.or_else(|| Some(record?.to_annotation(uid)));
        // Where the uid does not fit, the record stays without it.
        patch.annotation(names::CARRIED, carried).or_else(|full| {
            stored.map_or(Err(full), |text| patch.annotation(names::CARRIED, Some(text.to_owned())))
        })?;
        let stage = plan.annotation(self.old.annotation(names::STAGED), uid);
        patch.annotation(names::STAGED, stage)?;
        let phase = is_carrying.then_some(names::PHASE_OVERLAP);
        let is_staged = plan.waiting.is_some()
            || (plan.keeps_stage && self.old.label(names::PHASE) == Some(names::PHASE_STAGED));
        patch.label(names::PHASE, if is_staged { Some(names::PHASE_STAGED) } else { phase });
        plan.write_pairs(&mut patch);
        if let Some(bytes) = &decision.ca_crt {
            patch.ca_crt(bytes);
        }
        let mut previous = self.previous(write, plan, record);
        while patch.annotation(names::PREVIOUS, Previous::to_annotation(&previous)).is_err() {
            push_once(warnings, Warning::AnnotationsFull);
            previous.pop();
        }
        for key in names::LABEL_SETTINGS {
            let (new, old) = (self.object.label(key), self.old.label(key));
            if let Some(value) = self.restored(key, new, old) {
                patch.label(key, Some(value));
            }
        }
        for key in names::SETTINGS {
            if key == names::TRUSTED && self.sets_trust_anew() {
                patch.without_annotation(key);
                continue;
            }
            let setting = self.restored(key, self.object.annotation(key), self.old.annotation(key));
            let fits =
                setting.is_none_or(|value| patch.annotation(key, Some(value.to_owned())).is_ok());
            if !fits {
                push_once(warnings, Warning::AnnotationsFull);
            }
        }
        Ok(patch.build())
    }

    /// The previous CAs of a source after this write. `record` is that of its `ca.crt` as it will be
    /// stored.
    fn previous(
        &self,
        write: &Write<'_>,
        plan: &WritePlan<'_>,
        record: Option<&Record>,
    ) -> Vec<Previous> {
        let (new, old) = (self.object.label(names::SOURCE), self.old.label(names::SOURCE));
        let after = self.restored(names::SOURCE, new, old).or(new);
        if !self.is_source() || !source::is_source(after) {
            return Vec::new();
        }
        let served = plan.served.crt.map(values::decode);
        let stored = Contents {
            ca_crt: plan.decision.ca_crt.as_deref().or(write.incoming.ca_crt),
            tls_crt: served.as_deref().or(write.incoming.tls_crt),
        };
        let previous = self.old.annotation(names::PREVIOUS).unwrap_or_default();
        Previous::after(
            source::held_within(write.stored, write.record, write.issuers),
            &source::held_within(stored, record, write.issuers),
            &Previous::parse_list(previous),
            write.settings,
            write.now,
        )
    }
}

#[cfg(test)]
mod tests;
