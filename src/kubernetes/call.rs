//! Calls that end, and why they failed.

use std::time::Duration;

use tokio::time::timeout;

use super::explain::{For, explain};

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
        let text = explain(error, For::Log);
        match error {
            kube::Error::Api(status) => match status.code {
                404 => Self::Gone,
                409 => Self::Conflict,
                400 | 403 | 405 | 413 | 422 => Self::Denied(text),
                _ => Self::Failed(text),
            },
            _ => Self::Failed(text),
        }
    }
}
