//! What can be decided about a request.

use strum::{IntoStaticStr, VariantNames};

use super::guard::Skip;
use crate::overlap::Case;
use crate::overlap::exempt::Exemption;

/// What was decided about one request, as metrics, audit annotations and logs call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
pub enum Verdict {
    /// A rule of the decision applied.
    #[strum(transparent)]
    Decided(Case),
    /// `ca.crt` changes and its data is left alone.
    #[strum(transparent)]
    Left(Exemption),
    /// No business of ours.
    #[strum(transparent)]
    Skipped(Skip),
}

impl Verdict {
    /// Its name in metrics, audit annotations and logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Every name, for metrics that exist from the start.
    pub fn names() -> Vec<&'static str> {
        [Case::VARIANTS, Exemption::VARIANTS, Skip::VARIANTS].concat()
    }
}
