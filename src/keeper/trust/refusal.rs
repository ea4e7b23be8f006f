//! Why something that a Secret trusts is not announced to it.

use std::fmt;

use crate::kubernetes::key::Key;
use crate::names;
use crate::overlap::announcement::MAX_ANNOUNCED;

/// Why the CAs of a source are not announced to a follower.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    /// There is no such Secret.
    Missing(Key),
    /// It is in another namespace, and does not consent.
    NoConsent(Key),
    /// Its namespace was deleted and created again.
    OtherNamespace(Key),
    /// The Secrets of this namespace trust too many others.
    TooMany(Key),
    /// All sources together hold this many CAs.
    TooManyCas(usize),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(key) => write!(f, "{key}: there is no such Secret"),
            Self::NoConsent(key) => write!(
                f,
                "{key}: it is in another namespace and lacks the label {}=true",
                names::SOURCE
            ),
            Self::OtherNamespace(key) => write!(
                f,
                "{key}: its namespace was deleted and created again, so it may belong to others \
                 now; to trust it, remove the annotation {} and set it again",
                names::TRUST
            ),
            Self::TooMany(key) => {
                write!(f, "{key}: the Secrets of this namespace trust too many other Secrets")
            }
            Self::TooManyCas(count) => write!(
                f,
                "its sources hold {count} CAs, and only the first {MAX_ANNOUNCED} are announced"
            ),
        }
    }
}
