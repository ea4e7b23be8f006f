//! One request, one answer: guards, settings, decision, patch. Pure, as the decision is.

use base64::Engine;
use jiff::Timestamp;
use json_patch::Patch;

use super::guard::{self, LeaveData, Skip};
use super::patch::{AnnotationsFull, PatchBuilder};
use super::review::{Request, Secret};
use crate::names;
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
pub fn respond(
    request: &Request<'_>,
    defaults: &Defaults,
    own_namespace: &str,
    now: Timestamp,
) -> Answer {
    if let Some(skip) = guard::skip(request, own_namespace) {
        return Answer::without_change(Verdict::Skipped(skip));
    }
    let (Some(object), Some(old)) = (&request.object, &request.old_object) else {
        return Answer::without_change(Verdict::Skipped(Skip::NotASecretUpdate));
    };
    Update {
        object,
        old,
        is_wholesale: request.is_wholesale(),
        is_by_person: request.is_by_person(),
    }
    .answer(defaults, now)
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
        }
    }
}

/// An update of a Secret that no guard took out.
struct Update<'a> {
    object: &'a Secret<'a>,
    old: &'a Secret<'a>,
    is_wholesale: bool,
    is_by_person: bool,
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
        let write = Write {
            now,
            stored: values.stored(),
            incoming: values.incoming(),
            record,
            settings: &settings,
            may_change_data: left.is_none(),
            room: MAX_DATA.saturating_sub(self.object.data_size()),
        };
        let mut warnings = settings.warnings.clone();
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
        if self.is_by_person && decision.appended > 0 {
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
        Answer { verdict, patch, warnings, record, appended, cut }
    }

    /// Whether `ca.crt` stays as it is and nothing of it is carried or distrusted: then the answer
    /// depends on no content. Most writes are such, and cost no decoding.
    fn is_settled(&self, record: Option<&Record>, settings: &Settings) -> bool {
        self.object.ca_crt() == self.old.ca_crt()
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

/// The decoded values, each decoded once.
struct Values {
    anchors: Decoded,
    leaf: Decoded,
}

impl Values {
    /// Stand-ins for two equal values that nobody is going to read.
    fn unread(object: &Secret<'_>) -> Self {
        let anchors = object.ca_crt().map(|_| Vec::new());
        Self {
            anchors: Decoded { incoming: anchors, stored: Stored::AsIncoming },
            leaf: Decoded { incoming: None, stored: Stored::AsIncoming },
        }
    }

    fn decode(object: &Secret<'_>, old: &Secret<'_>) -> Self {
        Self {
            anchors: Decoded::new(object.ca_crt(), old.ca_crt()),
            leaf: Decoded::new(object.tls_crt(), old.tls_crt()),
        }
    }

    fn incoming(&self) -> Contents<'_> {
        Contents {
            ca_crt: self.anchors.incoming.as_deref(),
            tls_crt: self.leaf.incoming.as_deref(),
        }
    }

    fn stored(&self) -> Contents<'_> {
        Contents { ca_crt: self.anchors.stored(), tls_crt: self.leaf.stored() }
    }
}

/// One value on both sides of a write.
struct Decoded {
    incoming: Option<Vec<u8>>,
    stored: Stored,
}

enum Stored {
    AsIncoming,
    Other(Option<Vec<u8>>),
}

impl Decoded {
    fn new(incoming: Option<&str>, stored: Option<&str>) -> Self {
        let stored =
            if incoming == stored { Stored::AsIncoming } else { Stored::Other(stored.map(decode)) };
        Self { incoming: incoming.map(decode), stored }
    }

    fn stored(&self) -> Option<&[u8]> {
        match &self.stored {
            Stored::AsIncoming => self.incoming.as_deref(),
            Stored::Other(stored) => stored.as_deref(),
        }
    }
}

/// The API server sends canonical base64. What is not base64 reads as empty, which holds no
/// certificate.
fn decode(base64: &str) -> Vec<u8> {
    let decoded = super::BASE64.decode(base64).or_else(|_| {
        let compact: Vec<u8> = base64.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        super::BASE64.decode(compact)
    });
    decoded.unwrap_or_default()
}
