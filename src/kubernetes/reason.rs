//! The reasons of the keeper's Events, which `status` reads.

use strum::IntoStaticStr;

/// How the note of an Event begins that says what a keeper with `--audit` would do.
pub(crate) const AUDIT_NOTE: &str = "Audit: would ";

/// The reason of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
pub enum Reason {
    /// A CA is announced from now on.
    Announced,
    /// The webhook did not see an ask, or changed nothing.
    AskFailed,
    /// A CA is distrusted.
    Distrusted,
    /// A CA is carried from now on.
    Overlapping,
    /// The waiting pair cannot go into service.
    PromoteBlocked,
    /// The waiting pair is now in service.
    Promoted,
    /// A waiting pair is now in service, although its group is not ready. Published as `Promoted`.
    #[strum(serialize = "Promoted")]
    PromotedAlone,
    /// A leaf of a previous CA was issued again.
    Renewed,
    /// Leaves of a previous CA are not renewed, because Secrets do not trust the new CA.
    RenewalBlocked,
    /// A leaf of a previous CA was not issued again.
    RenewalFailed,
    /// The webhook restored what was dropped by a write that it did not see.
    Repaired,
    /// A workload was not restarted, or its rollout is stuck.
    RestartFailed,
    /// A workload was restarted.
    Restarted,
    /// A carried CA was removed.
    Retired,
    /// A carried CA has ended, but stays, because the Secret's own leaf needs it.
    RetireBlocked,
    /// A waiting pair was dropped without a promotion.
    StageEnded,
    /// A new pair waits.
    Staged,
    /// A source that the Secret trusts is not announced to it.
    TrustRefused,
    /// A CA is not announced any more, and was removed.
    Withdrawn,
}

impl Reason {
    /// As the field `reason` of the Event says it.
    pub(crate) fn name(self) -> &'static str {
        self.into()
    }

    /// The field `action` of the Event: what the keeper does about the Secret.
    pub(crate) fn action(self) -> &'static str {
        match self {
            Self::Announced | Self::TrustRefused | Self::Withdrawn => "Announce",
            Self::Distrusted => "Distrust",
            Self::AskFailed => "Ask",
            Self::Overlapping => "Overlap",
            Self::PromoteBlocked | Self::Promoted | Self::PromotedAlone => "Promote",
            Self::Renewed | Self::RenewalBlocked | Self::RenewalFailed => "Renew",
            Self::Repaired => "Repair",
            Self::RestartFailed | Self::Restarted => "Restart",
            Self::Retired | Self::RetireBlocked => "Retire",
            Self::Staged | Self::StageEnded => "Stage",
        }
    }

    /// Whether its Event has the type `Warning`.
    pub(crate) fn is_warning(self) -> bool {
        matches!(
            self,
            Self::AskFailed
                | Self::PromoteBlocked
                | Self::PromotedAlone
                | Self::RenewalBlocked
                | Self::RenewalFailed
                | Self::RestartFailed
                | Self::RetireBlocked
                | Self::TrustRefused
        )
    }
}
