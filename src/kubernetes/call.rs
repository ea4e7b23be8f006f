//! Calls to the API server with a time limit, and why they fail.

use std::time::Duration;

use tokio::time::timeout;

use super::explain::{Audience, explain};

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The call is a write, and `--audit` sends none.
    #[error("with --audit nothing is written")]
    Audit,
    /// Another writer changed the object first: read it again (409).
    #[error("another writer changed it in between")]
    Conflict,
    /// The API server rejects the call, and a repetition is unlikely to help
    /// (400, 403, 405, 413, 422).
    #[error("{0}")]
    Denied(String),
    /// Any other error, or no answer in time.
    #[error("{0}")]
    Failed(String),
    /// The object does not exist (404).
    #[error("it does not exist")]
    Gone,
    /// This replica is no longer the leader, so it must not write.
    #[error("this replica is not the leader")]
    NotLeading,
}

/// The time limit of a call. The API server's own default, 60 s, is longer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Waits for the answer to a call, at most `TIMEOUT`.
pub async fn call<T>(answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
    match timeout(TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(CallError::from(&error)),
        Err(_) => {
            let seconds = TIMEOUT.as_secs();
            Err(CallError::Failed(format!("the API server did not answer within {seconds} s")))
        }
    }
}

impl From<&kube::Error> for CallError {
    fn from(error: &kube::Error) -> Self {
        let text = explain(error, Audience::Log);
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
