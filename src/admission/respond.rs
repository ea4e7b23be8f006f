//! Answers one admission request: guards, settings, decision, patch. Pure: no clock and no I/O.

use jiff::Timestamp;
use json_patch::Patch;

pub use super::answer::{Answer, Installation, MAX_DATA, SETTLE};
use super::ask_outcome::AskOutcome;
use super::create;
pub use super::decision::AdmissionDecision;
use super::guard::{self, SkipReason};
use super::patch::{AnnotationsFull, PatchBuilder};
use super::review::pairs::Pairs;
use super::review::{AdmissionRequest, ReviewedSecret};
use super::values::Values;
use super::write_plan::{self, WritePlan};
use crate::names;
use crate::overlap::announcement::Announcing;
use crate::overlap::ask::Ask;
use crate::overlap::exempt::{self, Exemption};
use crate::overlap::record::{ParseRecordError, Record};
use crate::overlap::settings::{Mode, RawSettings, Settings};
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
            return immutable(object, &ask_outcome);
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
/// keeper that no webhook answered, and restores settings that the keeper asks for.
fn immutable(object: &ReviewedSecret<'_>, ask_outcome: &AskOutcome) -> Answer {
    let mut answer = Answer::without_change(AdmissionDecision::Skipped(SkipReason::Immutable));
    if object.annotation(names::ASK).is_none() {
        return answer;
    }
    let mut patch = PatchBuilder::new(object);
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
        for key in names::LABEL_SETTINGS {
            let label = self.restored(key, self.object.label(key), self.old.label(key));
            if let Some(value) = label {
                patch.label(key, Some(value));
            }
        }
        for key in names::SETTINGS {
            let setting = self.restored(key, self.object.annotation(key), self.old.annotation(key));
            let fits =
                setting.is_none_or(|value| patch.annotation(key, Some(value.to_owned())).is_ok());
            if !fits {
                push_once(warnings, Warning::AnnotationsFull);
            }
        }
        Ok(patch.build())
    }

    /// The settings as they will be stored.
    fn raw_settings(&self) -> RawSettings<'_> {
        let (new, old) = (self.object.label(names::MODE), self.old.label(names::MODE));
        RawSettings {
            mode: self.restored(names::MODE, new, old).or(new),
            keep: self.setting(names::KEEP),
            window: self.setting(names::WINDOW),
            distrust: self.setting(names::DISTRUST),
            announce: self.setting(names::ANNOUNCE),
            trust: self.setting(names::TRUST),
        }
    }

    /// An annotation as it will be stored.
    fn setting(&self, key: &'static str) -> Option<&str> {
        let (new, old) = (self.object.annotation(key), self.old.annotation(key));
        self.restored(key, new, old).or(new)
    }

    /// Whether this write brings a setting to a Secret with a `ca.crt`, or one came back.
    fn brings_a_setting(&self) -> bool {
        let brings = |(key, new, old)| {
            let after = self.restored(key, new, old).or(new);
            after.is_some() && (after != old || new.is_none())
        };
        self.object.ca_crt().is_some() && self.settings_of_people().any(brings)
    }

    /// Whether this write may not remove settings, and lacks one with a stored value that `is`.
    fn lacks_a_setting(&self, is: impl Fn(&str, &str) -> bool) -> bool {
        let lacks = |(key, new, old): (_, Option<&str>, Option<&str>)| {
            new.is_none() && old.is_some_and(|old| is(key, old))
        };
        self.keeps_settings() && self.settings_of_people().any(lacks)
    }

    /// The settings that people set: each key, with its incoming and its stored value.
    fn settings_of_people(
        &self,
    ) -> impl Iterator<Item = (&'static str, Option<&str>, Option<&str>)> {
        let labels = names::LABEL_SETTINGS.into_iter();
        let labels = labels.map(|key| (key, self.object.label(key), self.old.label(key)));
        let keys = names::SETTINGS.into_iter().filter(|key| !names::NOTES.contains(key));
        let values = |key| (key, self.object.annotation(key), self.old.annotation(key));
        labels.chain(keys.map(values))
    }

    /// Whether this write removes no settings. A fresh object lacks them because its writer did not
    /// read them. So may a write that changes `ca.crt`: many controllers read the Secret, then
    /// replace its data, labels and annotations.
    fn keeps_settings(&self) -> bool {
        self.is_fresh_object || self.object.ca_crt() != self.old.ca_crt()
    }

    /// The value that replaces the incoming one, if any: the one that the keeper asks to restore,
    /// or the stored one where a fresh object lacks it.
    fn restored<'b>(
        &'b self,
        key: &'static str,
        new: Option<&'b str>,
        old: Option<&'b str>,
    ) -> Option<&'b str> {
        if let Some(Ask::Repair(repair)) = self.ask_outcome.ask()
            && let Some(value) = repair.setting(key)
        {
            return Some(value);
        }
        let old = old.filter(|value| names::is_restored(key, value))?;
        let is_wiped = new.is_none() && self.keeps_settings();
        (is_wiped || (new != Some(old) && self.only_keeper_may_change(key))).then_some(old)
    }

    /// Whether this writer must not change an annotation. Only the keeper changes its notes about a
    /// setting that there is. Many controllers replace all annotations at each write; the keeper
    /// would have to write the notes again each time.
    fn only_keeper_may_change(&self, key: &str) -> bool {
        let setting = match key {
            names::RESTARTED => names::RESTART,
            names::TRUSTED => names::TRUST,
            _ => return false,
        };
        self.setting(setting).is_some() && self.request.user() != self.keeper_user
    }
}

#[cfg(test)]
mod tests;
