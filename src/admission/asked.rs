//! Who may ask for what, and when (DESIGN §4.5).

use super::review::Secret;
use crate::names;
use crate::overlap::Warning;
use crate::overlap::ask::Ask;

/// What the annotation `ca-overlap.dev/ask` of one write comes to.
pub(super) enum Asked {
    /// There is none, or one that was not seen when it was written. Only the writer of this very
    /// request is known, so what stood there before is removed without a word.
    Nothing,
    /// The keeper asks.
    For(Ask),
    /// It is removed, and nothing else is done.
    Refused(Warning),
}

impl Asked {
    /// Reads the ask that `user` brings with this write.
    pub(super) fn read(
        object: &Secret<'_>,
        old: &Secret<'_>,
        user: &str,
        keeper_user: &str,
    ) -> Self {
        let Some(text) = object.annotation(names::ASK) else { return Self::Nothing };
        if old.annotation(names::ASK) == Some(text) {
            return Self::Nothing;
        }
        if user != keeper_user {
            return Self::Refused(Warning::AskNotAllowed);
        }
        // The keeper writes no data: whoever does may not speak for it.
        if object.ca_crt() != old.ca_crt() || object.tls_crt() != old.tls_crt() {
            return Self::Refused(Warning::AskRefused);
        }
        Ask::parse(text).map_or(Self::Refused(Warning::AskUnreadable), Self::For)
    }

    /// What is asked for.
    pub(super) fn ask(&self) -> Option<&Ask> {
        match self {
            Self::For(ask) => Some(ask),
            Self::Nothing | Self::Refused(_) => None,
        }
    }

    /// Why nothing is done.
    pub(super) fn warning(&self) -> Option<Warning> {
        match self {
            Self::Refused(warning) => Some(*warning),
            Self::Nothing | Self::For(_) => None,
        }
    }
}
