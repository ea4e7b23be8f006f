//! Small texts that several commands show.

use std::fmt::Write;
use std::io::IsTerminal;

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub(crate) use crate::kubernetes::explain::printable;
use crate::x509::certs::{Certificate, Fingerprint};

/// Whether standard output takes colour: a terminal, and no <https://no-color.org>.
pub(crate) fn is_colourful() -> bool {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !forbidden
}

/// The subject of a certificate, in full.
pub(crate) fn subject(certificate: &Certificate) -> String {
    let subject = certificate.parsed().map(|parsed| parsed.subject().to_string());
    match subject.as_deref().map(printable) {
        None => "(unreadable subject)".to_owned(),
        Some(subject) if subject.is_empty() => "(empty subject)".to_owned(),
        Some(subject) => subject,
    }
}

/// What people call a certificate: its common name, else its subject.
pub(crate) fn common_name(certificate: &Certificate) -> String {
    let name = certificate.parsed().and_then(|parsed| {
        let mut names = parsed.subject().iter_common_name();
        names.next().and_then(|name| name.as_str().ok()).map(printable)
    });
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| subject(certificate))
}

/// As `1 certificate`, or `2 certificates`.
pub(crate) fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Hands the first of these to `each`, by their number; more are counted.
pub(crate) fn list<T>(out: &mut String, all: &[T], mut each: impl FnMut(&mut String, usize, &T)) {
    const MOST: usize = 80;
    for (index, one) in all.iter().take(MOST).enumerate() {
        each(out, index, one);
    }
    if let Some(more @ 1..) = all.len().checked_sub(MOST) {
        let _ = writeln!(out, "  and {more} more");
    }
}

/// Since when, and until when, a certificate is carried.
pub(crate) fn carried(since: Timestamp, until: Option<&str>) -> String {
    format!("carried since {since}, until {}", until.unwrap_or("the next rotation"))
}

/// The first eight digits of a fingerprint: enough to tell a Secret's certificates apart.
pub(crate) fn short(fingerprint: Fingerprint) -> String {
    fingerprint.to_string().chars().take(8).collect()
}

/// The day of a time in seconds since the Unix epoch; `never` beyond the year 9999.
pub(crate) fn day(seconds: i64) -> String {
    let Ok(time) = Timestamp::from_second(seconds) else { return "never".to_owned() };
    time.to_zoned(TimeZone::UTC).date().to_string()
}

/// A length of time by its largest unit, as kubectl shows ages: `45s`, `7m`, `3h`, `12d`.
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
    fn ages_have_one_unit() {
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
