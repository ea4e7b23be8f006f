//! Judges an answer by the bytes of the request and of the answer. Of the product it uses only the
//! format of a window.

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ca_overlap::overlap::settings::Window;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::pem;
use super::rule::Checked;
use super::x509;

const MAX_DATA: usize = 1024 * 1024;
pub const MAX_ANNOTATIONS: usize = 256 * 1024;
const MAX_WARNING: usize = 120;
const OURS: &str = "ca-overlap.dev/";

/// The result of a correct answer.
pub struct Judged {
    /// The object as the API server stores it.
    pub stored: Value,
    /// The value of the audit annotation `decision`.
    pub decision: String,
    /// How many certificates the patch removes from `ca.crt` and adds to it.
    pub cut: usize,
    pub appended: usize,
}

/// A private key, which no answer may contain.
pub const CANARY: &str = "Q0FOQVJZLW9mLWEtcHJpdmF0ZS1rZXk=";

/// Judges the answer to `request`.
pub fn judge(request: &Value, answer: &[u8], now: Timestamp) -> Checked<Judged> {
    let (response, patch) = envelope(request, answer)?;
    let object = &request["object"];
    let leaks = object["data"]["tls.key"] == CANARY && contains(answer, CANARY);
    rule!(!leaks, "the private key is in the answer");
    let mut stored = object.clone();
    if let Some(patch) = &patch {
        only_our_paths(request, patch)?;
        let patch: json_patch::Patch =
            serde_json::from_value(patch.clone()).map_err(|e| format!("no JSON Patch: {e}"))?;
        json_patch::patch(&mut stored, &patch).map_err(|e| format!("does not apply: {e}"))?;
    }
    within_limits(object, &stored)?;
    let (appended, cut) = anchors(request, &stored, now)?;
    record_is_true(request, &stored)?;
    let decision = response["auditAnnotations"]["decision"].as_str().unwrap_or_default();
    rule!(!decision.is_empty(), "no decision for the audit log");
    if !UNTOUCHED.contains(&decision) {
        previous_is_true(request, &stored, now)?;
    }
    Ok(Judged { stored, decision: decision.to_owned(), cut, appended })
}

/// Decisions after which nothing is patched.
const UNTOUCHED: [&str; 3] = ["not_a_secret_update", "own_namespace", "service_account_token"];

fn contains(answer: &[u8], text: &str) -> bool {
    answer.windows(text.len()).any(|part| part == text.as_bytes())
}

fn envelope(request: &Value, answer: &[u8]) -> Checked<(Value, Option<Value>)> {
    let answer: Value = serde_json::from_slice(answer).map_err(|e| format!("not JSON: {e}"))?;
    rule!(answer["apiVersion"] == "admission.k8s.io/v1", "another version");
    rule!(answer["kind"] == "AdmissionReview", "another kind");
    let response = answer["response"].clone();
    rule!(response["uid"] == request["uid"], "the uid is not echoed");
    rule!(response["allowed"] == true, "not allowed");
    let known = ["uid", "allowed", "patch", "patchType", "warnings", "auditAnnotations"];
    let members = response.as_object().map(Map::keys).into_iter().flatten();
    for member in members {
        rule!(known.contains(&member.as_str()), "unknown member {member}");
    }
    for warning in response["warnings"].as_array().into_iter().flatten() {
        let text = warning.as_str().ok_or("a warning is no string")?;
        rule!(text.len() <= MAX_WARNING, "a warning of {} bytes", text.len());
    }
    if response.get("patch").is_none() {
        rule!(response.get("patchType").is_none(), "a patch type without a patch");
        return Ok((response, None));
    }
    rule!(response["patchType"] == "JSONPatch", "another patch type");
    let text = response["patch"].as_str().ok_or("the patch is no string")?;
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| "the patch is not base64")?;
    let patch = serde_json::from_slice(&bytes).map_err(|_| "the patch is not JSON")?;
    Ok((response, Some(patch)))
}

fn only_our_paths(request: &Value, patch: &Value) -> Checked {
    let object = &request["object"];
    let is_staged = is_marked(object) || is_marked(&request["oldObject"]);
    let operations = patch.as_array().ok_or("the patch is no list")?;
    rule!(!operations.is_empty(), "an empty patch");
    let mut touched = BTreeSet::new();
    for operation in operations {
        let op = operation["op"].as_str().unwrap_or_default();
        let path = operation["path"].as_str().unwrap_or_default();
        rule!(touched.insert(path), "{path} is touched twice");
        let members = operation.as_object().map_or(0, Map::len);
        let key = |map: &str| path.strip_prefix(&format!("/metadata/{map}/ca-overlap.dev~1"));
        let ours = [("labels", &["mode", "source", "phase"][..]), ("annotations", ANNOTATIONS)]
            .iter()
            .any(|(map, keys)| key(map).is_some_and(|key| keys.contains(&key)));
        let makes_map = ["labels", "annotations"]
            .iter()
            .any(|map| path == format!("/metadata/{map}") && object["metadata"][map].is_null());
        let allowed = match op {
            "add" if path == "/data/ca.crt" => operation["value"].is_string(),
            "add" if ours => operation["value"].is_string(),
            "add" if makes_map => is_map_of_ours(&operation["value"]),
            "add" if is_staged && is_of_a_pair(path) => operation["value"].is_string(),
            "remove" if is_staged && path.starts_with("/data/pending.") => {
                is_of_a_pair(path) && members == 2
            }
            "remove" => ours && members == 2,
            _ => false,
        };
        rule!(allowed && members <= 3, "{op} {path} is not ours to do");
    }
    Ok(())
}

const ANNOTATIONS: &[&str] = &[
    "carried",
    "staged",
    "keep",
    "window",
    "distrust",
    "announce",
    "trust",
    "restart",
    "group",
    "restarted",
    "trusted",
    "previous",
    "ask",
];

/// Whether the label, the annotation or a data key says that a pair waits in this object.
fn is_marked(secret: &Value) -> bool {
    let metadata = &secret["metadata"];
    let has_key = |key: &str| secret["data"].get(key).is_some();
    metadata["annotations"]["ca-overlap.dev/staged"].is_string()
        || metadata["labels"]["ca-overlap.dev/phase"] == "staged"
        || ["pending.tls.crt", "pending.tls.key"].into_iter().any(has_key)
}

fn is_of_a_pair(path: &str) -> bool {
    let pairs = ["tls.crt", "tls.key", "pending.tls.crt", "pending.tls.key"];
    path.strip_prefix("/data/").is_some_and(|key| pairs.contains(&key))
}

fn is_map_of_ours(value: &Value) -> bool {
    let Some(map) = value.as_object() else { return false };
    !map.is_empty() && map.iter().all(|(key, value)| key.starts_with(OURS) && value.is_string())
}

fn within_limits(before: &Value, after: &Value) -> Checked {
    let data = |secret: &Value| {
        let values = secret["data"].as_object().into_iter().flatten();
        values.map(|(_, value)| decoded_len(value)).sum::<usize>()
    };
    let (was, is) = (annotation_bytes(before), annotation_bytes(after));
    rule!(is <= MAX_ANNOTATIONS.max(was), "{is} bytes of annotations");
    let (was, is) = (data(before), data(after));
    rule!(is <= MAX_DATA.max(was), "{is} bytes of data");
    Ok(())
}

/// The bytes of keys and values, which the API server limits.
pub fn annotation_bytes(object: &Value) -> usize {
    let annotations = object["metadata"]["annotations"].as_object().into_iter().flatten();
    annotations.map(|(key, value)| key.len() + value.as_str().unwrap_or_default().len()).sum()
}

/// The decoded size of canonical base64.
fn decoded_len(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    let padding = text.bytes().rev().take(2).filter(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

/// Judges the change of `ca.crt`. Gives how many certificates were appended and cut.
fn anchors(request: &Value, after: &Value, now: Timestamp) -> Checked<(usize, usize)> {
    let text = |secret: &Value| secret["data"]["ca.crt"].clone();
    let object = &request["object"];
    // A new object brings state of another one, so it is judged as if it were stored already.
    let is_new = request["operation"] == "CREATE";
    let old = if is_new { object } else { &request["oldObject"] };
    let (incoming, stored, result) = (text(object), text(old), text(after));
    if incoming == result {
        return Ok((0, 0));
    }
    rule!(incoming.is_string(), "a ca.crt was made where there was none");
    let decoded = |value: &Value| decode(value).ok_or("ca.crt is changed and is not base64");
    let (incoming, result) = (decoded(&incoming)?, decoded(&result)?);
    let stored = decode(&stored).unwrap_or_default();
    let settings = Settings::of(after);
    rule!(settings.mode != "off", "data is changed in mode off");
    let record = Entry::all(&old["metadata"]["annotations"]["ca-overlap.dev/carried"]);
    if incoming == stored {
        return cuts_and_announced(&record, &incoming, &result, &settings, now);
    }
    let tail = result.strip_prefix(incoming.as_slice()).ok_or("the incoming bytes were changed")?;
    let appended = only_appends(&record, &incoming, &stored, tail, &settings, now)?;
    Ok((appended, 0))
}

fn only_appends(
    record: &[Entry],
    incoming: &[u8],
    stored: &[u8],
    tail: &[u8],
    settings: &Settings<'_>,
    now: Timestamp,
) -> Checked<usize> {
    let appended = harmless(incoming, tail, settings, now)?;
    let (had, has) = (x509::certificates(stored), x509::undisputed(incoming));
    let by_keeper = |der: &[u8]| {
        let is_it = |entry: &Entry| entry.is_announced && entry.sha256 == x509::sha256(der);
        record.iter().any(is_it)
    };
    for der in &appended {
        // Other readers may not find blocks after malformed text.
        let was_there = had.contains(der) || pem::well_formed(stored).is_none();
        let is_announced = settings.announces(der);
        rule!(was_there || is_announced, "one was not stored");
        // How many certificates a chain has is not checked here: a cycle counts as one chain.
        let is_previous = !is_announced && !by_keeper(der);
        rule!(!is_previous || settings.keep > 0, "something is appended and nothing is to be kept");
    }
    if pem::well_formed(incoming).is_some() {
        let whole = [incoming, tail].concat();
        let all: Vec<_> = has.iter().chain(&appended).cloned().collect();
        rule!(x509::certificates(&whole) == all, "other readers see other certificates");
    }
    Ok(appended.len())
}

/// The certificates that are appended to `text`, if they harm no reader.
fn harmless(
    text: &[u8],
    tail: &[u8],
    settings: &Settings<'_>,
    now: Timestamp,
) -> Checked<Vec<Vec<u8>>> {
    let blocks = if text.ends_with(b"\n") { Some(tail) } else { tail.strip_prefix(b"\n") };
    let blocks = blocks.ok_or("the first appended block is glued to the last line")?;
    let appended = x509::certificates(blocks);
    let canonical: String = appended.iter().map(|der| x509::canonical(der)).collect();
    rule!(blocks == canonical.as_bytes(), "more than canonical certificates is appended");
    rule!(!appended.is_empty(), "bytes without a certificate are appended");
    let has = x509::undisputed(text);
    for (index, der) in appended.iter().enumerate() {
        rule!(!appended[..index].contains(der) && !has.contains(der), "one is appended twice");
        let expires = x509::not_after(der).unwrap_or(i64::MAX);
        rule!(expires > now.as_second(), "one is expired");
        rule!(x509::is_anchor(der), "one is appended that a reader rejects");
        rule!(!settings.distrusts(der), "one is distrusted");
    }
    Ok(appended)
}

/// Judges the result of a write that leaves `ca.crt` alone. Gives how many certificates were
/// announced and cut.
fn cuts_and_announced(
    record: &[Entry],
    incoming: &[u8],
    result: &[u8],
    settings: &Settings<'_>,
    now: Timestamp,
) -> Checked<(usize, usize)> {
    let (Some(was), Some(is)) = (pem::well_formed(incoming), pem::well_formed(result)) else {
        let may_grow = !settings.announced.is_empty();
        rule!(may_grow || result.len() < incoming.len(), "ca.crt was not changed, and grows");
        return Ok((0, 1));
    };
    let first = was.iter().find(|block| block.label == b"CERTIFICATE");
    let mut kept = Vec::with_capacity(result.len());
    let (mut position, mut left, mut cut) = (0, is.iter().peekable(), 0);
    for block in &was {
        if left.peek().is_some_and(|next| next.der == block.der && next.label == block.label) {
            left.next();
            continue;
        }
        kept.extend_from_slice(&incoming[position..block.span.start]);
        position = block.span.end;
        cut += 1;
        rule!(block.label == b"CERTIFICATE", "something else than a certificate is cut");
        rule!(first.is_none_or(|first| first.der != block.der), "the first certificate is cut");
        let entry = record.iter().find(|entry| entry.sha256 == x509::sha256(&block.der));
        let entry = entry.ok_or("a certificate is cut that is not carried")?;
        // The product may read a certificate, and its expiry, that x509-parser does not.
        let may_be_over = x509::not_after(&block.der).is_none();
        let is_over = may_be_over || entry.is_over(&block.der, settings, now);
        rule!(is_over, "one is cut that is not over");
    }
    kept.extend_from_slice(&incoming[position..]);
    let tail = result.strip_prefix(kept.as_slice());
    let tail = tail.ok_or("other bytes than those of carried certificates are cut")?;
    if tail.is_empty() {
        rule!(cut > 0, "ca.crt was not changed, and changes");
        return Ok((0, cut));
    }
    let appended = harmless(&kept, tail, settings, now)?;
    rule!(appended.iter().all(|der| settings.announces(der)), "one is added, and not announced");
    Ok((appended.len(), cut))
}

/// A written record names stored certificates, and never the first.
fn record_is_true(request: &Value, after: &Value) -> Checked {
    let carried =
        |secret: &Value| secret["metadata"]["annotations"]["ca-overlap.dev/carried"].clone();
    let (was, is) = (carried(&request["oldObject"]), carried(after));
    if is.is_null() || is == was || is == carried(&request["object"]) {
        return Ok(());
    }
    let text = is.as_str().ok_or("the record is no string")?;
    let list: Value = serde_json::from_str(text).map_err(|_| "the record is not JSON")?;
    let entries = Entry::all(&is);
    rule!(
        list.as_array().is_some_and(|l| l.len() == entries.len()),
        "the record is no list of entries"
    );
    if entries == Entry::all(&was) {
        // The stored record, which now names the uid.
        return Ok(());
    }
    let ca_crt = decode(&after["data"]["ca.crt"]).unwrap_or_default();
    let Some(blocks) = pem::well_formed(&ca_crt) else { return Ok(()) };
    let certificates = blocks.iter().filter(|block| block.label == b"CERTIFICATE");
    let prints: Vec<_> = certificates.map(|block| x509::sha256(&block.der)).collect();
    for entry in &entries {
        rule!(prints.contains(&entry.sha256), "the record names what is not there");
        rule!(prints.first() != Some(&entry.sha256), "the record names the first certificate");
    }
    let phase = after["metadata"]["labels"]["ca-overlap.dev/phase"].as_str();
    rule!((phase == Some("overlap")) != entries.is_empty(), "phase {phase:?} is wrong");
    Ok(())
}

/// What is previous on a source stood in its stored data, or was previous on it before.
fn previous_is_true(request: &Value, after: &Value, now: Timestamp) -> Checked {
    let previous =
        |secret: &Value| secret["metadata"]["annotations"]["ca-overlap.dev/previous"].clone();
    let (was, is) = (previous(&request["oldObject"]), previous(after));
    if is.is_null() || is == was {
        return Ok(());
    }
    let old = &request["oldObject"];
    let label = old["metadata"]["labels"]["ca-overlap.dev/source"].as_str();
    rule!(matches!(label, Some("true" | "issuer")), "something is previous, and it is no source");
    let text = is.as_str().ok_or("what is previous is no string")?;
    rule!(text.len() <= 16 * 1024, "{} bytes are previous", text.len());
    let texts = ["ca.crt", "tls.crt"].map(|key| decode(&old["data"][key]).unwrap_or_default());
    // Other readers may not find blocks after malformed text.
    let is_plain = texts.iter().all(|text| pem::well_formed(text).is_some());
    let mut known: Vec<_> = texts.iter().flat_map(|text| x509::certificates(text)).collect();
    known.extend(was.as_str().unwrap_or_default().split(',').filter_map(announced));
    let settings = Settings::of(after);
    let listed: Vec<_> = text.split(',').collect();
    rule!(listed.len() <= 2, "{} are previous", listed.len());
    for item in listed {
        let der = announced(item).ok_or("what is previous is not base64")?;
        let is_over = x509::not_after(&der).is_some_and(|expires| expires <= now.as_second());
        rule!(!is_plain || known.contains(&der), "one is previous that the source did not hold");
        rule!(!is_over && !settings.distrusts(&der), "one is previous that is over");
    }
    Ok(())
}

/// Whether the next write that leaves `ca.crt` alone has to cut a carried certificate.
pub fn has_over(secret: &Value, now: Timestamp) -> bool {
    let settings = Settings::of(secret);
    let ca_crt = decode(&secret["data"]["ca.crt"]).unwrap_or_default();
    let certificates = x509::certificates(&ca_crt);
    Entry::all(&secret["metadata"]["annotations"]["ca-overlap.dev/carried"]).iter().any(|entry| {
        let der = certificates.iter().find(|der| x509::sha256(der) == entry.sha256);
        entry.is_over(der.map_or(&[], Vec::as_slice), &settings, now)
    })
}

/// The settings of a Secret.
struct Settings<'a> {
    mode: &'a str,
    keep: u8,
    window: Option<SignedDuration>,
    distrust: Vec<String>,
    /// The CAs that a person announces.
    announced: Vec<Vec<u8>>,
}

impl<'a> Settings<'a> {
    fn of(secret: &'a Value) -> Self {
        let metadata = &secret["metadata"];
        let annotation = |key: &str| {
            metadata["annotations"][format!("{OURS}{key}")].as_str().unwrap_or_default().trim()
        };
        let distrust = annotation("distrust").split(',').map(|item| {
            item.chars().filter(|c| *c != ':').collect::<String>().trim().to_ascii_lowercase()
        });
        let window = annotation("window").parse::<Window>().ok().and_then(Window::length);
        Self {
            mode: metadata["labels"]["ca-overlap.dev/mode"].as_str().unwrap_or_default().trim(),
            keep: annotation("keep").parse().ok().filter(|keep| *keep <= 8).unwrap_or(1),
            window: window.and_then(|length| SignedDuration::try_from(length).ok()),
            distrust: distrust.collect(),
            announced: annotation("announce").split(',').filter_map(announced).collect(),
        }
    }

    fn announces(&self, der: &[u8]) -> bool {
        self.announced.iter().any(|announced| announced == der)
    }

    fn distrusts(&self, der: &[u8]) -> bool {
        self.distrust.contains(&x509::sha256(der))
    }
}

/// The CA of an item of the annotation `announce` or `previous`.
fn announced(item: &str) -> Option<Vec<u8>> {
    let der = item.trim().split('@').next().unwrap_or_default();
    BASE64_STANDARD.decode(der).ok().filter(|der| !der.is_empty())
}

/// An entry of the record, read without the product's code.
#[derive(PartialEq)]
struct Entry {
    sha256: String,
    since: Timestamp,
    until: Option<Timestamp>,
    is_announced: bool,
    is_by_person: bool,
}

impl Entry {
    /// The entries that can be read.
    fn all(annotation: &Value) -> Vec<Self> {
        let list = annotation.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let list = list.as_ref().and_then(Value::as_array).into_iter().flatten();
        let time = |value: &Value| value.as_str()?.parse::<Timestamp>().ok();
        list.filter_map(|entry| {
            let sha256 = entry["sha256"].as_str()?.replace(':', "").to_ascii_lowercase();
            Some(Self {
                sha256,
                since: time(&entry["since"])?,
                until: time(&entry["until"]),
                is_announced: !entry["announced"].is_null(),
                is_by_person: entry["announced"] == "person",
            })
        })
        .collect()
    }

    fn is_over(&self, der: &[u8], settings: &Settings<'_>, now: Timestamp) -> bool {
        let window = settings.window.filter(|_| !self.is_announced);
        let by_window = window.and_then(|window| self.since.checked_add(window).ok());
        let past = [self.until, by_window].into_iter().flatten().any(|deadline| deadline <= now);
        let expired = x509::not_after(der).is_some_and(|expires| expires <= now.as_second());
        // What nobody announces any more goes, too. Only the ask of the keeper says that for its own.
        let is_taken_back = self.is_by_person && !settings.announces(der);
        past || expired || is_taken_back || settings.distrusts(der)
    }
}

/// Decodes standard base64 and ignores white space. (Go ignores only line breaks, but an API server
/// encodes again what it sends.)
fn decode(value: &Value) -> Option<Vec<u8>> {
    let compact: Vec<u8> =
        value.as_str()?.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    BASE64_STANDARD.decode(compact).ok()
}
