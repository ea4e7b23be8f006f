//! A review, its answer, and the result of repeating the same write.

use ca_overlap::admission::handler::render;
use ca_overlap::admission::respond::{Installation, respond};
use ca_overlap::admission::review;
use ca_overlap::overlap::settings::Defaults;
use ca_overlap::overlap::staged::KeeperHealth;
use jiff::Timestamp;
use serde_json::Value;

use super::answer::{self, Judged};
use super::rule::Checked;

/// The default time of the reviews, between the dates of the pool.
pub const NOW: i64 = 1_772_359_200;

/// Checks any bytes as the body of a request.
pub fn check(body: &[u8]) -> Checked<Option<Judged>> {
    let now = Timestamp::from_second(NOW).map_err(|e| e.to_string())?;
    let Some(first) = admit(body, now) else { return Ok(None) };
    // Numbers, depths and surrogates that no value can hold are skipped by the product.
    let Ok(parsed) = serde_json::from_slice::<Value>(body) else {
        let answer: Value = serde_json::from_slice(&first).map_err(|e| e.to_string())?;
        rule!(answer["response"]["allowed"] == true, "not allowed");
        return Ok(None);
    };
    applies(&parsed, &first)?;
    // An API server sends no duplicate keys, so the parsed body is checked again without them.
    check_value(&parsed, now).map(Some)
}

/// Checks a review, and its repetition as generators and controllers repeat a write.
pub fn check_value(review: &Value, now: Timestamp) -> Checked<Judged> {
    let body = review.to_string().into_bytes();
    let first = admit(&body, now).ok_or("the normalised review is refused")?;
    rule!(admit(&body, now).as_ref() == Some(&first), "answered in two ways");
    let judged = answer::judge(&review["request"], &first, now)?;
    let is_update = review["request"]["operation"] == "UPDATE";
    if is_update && !SKIPPED.contains(&judged.decision.as_str()) {
        repeated(review, &judged, now)?;
    }
    Ok(judged)
}

/// Decisions that depend on the kind of write or on the earlier Secret, so that a repetition is a
/// different write.
const SKIPPED: [&str; 4] =
    ["immutable", "not_a_secret_update", "own_namespace", "service_account_token"];

/// The product's answer. `None` if it refuses the body.
pub fn admit(body: &[u8], now: Timestamp) -> Option<Vec<u8>> {
    let request = review::read(body).ok()?;
    let installation = Installation::new(Defaults::default(), "ca-overlap");
    let answer = respond(&request, &installation, KeeperHealth::Absent, now);
    Some(render(&request.uid, &answer))
}

/// Fails if the patch does not apply to the object as an API server reads it.
fn applies(review: &Value, answer: &[u8]) -> Checked {
    use base64::Engine;
    let answer: Value = serde_json::from_slice(answer).map_err(|e| e.to_string())?;
    let Some(text) = answer["response"]["patch"].as_str() else { return Ok(()) };
    let bytes = base64::prelude::BASE64_STANDARD.decode(text).map_err(|e| e.to_string())?;
    let patch: json_patch::Patch = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
    let mut object = review["request"]["object"].clone();
    json_patch::patch(&mut object, &patch).map_err(|e| format!("does not apply: {e}"))
}

/// Whether a setting that applied to this write is not stored because the annotations have no room.
/// The next write is then decided without it.
fn loses_a_setting(request: &Value, stored: &Value) -> bool {
    ["keep", "window", "distrust", "announce"].iter().any(|name| {
        let key = format!("ca-overlap.dev/{name}");
        let annotation = |object: &Value| object["metadata"]["annotations"][&key].clone();
        let old = annotation(&request["oldObject"]);
        let is_lost = annotation(&request["object"]).is_null() && annotation(stored).is_null();
        let needed = key.len() + old.as_str().map_or(0, str::len);
        old.is_string()
            && is_lost
            && answer::annotation_bytes(stored) + needed > answer::MAX_ANNOTATIONS
    })
}

/// Deciding again changes nothing, with two exceptions: the next write that leaves `ca.crt` alone cuts
/// what is over, and a write that contains a certificate that was just cut brings it back.
fn repeated(review: &Value, first: &Judged, now: Timestamp) -> Checked {
    let over = answer::has_over(&first.stored, now);
    let again = |old: &Value, new: &Value| -> Checked<Judged> {
        let mut review = review.clone();
        review["request"]["oldObject"] = old.clone();
        review["request"]["object"] = new.clone();
        let answer =
            admit(review.to_string().as_bytes(), now).ok_or("the repetition is refused")?;
        answer::judge(&review["request"], &answer, now)
    };
    let state = |secret: &Value| {
        let annotation = &secret["metadata"]["annotations"]["ca-overlap.dev/carried"];
        (secret["data"].clone(), annotation.clone())
    };
    let written_back = again(&first.stored, &first.stored)?;
    if over {
        let settled = again(&written_back.stored, &written_back.stored)?;
        rule!(settled.stored == written_back.stored, "the stored Secret never settles");
        return Ok(());
    }
    // The API server rejects a write with another uid than the stored one, so such a repetition
    // is not possible.
    let uid = |object: &str| &review["request"][object]["metadata"]["uid"];
    let is_possible = uid("object").is_null() || uid("object") == uid("oldObject");
    let (was, is) = (&first.stored, &written_back.stored);
    let is_stable = was == is || !is_possible;
    rule!(is_stable, "written back, the result is another: {was} and then {is}");
    if first.cut == 0 && is_possible && !loses_a_setting(&review["request"], &first.stored) {
        let same = again(&first.stored, &review["request"]["object"])?;
        let (was, is) = (state(&first.stored), state(&same.stored));
        rule!(was == is, "the same write has another result: {was:?} and then {is:?}");
    }
    Ok(())
}
