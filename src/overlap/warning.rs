//! The warnings that the writer of a Secret gets.

use std::fmt;

use strum::{IntoStaticStr, VariantNames};

use crate::x509::strict::Flaw;

/// A problem that the API server shows to the writer as a warning. The text has at most 120
/// characters, as the admission API asks for, and never quotes a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[cfg_attr(test, derive(strum::EnumIter))]
#[strum(serialize_all = "snake_case")]
pub enum Warning {
    /// A person's write dropped a certificate, but it is still carried.
    AddedBack,
    /// The Secret's data has no room for all announced CAs.
    AnnounceFull,
    /// What is to be announced is not a usable CA, or there are too many.
    AnnounceRefused,
    /// The setting `announce` has an entry that does not parse, or is too long.
    AnnounceUnreadable,
    /// The annotations have no room for the record or for a setting.
    AnnotationsFull,
    /// A client other than the keeper asks for what only the keeper may ask for.
    AskNotAllowed,
    /// The keeper's ask is not possible in this write, or for this Secret.
    AskRefused,
    /// The ask does not parse.
    AskUnreadable,
    /// A new object brought a waiting pair, which was dropped.
    CopiedPairDropped,
    /// The Secret's data has no room for all previous CAs.
    DataFull,
    /// The setting `distrust` has more fingerprints than are read.
    DistrustTooLong,
    /// The setting `distrust` has an entry that is not a fingerprint.
    DistrustUnreadable,
    /// The generator itself writes a distrusted certificate.
    DistrustedOwn,
    /// The previous CA has a flaw for which some readers would reject the whole file.
    Flawed(Flaw),
    /// The incoming `ca.crt` holds no readable certificate.
    IncomingUnreadable,
    /// One write replaced more CAs than `keep` allows ca-overlap to carry.
    KeepTooSmall,
    /// The setting `keep` does not parse.
    KeepUnreadable,
    /// The label `mode` does not parse.
    ModeUnreadable,
    /// The record does not parse.
    RecordUnreadable,
    /// A certificate of a `repair` could not be carried.
    RepairIncomplete,
    /// The setting `restart` has a word that names no workload, or too many words.
    RestartUnreadable,
    /// A write that changes `ca.crt` lacked a setting, perhaps on purpose. It was restored.
    SettingKept,
    /// A setting is too long to be restored.
    SettingTooLong,
    /// The stored pairs are not those that the stage recorded.
    StagedBroken,
    /// cert-manager owns the Secret, and checks its pair.
    StagedCertManager,
    /// The leaf in service expires too soon to be held.
    StagedLeafExpires,
    /// The generator keeps issuing other pairs.
    StagedMoved,
    /// The write itself sets the mode `staged`, which counts from the next write on.
    StagedLater,
    /// The keeper is not alive.
    StagedNoKeeper,
    /// The Secret's data has no room for two pairs.
    StagedNoRoom,
    /// The Secret has other data that would not match the held pair.
    StagedOtherKeys,
    /// The writer may not read the Secret.
    StagedStranger,
    /// The Secret has the mode `staged`, but the webhook runs without `--staged`.
    StagedUnavailable,
    /// A leaf would not verify against `ca.crt`, or a pair is incomplete.
    StagedUnverified,
    /// The stored `ca.crt` holds a block that cannot be carried.
    StoredUnreadable,
    /// The setting `trust` has a word that names no Secret, or too many words.
    TrustUnreadable,
    /// The setting `window` does not parse.
    WindowUnreadable,
}

impl Warning {
    /// The value of the metric label `reason`.
    pub fn reason(self) -> &'static str {
        self.into()
    }

    /// The warning with this reason, if it says why a pair is not staged.
    pub(super) fn of_stage(reason: &str) -> Option<Self> {
        let mut all = NOT_STAGED.into_iter().map(|(warning, _)| warning);
        all.find(|warning| warning.reason() == reason)
    }

    /// Why a pair is not staged, if this warning is about that.
    pub fn why_not_staged(self) -> Option<&'static str> {
        NOT_STAGED.into_iter().find(|(warning, _)| *warning == self).map(|(_, why)| why)
    }
}

const NOT_STAGED: [(Warning, &str); 10] = [
    (Warning::StagedCertManager, "cert-manager would issue a new pair"),
    (Warning::StagedLater, "the mode counts from the next write on"),
    (Warning::StagedLeafExpires, "the previous leaf expires too soon to be held"),
    (Warning::StagedMoved, "a third new leaf came before the first was promoted"),
    (Warning::StagedNoKeeper, "the keeper's Lease is not fresh"),
    (Warning::StagedNoRoom, "the Secret has no room for a second leaf"),
    (Warning::StagedOtherKeys, "the Secret has other data besides ca.crt and tls.*"),
    (Warning::StagedStranger, "its writer may not read it"),
    (Warning::StagedUnavailable, "not available in this installation"),
    (Warning::StagedUnverified, "a leaf would not verify against ca.crt or lacks its key"),
];

impl fmt::Display for Warning {
    #[allow(clippy::too_many_lines, reason = "a table of texts, a line for each warning")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AddedBack => {
                "ca-overlap kept the previous CA in ca.crt; to drop it: annotation ca-overlap.dev/distrust=<its SHA-256>"
            }
            Self::AnnounceFull => {
                "ca-overlap: the Secret has no room (limit 1048576 bytes): not every announced CA was put into ca.crt"
            }
            Self::AnnounceRefused => {
                "ca-overlap.dev/announce: left out: not a CA, expired, distrusted, flawed, above 16, or ca.crt is a trust store"
            }
            Self::AnnounceUnreadable => {
                "ca-overlap.dev/announce: expected base64 DER, each with an optional @<RFC 3339 end>; other entries are ignored"
            }
            Self::AnnotationsFull => {
                "ca-overlap: the annotations have no room (limit 262144 bytes): some of its state or settings were left out"
            }
            Self::AskNotAllowed => {
                "ca-overlap.dev/ask: only ca-overlap's keeper may ask for this; it was removed without effect"
            }
            Self::AskRefused => {
                "ca-overlap.dev/ask: not possible in this write or for this Secret; it was removed without effect"
            }
            Self::AskUnreadable => {
                "ca-overlap.dev/ask: expected retire, promote, repair, announce or unstage; it was removed without effect"
            }
            Self::CopiedPairDropped => {
                "ca-overlap: pending.tls.* came with a copy of a staged Secret and was dropped; tls.* is stored as written"
            }
            Self::DataFull => {
                "ca-overlap: the Secret has no room (limit 1048576 bytes): not every previous CA was kept in ca.crt"
            }
            Self::DistrustTooLong => {
                "ca-overlap.dev/distrust: only the first 64 fingerprints count; the others are ignored"
            }
            Self::DistrustUnreadable => {
                "ca-overlap.dev/distrust: an entry that is not a SHA-256 fingerprint (64 hex digits) is ignored"
            }
            Self::DistrustedOwn => {
                "ca-overlap: ca.crt holds a distrusted CA that its generator wrote; only the generator can replace it"
            }
            Self::Flawed(flaw) => {
                return write!(
                    f,
                    "ca-overlap: the previous CA was not kept, because readers reject a file with it: {flaw}"
                );
            }
            Self::IncomingUnreadable => {
                "ca-overlap: ca.crt holds no readable certificate: it is stored as written, without a previous CA"
            }
            Self::KeepTooSmall => {
                "ca-overlap: more CAs were replaced at once than are kept; raise the annotation ca-overlap.dev/keep to keep all"
            }
            Self::KeepUnreadable => {
                "ca-overlap.dev/keep: expected a number from 0 to 8; the default is used"
            }
            Self::ModeUnreadable => {
                "ca-overlap.dev/mode: expected bundle, staged or off; the default is used"
            }
            Self::RecordUnreadable => {
                "ca-overlap.dev/carried: the stored record is not readable and is ignored"
            }
            Self::RepairIncomplete => {
                "ca-overlap.dev/ask: a CA was not carried: expired, distrusted, past its deadline, not readable, or above keep"
            }
            Self::RestartUnreadable => {
                "ca-overlap.dev/restart: expected up to 16 of deployment/x, statefulset/x, daemonset/x; other words are ignored"
            }
            Self::SettingKept => {
                "ca-overlap: a write that changes ca.crt removes no setting; remove it by a write that leaves ca.crt as it is"
            }
            Self::SettingTooLong => {
                "ca-overlap: this write removed a setting of more than 4096 bytes, which is too long to be restored"
            }
            Self::StagedBroken => {
                "ca-overlap: the stored leaves are not the recorded ones: the stage has ended with the newest valid one in service"
            }
            Self::StagedCertManager
            | Self::StagedLater
            | Self::StagedLeafExpires
            | Self::StagedMoved
            | Self::StagedNoKeeper
            | Self::StagedNoRoom
            | Self::StagedOtherKeys
            | Self::StagedUnavailable
            | Self::StagedUnverified => {
                let why = self.why_not_staged().unwrap_or_default();
                return write!(f, "ca-overlap.dev/mode=staged: {why}; the CA is bundled instead");
            }
            Self::StagedStranger => {
                "ca-overlap.dev/mode=staged: not staged: its writer may not read it (verb get); the CA is bundled instead"
            }
            Self::StoredUnreadable => {
                "ca-overlap: the previous ca.crt holds a block that is not a readable certificate; it was not kept"
            }
            Self::TrustUnreadable => {
                "ca-overlap.dev/trust: expected up to 8 of <name> or <namespace>/<name>; other words are ignored"
            }
            Self::WindowUnreadable => {
                "ca-overlap.dev/window: expected a duration such as 90m, 24h, 7d, or none; the default is used"
            }
        })
    }
}

/// Adds a warning, unless it is there already.
pub(crate) fn push_once(warnings: &mut Vec<Warning>, warning: Warning) {
    if !warnings.contains(&warning) {
        warnings.push(warning);
    }
}

#[cfg(test)]
mod tests {
    use strum::{IntoEnumIterator, VariantArray};

    use super::{Flaw, Warning};

    #[test]
    fn a_warning_has_at_most_120_characters() {
        let flawed = Flaw::VARIANTS.iter().copied().map(Warning::Flawed);
        for warning in Warning::iter().chain(flawed) {
            assert!(warning.to_string().len() <= 120, "{warning:?}");
        }
    }
}
