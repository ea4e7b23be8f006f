//! Texts that several commands print.

use std::fmt::Write;
use std::io::IsTerminal;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::x509::X509Name;

pub(crate) use crate::kubernetes::explain::printable;
use crate::overlap::exempt::Exemption;
use crate::overlap::record::Entry;
use crate::x509::certs::{Certificate, Fingerprint};

/// Whether to print colours: standard output is a terminal and `NO_COLOR` is not set
/// (<https://no-color.org>).
pub(crate) fn is_colourful() -> bool {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !forbidden
}

/// The full subject of a certificate.
pub(crate) fn subject(certificate: &Certificate) -> String {
    match certificate.parsed().map(|parsed| name(parsed.subject())) {
        None => "(unreadable subject)".to_owned(),
        Some(subject) if subject.is_empty() => "(empty subject)".to_owned(),
        Some(subject) => subject,
    }
}

/// The text of a subject or an issuer, with a question mark for each byte that is none.
pub(crate) fn name(name: &X509Name<'_>) -> String {
    let text = name.to_string();
    if !text.starts_with("<X509Error") {
        return printable(&text);
    }
    let attributes = name.iter_attributes().map(|attribute| {
        let id = attribute.attr_type();
        let kind = oid2abbrev(id, oid_registry()).map_or_else(|_| id.to_string(), str::to_owned);
        let value = String::from_utf8_lossy(attribute.as_slice());
        format!("{kind}={}", value.replace(char::REPLACEMENT_CHARACTER, "?"))
    });
    printable(&attributes.collect::<Vec<_>>().join(", "))
}

/// The common name of a certificate, or its subject if it has none.
pub(crate) fn common_name(certificate: &Certificate) -> String {
    let name = certificate.parsed().and_then(|parsed| {
        let mut names = parsed.subject().iter_common_name();
        names.next().and_then(|name| name.as_str().ok()).map(printable)
    });
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| subject(certificate))
}

/// A number and a noun: `1 certificate`, `2 certificates`.
pub(crate) fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Calls `each` with the first 80 items and their indexes, and writes how many more there are.
pub(crate) fn list<T>(out: &mut String, all: &[T], mut each: impl FnMut(&mut String, usize, &T)) {
    const MOST: usize = 80;
    for (index, one) in all.iter().take(MOST).enumerate() {
        each(out, index, one);
    }
    if let Some(more @ 1..) = all.len().checked_sub(MOST) {
        let _ = writeln!(out, "  and {more} more");
    }
}

/// Says since when and until when a certificate is carried, and who announces it.
pub(crate) fn carried(entry: &Entry, until: Option<&str>) -> String {
    let (what, end) = match entry.announced {
        None => ("carried".to_owned(), "the next rotation"),
        Some(by) => (format!("announced by {by}"), TAKEN_BACK),
    };
    format!("{what} since {}, until {}", entry.since, until.unwrap_or(end))
}

/// The end of an announcement that has none.
pub(crate) const TAKEN_BACK: &str = "it is taken back";

/// Says why the webhook leaves the data of a Secret alone.
pub(crate) fn data_left_alone(reason: Exemption) -> &'static str {
    match reason {
        Exemption::ComparingWriter => {
            "data is left alone: its writer compares it (label mode=bundle overrides)"
        }
        Exemption::ForeignOverlap => {
            "data is left alone: the Secret's controller keeps previous CAs itself"
        }
        Exemption::Off => "data is left alone: mode off",
        Exemption::Signer => {
            "data is left alone: the signing Secret of a CA (label mode=bundle overrides)"
        }
    }
}

/// The first eight digits of a fingerprint. They identify a certificate within a Secret.
pub(crate) fn short(fingerprint: Fingerprint) -> String {
    fingerprint.to_string().chars().take(8).collect()
}

/// A fingerprint in a table: all digits if it is wide.
pub(crate) fn sha256(fingerprint: Fingerprint, is_wide: bool) -> String {
    if is_wide { fingerprint.to_string() } else { short(fingerprint) }
}

/// The date of a time in seconds since the Unix epoch; `never` after the year 9999.
pub(crate) fn day(seconds: i64) -> String {
    let Ok(time) = Timestamp::from_second(seconds) else { return "never".to_owned() };
    time.to_zoned(TimeZone::UTC).date().to_string()
}

/// A duration in one unit, as kubectl prints ages: `45s`, `7m`, `3h`, `12d`.
pub(crate) fn age(seconds: i64) -> String {
    const UNITS: [(i64, i64, &str); 3] = [(120, 1, "s"), (7_200, 60, "m"), (172_800, 3600, "h")];
    let unit = UNITS.iter().find(|(below, ..)| seconds < *below);
    unit.map_or_else(
        || format!("{}d", seconds / 86_400),
        |(_, by, u)| format!("{}{u}", seconds / by),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_one_unit() {
        let expected = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7_199, "119m"),
            (7_200, "2h"),
            (172_799, "47h"),
            (172_800, "2d"),
        ];
        for (seconds, text) in expected {
            assert_eq!(age(seconds), text);
        }
    }
}
