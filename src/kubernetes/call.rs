//! Calls that end, and why they failed.
//!
//! What fails is told by code and reason: an answer's text may quote what was sent, and a parser's
//! error quotes what it read.

use std::error::Error;
use std::time::Duration;

use tokio::time::timeout;

/// Why a call has failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Another writer was faster: read again.
    #[error("it was changed in between")]
    Conflict,
    /// The API server does not allow it, or does not take it: likely for ever.
    #[error("{0}")]
    Denied(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
    /// The object does not exist.
    #[error("it does not exist")]
    Gone,
    /// This replica may not write any more.
    #[error("another replica leads")]
    NotLeading,
}

/// One call. The API server's own limit is longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for an answer, but not for ever.
pub async fn call<T>(answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
    match timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(CallError::from(&error)),
        Err(_) => {
            let seconds = PATIENCE.as_secs();
            Err(CallError::Failed(format!("the API server did not answer within {seconds} s")))
        }
    }
}

impl From<&kube::Error> for CallError {
    fn from(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                404 => Self::Gone,
                409 => Self::Conflict,
                code @ (400 | 403 | 405 | 413 | 422) => {
                    Self::Denied(format!("status {code} {}", status.reason))
                }
                code => Self::Failed(format!("status {code} {}", status.reason)),
            },
            kube::Error::SerdeError(_) => Self::Failed("the answer is not readable".to_owned()),
            other => Self::Failed(root(other)),
        }
    }
}

/// The innermost cause: the outer ones say only that a request has failed.
fn root(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
