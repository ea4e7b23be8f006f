//! Staged mode (DESIGN §4.4): trust first, the new leaf later.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::certs::Fingerprint;

/// A staged rotation: the annotation `ca-overlap.dev/staged`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// When the pair that waits now was put aside.
    pub since: Timestamp,
    /// The SHA-256 of `tls.crt`, which is still served: of the decoded value's bytes.
    pub held: Fingerprint,
    /// The SHA-256 of `pending.tls.crt`, which waits.
    pub pending: Fingerprint,
    /// How often another pair took the place of the waiting one.
    pub moved: u8,
}

/// An annotation that is not what we write. Never says what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a JSON object with since, held, pending and moved")]
pub struct ParseStageError;

impl Stage {
    /// Reads the annotation.
    pub fn parse(text: &str) -> Result<Self, ParseStageError> {
        serde_json::from_str(text).map_err(|_| ParseStageError)
    }

    /// The annotation's value.
    pub fn to_annotation(&self) -> String {
        // Writing strings and dates to memory has no way to fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_survives_printing_and_nothing_else_is_one() {
        let stage = Stage {
            since: "2026-03-01T10:00:00Z".parse().unwrap(),
            held: Fingerprint::of(b"held"),
            pending: Fingerprint::of(b"pending"),
            moved: 1,
        };
        assert_eq!(Stage::parse(&stage.to_annotation()), Ok(stage));
        for text in ["", "{}", "[]", r#"{"since":"2026-03-01T10:00:00Z","moved":1}"#] {
            assert_eq!(Stage::parse(text), Err(ParseStageError), "{text}");
        }
    }
}
