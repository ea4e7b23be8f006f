//! Refuses requests that are not a readable admission review.

use http::StatusCode;
use strum::{IntoStaticStr, VariantNames};

use super::review::ReadReviewError;

/// Why a request is refused. The name of a variant is the HTTP status of the response.
#[derive(Debug, thiserror::Error, IntoStaticStr, VariantNames)]
pub(super) enum Refusal {
    #[error("the content type is not application/json")]
    #[strum(serialize = "415")]
    ContentType,
    #[error("the connection broke before the body was complete")]
    #[strum(serialize = "400")]
    Interrupted,
    #[error("the body did not arrive in time")]
    #[strum(serialize = "408")]
    Slow,
    #[error("the body is larger than {0} bytes")]
    #[strum(serialize = "413")]
    TooLarge(usize),
    #[error(transparent)]
    #[strum(serialize = "400")]
    Unreadable(ReadReviewError),
}

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        let name: &str = self.into();
        name.parse().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_the_status_of_an_error() {
        for name in Refusal::VARIANTS {
            assert!(name.parse::<StatusCode>().unwrap().is_client_error(), "{name}");
        }
    }
}
