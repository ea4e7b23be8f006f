//! Checks answers by the patched object, not by how the patch is written.

use anyhow::{Context, Result, bail, ensure};
use base64::prelude::*;
use jiff::{SignedDuration, Timestamp};
use json_patch::Patch;
use serde_json::{Value, json};

use crate::reviews::{CARRIED, Outcome, PHASE, Review};

/// Checks one answer in full. With `allows_all` the server never patches.
pub fn answer(review: &Review, body: &[u8], allows_all: bool) -> Result<()> {
    let answer: Value = serde_json::from_slice(body).context("the answer is not JSON")?;
    let response = &answer["response"];
    ensure!(answer["kind"] == "AdmissionReview", "not an AdmissionReview");
    ensure!(response["uid"] == json!(review.uid), "the answer has uid {}", response["uid"]);
    ensure!(response["allowed"] == json!(true), "not allowed");
    let patch = response["patch"].as_str();
    if allows_all || matches!(review.outcome, Outcome::Untouched) {
        ensure!(patch.is_none(), "a patch where nothing was to do");
        return Ok(());
    }
    let patch = BASE64_STANDARD.decode(patch.context("no patch")?)?;
    let patch: Patch = serde_json::from_slice(&patch).context("the patch is not a JSON Patch")?;
    let mut patched = review.object.clone();
    json_patch::patch(&mut patched, &patch).context("the patch does not apply")?;
    let found = without_dates(&mut patched)?;
    ensure!(patched == expected(review), "the patched object is not the expected one");
    let now = Timestamp::now();
    for since in found {
        let age = now.duration_since(since);
        ensure!(age.abs() < SignedDuration::from_secs(60), "carried since {since}, now {now}");
    }
    Ok(())
}

/// The expected object, without the dates of the record.
fn expected(review: &Review) -> Value {
    let mut object = review.object.clone();
    match &review.outcome {
        Outcome::Untouched => {}
        Outcome::Bundled { ca_crt, carried } => {
            object["data"]["ca.crt"] = json!(BASE64_STANDARD.encode(ca_crt));
            object["metadata"]["labels"] = json!({PHASE: "overlap"});
            object["metadata"]["annotations"][CARRIED] = json!([{"sha256": carried}]);
        }
        Outcome::Recorded => object["metadata"]["annotations"][CARRIED] = json!([]),
    }
    object
}

/// Removes the dates from the record, and returns them.
fn without_dates(object: &mut Value) -> Result<Vec<Timestamp>> {
    let record = &mut object["metadata"]["annotations"][CARRIED];
    let Some(text) = record.as_str() else { bail!("no record") };
    let mut entries: Vec<Value> = serde_json::from_str(text).context("the record")?;
    let dates = entries
        .iter_mut()
        .map(|entry| {
            let since = entry.as_object_mut().and_then(|entry| entry.remove("since"));
            let since = since.context("an entry without since")?;
            Ok(since.as_str().unwrap_or_default().parse::<Timestamp>()?)
        })
        .collect::<Result<_>>()?;
    *record = Value::Array(entries);
    Ok(dates)
}
