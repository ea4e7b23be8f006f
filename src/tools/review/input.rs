//! Reads the input of `review`. Builds an `AdmissionReview` from two Secrets.

use std::path::Path;

use base64::prelude::*;
use serde_json::{Value, json};

use crate::names;
use crate::tools::documents::{self, merged};
use crate::tools::error::ToolError;
use crate::x509::certs::Bundle;
use crate::x509::pem;

/// Reads an `AdmissionReview`.
pub(super) fn review(path: &Path) -> Result<Value, ToolError> {
    let text = documents::read(path)?;
    document(&text)
        .filter(|document| document["kind"] == "AdmissionReview")
        .ok_or_else(|| ToolError::expected(path.display(), "an AdmissionReview as JSON or YAML"))
}

/// Builds the admission review of a PUT from two states of a Secret.
pub(super) fn review_of(old: &Path, new: &Path) -> Result<Value, ToolError> {
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

fn secret(path: &Path) -> Result<Value, ToolError> {
    let text = documents::read(path)?;
    if let Some(document) = document(&text).filter(|document| document["kind"] == "Secret") {
        return Ok(merged(document));
    }
    let has_certificate =
        || Bundle::parse(&text, usize::MAX).is_ok_and(|bundle| !bundle.is_empty());
    if pem::blocks(&text).next().is_some() && has_certificate() {
        return Ok(json!({
            "metadata": {},
            "data": {names::CA_CRT: BASE64_STANDARD.encode(&text)},
        }));
    }
    Err(ToolError::expected(
        path.display(),
        "a Secret as JSON or YAML, or a PEM file with certificates",
    ))
}

/// The document of a file that holds exactly one.
fn document(text: &[u8]) -> Option<Value> {
    let mut documents = documents::documents(text);
    if documents.len() == 1 { documents.pop() } else { None }
}
