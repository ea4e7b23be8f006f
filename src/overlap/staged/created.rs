//! A new object that brings a pair under `pending.*` (DESIGN §4.2): a copy of a staged Secret, or
//! one that is restored from a backup.

use super::{StageChange, StagedDecision, StagedWrite, TlsPair};
use crate::overlap::warning::Warning;

/// Decides about the waiting pair of a new object. It waits in a stage of this object, where that
/// is possible; else it goes into service if the held leaf is of no use; else it is dropped. No
/// pair waits without a stage. A certificate and a key that came together are taken to belong
/// together.
///
/// The object is both the stored and the incoming one, and `stage` is `None`.
pub fn decide_created<'a>(staging: &StagedWrite<'a>) -> StagedDecision<'a> {
    let held = staging.plain(staging.served, None, None);
    if staging.waiting == TlsPair::default() {
        return held;
    }
    let is_unfit = staging.must_not_be_held() || !staging.is_leaf_valid(&held);
    let mut reason = None;
    if staging.is_wanted && !is_unfit {
        let stage = staging.stage_of(staging.waiting, staging.served.fingerprint(), 0);
        match staging.hold(staging.waiting, stage, StageChange::Begun) {
            Ok(staged) => return staged,
            Err(warning) => reason = Some(warning),
        }
    }
    if is_unfit && staging.waiting.is_whole() && staging.write.may_change_data {
        let promoted = staging.plain(staging.waiting, Some(StageChange::Promoted), None);
        if staging.is_leaf_valid(&promoted) {
            return promoted;
        }
    }
    let dropped = StagedDecision { change: Some(StageChange::Ended), ..held };
    let dropped = dropped.with_warning(Warning::CopiedPairDropped);
    match reason {
        None => dropped,
        Some(reason) => dropped.with_warning(reason),
    }
}
