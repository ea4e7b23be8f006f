//! Answers the creation of a Secret that brings our labels, annotations or `pending.*` (DESIGN
//! §4.2): a copy of another Secret, or one that is restored from a backup.
//!
//! The state that it brings is another object's, so it is not believed. Settings stay.

use jiff::Timestamp;
use json_patch::Patch;

use super::answer::{Answer, Installation, MAX_DATA};
use super::decision::AdmissionDecision;
use super::guard::SkipReason;
use super::patch::{AnnotationsFull, PatchBuilder};
use super::review::{AdmissionRequest, ReviewedSecret};
use super::values::Values;
use super::write_plan::{self, WritePlan};
use crate::names;
use crate::overlap::announcement::Announcing;
use crate::overlap::exempt::{self, Exemption};
use crate::overlap::record::Record;
use crate::overlap::settings::{Mode, Settings};
use crate::overlap::staged::{KeeperHealth, StagedWrite};
use crate::overlap::warning::push_once;
use crate::overlap::{Case, Warning, Write};
use crate::x509::issuer::Issuers;

/// Answers the creation of `object`. `skip` is the guard that it did not pass, if any.
pub(super) fn answer(
    request: &AdmissionRequest<'_>,
    object: &ReviewedSecret<'_>,
    skip: Option<SkipReason>,
    installation: &Installation,
    keeper: KeeperHealth,
    now: Timestamp,
) -> Answer {
    let settings = Settings::read(object.raw_settings(), &installation.defaults);
    let read = object.annotation(names::CARRIED).map(Record::parse);
    let record = read.as_ref().and_then(|record| record.as_ref().ok());
    let values = Values::decode(object, object);
    let incoming = values.incoming();
    let exempt = match skip {
        Some(_) => Some(Exemption::Off),
        None => exempt::exemption(object, &settings, incoming.ca_crt, incoming.tls_crt),
    };
    let pairs = request.pairs();
    let issuers = Issuers::default();
    let write = Write {
        now,
        stored: incoming,
        incoming,
        record,
        settings: &settings,
        may_change_data: exempt.is_none(),
        room: MAX_DATA.saturating_sub(object.data_size()),
        repair: &[],
        issuers: &issuers,
        // The record begins empty, so that the next write announces what the annotation lists.
        announcing: Announcing::Nothing,
    };
    let plan_with = |obstacle| {
        let staging = StagedWrite {
            write,
            room: (MAX_DATA + pairs.incoming_size()).saturating_sub(object.data_size()),
            served: pairs.written(),
            waiting: pairs.written_waiting(),
            written: pairs.written(),
            stage: None,
            is_wanted: settings.mode == Mode::Staged && write.may_change_data,
            is_fresh_object: true,
            keeper,
            settle: installation.settle,
            promote: None,
            unstage: false,
            obstacle,
        };
        WritePlan::created(&pairs, staging)
    };
    let record_is_unreadable = read.as_ref().is_some_and(Result::is_err);
    let mut warnings = write_plan::state_warnings(object, &settings, keeper, record_is_unreadable);
    let stranger = request.is_by_stranger.then_some(Warning::StagedStranger);
    let mut plan = plan_with(stranger.or(write_plan::obstacle(object, object, &pairs)));
    let patch = build(object, &plan).or_else(|AnnotationsFull| {
        // A pair waits only with its annotation.
        plan = plan_with(Some(Warning::AnnotationsFull));
        push_once(&mut warnings, Warning::AnnotationsFull);
        build(object, &plan)
    });
    for warning in &plan.decision.warnings {
        push_once(&mut warnings, *warning);
    }
    Answer {
        decision: match (skip, exempt) {
            (Some(skip), _) => AdmissionDecision::Skipped(skip),
            (None, Some(exemption)) => AdmissionDecision::Exempt(exemption),
            (None, None) => AdmissionDecision::Case(Case::Created),
        },
        patch: patch.unwrap_or_default(),
        warnings,
        record: Record::default(),
        appended: 0,
        announced: 0,
        cut: plan.decision.cut,
        asked: None,
        staged: plan.change.map(Into::into),
        audit: None,
    }
}

/// Builds the patch: our state goes, and an empty record begins.
fn build(
    object: &ReviewedSecret<'_>,
    plan: &WritePlan<'_>,
) -> Result<Option<Patch>, AnnotationsFull> {
    let mut patch = PatchBuilder::new(object);
    for key in [names::ASK, names::PREVIOUS, names::RESTARTED, names::TRUSTED] {
        patch.without_annotation(key);
    }
    patch.annotation(names::STAGED, plan.annotation(None, None))?;
    // Without room for it the Secret stays without a record, as one that we never saw.
    let record = object.ca_crt().map(|_| Record::default().to_annotation(None));
    let _ = patch.annotation(names::CARRIED, record);
    patch.label(names::PHASE, plan.waiting.map(|_| names::PHASE_STAGED));
    plan.write_pairs(&mut patch);
    if let Some(bytes) = &plan.decision.ca_crt {
        patch.ca_crt(bytes);
    }
    Ok(patch.build())
}
