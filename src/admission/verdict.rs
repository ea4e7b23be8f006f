//! What can be decided about a request.

use super::guard::Skip;
use crate::overlap::Case;
use crate::overlap::leave::LeaveData;

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
