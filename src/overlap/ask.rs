//! What the keeper asks for: the annotation `ca-overlap.dev/ask` (DESIGN §4.5).
//!
//! Whoever writes a field of `data` becomes its manager, and the next apply of the generator would
//! conflict with it. An admission patch has no such effect. So the keeper never writes data: it
//! asks, and the webhook acts in the same request.

use std::fmt;

use base64::prelude::*;
use jiff::Timestamp;

use super::certs::Fingerprint;
use super::record::Entry;

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
    /// Carry these certificates, as far as they are usable: an update has dropped them, or what
    /// says that they are carried, without us.
    Repair(Vec<Repaired>),
}

/// A certificate that is to be carried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// The certificate.
    pub der: Vec<u8>,
    /// What the record said of it before it was lost.
    pub entry: Option<Entry>,
}

impl Repaired {
    /// Reads `<base64 DER>`, or `<base64 DER>@<since>/<until>`, where `until` may be empty.
    fn parse(word: &str) -> Option<Self> {
        let (der, dates) = match word.split_once('@') {
            Some((der, dates)) => (der, Some(dates.split_once('/')?)),
            None => (word, None),
        };
        let der = BASE64_STANDARD.decode(der).ok()?;
        let Some((since, until)) = dates else { return Some(Self { der, entry: None }) };
        let until: Option<Timestamp> =
            if until.is_empty() { None } else { Some(until.parse().ok()?) };
        let entry = Entry { sha256: Fingerprint::of(&der), since: since.parse().ok()?, until };
        Some(Self { der, entry: Some(entry) })
    }
}

impl fmt::Display for Repaired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(&self.der))?;
        let Some(entry) = self.entry else { return Ok(()) };
        write!(f, "@{}/", entry.since)?;
        entry.until.map_or(Ok(()), |until| until.fmt(f))
    }
}

/// One of which no dates are known.
impl From<Vec<u8>> for Repaired {
    fn from(der: Vec<u8>) -> Self {
        Self { der, entry: None }
    }
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
                let all = certificates.iter().map(|word| Repaired::parse(word));
                all.collect::<Option<_>>().map(Self::Repair).ok_or(ParseAskError)
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
                certificates.iter().try_for_each(|certificate| write!(f, " {certificate}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dated(until: Option<Timestamp>) -> Repaired {
        let since = "2026-03-01T10:00:00Z".parse().unwrap();
        let entry = Entry { sha256: Fingerprint::of(b"a"), since, until };
        Repaired { der: b"a".to_vec(), entry: Some(entry) }
    }

    #[test]
    fn asks_survive_printing_with_and_without_a_nonce() {
        let until = "2026-03-02T10:00:00Z".parse().unwrap();
        let asks = [
            Ask::Retire,
            Ask::Promote(Fingerprint::of(b"x")),
            Ask::Repair(vec![b"a".to_vec().into()]),
            Ask::Repair(vec![vec![0; 1000].into(); MAX_REPAIRED]),
            Ask::Repair(vec![dated(None), dated(Some(until))]),
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
            "repair QQ==@",
            "repair QQ==@2026-03-01T10:00:00Z",
            "repair QQ==@/2026-03-01T10:00:00Z",
            "repair QQ==@2026-03-01T10:00:00Z/soon",
            &format!("repair{}", " QQ==".repeat(MAX_REPAIRED + 1)),
            &format!("repair {}", "A".repeat(MAX_ASK)),
        ] {
            assert_eq!(Ask::parse(text), Err(ParseAskError), "{text}");
        }
    }
}
