//! What the writer of a Secret is told.

use std::fmt;

use strum::{IntoStaticStr, VariantNames};

/// A problem that the API server hands to the writer as a warning. Never holds content of a
/// Secret; at most 120 characters, as the admission API asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[cfg_attr(test, derive(strum::VariantArray))]
#[strum(serialize_all = "snake_case")]
pub enum Warning {
    /// A person's write dropped a certificate that we add back.
    AddedBack,
    /// Annotations have no room for the record or for a setting.
    AnnotationsFull,
    /// Somebody else than the keeper asks.
    AskNotAllowed,
    /// The keeper asks for what cannot be done in this write, or for this Secret.
    AskRefused,
    /// What is asked for does not parse.
    AskUnreadable,
    /// There is no room in the Secret's data for what should be carried.
    DataFull,
    /// The setting `distrust` has an entry that is no fingerprint.
    DistrustUnreadable,
    /// The generator itself writes a certificate that is distrusted.
    DistrustedOwn,
    /// The incoming `ca.crt` holds no readable certificate.
    IncomingUnreadable,
    /// The setting `keep` does not parse.
    KeepUnreadable,
    /// The label `mode` does not parse.
    ModeUnreadable,
    /// The record of what is carried does not parse.
    RecordUnreadable,
    /// Not everything that the keeper asked to be carried could be.
    RepairIncomplete,
    /// The setting `restart` has a word that is no workload, or too many.
    RestartUnreadable,
    /// A setting is too long to be brought back.
    SettingTooLong,
    /// A stage was not as it was recorded.
    StagedBroken,
    /// cert-manager owns the Secret, and checks its pair.
    StagedCertManager,
    /// The leaf in service does not live long enough to be held.
    StagedLeafExpires,
    /// The generator goes on issuing other pairs.
    StagedMoved,
    /// The keeper is not alive.
    StagedNoKeeper,
    /// There is no room for two pairs.
    StagedNoRoom,
    /// The Secret has values that would not fit to the pair in service.
    StagedOtherKeys,
    /// Staged mode is asked for and cannot be had.
    StagedUnavailable,
    /// A leaf would not verify against `ca.crt`, or is half of a pair.
    StagedUnverified,
    /// The stored `ca.crt` holds something that cannot be carried.
    StoredUnreadable,
    /// The setting `window` does not parse.
    WindowUnreadable,
}

impl Warning {
    /// The value of the metric label `reason`.
    pub fn reason(self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AddedBack => {
                "ca-overlap kept the previous CA in ca.crt; to drop it: annotation ca-overlap.dev/distrust=<its SHA-256>"
            }
            Self::AnnotationsFull => {
                "ca-overlap: the annotations have no room (262144 bytes): some of its state or settings were left out"
            }
            Self::AskNotAllowed => {
                "ca-overlap.dev/ask is for ca-overlap's keeper alone; it was removed and nothing was done"
            }
            Self::AskRefused => {
                "ca-overlap.dev/ask: this cannot be done in this write or for this Secret; it was removed"
            }
            Self::AskUnreadable => {
                "ca-overlap.dev/ask: expected retire, promote or repair; it was removed and nothing was done"
            }
            Self::DataFull => {
                "ca-overlap: the Secret has no room (1048576 bytes): not every previous CA could be kept in ca.crt"
            }
            Self::DistrustUnreadable => {
                "ca-overlap.dev/distrust: an entry is not a SHA-256 fingerprint (64 hex digits) and is ignored"
            }
            Self::DistrustedOwn => {
                "ca-overlap: ca.crt holds a distrusted CA that its generator wrote; only the generator can replace it"
            }
            Self::IncomingUnreadable => {
                "ca-overlap: ca.crt holds no readable certificate; written as it is, no previous CA was added"
            }
            Self::KeepUnreadable => {
                "ca-overlap.dev/keep: expected a number from 0 to 8; the default is used"
            }
            Self::ModeUnreadable => {
                "ca-overlap.dev/mode: expected bundle, staged or off; the default is used"
            }
            Self::RecordUnreadable => {
                "ca-overlap.dev/carried on the stored Secret is not readable and counts as absent"
            }
            Self::RepairIncomplete => {
                "ca-overlap.dev/ask: not every CA could be carried: expired, distrusted, over, not readable, or above keep"
            }
            Self::RestartUnreadable => {
                "ca-overlap.dev/restart: expected up to 16 of deployment/x, statefulset/x, daemonset/x; what is none is left out"
            }
            Self::SettingTooLong => {
                "ca-overlap: a setting of more than 4096 bytes was wiped by this write and is not brought back"
            }
            Self::StagedBroken => {
                "ca-overlap: the staged leaf is not what was put aside: the stage has ended, tls.crt is served as it stands"
            }
            Self::StagedCertManager => {
                "ca-overlap.dev/mode=staged: cert-manager checks its pair and would issue anew; the CA is bundled instead"
            }
            Self::StagedLeafExpires => {
                "ca-overlap.dev/mode=staged: the previous leaf expires too soon to be held; the CA is bundled instead"
            }
            Self::StagedMoved => {
                "ca-overlap.dev/mode=staged: a third new leaf came before the first was promoted; the CA is bundled instead"
            }
            Self::StagedNoKeeper => {
                "ca-overlap.dev/mode=staged: the keeper's Lease is not fresh, nobody would promote; the CA is bundled instead"
            }
            Self::StagedNoRoom => {
                "ca-overlap.dev/mode=staged: the Secret has no room for a second leaf; the CA is bundled instead"
            }
            Self::StagedOtherKeys => {
                "ca-overlap.dev/mode=staged: the Secret has other values beside ca.crt and tls.*; the CA is bundled instead"
            }
            Self::StagedUnavailable => {
                "ca-overlap.dev/mode=staged: not available in this installation; the CA is bundled instead"
            }
            Self::StagedUnverified => {
                "ca-overlap.dev/mode=staged: a leaf would not verify against ca.crt, or lacks its key; the CA is bundled instead"
            }
            Self::StoredUnreadable => {
                "ca-overlap: the previous ca.crt holds something that is no readable certificate; it was not kept"
            }
            Self::WindowUnreadable => {
                "ca-overlap.dev/window: expected a duration such as 90m, 24h, 7d, or none; the default is used"
            }
        })
    }
}

/// Adds a warning that is not there yet.
pub(crate) fn push_once(warnings: &mut Vec<Warning>, warning: Warning) {
    if !warnings.contains(&warning) {
        warnings.push(warning);
    }
}

#[cfg(test)]
mod tests {
    use super::Warning;

    #[test]
    fn every_warning_is_short() {
        for warning in <Warning as strum::VariantArray>::VARIANTS {
            assert!(warning.to_string().len() <= 120, "{warning:?}");
        }
    }
}
