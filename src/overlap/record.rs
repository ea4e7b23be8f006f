//! The record: the annotation `ca-overlap.dev/carried`, which lists the carried certificates
//! (docs/design.md, "The record").

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::x509::certs::Fingerprint;

/// The fingerprints of the carried certificates, with their dates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    entries: Vec<Entry>,
}

/// The entry of a carried certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The certificate's fingerprint.
    pub sha256: Fingerprint,
    /// When it began to be carried.
    pub since: Timestamp,
    /// When it ends at the latest, if an end was set when it began to be carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// The error for a record that does not parse. It never quotes the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a JSON list of objects with sha256, since and an optional until")]
pub struct ParseRecordError;

impl Record {
    /// The most entries that are read: far more than `keep` and chains can produce.
    const MAX_ENTRIES: usize = 512;

    /// Reads the annotation.
    pub fn parse(text: &str) -> Result<Self, ParseRecordError> {
        let entries: Vec<Entry> = serde_json::from_str(text).map_err(|_| ParseRecordError)?;
        if entries.len() > Self::MAX_ENTRIES {
            return Err(ParseRecordError);
        }
        Ok(Self { entries })
    }

    /// Makes a record of these entries.
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
        // Writing strings and dates to memory cannot fail. If it did, "nothing is carried" would be
        // the harmless value.
        serde_json::to_string(&self.entries).unwrap_or_else(|_| "[]".to_owned())
    }
}

impl Entry {
    /// Makes the entry of a certificate that is carried from `now` on.
    pub fn starting(sha256: Fingerprint, now: Timestamp, window: Option<Duration>) -> Self {
        let since = whole_seconds(now);
        Self { sha256, since, until: window.and_then(|window| after(since, window)) }
    }

    /// The deadline: the earlier of `until` and `since` plus the window that is set now.
    pub fn deadline(&self, window: Option<Duration>) -> Option<Timestamp> {
        let by_window = window.and_then(|window| after(self.since, window));
        [self.until, by_window].into_iter().flatten().min()
    }

    /// Whether the deadline has passed.
    pub fn is_past_deadline(&self, now: Timestamp, window: Option<Duration>) -> bool {
        self.deadline(window).is_some_and(|deadline| deadline <= now)
    }
}

/// Drops fractions of a second, because people read the record.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// `start + length`; `None` if the sum is out of range. Then there is no deadline.
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
    fn a_record_has_the_documented_form_and_parses_back() {
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
    fn a_value_in_another_form_does_not_parse() {
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
    fn the_deadline_is_the_earlier_of_until_and_the_window() {
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
