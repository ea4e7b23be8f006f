//! Reads what `review` is given, and makes an `AdmissionReview` of two Secrets.

use std::io::Read;
use std::path::Path;
use std::{fs, io};

use base64::prelude::*;
use serde_json::{Map, Value, json};

use super::ReviewError;
use crate::names;
use crate::overlap::pem;

/// More than the API server's own limit for a review.
const MAX_INPUT: u64 = 16 * 1024 * 1024;

/// Reads an `AdmissionReview`.
pub(super) fn review(path: &Path) -> Result<Value, ReviewError> {
    let text = read(path)?;
    document(&text)
        .filter(|document| document["kind"] == "AdmissionReview")
        .ok_or_else(|| not_understood(path, "an AdmissionReview as JSON or YAML"))
}

/// Makes the review of an update by PUT from two states of a Secret.
pub(super) fn review_of(old: &Path, new: &Path) -> Result<Value, ReviewError> {
    let (old_secret, new_secret) = (secret(old)?, secret(new)?);
    let metadata = |key: &str, default: &str| {
        let of = |secret: &Value| secret["metadata"][key].as_str().map(str::to_owned);
        of(&new_secret).or_else(|| of(&old_secret)).unwrap_or_else(|| default.to_owned())
    };
    Ok(json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "offline",
            "kind": {"group": "", "version": "v1", "kind": "Secret"},
            "operation": "UPDATE",
            "namespace": metadata("namespace", "default"),
            "name": metadata("name", "offline"),
            "options": {"kind": "UpdateOptions"},
            "object": new_secret,
            "oldObject": old_secret,
        }
    }))
}

fn secret(path: &Path) -> Result<Value, ReviewError> {
    let text = read(path)?;
    if let Some(document) = document(&text).filter(|document| document["kind"] == "Secret") {
        return Ok(merged(document));
    }
    if pem::blocks(&text).next().is_some() {
        return Ok(json!({
            "metadata": {},
            "data": {names::CA_CRT: BASE64_STANDARD.encode(&text)},
        }));
    }
    Err(not_understood(path, "a Secret as JSON or YAML, or a PEM file"))
}

/// As the API server does before admission: `stringData` goes into `data`, and there is metadata.
fn merged(mut secret: Value) -> Value {
    if let Some(Value::Object(strings)) =
        secret.as_object_mut().and_then(|s| s.remove("stringData"))
    {
        if !secret["data"].is_object() {
            secret["data"] = Value::Object(Map::new());
        }
        for (key, value) in strings {
            secret["data"][key] = BASE64_STANDARD.encode(value.as_str().unwrap_or_default()).into();
        }
    }
    if !secret["metadata"].is_object() {
        secret["metadata"] = Value::Object(Map::new());
    }
    secret
}

/// JSON first: it is exact about large documents, and YAML's errors would quote the input.
fn document(text: &[u8]) -> Option<Value> {
    serde_json::from_slice(text).ok().or_else(|| {
        let document: Value = serde_saphyr::from_slice(text).ok()?;
        document.is_object().then_some(document)
    })
}

fn read(path: &Path) -> Result<Vec<u8>, ReviewError> {
    let failed = |error| ReviewError::Read { path: path.to_owned(), error };
    let input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(fs::File::open(path).map_err(failed)?)
    };
    let mut text = Vec::new();
    input.take(MAX_INPUT + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_INPUT {
        return Err(failed(io::Error::other(format!("larger than {MAX_INPUT} bytes"))));
    }
    Ok(text)
}

fn not_understood(path: &Path, expected: &'static str) -> ReviewError {
    ReviewError::NotUnderstood { path: path.to_owned(), expected }
}
