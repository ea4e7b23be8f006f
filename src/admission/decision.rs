//! The name of what was decided about a request.

use strum::{IntoStaticStr, VariantNames};

use super::guard::SkipReason;
use crate::overlap::Case;
use crate::overlap::exempt::Exemption;

/// What was decided about one request, as metrics, audit annotations and logs name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
pub enum AdmissionDecision {
    /// A rule of the decision applied.
    #[strum(transparent)]
    Case(Case),
    /// `ca.crt` changes, but the Secret is exempt.
    #[strum(transparent)]
    Exempt(Exemption),
    /// A guard skipped the request.
    #[strum(transparent)]
    Skipped(SkipReason),
}

impl AdmissionDecision {
    /// Its name in metrics, audit annotations and logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// All names, so that every metric exists from the start.
    pub fn names() -> Vec<&'static str> {
        [Case::VARIANTS, Exemption::VARIANTS, SkipReason::VARIANTS].concat()
    }
}
