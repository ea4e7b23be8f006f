//! The record: the annotation `ca-overlap.dev/carried`, which lists the carried certificates
//! (docs/design.md, "The record").

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::warning::Warning;
use crate::x509::certs::Fingerprint;

/// The fingerprints of the carried certificates, with their dates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    entries: Vec<Entry>,
}

/// The entry of a carried certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The certificate's fingerprint.
    pub sha256: Fingerprint,
    /// When it began to be carried.
    pub since: Timestamp,
    /// When it ends at the latest, if an end was set when it began to be carried.
    pub until: Option<Timestamp>,
    /// Who announces it; `None` for a previous CA.
    pub announced: Option<Announcer>,
    /// Why the leaf that came with the rotation was not held back, in mode `staged`.
    pub not_staged: Option<Warning>,
    /// Since when `ca.crt` has held the CAs that replaced it, if they were announced before.
    pub successor_since: Option<Timestamp>,
}

/// Who announces a CA, so that it is trusted before anybody shows a leaf of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Announcer {
    /// The keeper, by the ask `announce`.
    Keeper,
    /// A person, by the annotation `ca-overlap.dev/announce`.
    Person,
}

impl fmt::Display for Announcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keeper => "the keeper",
            Self::Person => "a person",
        })
    }
}

/// An entry as the annotation holds it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenEntry<'a> {
    sha256: Fingerprint,
    since: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    announced: Option<Announcer>,
    /// [`Warning::reason`]. One that this edition does not know is ignored.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    not_staged: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    successor_since: Option<Timestamp>,
    /// The uid of the Secret that it was written for. The first edition wrote none.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    uid: Option<Cow<'a, str>>,
}

/// The error for a record that does not parse. It never quotes the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a JSON list of objects with sha256, since and an optional until")]
pub struct ParseRecordError;

impl Record {
    /// The most entries that are read: far more than `keep` and chains can produce.
    const MAX_ENTRIES: usize = 512;

    /// Reads the annotation, with all entries.
    pub fn parse(text: &str) -> Result<Self, ParseRecordError> {
        Self::of_object(text, None).map(|(record, _)| record)
    }

    /// Reads the annotation of the Secret with this uid. An entry that names another uid came with
    /// a copy of another Secret, and is left out. Also says whether every entry names this uid, so
    /// that the annotation needs no change.
    pub fn of_object(text: &str, uid: Option<&str>) -> Result<(Self, bool), ParseRecordError> {
        let written: Vec<WrittenEntry<'_>> =
            serde_json::from_str(text).map_err(|_| ParseRecordError)?;
        if written.len() > Self::MAX_ENTRIES {
            return Err(ParseRecordError);
        }
        let is_complete = uid.is_none() || written.iter().all(|entry| entry.uid.as_deref() == uid);
        let entries = written
            .iter()
            .filter(|entry| is_believed(entry.uid.as_deref(), uid))
            .map(|entry| Entry {
                sha256: entry.sha256,
                since: entry.since,
                until: entry.until,
                announced: entry.announced,
                not_staged: entry.not_staged.as_deref().and_then(Warning::of_stage),
                successor_since: entry.successor_since,
            })
            .collect();
        Ok((Self { entries }, is_complete))
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

    /// Notes why the leaf of a write at `now` is not staged, in the entries that begin with it.
    pub(super) fn note_not_staged(&mut self, why: Warning, now: Timestamp) {
        let begins =
            |entry: &&mut Entry| entry.since == whole_seconds(now) && entry.announced.is_none();
        let noted = why.why_not_staged().map(|_| why);
        self.entries.iter_mut().filter(begins).for_each(|entry| entry.not_staged = noted);
    }

    /// The annotation's value, for the Secret with this uid.
    pub fn to_annotation(&self, uid: Option<&str>) -> String {
        let written = |entry: &Entry| WrittenEntry {
            sha256: entry.sha256,
            since: entry.since,
            until: entry.until,
            announced: entry.announced,
            not_staged: entry.not_staged.map(|warning| warning.reason().into()),
            successor_since: entry.successor_since,
            uid: uid.map(Cow::Borrowed),
        };
        let entries: Vec<_> = self.entries.iter().map(written).collect();
        // Writing strings and dates to memory cannot fail. If it did, "nothing is carried" would be
        // the harmless value.
        serde_json::to_string(&entries).unwrap_or_else(|_| "[]".to_owned())
    }
}

/// Whether state that names the uid `written`, if any, is state of the Secret with the uid `of`.
pub(super) fn is_believed(written: Option<&str>, of: Option<&str>) -> bool {
    written.is_none() || of.is_none() || written == of
}

impl Entry {
    /// Makes the entry of a certificate that is carried from `now` on.
    pub fn starting(sha256: Fingerprint, now: Timestamp, window: Option<Duration>) -> Self {
        let since = whole_seconds(now);
        let until = window.and_then(|window| after(since, window));
        Self { sha256, since, until, announced: None, not_staged: None, successor_since: None }
    }

    /// Makes the entry of a CA that is announced from `now` on.
    pub(super) fn announced(
        sha256: Fingerprint,
        now: Timestamp,
        until: Option<Timestamp>,
        by: Announcer,
    ) -> Self {
        let announced = Some(by);
        Self { until, announced, ..Self::starting(sha256, now, None) }
    }

    /// The deadline: the earlier of `until` and `since` plus the window that is set now. The window
    /// does not limit what is announced.
    pub fn deadline(&self, window: Option<Duration>) -> Option<Timestamp> {
        let window = window.filter(|_| self.announced.is_none());
        let by_window = window.and_then(|window| after(self.since, window));
        [self.until, by_window].into_iter().flatten().min()
    }

    /// Whether the deadline has passed.
    pub fn is_past_deadline(&self, now: Timestamp, window: Option<Duration>) -> bool {
        self.deadline(window).is_some_and(|deadline| deadline <= now)
    }
}

/// Drops fractions of a second, because people read the record.
pub(super) fn whole_seconds(time: Timestamp) -> Timestamp {
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
        let text = record.to_annotation(None);
        assert_eq!(
            text,
            format!(
                r#"[{{"sha256":"{}","since":"2026-03-01T10:00:00Z","until":"2026-03-02T10:00:00Z"}}]"#,
                fingerprint()
            )
        );
        assert_eq!(Record::parse(&text).unwrap(), record);
        assert_eq!(Record::default().to_annotation(None), "[]");
        let open =
            Record::new(vec![Entry::starting(fingerprint(), at("2026-03-01T10:00:00Z"), None)]);
        assert!(!open.to_annotation(None).contains("until"));
    }

    #[test]
    fn entries_of_another_object_are_left_out_and_entries_without_a_uid_are_completed() {
        let entry = Entry::starting(fingerprint(), at("2026-03-01T10:00:00Z"), None);
        let record = Record::new(vec![entry]);
        let (plain, own) = (record.to_annotation(None), record.to_annotation(Some("1")));
        assert!(own.ends_with(r#""uid":"1"}]"#), "{own}");
        let none = Record::default();
        for (text, uid, expected) in [
            (&plain, None, (record.clone(), true)),
            (&plain, Some("1"), (record.clone(), false)),
            (&own, None, (record.clone(), true)),
            (&own, Some("1"), (record.clone(), true)),
            (&own, Some("2"), (none.clone(), false)),
            (&"[]".to_owned(), Some("2"), (none, true)),
        ] {
            assert_eq!(Record::of_object(text, uid), Ok(expected), "{text} of {uid:?}");
        }
        assert_eq!(Record::parse(&own), Ok(record));
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
