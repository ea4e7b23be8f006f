//! One request, one answer: guards, settings, decision, patch. Pure, as the decision is.

use jiff::Timestamp;
use json_patch::Patch;

use super::asked::Asked;
use super::guard::{self, LeaveData, Skip};
use super::patch::{AnnotationsFull, PatchBuilder};
use super::review::{Request, Secret};
use super::values::Values;
use crate::names;
use crate::overlap::ask::Ask;
use crate::overlap::policy::{Defaults, Mode, Raw, Settings};
use crate::overlap::record::Record;
use crate::overlap::{self, Case, Contents, Decision, RecordAfter, Warning, Write};

/// What the API server allows a Secret: the sum of its decoded values, in bytes
/// (`MaxSecretSize` of the core API).
pub const MAX_DATA: usize = 1024 * 1024;

/// A setting longer than this is not brought back: nobody means it.
const MAX_RESTORED: usize = 4096;

/// The annotations that people, or the keeper, set. A PUT of a generator that knows nothing of
/// them would wipe them.
const SETTINGS: [&str; 6] =
    [names::DISTRUST, names::KEEP, names::WINDOW, names::RESTART, names::GROUP, names::RESTARTED];

/// What the operator has set for the whole installation.
#[derive(Clone, Debug)]
pub struct Installation {
    /// What to do with the Secrets that do not say it themselves.
    pub defaults: Defaults,
    /// The namespace we run in: its Secrets are never touched.
    pub own_namespace: String,
    /// Who may ask (`--keeper-user`).
    pub keeper_user: String,
}

impl Installation {
    /// One in which the keeper runs as its usual `ServiceAccount` beside us.
    pub fn new(defaults: Defaults, own_namespace: impl Into<String>) -> Self {
        let own_namespace = own_namespace.into();
        let keeper_user =
            format!("system:serviceaccount:{own_namespace}:{}", names::KEEPER_SERVICE_ACCOUNT);
        Self { defaults, own_namespace, keeper_user }
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
}

/// What was decided about one request, as metrics, audit annotations and logs call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A rule of the decision applied.
    Decided(Case),
    /// `ca.crt` changes and its data is left alone.
    Left(LeaveData),
    /// No business of ours.
    Skipped(Skip),
}

impl Verdict {
    /// Every verdict, for metrics that exist from the start.
    pub const ALL: [Self; 16] = [
        Self::Decided(Case::FirstContact),
        Self::Decided(Case::NoCa),
        Self::Decided(Case::NotReadable),
        Self::Decided(Case::Retirement),
        Self::Decided(Case::Rollback),
        Self::Decided(Case::Rotation),
        Self::Decided(Case::Same),
        Self::Decided(Case::TrustStore),
        Self::Decided(Case::Unchanged),
        Self::Left(LeaveData::ForeignOverlap),
        Self::Left(LeaveData::Off),
        Self::Left(LeaveData::Signer),
        Self::Skipped(Skip::Immutable),
        Self::Skipped(Skip::NotASecretUpdate),
        Self::Skipped(Skip::OwnNamespace),
        Self::Skipped(Skip::ServiceAccountToken),
    ];

    /// Its name in metrics, audit annotations and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decided(case) => match case {
                Case::FirstContact => "first_contact",
                Case::NoCa => "no_ca",
                Case::NotReadable => "not_readable",
                Case::Retirement => "retirement",
                Case::Rollback => "rollback",
                Case::Rotation => "rotation",
                Case::Same => "same",
                Case::TrustStore => "trust_store",
                Case::Unchanged => "unchanged",
            },
            Self::Left(left) => left.as_str(),
            Self::Skipped(skip) => skip.as_str(),
        }
    }
}

/// Answers `request` as of `now`.
pub fn respond(request: &Request<'_>, installation: &Installation, now: Timestamp) -> Answer {
    let skip = guard::skip(request, &installation.own_namespace);
    let (Some(object), Some(old)) = (&request.object, &request.old_object) else {
        return Answer::without_change(Verdict::Skipped(Skip::NotASecretUpdate));
    };
    match skip {
        None => {}
        Some(Skip::Immutable) => return immutable(object),
        Some(skip) => return Answer::without_change(Verdict::Skipped(skip)),
    }
    Update {
        object,
        old,
        is_wholesale: request.is_wholesale(),
        is_by_person: request.is_by_person(),
        asked: Asked::read(object, old, request.user(), &installation.keeper_user),
    }
    .answer(&installation.defaults, now)
}

/// Nothing of an immutable Secret is touched, save that an ask never stays: its writer would wait
/// for an answer.
fn immutable(object: &Secret<'_>) -> Answer {
    let mut answer = Answer::without_change(Verdict::Skipped(Skip::Immutable));
    if object.annotation(names::ASK).is_some() {
        let mut patch = PatchBuilder::new(object);
        patch.without_annotation(names::ASK);
        answer.patch = patch.build();
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
        }
    }
}

/// An update of a Secret that no guard took out.
struct Update<'a> {
    object: &'a Secret<'a>,
    old: &'a Secret<'a>,
    is_wholesale: bool,
    is_by_person: bool,
    asked: Asked,
}

impl<'a> Update<'a> {
    fn answer(&self, defaults: &Defaults, now: Timestamp) -> Answer {
        let settings = Settings::read(self.raw_settings(), defaults);
        let stored_record = self.old.annotation(names::CARRIED).map(Record::parse);
        let record = stored_record.as_ref().and_then(|record| record.as_ref().ok());
        let is_settled = self.is_settled(record, &settings);
        let values = if is_settled {
            Values::unread(self.object)
        } else {
            Values::decode(self.object, self.old)
        };
        let left = if is_settled {
            None
        } else {
            let Contents { ca_crt, tls_crt } = values.incoming();
            guard::leave_data(self.object, &settings, ca_crt, tls_crt)
        };
        let mut warnings = settings.warnings.clone();
        warnings.extend(self.asked.warning());
        // Of a Secret that is left alone nothing can be asked; and nothing waits to be promoted.
        let can_act = |ask: &&Ask| left.is_none() && !matches!(ask, Ask::Promote(_));
        let ask = self.asked.ask().filter(can_act);
        if ask.is_none() && self.asked.ask().is_some() {
            warnings.push(Warning::AskRefused);
        }
        let repair = match ask {
            Some(Ask::Repair(ders)) => ders.as_slice(),
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
        if stored_record.as_ref().is_some_and(Result::is_err) {
            warnings.push(Warning::RecordUnreadable);
        }
        if settings.mode == Mode::Staged && self.object.ca_crt().is_some() {
            warnings.push(Warning::StagedUnavailable);
        }
        let (decision, patch) = self.patch(&write, &mut warnings);
        // Of a Secret that is left alone nothing was to be kept.
        let concerns = |w: &&Warning| left.is_none() || **w == Warning::DistrustedOwn;
        warnings.extend(decision.warnings.iter().filter(concerns));
        if self.is_by_person && decision.appended > 0 && ask.is_none() {
            warnings.push(Warning::AddedBack);
        }
        if self.loses_a_setting() {
            warnings.push(Warning::SettingTooLong);
        }
        let verdict = match (left, decision.case) {
            (None, case) | (_, case @ (Case::NoCa | Case::Unchanged)) => Verdict::Decided(case),
            (Some(left), _) => Verdict::Left(left),
        };
        let record = match decision.record {
            RecordAfter::AsStored => record.cloned().unwrap_or_default(),
            RecordAfter::Gone => Record::default(),
            RecordAfter::Set(record) => record,
        };
        let (appended, cut) = (decision.appended, decision.cut);
        let asked = ask.map(Ask::name);
        Answer { verdict, patch, warnings, record, appended, cut, asked }
    }

    /// Whether `ca.crt` stays as it is and nothing of it is carried or distrusted: then the answer
    /// depends on no content. Most writes are such, and cost no decoding.
    fn is_settled(&self, record: Option<&Record>, settings: &Settings) -> bool {
        self.object.ca_crt() == self.old.ca_crt()
            && self.asked.ask().is_none()
            && record.is_none_or(Record::is_empty)
            && settings.distrust.is_empty()
    }

    /// Decides, and decides again without carrying anything where the record has no room: without
    /// a record a carried certificate would pass for the generator's own.
    fn patch(&self, write: &Write<'_>, warnings: &mut Vec<Warning>) -> (Decision, Option<Patch>) {
        let decision = overlap::decide(write);
        if let Ok(patch) = self.build(write, &decision, warnings) {
            return (decision, patch);
        }
        if !write.repair.is_empty() {
            warnings.push(Warning::RepairIncomplete);
            return self.patch(&Write { repair: &[], ..*write }, warnings);
        }
        warnings.push(Warning::AnnotationsFull);
        let mut as_written = overlap::decide(&Write { may_change_data: false, ..*write });
        as_written.record = RecordAfter::Gone;
        let patch = self.build(write, &as_written, warnings).unwrap_or_default();
        (as_written, patch)
    }

    fn build(
        &self,
        write: &Write<'_>,
        decision: &Decision,
        warnings: &mut Vec<Warning>,
    ) -> Result<Option<Patch>, AnnotationsFull> {
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
        patch.label(names::PHASE, is_carrying.then_some("overlap"));
        let staged = self.old.annotation(names::STAGED).filter(|_| self.object.ca_crt().is_some());
        patch.annotation(names::STAGED, staged.map(str::to_owned))?;
        if let Some(bytes) = &decision.ca_crt {
            patch.ca_crt(bytes);
        }
        if let Some(mode) =
            self.restored(self.object.label(names::MODE), self.old.label(names::MODE))
        {
            patch.label(names::MODE, Some(mode));
        }
        for key in SETTINGS {
            let setting = self.restored(self.object.annotation(key), self.old.annotation(key));
            let fits =
                setting.is_none_or(|value| patch.annotation(key, Some(value.to_owned())).is_ok());
            if !fits && !warnings.contains(&Warning::AnnotationsFull) {
                warnings.push(Warning::AnnotationsFull);
            }
        }
        Ok(patch.build())
    }

    /// The settings as they will stand on the Secret.
    fn raw_settings(&self) -> Raw<'a> {
        let annotation = |key| {
            let (new, old) = (self.object.annotation(key), self.old.annotation(key));
            new.or(self.restored(new, old))
        };
        let (new, old) = (self.object.label(names::MODE), self.old.label(names::MODE));
        Raw {
            mode: new.or(self.restored(new, old)),
            keep: annotation(names::KEEP),
            window: annotation(names::WINDOW),
            distrust: annotation(names::DISTRUST),
        }
    }

    /// Whether a setting is wiped by a fresh object and is too long to be brought back.
    fn loses_a_setting(&self) -> bool {
        let too_long =
            |key: &&str| self.old.annotation(key).is_some_and(|v| v.len() > MAX_RESTORED);
        self.is_wholesale
            && SETTINGS.iter().any(|key| too_long(key) && self.object.annotation(key).is_none())
    }

    /// A stored value that a fresh object lacks.
    fn restored(&self, new: Option<&'a str>, old: Option<&'a str>) -> Option<&'a str> {
        old.filter(|value| self.is_wholesale && new.is_none() && value.len() <= MAX_RESTORED)
    }
}
