//! Checks who asks, and with which write (docs/design.md, "Asks").

use super::review::ReviewedSecret;
use crate::names;
use crate::overlap::Warning;
use crate::overlap::ask::Ask;

/// The result of checking the annotation `ca-overlap.dev/ask` of one write.
pub(super) enum AskOutcome {
    /// There is no ask, or it was stored earlier, while the webhook did not see it. Its writer is
    /// not known then, so it is removed without a warning.
    Nothing,
    /// The keeper asks, or someone asks for what everybody may ask for.
    Asked(Ask),
    /// The ask is removed and not carried out.
    Refused(Warning),
}

impl AskOutcome {
    /// Reads the ask that `user` brings with this write.
    pub(super) fn read(
        object: &ReviewedSecret<'_>,
        old: &ReviewedSecret<'_>,
        user: &str,
        keeper_user: &str,
    ) -> Self {
        let Some(text) = object.annotation(names::ASK) else { return Self::Nothing };
        if old.annotation(names::ASK) == Some(text) {
            return Self::Nothing;
        }
        let ask = Ask::parse(text);
        if user != keeper_user && ask != Ok(Ask::Unstage) {
            return Self::Refused(Warning::AskNotAllowed);
        }
        // An ask comes alone: the keeper never writes data, so this write is not the keeper's own.
        if object.ca_crt() != old.ca_crt() || object.tls_crt() != old.tls_crt() {
            return Self::Refused(Warning::AskRefused);
        }
        ask.map_or(Self::Refused(Warning::AskUnreadable), Self::Asked)
    }

    /// The ask, if it may be carried out.
    pub(super) fn ask(&self) -> Option<&Ask> {
        match self {
            Self::Asked(ask) => Some(ask),
            Self::Nothing | Self::Refused(_) => None,
        }
    }

    /// Why the ask is refused.
    pub(super) fn warning(&self) -> Option<Warning> {
        match self {
            Self::Refused(warning) => Some(*warning),
            Self::Nothing | Self::Asked(_) => None,
        }
    }
}
