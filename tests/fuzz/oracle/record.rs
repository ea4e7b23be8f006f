//! The record: a printed record reads back the same, and its size is bounded.

use ca_overlap::overlap::record::Record;

use super::rule::Checked;

/// The most bytes of an entry: 64 digits, two dates with nanoseconds and years of up to five digits
/// with a sign, names and punctuation.
const MAX_ENTRY: usize = 225;

pub fn check(bytes: &[u8]) -> Checked {
    let Ok(text) = str::from_utf8(bytes) else { return Ok(()) };
    let Ok(record) = Record::parse(text) else { return Ok(()) };
    rule!(record.entries().len() <= 512, "{} entries", record.entries().len());
    let printed = record.to_annotation(None);
    let allowed = 2 + record.entries().len() * MAX_ENTRY;
    rule!(printed.len() <= allowed, "{} bytes printed, {allowed} allowed", printed.len());
    let again = Record::parse(&printed).map_err(|_| format!("{printed} is not read back"))?;
    rule!(again == record, "{printed} reads back as another record");
    rule!(again.to_annotation(None) == printed, "{printed} is printed in two ways");
    let value: serde_json::Value = serde_json::from_str(&printed).map_err(|e| e.to_string())?;
    for (entry, shown) in record.entries().iter().zip(value.as_array().into_iter().flatten()) {
        let known = ["sha256", "since", "until", "announced"];
        let object = shown.as_object().ok_or("an entry is no object")?;
        rule!(object.keys().all(|key| known.contains(&key.as_str())), "unknown members");
        rule!(shown["sha256"] == entry.sha256.to_string(), "another fingerprint is printed");
        let announced = object.contains_key("announced");
        rule!(announced == entry.announced.is_some(), "announced is printed wrongly");
        rule!(object.contains_key("until") == entry.until.is_some(), "until is printed wrongly");
        let found = record.entry(entry.sha256).ok_or("an entry cannot be found")?;
        rule!(found.sha256 == entry.sha256, "another entry is found");
    }
    Ok(())
}
