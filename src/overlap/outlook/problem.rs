//! What a person should know of a Secret.

use std::fmt;

use jiff::Timestamp;
use strum::{IntoStaticStr, VariantNames};

use crate::names;
use crate::overlap::Warning;
use crate::x509::certs::Fingerprint;

/// What a person should know.
#[derive(Clone, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Problem {
    /// The webhook refuses again and again what the keeper asks.
    AskRefused,
    /// An ask was not seen: the webhook was down, or is not registered for this Secret.
    AskNotSeen,
    /// The leaf expires soon.
    LeafExpiring(Timestamp),
    /// `ca.crt` holds a distrusted certificate that only its generator can replace.
    OwnDistrusted(Fingerprint),
    /// A certificate of the generator expires soon.
    OwnExpiring(Fingerprint, Timestamp),
    /// The record does not parse.
    RecordUnreadable,
    /// So many words of the annotation `restart` name no workload, or are too many.
    #[strum(serialize = "setting_unreadable")]
    RestartUnreadable(usize),
    /// A carried certificate is over, and the Secret's own leaf needs it.
    RetireBlocked(Fingerprint),
    /// A setting does not parse.
    SettingUnreadable(Warning),
    /// A stage is older than promotion should ever take.
    StageOverdue,
    /// The state of the stage does not parse.
    StageUnreadable,
}

impl Problem {
    /// How metrics call it. Two kinds may have the same name.
    pub fn name(&self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AskNotSeen => f.write_str(
                "the webhook did not see what the keeper asked: is it down, or not registered for \
                 this Secret?",
            ),
            Self::AskRefused => f.write_str(
                "the webhook refuses again and again what the keeper asks: do they run with the \
                 same flags?",
            ),
            Self::RestartUnreadable(count) => write!(
                f,
                "{count} words of {} are no workload (deployment/x, statefulset/x, daemonset/x), \
                 or too many",
                names::RESTART
            ),
            Self::LeafExpiring(when) => write!(f, "the leaf expires at {when}"),
            Self::OwnDistrusted(which) => write!(
                f,
                "{which} is distrusted, but the generator's own: only the generator can replace it"
            ),
            Self::OwnExpiring(which, when) => write!(f, "the CA {which} expires at {when}"),
            Self::RecordUnreadable => write!(f, "{} is not readable", names::CARRIED),
            Self::RetireBlocked(which) => {
                write!(f, "{which} is over, but the Secret's own leaf needs it")
            }
            Self::SettingUnreadable(warning) => warning.fmt(f),
            Self::StageOverdue => f.write_str("the staged leaf waits for too long"),
            Self::StageUnreadable => write!(f, "{} is not readable", names::STAGED),
        }
    }
}
