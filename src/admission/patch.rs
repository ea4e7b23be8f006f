//! Builds the JSON patch (RFC 6902), with `add` and `remove` only.
//!
//! An operation that does not apply rejects the user's write, even under `failurePolicy: Ignore`.
//! So the patch has no `test` and no `replace`, and removes only what the incoming object holds.

use base64::Engine;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation};
use serde_json::{Map, Value};

use super::review::{ReviewedSecret, Strings};
use crate::names;

/// The API server's limit for all annotations of an object: keys and values, in bytes
/// (`TotalAnnotationSizeLimitB` of Kubernetes' object meta validation).
pub const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Changes to the incoming object.
pub struct PatchBuilder<'a> {
    object: &'a ReviewedSecret<'a>,
    labels: Edits<'a>,
    annotations: Edits<'a>,
    annotation_bytes: usize,
    /// The new value, as base64.
    ca_crt: Option<String>,
    /// Changes to other values.
    data: Vec<PatchOperation>,
}

/// An annotation does not fit into the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnotationsFull;

impl<'a> PatchBuilder<'a> {
    /// Starts without changes to `object`, the incoming one.
    pub fn new(object: &'a ReviewedSecret<'a>) -> Self {
        Self {
            object,
            labels: Edits::default(),
            annotations: Edits::default(),
            annotation_bytes: object.annotations().map_or(0, |annotations| annotations.size),
            ca_crt: None,
            data: Vec::new(),
        }
    }

    /// Sets a label, or removes it.
    pub fn label(&mut self, key: &'static str, value: Option<&'a str>) {
        self.labels.set(self.object.label(key), key, value);
    }

    /// Sets an annotation if there is room, or removes it.
    pub fn annotation(
        &mut self,
        key: &'static str,
        value: Option<String>,
    ) -> Result<(), AnnotationsFull> {
        let existing = self.object.annotation(key);
        let before = existing.map_or(0, |text| key.len() + text.len());
        let after = value.as_ref().map_or(0, |text| key.len() + text.len());
        let total = self.annotation_bytes - before + after;
        if total > MAX_ANNOTATIONS && after > before {
            return Err(AnnotationsFull);
        }
        self.annotation_bytes = total;
        self.annotations.set(existing, key, value);
        Ok(())
    }

    /// Removes an annotation.
    pub fn without_annotation(&mut self, key: &'static str) {
        let Some(text) = self.object.annotation(key) else { return };
        self.annotation_bytes -= key.len() + text.len();
        self.annotations.set(Some(text), key, None::<&str>);
    }

    /// Stores these bytes as `ca.crt`.
    pub fn ca_crt(&mut self, bytes: &[u8]) {
        self.ca_crt = Some(super::BASE64.encode(bytes));
    }

    /// Sets a value of a staged Secret to the base64 text `wanted`, or removes it. `existing` is
    /// the incoming value.
    pub fn value(&mut self, key: &'static str, existing: Option<&str>, wanted: Option<&str>) {
        match (existing, wanted) {
            (Some(existing), Some(wanted)) if existing == wanted => {}
            (_, Some(wanted)) => {
                self.data.push(add(pointer(["data", key]), Value::String(wanted.to_owned())));
            }
            (Some(_), None) => self.data.push(remove(pointer(["data", key]))),
            (None, None) => {}
        }
    }

    /// Builds the patch, or `None` if nothing changes.
    pub fn build(mut self) -> Option<Patch> {
        // Every object of the API server has metadata. Without it there is no parent for the maps.
        if !self.object.has_metadata() {
            return None;
        }
        let mut operations = Vec::new();
        if let Some(base64) = self.ca_crt {
            operations.push(add(pointer(["data", names::CA_CRT]), Value::String(base64)));
        }
        operations.append(&mut self.data);
        self.labels.write("labels", self.object.labels(), &mut operations);
        self.annotations.write("annotations", self.object.annotations(), &mut operations);
        (!operations.is_empty()).then_some(Patch(operations))
    }
}

/// Writes a patch as JSON, as `serde_json` does, but does not search the value of `ca.crt` for
/// characters to escape: it is our own base64, and most of the patch.
pub(super) fn to_json(patch: &Patch) -> Vec<u8> {
    let mut json = Vec::with_capacity(512 + patch.iter().map(base64_len).sum::<usize>());
    json.push(b'[');
    for (index, operation) in patch.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        if let Some(base64) = base64_value(operation) {
            json.extend_from_slice(br#"{"op":"add","path":"/data/ca.crt","value":""#);
            json.extend_from_slice(base64.as_bytes());
            json.extend_from_slice(br#""}"#);
        } else if serde_json::to_writer(&mut json, operation).is_err() {
            // Writing strings to memory cannot fail. An empty patch is harmless.
            return b"[]".to_vec();
        }
    }
    json.push(b']');
    json
}

fn base64_value(operation: &PatchOperation) -> Option<&str> {
    match operation {
        PatchOperation::Add(AddOperation { path, value: Value::String(base64) })
            if path.as_str() == CA_CRT_PATH =>
        {
            Some(base64)
        }
        _ => None,
    }
}

fn base64_len(operation: &PatchOperation) -> usize {
    base64_value(operation).map_or(0, str::len)
}

const CA_CRT_PATH: &str = "/data/ca.crt";

/// Changes to one map of strings.
#[derive(Default)]
struct Edits<'a> {
    add: Vec<(&'static str, std::borrow::Cow<'a, str>)>,
    remove: Vec<&'static str>,
}

impl<'a> Edits<'a> {
    fn set(
        &mut self,
        existing: Option<&str>,
        key: &'static str,
        value: Option<impl Into<std::borrow::Cow<'a, str>>>,
    ) {
        match (existing, value.map(Into::into)) {
            (Some(existing), Some(value)) if existing == value => {}
            (_, Some(value)) => self.add.push((key, value)),
            (Some(_), None) => self.remove.push(key),
            (None, None) => {}
        }
    }

    fn write(
        self,
        map: &'static str,
        existing: Option<&Strings<'_>>,
        operations: &mut Vec<PatchOperation>,
    ) {
        let values = self.add.into_iter().map(|(k, v)| (k, Value::String(v.into_owned())));
        if existing.is_some() {
            operations.extend(values.map(|(k, v)| add(pointer(["metadata", map, k]), v)));
        } else {
            // The map is absent or `null`: it is added whole.
            let whole: Map<String, Value> = values.map(|(k, v)| (k.to_owned(), v)).collect();
            if !whole.is_empty() {
                operations.push(add(pointer(["metadata", map]), Value::Object(whole)));
            }
        }
        let remove = |key| remove(pointer(["metadata", map, key]));
        operations.extend(self.remove.into_iter().map(remove));
    }
}

fn add(path: PointerBuf, value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path, value })
}

fn remove(path: PointerBuf) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation { path })
}

/// A JSON pointer (RFC 6901), with escaped tokens.
fn pointer<const N: usize>(tokens: [&str; N]) -> PointerBuf {
    PointerBuf::from_tokens(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(json: &str) -> ReviewedSecret<'_> {
        let Ok(secret) = serde_json::from_str(json) else { panic!("{json} is not a Secret") };
        secret
    }

    fn build(json: &str, edit: impl FnOnce(&mut PatchBuilder<'_>)) -> Value {
        let secret = secret(json);
        let mut builder = PatchBuilder::new(&secret);
        edit(&mut builder);
        serde_json::to_value(builder.build()).unwrap()
    }

    #[test]
    fn absent_and_null_maps_are_added_whole() {
        for json in [r#"{"metadata":{}}"#, r#"{"metadata":{"labels":null,"annotations":null}}"#] {
            let patch = build(json, |b| {
                b.label(names::PHASE, Some("overlap"));
                b.annotation(names::CARRIED, Some("[]".into())).unwrap();
                b.annotation(names::KEEP, Some("2".into())).unwrap();
            });
            assert_eq!(
                patch,
                serde_json::json!([
                    {"op": "add", "path": "/metadata/labels", "value": {"ca-overlap.dev/phase": "overlap"}},
                    {"op": "add", "path": "/metadata/annotations",
                     "value": {"ca-overlap.dev/carried": "[]", "ca-overlap.dev/keep": "2"}},
                ])
            );
        }
    }

    #[test]
    fn keys_are_escaped_and_only_existing_keys_are_removed() {
        let json = r#"{"metadata":{"labels":{},"annotations":{"ca-overlap.dev/carried":"x","ca-overlap.dev/keep":"1"}}}"#;
        let patch = build(json, |b| {
            b.label(names::PHASE, None);
            b.annotation(names::CARRIED, None).unwrap();
            b.annotation(names::KEEP, Some("1".into())).unwrap();
            b.annotation(names::WINDOW, Some("7d".into())).unwrap();
        });
        assert_eq!(
            patch,
            serde_json::json!([
                {"op": "add", "path": "/metadata/annotations/ca-overlap.dev~1window", "value": "7d"},
                {"op": "remove", "path": "/metadata/annotations/ca-overlap.dev~1carried"},
            ])
        );
    }

    #[test]
    fn there_is_no_patch_without_changes_or_without_metadata() {
        assert_eq!(build(r#"{"metadata":{}}"#, |b| b.label(names::PHASE, None)), Value::Null);
        assert_eq!(build("{}", |b| b.label(names::PHASE, Some("overlap"))), Value::Null);
    }

    #[test]
    fn annotations_never_grow_past_the_limit_of_the_api_server() {
        let others = MAX_ANNOTATIONS - "a".len() - names::CARRIED.len();
        let json = |n| format!(r#"{{"metadata":{{"annotations":{{"a":"{}"}}}}}}"#, "x".repeat(n));
        let text = json(others - 2);
        let fitting = secret(&text);
        let mut builder = PatchBuilder::new(&fitting);
        assert_eq!(builder.annotation(names::CARRIED, Some("[]".into())), Ok(()));
        assert_eq!(builder.annotation(names::KEEP, Some(String::new())), Err(AnnotationsFull));
        let text = json(others - 1);
        let full = secret(&text);
        let mut builder = PatchBuilder::new(&full);
        assert_eq!(builder.annotation(names::CARRIED, Some("[]".into())), Err(AnnotationsFull));
        assert!(builder.build().is_none());
    }

    #[test]
    fn a_change_needs_room_only_for_the_bytes_that_it_adds() {
        let others = MAX_ANNOTATIONS - "a".len() - names::CARRIED.len() - "[]".len();
        let json = |n| {
            let filler = "x".repeat(n);
            format!(
                r#"{{"metadata":{{"annotations":{{"a":"{filler}","ca-overlap.dev/carried":"[]"}}}}}}"#
            )
        };
        for (used, grows) in [(others - 1, Ok(())), (others, Err(AnnotationsFull))] {
            let text = json(used);
            let nearly_full = secret(&text);
            let mut builder = PatchBuilder::new(&nearly_full);
            assert_eq!(builder.annotation(names::CARRIED, Some("[1]".into())), grows);
            assert_eq!(builder.annotation(names::CARRIED, Some("{}".into())), Ok(()));
        }
        // Already too large: the API server rejects that by itself.
        let text = json(others + 1);
        let overfull = secret(&text);
        let mut builder = PatchBuilder::new(&overfull);
        assert_eq!(builder.annotation(names::CARRIED, Some("{}".into())), Ok(()));
        assert_eq!(builder.annotation(names::CARRIED, None), Ok(()));
    }
}
