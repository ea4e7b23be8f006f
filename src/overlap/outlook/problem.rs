//! Problems of a Secret that a person should know about.

use std::fmt;

use jiff::Timestamp;
use strum::{IntoStaticStr, VariantNames};

use crate::names;
use crate::overlap::Warning;
use crate::x509::certs::Fingerprint;

/// A problem of a Secret, shown by the keeper's Events and metrics, `status` and `inspect`.
#[derive(Clone, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Problem {
    /// The webhook has refused the keeper's ask several times in a row.
    AskRefused,
    /// The webhook did not see an ask: it was down, or is not registered for this Secret.
    AskNotSeen,
    /// The leaf in service expires soon.
    LeafExpiring(Timestamp),
    /// An own certificate is distrusted. Only the generator can replace it.
    OwnDistrusted(Fingerprint),
    /// An own certificate expires soon.
    OwnExpiring(Fingerprint, Timestamp),
    /// The record does not parse.
    RecordUnreadable,
    /// This many words of the annotation `restart` name no workload, or exceed the limit.
    #[strum(serialize = "setting_unreadable")]
    RestartUnreadable(usize),
    /// A carried certificate has ended but stays, because the Secret's own leaf needs it.
    RetireBlocked(Fingerprint),
    /// A setting does not parse.
    SettingUnreadable(Warning),
    /// The Secret became immutable while a leaf waited.
    StageImmutable,
    /// A leaf waits, and nothing tells of its stage.
    StageLost,
    /// A staged rotation has waited too long for its promotion.
    StageOverdue,
    /// The annotation of the staged rotation does not parse.
    StageUnreadable,
}

impl Problem {
    /// The label value in metrics. Two kinds of problem can share one.
    pub fn name(&self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AskNotSeen => f.write_str(
                "the webhook did not see the keeper's ask: check that it runs, and is registered \
                 for this Secret",
            ),
            Self::AskRefused => f.write_str(
                "the webhook keeps refusing the keeper's ask: check that both run with the same \
                 flags",
            ),
            Self::RestartUnreadable(count) => write!(
                f,
                "{}: {count} words are ignored: expected up to 16 of deployment/x, statefulset/x, \
                 daemonset/x",
                names::RESTART
            ),
            Self::LeafExpiring(when) => write!(f, "the leaf expires at {when}"),
            Self::OwnDistrusted(which) => write!(
                f,
                "the CA {which} is distrusted, but the generator itself writes it: only the \
                 generator can replace it"
            ),
            Self::OwnExpiring(which, when) => write!(f, "the CA {which} expires at {when}"),
            Self::RecordUnreadable => write!(f, "{} is not readable", names::CARRIED),
            Self::RetireBlocked(which) => {
                write!(f, "the CA {which} has ended, but stays: the Secret's own leaf needs it")
            }
            Self::SettingUnreadable(warning) => warning.fmt(f),
            Self::StageImmutable => f.write_str(
                "a leaf waits in an immutable Secret: delete the Secret, and have its generator \
                 make it again",
            ),
            Self::StageLost => f.write_str(
                "a leaf waits without a stage: the next write that the webhook sees puts the newer \
                 valid leaf into service",
            ),
            Self::StageOverdue => f.write_str("the new leaf has waited too long to be promoted"),
            Self::StageUnreadable => write!(f, "{} is not readable", names::STAGED),
        }
    }
}
