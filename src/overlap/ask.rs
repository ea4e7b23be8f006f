//! What the keeper asks for: the annotation `ca-overlap.dev/ask` (DESIGN §4.5).
//!
//! Whoever writes a field of `data` becomes its manager, and the next apply of the generator would
//! conflict with it. An admission patch has no such effect. So the keeper never writes data: it
//! asks, and the webhook acts in the same request.

use std::fmt;

use base64::prelude::*;
use jiff::Timestamp;
use strum::{IntoStaticStr, VariantNames};

use super::record::Entry;
use crate::names;
use crate::x509::certs::Fingerprint;

/// The longest annotation that is read, in bytes: a quarter of what all annotations of an object
/// may have together.
pub const MAX_ASK: usize = 64 * 1024;

/// The most certificates of one `repair`.
pub const MAX_REPAIRED: usize = 8;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Ask {
    /// Cut out what is over.
    Retire,
    /// Put the pending pair into service: the one whose `pending.tls.crt` has this SHA-256, of the
    /// decoded value's bytes.
    Promote(Fingerprint),
    /// Bring back what an update has dropped without us.
    Repair(Repair),
}

/// What is to be brought back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// To be carried, as far as they are usable; at most [`MAX_REPAIRED`].
    pub certificates: Vec<Repaired>,
    /// Settings, by their keys: of [`names::SETTINGS`], or [`names::MODE`]. They replace what
    /// stands there. Were the keeper to write them it would be their manager, and the next apply
    /// of a generator that sets another value would be refused.
    pub settings: Vec<(&'static str, String)>,
}

impl Repair {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty() && self.settings.is_empty()
    }

    /// The value of a setting that is to be brought back.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|(known, _)| *known == key).map(|(_, value)| value.as_str())
    }

    /// With as many of the certificates as fit into [`MAX_ASK`]. The settings come first: what is
    /// distrusted is among them.
    #[must_use]
    pub fn fitting(mut self) -> Self {
        let is_too_long = |repair: &Self| repair.to_string().len() > MAX_ASK - ROOM_FOR_WORDS;
        while is_too_long(&self) && self.certificates.pop().is_some() {}
        while is_too_long(&self) && self.settings.pop().is_some() {}
        self
    }

    fn parse(words: &[&str]) -> Option<Self> {
        let mut repair = Self::default();
        for word in words {
            match setting(word) {
                Some((key, value)) if repair.setting(key).is_none() => {
                    repair.settings.push((key, value?));
                }
                Some(_) => return None,
                None => repair.certificates.push(Repaired::parse(word)?),
            }
        }
        (!repair.is_empty() && repair.certificates.len() <= MAX_REPAIRED).then_some(repair)
    }
}

/// Certificates alone.
impl From<Vec<Repaired>> for Repair {
    fn from(certificates: Vec<Repaired>) -> Self {
        Self { certificates, settings: Vec::new() }
    }
}

/// Reads `<name>:<base64 of its value>`: the key, and its value if it may stand there. `None` if it
/// is another word; a certificate has no colon but in its dates.
fn setting(word: &str) -> Option<(&'static str, Option<String>)> {
    let (name, value) = word.split_once(':')?;
    let mut keys = names::SETTINGS.into_iter().chain([names::MODE]);
    let key = keys.find(|key| key.strip_prefix(names::PREFIX) == Some(name))?;
    let value = BASE64_STANDARD.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    // A label that the API server does not take would cost the whole write.
    Some((key, value.filter(|value| key != names::MODE || is_label_value(value))))
}

fn is_label_value(text: &str) -> bool {
    let is_end = |c: Option<u8>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && is_end(bytes.first().copied())
        && is_end(bytes.last().copied())
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}

/// The first word, and the one that makes an ask differ.
const ROOM_FOR_WORDS: usize = 32;

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
            ["repair", ref words @ ..] => {
                Repair::parse(words).map(Self::Repair).ok_or(ParseAskError)
            }
            _ => Err(ParseAskError),
        }
    }

    /// Its first word, as logs and metrics call it.
    pub fn name(&self) -> &'static str {
        self.into()
    }

    /// The settings that are to be brought back, also where data is left alone.
    pub fn settings(&self) -> &[(&'static str, String)] {
        match self {
            Self::Repair(repair) => &repair.settings,
            Self::Retire | Self::Promote(_) => &[],
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
            Self::Repair(repair) => write!(f, "{}{repair}", self.name()),
        }
    }
}

/// Its words, with a space before each.
impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in &self.settings {
            let name = key.strip_prefix(names::PREFIX).unwrap_or(key);
            write!(f, " {name}:{}", BASE64_STANDARD.encode(value))?;
        }
        self.certificates.iter().try_for_each(|certificate| write!(f, " {certificate}"))
    }
}

/// A number that makes an ask differ from the one that stands there.
pub fn nonce(standing: Option<&str>) -> u64 {
    let last = standing.and_then(|text| text.rsplit_once('#')?.1.parse::<u64>().ok());
    last.map_or(1, |last| last.wrapping_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ask_that_is_repeated_differs() {
        assert_eq!(nonce(None), 1);
        assert_eq!(nonce(Some("retire #1")), 2);
        assert_eq!(nonce(Some("retire")), 1);
        assert_eq!(nonce(Some("retire #x")), 1);
        assert_eq!(nonce(Some(&format!("retire #{}", u64::MAX))), 0);
    }

    fn dated(until: Option<Timestamp>) -> Repaired {
        let since = "2026-03-01T10:00:00Z".parse().unwrap();
        let entry = Entry { sha256: Fingerprint::of(b"a"), since, until };
        Repaired { der: b"a".to_vec(), entry: Some(entry) }
    }

    fn settings() -> Vec<(&'static str, String)> {
        [
            (names::DISTRUST, "ab:cd, EF"),
            (names::RESTART, "deployment/a, deployment/b"),
            (names::GROUP, ""),
            (names::MODE, "bundle"),
        ]
        .map(|(key, value)| (key, value.to_owned()))
        .to_vec()
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_settings_come_first() {
        let large: Repaired = vec![0; 20_000].into();
        let repair = Repair { certificates: vec![large; 3], settings: settings() }.fitting();
        assert_eq!((repair.certificates.len(), repair.settings.len()), (2, 4));
        let ask = Ask::Repair(repair);
        assert_eq!(Ask::parse(&ask.to_annotation(u64::MAX)), Ok(ask));
        let value = "x".repeat(names::MAX_RESTORED);
        let settings = names::SETTINGS.map(|key| (key, value.clone())).to_vec();
        let repair = Repair { certificates: Vec::new(), settings }.fitting();
        assert_eq!(repair.settings.len(), names::SETTINGS.len());
        let ask = Ask::Repair(repair);
        assert_eq!(Ask::parse(&ask.to_annotation(u64::MAX)), Ok(ask));
    }

    /// `words` certificates whose words have this length together, spaces included.
    fn filling(length: usize, words: usize) -> Repair {
        let smallest = || Repaired::from(vec![0]);
        let mut certificates: Vec<_> = std::iter::repeat_with(smallest).take(words - 1).collect();
        let left = length - certificates.len() * " AAAA".len() - " ".len();
        certificates.push(vec![0; left / 4 * 3].into());
        let repair: Repair = certificates.into();
        assert_eq!(repair.to_string().len(), length);
        repair
    }

    #[test]
    fn what_fits_to_the_last_byte_is_asked_for_whole() {
        let room = MAX_ASK - ROOM_FOR_WORDS;
        // Base64 comes in fours: as many words as make up for that.
        let words = |length: usize| length % 4 + 4;
        let fits = filling(room, words(room));
        assert_eq!(fits.clone().fitting(), fits);
        assert!(Ask::Repair(fits).to_annotation(u64::MAX).len() <= MAX_ASK);
        let larger = filling(room + 1, words(room + 1));
        assert_eq!(larger.clone().fitting().certificates.len(), larger.certificates.len() - 1);

        let padded = |length: usize| "retire".to_owned() + &" ".repeat(length - "retire".len());
        assert_eq!(Ask::parse(&padded(MAX_ASK)), Ok(Ask::Retire));
        assert_eq!(Ask::parse(&padded(MAX_ASK + 1)), Err(ParseAskError));
    }

    #[test]
    fn asks_survive_printing_with_and_without_a_nonce() {
        let until = "2026-03-02T10:00:00Z".parse().unwrap();
        let asks = [
            Ask::Retire,
            Ask::Promote(Fingerprint::of(b"x")),
            Ask::Repair(vec![b"a".to_vec().into()].into()),
            Ask::Repair(vec![vec![0; 1000].into(); MAX_REPAIRED].into()),
            Ask::Repair(vec![dated(None), dated(Some(until))].into()),
            Ask::Repair(Repair { certificates: vec![dated(None)], settings: settings() }),
            Ask::Repair(Repair { certificates: Vec::new(), settings: settings() }),
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
            "repair keep:%%%",
            "repair keep:Mg== keep:Mg==",
            "repair carried:W10=",
            "repair phase:b3ZlcmxhcA==",
            // "a b", which is no label.
            "repair mode:YSBi",
            &format!("repair{}", " QQ==".repeat(MAX_REPAIRED + 1)),
            &format!("repair {}", "A".repeat(MAX_ASK)),
        ] {
            assert_eq!(Ask::parse(text), Err(ParseAskError), "{text}");
        }
    }
}
