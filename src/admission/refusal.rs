//! Requests that are no readable review.

use http::StatusCode;
use strum::{IntoStaticStr, VariantNames};

use super::review::ReadReviewError;

/// Why a request gets no review. Its name is the status of the response.
#[derive(Debug, thiserror::Error, IntoStaticStr, VariantNames)]
pub(super) enum Refusal {
    #[error("expected content type application/json")]
    #[strum(serialize = "415")]
    ContentType,
    #[error("the body ended early")]
    #[strum(serialize = "400")]
    Interrupted,
    #[error("the body took too long")]
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
