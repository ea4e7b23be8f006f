//! An ask: the annotation `ca-overlap.dev/ask`, by which the keeper tells the webhook what to do
//! (docs/design.md, "Asks"). Anybody may ask for `unstage`.
//!
//! A client that writes a field of `data` becomes its field manager, and the generator's next apply
//! would conflict. An admission patch does not change field managers. So the keeper never writes
//! data: it writes an ask, and the webhook acts on it in the same request.

use std::fmt;

use base64::prelude::*;
use jiff::Timestamp;
use strum::{IntoStaticStr, VariantNames};

use super::announcement::Announcement;
use super::record::Entry;
use crate::names;
use crate::x509::certs::Fingerprint;

/// The longest ask that is read, in bytes. This is a quarter of the API server's limit for all
/// annotations of an object.
pub const MAX_ASK: usize = 64 * 1024;

/// The most certificates in one `repair`.
pub const MAX_REPAIRED: usize = 8;

/// What the webhook is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Ask {
    /// Remove the carried certificates that have ended.
    Retire,
    /// Put the waiting pair into service, if this is the SHA-256 of its decoded `pending.tls.crt`.
    Promote(Fingerprint),
    /// Bring back what was dropped by a write that the webhook did not see.
    Repair(Repair),
    /// Announce these CAs, and no others of the keeper.
    Announce(Vec<Announcement>),
    /// End the stage, with the waiting pair in service. Everybody who may patch the Secret may ask
    /// for this.
    Unstage,
}

/// The certificates and settings that a `repair` brings back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// The certificates to carry if they are usable; at most [`MAX_REPAIRED`].
    pub certificates: Vec<Repaired>,
    /// Settings, by key ([`names::SETTINGS`] or
    /// [`names::LABEL_SETTINGS`]). They replace the current values.
    /// If the keeper wrote them itself, it would be their field manager, and the API server would
    /// reject the next apply of a generator that sets another value.
    pub settings: Vec<(&'static str, String)>,
}

impl Repair {
    /// Whether there is nothing to bring back.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty() && self.settings.is_empty()
    }

    /// The value of a setting that this repair brings back.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|(known, _)| *known == key).map(|(_, value)| value.as_str())
    }

    /// Drops certificates, then settings, until the ask fits into [`MAX_ASK`]. Settings stay
    /// longer, because `distrust` is one of them.
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

/// Brings back certificates only.
impl From<Vec<Repaired>> for Repair {
    fn from(certificates: Vec<Repaired>) -> Self {
        Self { certificates, settings: Vec::new() }
    }
}

/// Reads a word `<name>:<base64 of its value>`. Returns the key and, if it is valid, the value.
/// Returns `None` for any other word. A certificate has colons only in its dates, so it does not
/// look like a setting.
fn setting(word: &str) -> Option<(&'static str, Option<String>)> {
    let (name, value) = word.split_once(':')?;
    let mut keys = names::SETTINGS.into_iter().chain(names::LABEL_SETTINGS);
    let key = keys.find(|key| key.strip_prefix(names::PREFIX) == Some(name))?;
    let value = BASE64_STANDARD.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    // The API server would reject the whole write for an invalid label.
    Some((
        key,
        value.filter(|value| !names::LABEL_SETTINGS.contains(&key) || is_label_value(value)),
    ))
}

fn is_label_value(text: &str) -> bool {
    let is_end = |c: Option<u8>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && is_end(bytes.first().copied())
        && is_end(bytes.last().copied())
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}

/// Bytes reserved for the first word and the nonce.
const ROOM_FOR_WORDS: usize = 32;

/// A certificate to carry again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// The certificate.
    pub der: Vec<u8>,
    /// Its entry in the lost record, if the keeper remembers it.
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
        let since = since.parse().ok()?;
        let sha256 = Fingerprint::of(&der);
        let entry = Entry { until, ..Entry::starting(sha256, since, None) };
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

/// A certificate whose dates are not known.
impl From<Vec<u8>> for Repaired {
    fn from(der: Vec<u8>) -> Self {
        Self { der, entry: None }
    }
}

/// The error for an ask that does not parse. It never quotes the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected retire, promote <SHA-256>, repair <base64 DER>…, announce [<base64 DER>…] or unstage"
)]
pub struct ParseAskError;

impl Ask {
    /// Reads the annotation's value. Ignores the nonce: a last word that begins with `#`.
    pub fn parse(text: &str) -> Result<Self, ParseAskError> {
        if text.len() > MAX_ASK {
            return Err(ParseAskError);
        }
        let mut words: Vec<&str> = text.split_ascii_whitespace().collect();
        words.pop_if(|word| word.starts_with('#'));
        match *words.as_slice() {
            ["retire"] => Ok(Self::Retire),
            ["unstage"] => Ok(Self::Unstage),
            ["announce", ref words @ ..] => {
                let list: Option<_> = words.iter().map(|word| Announcement::parse(word)).collect();
                list.map(Self::Announce).ok_or(ParseAskError)
            }
            ["promote", fingerprint] => {
                Fingerprint::parse(fingerprint).map(Self::Promote).ok_or(ParseAskError)
            }
            ["repair", ref words @ ..] => {
                Repair::parse(words).map(Self::Repair).ok_or(ParseAskError)
            }
            _ => Err(ParseAskError),
        }
    }

    /// The name of the ask: its first word, and its label value in metrics.
    pub fn name(&self) -> &'static str {
        self.into()
    }

    /// Asks to announce these, and no others. Drops the last ones until the ask fits into [`MAX_ASK`].
    pub fn announcing(mut list: Vec<Announcement>) -> Self {
        let length =
            |list: &[Announcement]| list.iter().map(|it| it.to_string().len() + 1).sum::<usize>();
        while length(&list) > MAX_ASK - ROOM_FOR_WORDS && list.pop().is_some() {}
        Self::Announce(list)
    }

    /// The CAs to announce.
    pub fn announced(&self) -> &[Announcement] {
        match self {
            Self::Announce(list) => list,
            _ => &[],
        }
    }

    /// The settings to bring back. They come back on an exempt Secret too.
    pub fn settings(&self) -> &[(&'static str, String)] {
        match self {
            Self::Repair(repair) => &repair.settings,
            Self::Retire | Self::Promote(_) | Self::Announce(_) | Self::Unstage => &[],
        }
    }

    /// The annotation's value. `nonce` makes it differ from an earlier value: an ask that the
    /// webhook did not see is still on the Secret, and writing the same value again would change
    /// nothing.
    pub fn to_annotation(&self, nonce: u64) -> String {
        format!("{self} #{nonce}")
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retire | Self::Unstage => f.write_str(self.name()),
            Self::Promote(fingerprint) => write!(f, "{} {fingerprint}", self.name()),
            Self::Repair(repair) => write!(f, "{}{repair}", self.name()),
            Self::Announce(list) => {
                f.write_str(self.name())?;
                list.iter().try_for_each(|announcement| write!(f, " {announcement}"))
            }
        }
    }
}

/// Writes the arguments of the ask, each after a space.
impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in &self.settings {
            let name = key.strip_prefix(names::PREFIX).unwrap_or(key);
            write!(f, " {name}:{}", BASE64_STANDARD.encode(value))?;
        }
        self.certificates.iter().try_for_each(|certificate| write!(f, " {certificate}"))
    }
}

/// A nonce that makes the next ask differ from `current`, the ask that is on the Secret now.
pub fn nonce(current: Option<&str>) -> u64 {
    let last = current.and_then(|text| text.rsplit_once('#')?.1.parse::<u64>().ok());
    last.map_or(1, |last| last.wrapping_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_ask_gets_another_nonce() {
        assert_eq!(nonce(None), 1);
        assert_eq!(nonce(Some("retire #1")), 2);
        assert_eq!(nonce(Some("retire")), 1);
        assert_eq!(nonce(Some("retire #x")), 1);
        assert_eq!(nonce(Some(&format!("retire #{}", u64::MAX))), 0);
    }

    fn dated(until: Option<Timestamp>) -> Repaired {
        let since = "2026-03-01T10:00:00Z".parse().unwrap();
        let sha256 = Fingerprint::of(b"a");
        let entry = Entry { until, ..Entry::starting(sha256, since, None) };
        Repaired { der: b"a".to_vec(), entry: Some(entry) }
    }

    fn announcement(until: Option<Timestamp>) -> Announcement {
        Announcement { der: b"a".to_vec(), until }
    }

    #[test]
    fn an_announcement_that_is_too_long_loses_the_last_cas() {
        let large = Announcement { der: vec![0; 20_000], until: None };
        let ask = Ask::announcing(vec![large.clone(), large.clone(), large.clone(), large]);
        let Ask::Announce(list) = &ask else { panic!("another ask") };
        assert_eq!(list.len(), 2);
        assert_eq!(Ask::parse(&ask.to_annotation(u64::MAX)), Ok(ask));
    }

    fn settings() -> Vec<(&'static str, String)> {
        [
            (names::DISTRUST, "ab:cd, EF"),
            (names::RESTART, "deployment/a, deployment/b"),
            (names::GROUP, ""),
            (names::MODE, "bundle"),
            (names::SOURCE, "true"),
        ]
        .map(|(key, value)| (key, value.to_owned()))
        .to_vec()
    }

    #[test]
    fn a_repair_that_is_too_long_loses_certificates_before_settings() {
        let large: Repaired = vec![0; 20_000].into();
        let repair = Repair { certificates: vec![large; 3], settings: settings() }.fitting();
        assert_eq!((repair.certificates.len(), repair.settings.len()), (2, 5));
        let ask = Ask::Repair(repair);
        assert_eq!(Ask::parse(&ask.to_annotation(u64::MAX)), Ok(ask));
        let value = "x".repeat(names::MAX_RESTORED);
        let settings = names::SETTINGS.map(|key| (key, value.clone())).to_vec();
        let repair = Repair { certificates: Vec::new(), settings }.fitting();
        assert_eq!(repair.settings.len(), names::SETTINGS.len());
        let ask = Ask::Repair(repair);
        assert_eq!(Ask::parse(&ask.to_annotation(u64::MAX)), Ok(ask));
    }

    /// A repair of `words` certificates that is `length` bytes long, spaces included.
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
    fn a_repair_that_fits_to_the_last_byte_keeps_all_certificates() {
        let room = MAX_ASK - ROOM_FOR_WORDS;
        // A base64 word is a multiple of 4 bytes long: the spaces of more words fill the rest.
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
    fn an_ask_parses_back_with_and_without_a_nonce() {
        let until = "2026-03-02T10:00:00Z".parse().unwrap();
        let asks = [
            Ask::Retire,
            Ask::Unstage,
            Ask::Promote(Fingerprint::of(b"x")),
            Ask::Announce(Vec::new()),
            Ask::Announce(vec![announcement(None), announcement(Some(until))]),
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
    fn an_unknown_ask_is_rejected() {
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
            "announce %%%",
            "announce QQ==@",
            "announce QQ==@soon",
            "announce QQ==@2026-03-01T10:00:00Z/",
            "repair QQ==@",
            "repair QQ==@2026-03-01T10:00:00Z",
            "repair QQ==@/2026-03-01T10:00:00Z",
            "repair QQ==@2026-03-01T10:00:00Z/soon",
            "repair keep:%%%",
            "repair keep:Mg== keep:Mg==",
            "repair carried:W10=",
            "repair phase:b3ZlcmxhcA==",
            // "a b" is not a label value.
            "repair mode:YSBi",
            "repair source:YSBi",
            &format!("repair{}", " QQ==".repeat(MAX_REPAIRED + 1)),
            &format!("repair {}", "A".repeat(MAX_ASK)),
        ] {
            assert_eq!(Ask::parse(text), Err(ParseAskError), "{text}");
        }
    }
}
