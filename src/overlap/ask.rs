//! What the keeper asks for: the annotation `ca-overlap.dev/ask` (DESIGN §4.5).
//!
//! Whoever writes a field of `data` becomes its manager, and the next apply of the generator would
//! conflict with it. An admission patch has no such effect. So the keeper never writes data: it
//! asks, and the webhook acts in the same request.

use std::fmt;

use base64::prelude::*;

use super::certs::Fingerprint;

/// The longest annotation that is read, in bytes: a quarter of what all annotations of an object
/// may have together.
pub const MAX_ASK: usize = 64 * 1024;

/// The most certificates of one `repair`.
pub const MAX_REPAIRED: usize = 8;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Cut out what is over.
    Retire,
    /// Put the pending pair into service: the one whose `pending.tls.crt` has this SHA-256, of the
    /// decoded value's bytes.
    Promote(Fingerprint),
    /// Carry these certificates (DER), as far as they are usable: an update has dropped them
    /// without us.
    Repair(Vec<Vec<u8>>),
}

/// An annotation that asks for nothing known. Never says what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected retire, promote <SHA-256> or repair <base64 DER>…")]
pub struct ParseAskError;

impl Ask {
    /// The name of every ask, for metrics that exist from the start.
    pub const NAMES: [&str; 3] = ["promote", "repair", "retire"];

    /// Reads the annotation. A last word that begins with `#` only makes the value differ from an
    /// earlier one, and is ignored.
    pub fn parse(text: &str) -> Result<Self, ParseAskError> {
        if text.len() > MAX_ASK {
            return Err(ParseAskError);
        }
        let mut words: Vec<&str> = text.split_ascii_whitespace().collect();
        words.pop_if(|word| word.starts_with('#'));
        match *words.as_slice() {
            ["retire"] => Ok(Self::Retire),
            ["promote", fingerprint] => {
                Fingerprint::parse(fingerprint).map(Self::Promote).ok_or(ParseAskError)
            }
            ["repair", ref certificates @ ..]
                if (1..=MAX_REPAIRED).contains(&certificates.len()) =>
            {
                let ders = certificates.iter().map(|word| BASE64_STANDARD.decode(word));
                ders.collect::<Result<_, _>>().map(Self::Repair).map_err(|_| ParseAskError)
            }
            _ => Err(ParseAskError),
        }
    }

    /// Its first word, as logs and metrics call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Retire => "retire",
            Self::Promote(_) => "promote",
            Self::Repair(_) => "repair",
        }
    }

    /// The annotation's value. `nonce` makes it differ from that of the same ask before: one that
    /// was not seen still stands on the Secret, and to write the same again would change nothing.
    pub fn to_annotation(&self, nonce: u64) -> String {
        format!("{self} #{nonce}")
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retire => f.write_str(self.name()),
            Self::Promote(fingerprint) => write!(f, "{} {fingerprint}", self.name()),
            Self::Repair(certificates) => {
                f.write_str(self.name())?;
                certificates
                    .iter()
                    .try_for_each(|der| write!(f, " {}", BASE64_STANDARD.encode(der)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_survive_printing_with_and_without_a_nonce() {
        let asks = [
            Ask::Retire,
            Ask::Promote(Fingerprint::of(b"x")),
            Ask::Repair(vec![b"a".to_vec()]),
            Ask::Repair(vec![vec![0; 1000]; MAX_REPAIRED]),
        ];
        for ask in asks {
            assert_eq!(Ask::parse(&ask.to_string()), Ok(ask.clone()));
            assert_eq!(Ask::parse(&ask.to_annotation(17)), Ok(ask.clone()));
            assert_ne!(ask.to_annotation(1), ask.to_annotation(2));
        }
    }

    #[test]
    fn what_asks_for_nothing_known_is_refused() {
        let fingerprint = Fingerprint::of(b"x");
        for text in [
            "",
            "#1",
            "Retire",
            "retire now",
            "retire #1 #2",
            "promote",
            "promote abc",
            &format!("promote {fingerprint} {fingerprint}"),
            "repair",
            "repair %%%",
            &format!("repair{}", " QQ==".repeat(MAX_REPAIRED + 1)),
            &format!("repair {}", "A".repeat(MAX_ASK)),
        ] {
            assert_eq!(Ask::parse(text), Err(ParseAskError), "{text}");
        }
    }
}
