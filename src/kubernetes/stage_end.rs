//! Ends a stage without the webhook, where the webhook is not called: one JSON Patch *moves* the
//! waiting pair into service, so no key is read (DESIGN §4.4). [`crate::overlap::stage_end`] decides
//! how it ends.
//!
//! Whoever sends it becomes the field manager of `tls.*`, and the generator's next apply without
//! force conflicts. That is better than an outage when the held leaf expires.

use base64::prelude::*;
use json_patch::jsonptr::PointerBuf;
use json_patch::{
    AddOperation, MoveOperation, Patch, PatchOperation, RemoveOperation, TestOperation,
};
use kube::{Client, Resource, ResourceExt};
use serde_json::Value;

use super::secret_view::SecretView;
use crate::names;
use crate::overlap::MAX_STORED_BLOCKS;
use crate::overlap::record::Record;
use crate::overlap::stage_end::StageEnd;
use crate::overlap::write::carried_entries;
use crate::x509::certs::Bundle;

/// Ends the stage as the field manager `manager`. Returns the Secret as stored.
pub(crate) async fn end_stage(
    client: &Client,
    secret: &SecretView,
    end: StageEnd,
    manager: &str,
) -> Result<SecretView, kube::Error> {
    let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
    let url = SecretView::url_path(&(), Some(&namespace));
    let body = serde_json::to_vec(&patch(secret, end)).map_err(kube::Error::SerdeError)?;
    let request = http::Request::patch(format!("{url}/{name}?fieldManager={manager}"))
        .header(http::header::CONTENT_TYPE, "application/json-patch+json")
        .body(body)
        .map_err(kube::Error::HttpError)?;
    client.request(request).await
}

/// The patch that ends the stage. It applies only to the version that was read.
pub fn patch(secret: &SecretView, end: StageEnd) -> Patch {
    let view = secret.view();
    let mut operations = Vec::new();
    for (field, value) in [
        ("uid", secret.object_uid().unwrap_or_default()),
        ("resourceVersion", secret.resource_version()),
    ] {
        operations.push(test(pointer(["metadata", field]), value.to_owned()));
    }
    let waiting = view.pending_tls_crt.map(|text| BASE64_STANDARD.encode(text));
    if let Some(waiting) = waiting {
        operations.push(test(pointer(["data", names::PENDING_TLS_CRT]), waiting));
    }
    match end {
        StageEnd::Promote => operations.extend(
            [(names::PENDING_TLS_CRT, names::TLS_CRT), (names::PENDING_TLS_KEY, names::TLS_KEY)]
                .map(|(from, to)| {
                    let (from, path) = (pointer(["data", from]), pointer(["data", to]));
                    PatchOperation::Move(MoveOperation { from, path })
                }),
        ),
        StageEnd::Drop => {
            let crt = view.pending_tls_crt.map(|_| names::PENDING_TLS_CRT);
            let key = view.keys.iter().copied().filter(|key| *key == names::PENDING_TLS_KEY);
            operations.extend(crt.into_iter().chain(key).map(|key| remove(["data", key])));
        }
    }
    for key in [names::STAGED, names::ASK] {
        if secret.annotation(key).is_some() {
            operations.push(remove(["metadata", "annotations", key]));
        }
    }
    operations.extend(phase(secret));
    Patch(operations)
}

/// The change of the label `phase`. Where none of our labels is there, its map may be missing, and no
/// phase is needed: what is carried was forgotten together with the labels.
fn phase(secret: &SecretView) -> Option<PatchOperation> {
    let view = secret.view();
    let record = secret.annotation(names::CARRIED);
    let record = record.and_then(|text| Record::of_object(text, view.uid).ok());
    let stored = Bundle::parse(view.ca_crt.unwrap_or_default(), MAX_STORED_BLOCKS);
    let carried = carried_entries(&stored.unwrap_or_default(), record.as_ref().map(|(it, _)| it));
    let path = ["metadata", "labels", names::PHASE];
    if carried.iter().flatten().next().is_some() && !view.labels.is_empty() {
        let value = Value::String(names::PHASE_OVERLAP.to_owned());
        return Some(PatchOperation::Add(AddOperation { path: pointer(path), value }));
    }
    view.labels.contains_key(names::PHASE).then(|| remove(path))
}

fn test(path: PointerBuf, value: String) -> PatchOperation {
    PatchOperation::Test(TestOperation { path, value: Value::String(value) })
}

fn remove<const N: usize>(tokens: [&str; N]) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation { path: pointer(tokens) })
}

/// A JSON pointer (RFC 6901), with escaped tokens.
fn pointer<const N: usize>(tokens: [&str; N]) -> PointerBuf {
    PointerBuf::from_tokens(tokens)
}
