//! One request, one answer: guards, settings, decision, patch. Pure, as the decision is.

use std::time::Duration;

use jiff::Timestamp;
use json_patch::Patch;

use super::asked::Asked;
use super::guard::{self, Skip};
use super::patch::{AnnotationsFull, PatchBuilder};
use super::review::pairs::Pairs;
use super::review::{Request, Secret};
use super::staging::{self, Plan};
use super::values::Values;
pub use super::verdict::Verdict;
use crate::names;
use crate::overlap::ask::Ask;
use crate::overlap::exempt::{self, Exemption};
use crate::overlap::record::Record;
use crate::overlap::settings::{Defaults, Mode, RawSettings, Settings};
use crate::overlap::staged::{KeeperHealth, Stage, StageChange, StagedWrite};
use crate::overlap::warning::push_once;
use crate::overlap::workload;
use crate::overlap::{Case, Contents, RecordAfter, Warning, Write};

/// What the API server allows a Secret: the sum of its decoded values, in bytes
/// (`MaxSecretSize` of the core API).
pub const MAX_DATA: usize = 1024 * 1024;

/// How long the keeper waits, unless it is told otherwise.
pub const SETTLE: Duration = Duration::from_secs(120);

/// What the operator has set for the whole installation.
#[derive(Clone, Debug)]
pub struct Installation {
    /// What to do with the Secrets that do not say it themselves.
    pub defaults: Defaults,
    /// The namespace we run in: its Secrets are never touched.
    pub own_namespace: String,
    /// Who may ask (`--keeper-user`).
    pub keeper_user: String,
    /// How long the keeper waits before it promotes (`--settle`).
    pub settle: Duration,
}

impl Installation {
    /// One in which the keeper runs as its usual `ServiceAccount` beside us.
    pub fn new(defaults: Defaults, own_namespace: impl Into<String>) -> Self {
        let own_namespace = own_namespace.into();
        let keeper_user =
            format!("system:serviceaccount:{own_namespace}:{}", names::KEEPER_SERVICE_ACCOUNT);
        Self { defaults, own_namespace, keeper_user, settle: SETTLE }
    }
}

/// The answer to one request. It is always allowed.
pub struct Answer {
    /// What was decided.
    pub verdict: Verdict,
    /// The patch, if anything changes.
    pub patch: Option<Patch>,
    /// What the writer is told.
    pub warnings: Vec<Warning>,
    /// What is carried after the write.
    pub record: Record,
    /// How many certificates were appended.
    pub appended: usize,
    /// How many carried certificates were cut out.
    pub cut: usize,
    /// What the keeper asked for, if it was acted on.
    pub asked: Option<&'static str>,
    /// What has happened to a staged rotation.
    pub staged: Option<&'static str>,
}

/// Answers `request` as of `now`, with what is known of the keeper.
pub fn respond(
    request: &Request<'_>,
    installation: &Installation,
    keeper: KeeperHealth,
    now: Timestamp,
) -> Answer {
    let skip = guard::skip(request, &installation.own_namespace);
    let (Some(object), Some(old)) = (&request.object, &request.old_object) else {
        return Answer::without_change(Verdict::Skipped(Skip::NotASecretUpdate));
    };
    // The last chance to put the waiting pair into service, and its key away.
    let closes_stage =
        skip == Some(Skip::Immutable) && old.immutable != Some(true) && staging::is_marked(old);
    match skip {
        Some(Skip::Immutable) if !closes_stage => {
            let user = request.user();
            return immutable(object, &Asked::read(object, old, user, &installation.keeper_user));
        }
        Some(skip) if !closes_stage => return Answer::without_change(Verdict::Skipped(skip)),
        _ => {}
    }
    let update = Update {
        request,
        object,
        old,
        is_wholesale: request.is_wholesale(),
        asked: Asked::read(object, old, request.user(), &installation.keeper_user),
        closes_stage,
        keeper,
        keeper_user: &installation.keeper_user,
    };
    update.answer(installation, now)
}

/// Nothing of an immutable Secret is touched, save that an ask never stays, because its writer
/// would wait for an answer, and that its settings may be brought back.
fn immutable(object: &Secret<'_>, asked: &Asked) -> Answer {
    let mut answer = Answer::without_change(Verdict::Skipped(Skip::Immutable));
    if object.annotation(names::ASK).is_none() {
        return answer;
    }
    let mut patch = PatchBuilder::new(object);
    patch.without_annotation(names::ASK);
    let ask = asked.ask().filter(|ask| !ask.settings().is_empty());
    for (key, value) in ask.map_or(&[][..], Ask::settings) {
        if *key == names::MODE {
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

impl Answer {
    fn without_change(verdict: Verdict) -> Self {
        Self {
            verdict,
            patch: None,
            warnings: Vec::new(),
            record: Record::default(),
            appended: 0,
            cut: 0,
            asked: None,
            staged: None,
        }
    }
}

/// An update of a Secret that no guard took out.
struct Update<'a> {
    request: &'a Request<'a>,
    object: &'a Secret<'a>,
    old: &'a Secret<'a>,
    is_wholesale: bool,
    asked: Asked,
    /// It becomes immutable while a pair waits.
    closes_stage: bool,
    keeper: KeeperHealth,
    keeper_user: &'a str,
}

/// What an update came to, before it is said.
struct Outcome<'a> {
    left: Option<Exemption>,
    ask: Option<&'a Ask>,
    plan: Plan<'a>,
    patch: Option<Patch>,
    warnings: Vec<Warning>,
}

impl Update<'_> {
    fn answer(&self, installation: &Installation, now: Timestamp) -> Answer {
        let settings = Settings::read(self.raw_settings(), &installation.defaults);
        let stored_record = self.old.annotation(names::CARRIED).map(Record::parse);
        let record = stored_record.as_ref().and_then(|record| record.as_ref().ok());
        let pairs = staging::concerns(self.object, self.old, &settings, self.keeper)
            .then(|| self.request.pairs());
        let is_settled = pairs.is_none() && self.is_settled(record, &settings);
        let values = if is_settled {
            Values::unread(self.object)
        } else {
            Values::decode(self.object, self.old)
        };
        let left = self.left(&settings, (!is_settled).then(|| values.incoming()));
        let mut warnings = self.warnings(&settings, stored_record.as_ref());
        // Settings come back also where data is left alone.
        let asks = |ask: &&Ask| left.is_none() || !ask.settings().is_empty();
        let ask = self.asked.ask().filter(asks);
        let repair = match ask {
            Some(Ask::Repair(repair)) => repair.certificates.as_slice(),
            _ => &[],
        };
        let write = Write {
            now,
            stored: values.stored(),
            incoming: values.incoming(),
            record,
            settings: &settings,
            may_change_data: left.is_none(),
            room: MAX_DATA.saturating_sub(self.object.data_size()),
            repair,
        };
        let plan = match &pairs {
            None => Plan::unstaged(&write),
            Some(pairs) => Plan::staged(pairs, self.staging(pairs, &write, ask, installation)),
        };
        let (plan, patch) = self.patch(plan, &write, &mut warnings);
        self.said(record, Outcome { left, ask, plan, patch, warnings })
    }

    /// What is to be said of it.
    fn said(&self, record: Option<&Record>, outcome: Outcome<'_>) -> Answer {
        let Outcome { left, ask, plan, patch, mut warnings } = outcome;
        let decision = plan.decision;
        let asked = ask.filter(|ask| {
            plan.change == Some(StageChange::Promoted) || !matches!(ask, Ask::Promote(_))
        });
        if asked.is_none() && self.asked.ask().is_some() {
            warnings.push(Warning::AskRefused);
        }
        // Of a Secret that is left alone nothing was to be kept.
        let concerns = |w: &Warning| left.is_none() || *w == Warning::DistrustedOwn;
        for warning in decision.warnings.iter().copied().filter(concerns) {
            push_once(&mut warnings, warning);
        }
        if self.request.is_by_person() && decision.appended > 0 && ask.is_none() {
            warnings.push(Warning::AddedBack);
        }
        let verdict = match (left, decision.case) {
            _ if self.closes_stage => Verdict::Skipped(Skip::Immutable),
            (None, case) | (_, case @ (Case::NoCa | Case::Unchanged)) => Verdict::Decided(case),
            (Some(left), _) => Verdict::Left(left),
        };
        Answer {
            verdict,
            patch,
            warnings,
            record: match decision.record {
                RecordAfter::AsStored => record.cloned().unwrap_or_default(),
                RecordAfter::Gone => Record::default(),
                RecordAfter::Set(record) => record,
            },
            appended: decision.appended,
            cut: decision.cut,
            asked: asked.map(Ask::name),
            staged: plan.change.map(Into::into),
        }
    }

    /// Why data is left alone; nobody asks of values that are not read.
    fn left(&self, settings: &Settings, incoming: Option<Contents<'_>>) -> Option<Exemption> {
        if self.closes_stage {
            return Some(Exemption::Off);
        }
        let Contents { ca_crt, tls_crt } = incoming?;
        exempt::exemption(self.object, settings, ca_crt, tls_crt)
    }

    /// What there is to say before anything is decided.
    fn warnings<E>(&self, settings: &Settings, record: Option<&Result<Record, E>>) -> Vec<Warning> {
        let mut warnings = settings.warnings.clone();
        warnings.extend(self.asked.warning());
        if record.is_some_and(Result::is_err) {
            warnings.push(Warning::RecordUnreadable);
        }
        let wants_stage = settings.mode == Mode::Staged && self.object.ca_crt().is_some();
        if wants_stage && self.keeper == KeeperHealth::Absent {
            warnings.push(Warning::StagedUnavailable);
        }
        let restart = self.setting(names::RESTART);
        if restart.is_some_and(|text| workload::parse_list(text).1 > 0) {
            warnings.push(Warning::RestartUnreadable);
        }
        if self.loses_a_setting() {
            warnings.push(Warning::SettingTooLong);
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
        StagedWrite {
            write: *write,
            room: (MAX_DATA + pairs.incoming_size()).saturating_sub(self.object.data_size()),
            served: pairs.served(),
            waiting: pairs.waiting(),
            written: pairs.written(),
            stage: self.old.annotation(names::STAGED).map(|text| Stage::parse(text).ok()),
            is_wanted: write.settings.mode == Mode::Staged && write.may_change_data,
            is_fresh_object: self.is_wholesale,
            keeper: self.keeper,
            settle: installation.settle,
            promote: match ask {
                Some(Ask::Promote(fingerprint)) => Some(*fingerprint),
                _ => None,
            },
            obstacle: staging::obstacle(self.object, self.old, pairs),
        }
    }

    /// Whether `ca.crt` stays as it is and nothing of it is carried or distrusted: then the answer
    /// depends on no content. Most writes are such, and cost no decoding.
    fn is_settled(&self, record: Option<&Record>, settings: &Settings) -> bool {
        self.object.ca_crt() == self.old.ca_crt()
            && self.asked.ask().is_none()
            && record.is_none_or(Record::is_empty)
            && settings.distrust.is_empty()
    }

    /// Decides again, with less and less, where the annotations have no room: without a record a
    /// carried certificate would pass for the generator's own.
    fn patch<'b>(
        &self,
        plan: Plan<'b>,
        write: &Write<'b>,
        warnings: &mut Vec<Warning>,
    ) -> (Plan<'b>, Option<Patch>) {
        if let Ok(patch) = self.build(write, &plan, warnings) {
            return (plan, patch);
        }
        push_once(warnings, Warning::AnnotationsFull);
        if !write.repair.is_empty() {
            push_once(warnings, Warning::RepairIncomplete);
            let write = Write { repair: &[], ..*write };
            return self.patch(plan.again(&write), &write, warnings);
        }
        if plan.waiting.is_some() {
            return self.patch(plan.unheld(), write, warnings);
        }
        let as_written = Write { may_change_data: false, ..*write };
        let mut plan = plan.again(&as_written);
        plan.decision.record = RecordAfter::Gone;
        let patch = self.build(&as_written, &plan, warnings).unwrap_or_default();
        (plan, patch)
    }

    fn build(
        &self,
        write: &Write<'_>,
        plan: &Plan<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Option<Patch>, AnnotationsFull> {
        let decision = &plan.decision;
        let mut patch = PatchBuilder::new(self.object);
        patch.without_annotation(names::ASK);
        let (carried, is_carrying) = match &decision.record {
            RecordAfter::Gone => (None, false),
            RecordAfter::Set(record) if write.record != Some(record) => {
                (Some(record.to_annotation()), !record.is_empty())
            }
            // Word for word: one that says the same in other words would make every re-apply a
            // change.
            RecordAfter::AsStored | RecordAfter::Set(_) => (
                self.old.annotation(names::CARRIED).map(str::to_owned),
                write.record.is_some_and(|record| !record.is_empty()),
            ),
        };
        patch.annotation(names::CARRIED, carried)?;
        patch.annotation(names::STAGED, plan.annotation(self.old.annotation(names::STAGED)))?;
        let phase = is_carrying.then_some(names::PHASE_OVERLAP);
        patch.label(names::PHASE, plan.waiting.map_or(phase, |_| Some(names::PHASE_STAGED)));
        plan.write_pairs(&mut patch);
        if let Some(bytes) = &decision.ca_crt {
            patch.ca_crt(bytes);
        }
        let (mode, old_mode) = (self.object.label(names::MODE), self.old.label(names::MODE));
        if let Some(mode) = self.restored(names::MODE, mode, old_mode) {
            patch.label(names::MODE, Some(mode));
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

    /// The settings as they will stand on the Secret.
    fn raw_settings(&self) -> RawSettings<'_> {
        let (new, old) = (self.object.label(names::MODE), self.old.label(names::MODE));
        RawSettings {
            mode: self.restored(names::MODE, new, old).or(new),
            keep: self.setting(names::KEEP),
            window: self.setting(names::WINDOW),
            distrust: self.setting(names::DISTRUST),
        }
    }

    /// An annotation as it will stand on the Secret.
    fn setting(&self, key: &'static str) -> Option<&str> {
        let (new, old) = (self.object.annotation(key), self.old.annotation(key));
        self.restored(key, new, old).or(new)
    }

    /// Whether a setting is wiped by a fresh object and is too long to be brought back.
    fn loses_a_setting(&self) -> bool {
        let too_long =
            |key: &&str| self.old.annotation(key).is_some_and(|v| v.len() > names::MAX_RESTORED);
        self.is_wholesale
            && names::SETTINGS
                .iter()
                .any(|key| too_long(key) && self.object.annotation(key).is_none())
    }

    /// What takes the place of an incoming value, if anything does: the stored one, of which a
    /// fresh object knows nothing, or what the keeper asks to be brought back.
    fn restored<'b>(
        &'b self,
        key: &'static str,
        new: Option<&'b str>,
        old: Option<&'b str>,
    ) -> Option<&'b str> {
        if let Some(Ask::Repair(repair)) = self.asked.ask()
            && let Some(value) = repair.setting(key)
        {
            return Some(value);
        }
        let old = old.filter(|value| value.len() <= names::MAX_RESTORED)?;
        let is_wiped = new.is_none() && self.is_wholesale;
        (is_wiped || (new != Some(old) && self.is_kept(key))).then_some(old)
    }

    /// Whether only the keeper may change an annotation: how far a restart has come, as long as
    /// there is something to restart. A program that sets all annotations anew, as many controllers
    /// do each time, would make the keeper write it again each time.
    fn is_kept(&self, key: &str) -> bool {
        key == names::RESTARTED
            && self.object.annotation(names::RESTART).is_some()
            && self.request.user() != self.keeper_user
    }
}
