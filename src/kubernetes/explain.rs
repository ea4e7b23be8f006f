//! What errors of the API say. Never what an answer held: it may be a Secret, and an error quotes
//! what it could not read.

use std::error::Error;

use kube::core::Status;
use kube::runtime::watcher;

/// Who reads it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum For {
    /// Who reads logs: code and reason, as the API server's own words may quote what was sent.
    Log,
    /// Who made the call: the API server's own words, which say what is not allowed to whom.
    Caller,
}

/// Why a call failed.
pub(crate) fn explain(error: &kube::Error, to: For) -> String {
    match error {
        kube::Error::Api(status) => said(status, to),
        kube::Error::SerdeError(_) => "the answer is not readable".to_owned(),
        other => causes(other),
    }
}

/// Why a watch was interrupted.
pub(crate) fn explain_watch(error: &watcher::Error, to: For) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => explain(error, to),
        watcher::Error::WatchError(status) => said(status, to),
        watcher::Error::NoResourceVersion => "an object without a resourceVersion".to_owned(),
    }
}

/// An error with its causes, each once.
pub(crate) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    printable(&text)
}

/// Longer texts are cut: a message that fills the screen hides the others.
const MOST: usize = 300;

/// Names and messages come from others: nothing in them may steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(MOST).collect()
}

fn said(status: &Status, to: For) -> String {
    match to {
        For::Log => format!("status {} {}", status.code, status.reason),
        For::Caller => printable(&status.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_never_quoted() {
        let error = serde_json::from_str::<u8>("\"CANARY\"").unwrap_err();
        assert!(error.to_string().contains("CANARY"), "the control");
        let error = kube::Error::SerdeError(error);
        for to in [For::Log, For::Caller] {
            assert!(!explain(&error, to).contains("CANARY"));
        }
        let status = Status::failure("CANARY", "Invalid").with_code(422);
        assert_eq!(said(&status, For::Log), "status 422 Invalid");
        assert_eq!(said(&status, For::Caller), "CANARY", "what was refused, to who sent it");
    }

    #[test]
    fn causes_are_told_once() {
        let inner = std::io::Error::other("connection refused");
        let error = kube::Error::Service(Box::new(inner));
        assert_eq!(explain(&error, For::Log), "ServiceError: connection refused");
    }

    #[test]
    fn nothing_steers_a_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a?[2Jb?");
        assert_eq!(printable(&"x".repeat(1000)).len(), MOST);
    }
}
