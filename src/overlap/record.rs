//! The record of what is carried: the annotation `ca-overlap.dev/carried` (DESIGN §4.2).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::x509::certs::Fingerprint;

/// The carried certificates, by fingerprint, with their dates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    entries: Vec<Entry>,
}

/// A carried certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which certificate.
    pub sha256: Fingerprint,
    /// Since when it is carried.
    pub since: Timestamp,
    /// Until when, if a window was set when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A record that is not what we write. Never says what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a JSON list of objects with sha256, since and an optional until")]
pub struct ParseRecordError;

impl Record {
    /// Far above what `keep` and chains can add up to.
    const MAX_ENTRIES: usize = 512;

    /// Reads the annotation.
    pub fn parse(text: &str) -> Result<Self, ParseRecordError> {
        let entries: Vec<Entry> = serde_json::from_str(text).map_err(|_| ParseRecordError)?;
        if entries.len() > Self::MAX_ENTRIES {
            return Err(ParseRecordError);
        }
        Ok(Self { entries })
    }

    /// A record of these entries.
    pub fn new(entries: Vec<Entry>) -> Self {
        Self { entries }
    }

    /// The entries, in the order of the bundle.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether nothing is carried.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of a certificate.
    pub fn entry(&self, fingerprint: Fingerprint) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.sha256 == fingerprint)
    }

    /// The annotation's value.
    pub fn to_annotation(&self) -> String {
        // Writing strings and dates to memory has no way to fail; an empty list would read as
        // "nothing is carried", the harmless side.
        serde_json::to_string(&self.entries).unwrap_or_else(|_| "[]".to_owned())
    }
}

impl Entry {
    /// A certificate that is carried from `now` on.
    pub fn starting(sha256: Fingerprint, now: Timestamp, window: Option<Duration>) -> Self {
        let since = whole_seconds(now);
        Self { sha256, since, until: window.and_then(|window| after(since, window)) }
    }

    /// Its deadline: the earlier of its own `until` and `since` plus the window that is set now.
    pub fn deadline(&self, window: Option<Duration>) -> Option<Timestamp> {
        let by_window = window.and_then(|window| after(self.since, window));
        [self.until, by_window].into_iter().flatten().min()
    }

    /// Whether it is past its deadline.
    pub fn is_past_deadline(&self, now: Timestamp, window: Option<Duration>) -> bool {
        self.deadline(window).is_some_and(|deadline| deadline <= now)
    }
}

/// The record is read by people: no fractions of a second.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// `None` where the sum is out of range: no deadline then.
fn after(start: Timestamp, length: Duration) -> Option<Timestamp> {
    start.checked_add(SignedDuration::try_from(length).ok()?).ok()
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("expected 64 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn fingerprint() -> Fingerprint {
        Fingerprint::of(b"x")
    }

    #[test]
    fn writes_what_the_contract_says_and_reads_it_back() {
        let day = Some(Duration::from_secs(86_400));
        let entry = Entry::starting(fingerprint(), at("2026-03-01T10:00:00.75Z"), day);
        let record = Record::new(vec![entry]);
        let text = record.to_annotation();
        assert_eq!(
            text,
            format!(
                r#"[{{"sha256":"{}","since":"2026-03-01T10:00:00Z","until":"2026-03-02T10:00:00Z"}}]"#,
                fingerprint()
            )
        );
        assert_eq!(Record::parse(&text).unwrap(), record);
        assert_eq!(Record::default().to_annotation(), "[]");
        let open =
            Record::new(vec![Entry::starting(fingerprint(), at("2026-03-01T10:00:00Z"), None)]);
        assert!(!open.to_annotation().contains("until"));
    }

    #[test]
    fn what_we_do_not_write_is_no_record() {
        for text in
            ["", "{}", "null", "[1]", r#"[{"sha256":"ab","since":"2026-03-01T10:00:00Z"}]"#, "[{}]"]
        {
            assert_eq!(Record::parse(text), Err(ParseRecordError), "{text}");
        }
        let entry = format!(r#"{{"sha256":"{}","since":"2026-03-01T10:00:00Z"}}"#, fingerprint());
        let many = |count| format!("[{}]", vec![entry.as_str(); count].join(","));
        assert_eq!(Record::parse(&many(512)).unwrap().entries().len(), 512);
        assert_eq!(Record::parse(&many(513)), Err(ParseRecordError));
    }

    #[test]
    fn the_earlier_of_until_and_window_is_the_deadline() {
        let hour = Some(Duration::from_secs(3600));
        let start = at("2026-03-01T10:00:00Z");
        let with_until = Entry::starting(fingerprint(), start, hour);
        let open = Entry::starting(fingerprint(), start, None);
        let (before, on) = (at("2026-03-01T10:59:59Z"), at("2026-03-01T11:00:00Z"));
        assert!(!with_until.is_past_deadline(before, None));
        assert!(with_until.is_past_deadline(on, None));
        assert!(with_until.is_past_deadline(on, Some(Duration::from_secs(86_400))));
        assert!(!open.is_past_deadline(on, None));
        assert!(!open.is_past_deadline(before, hour));
        assert!(open.is_past_deadline(on, hour));
    }
}
