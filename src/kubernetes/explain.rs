//! Texts for errors of the API. They never quote an answer, which may be a Secret: serde's errors
//! quote what they could not parse.

use std::error::Error;

use kube::core::Status;
use kube::runtime::watcher;

/// Who reads the text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Audience {
    /// Readers of the log. They get code and reason only, because the API server's message may
    /// quote what was sent.
    Log,
    /// The person who made the call. They get the API server's message, which says who lacks which
    /// right.
    Caller,
}

/// Says why a call failed.
pub(crate) fn explain(error: &kube::Error, to: Audience) -> String {
    match error {
        kube::Error::Api(status) => said(status, to),
        kube::Error::SerdeError(_) => "cannot parse the answer of the API server".to_owned(),
        other => causes(other),
    }
}

/// Says why a watch was interrupted.
pub(crate) fn explain_watch(error: &watcher::Error, to: Audience) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => explain(error, to),
        watcher::Error::WatchError(status) => said(status, to),
        watcher::Error::NoResourceVersion => {
            "the API server sent a list without a resourceVersion".to_owned()
        }
    }
}

/// An error with its causes. A cause that is already in the text is left out.
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

/// The longest text, in characters. A text that fills the screen hides the others.
const MAX_CHARS: usize = 300;

/// Replaces control characters, which could steer a terminal, and cuts long texts.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(MAX_CHARS).collect()
}

fn said(status: &Status, to: Audience) -> String {
    match to {
        Audience::Log => format!("status {} {}", status.code, status.reason),
        Audience::Caller => printable(&status.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_never_quotes_an_answer() {
        let error = serde_json::from_str::<u8>("\"CANARY\"").unwrap_err();
        assert!(error.to_string().contains("CANARY"), "the control");
        let error = kube::Error::SerdeError(error);
        for to in [Audience::Log, Audience::Caller] {
            assert!(!explain(&error, to).contains("CANARY"));
        }
        let status = Status::failure("CANARY", "Invalid").with_code(422);
        assert_eq!(said(&status, Audience::Log), "status 422 Invalid");
        assert_eq!(said(&status, Audience::Caller), "CANARY", "what was refused, to who sent it");
    }

    #[test]
    fn a_cause_is_named_once() {
        let inner = std::io::Error::other("connection refused");
        let error = kube::Error::Service(Box::new(inner));
        assert_eq!(explain(&error, Audience::Log), "ServiceError: connection refused");
    }

    #[test]
    fn control_characters_are_replaced_and_long_texts_cut() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a?[2Jb?");
        assert_eq!(printable(&"x".repeat(1000)).len(), MAX_CHARS);
    }
}
