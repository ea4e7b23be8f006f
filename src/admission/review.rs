//! The wire format of an admission review (`admission.k8s.io/v1`), borrowed from the body.
//!
//! The parser keeps only what the decision needs and skips the rest. So it never decodes or copies
//! a private key, and malformed values under other keys do no harm. None of these types implements
//! `Debug`, so that no review is logged.

pub mod pairs;

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::names;
use crate::overlap::exempt::{self, OwnerGroups};
use crate::overlap::settings::RawSettings;
use crate::x509::pem::decoded_len;

/// Why a body is not a review. Unlike `serde`'s errors, these quote none of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadReviewError {
    /// It is not JSON, or does not have the fields of a review.
    #[error("the body is not a JSON AdmissionReview")]
    Malformed,
    /// It is of another kind or version.
    #[error("the body is not an AdmissionReview of admission.k8s.io/v1")]
    WrongKind,
    /// It has no `request`, or one without the `uid` that an answer must repeat.
    #[error("the AdmissionReview has no request with a uid")]
    NoRequest,
}

/// Reads the request of a review.
pub fn read(body: &[u8]) -> Result<AdmissionRequest<'_>, ReadReviewError> {
    let review: AdmissionReview<'_> = parse(body).map_err(|_| ReadReviewError::Malformed)?;
    if review.kind != "AdmissionReview" || review.api_version != "admission.k8s.io/v1" {
        return Err(ReadReviewError::WrongKind);
    }
    let request = review.request.filter(|request| !request.uid.is_empty());
    request.map(|request| AdmissionRequest { body, ..request }).ok_or(ReadReviewError::NoRequest)
}

/// Parses JSON. One UTF-8 check of the whole body is cheaper than one for each string. Where it
/// fails, invalid UTF-8 outside of the fields that are read still does no harm.
fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> serde_json::Result<T> {
    match simdutf8::basic::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(body),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AdmissionReview<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    request: Option<AdmissionRequest<'a>>,
}

/// The request of a review.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionRequest<'a> {
    /// The id that the response repeats.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    /// The operation. We change `UPDATE` and `CREATE` only.
    #[serde(borrow, default, deserialize_with = "text_or_null")]
    pub operation: Cow<'a, str>,
    /// The kind of the objects.
    #[serde(borrow, default)]
    pub kind: Option<GroupVersionKind<'a>>,
    /// The subresource, such as `status`.
    #[serde(borrow, default)]
    pub sub_resource: Option<Text<'a>>,
    /// The namespace of the object.
    #[serde(borrow, default)]
    pub namespace: Option<Text<'a>>,
    /// The name of the object.
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
    /// Whether the API server will not store the object.
    #[serde(default)]
    pub dry_run: Option<bool>,
    /// The options of the API call.
    #[serde(borrow, default)]
    pub options: Option<Options<'a>>,
    /// The writer.
    #[serde(borrow, default)]
    pub user_info: Option<UserInfo<'a>>,
    /// The incoming Secret.
    #[serde(borrow, default)]
    pub object: Option<ReviewedSecret<'a>>,
    /// The stored Secret; `None` if it is created.
    #[serde(borrow, default)]
    pub old_object: Option<ReviewedSecret<'a>>,
    /// Whether the API server found that the writer may not `get` the Secret: it then calls
    /// [`names::STRANGER_PATH`].
    #[serde(skip)]
    pub is_by_stranger: bool,
    /// The whole body, which [`Self::pairs`] parses again.
    #[serde(skip)]
    body: &'a [u8],
}

impl AdmissionRequest<'_> {
    /// Whether the object is fresh: the writer made it without the stored one, as generators do
    /// that are not aware of us, or replaced all annotations. What it lacks was not removed on
    /// purpose.
    ///
    /// The kind of the options cannot show this: the API server reviews a PATCH with
    /// `UpdateOptions`, too (`patchToUpdateOptions` in its `patch.go`). But an object that was made
    /// from the stored one, by a PATCH or by a program that read it, has the stored uid and our
    /// record; one with the annotations of another Secret has another record. The uid counts only together with managed fields, which every object of an API
    /// server has: files for an offline review have the same uid on both sides.
    pub fn is_fresh_object(&self) -> bool {
        let (Some(object), Some(old)) = (&self.object, &self.old_object) else { return false };
        let is_patch = self.options.as_ref().is_some_and(|options| options.kind == "PatchOptions");
        let is_made_from_stored = object.uid().is_some_and(|uid| old.uid() == Some(uid))
            && object.metadata.as_ref().is_some_and(|m| m.managed_fields.is_some());
        let stored_record = old.annotation(names::CARRIED);
        let lacks_record =
            stored_record.is_some() && object.annotation(names::CARRIED) != stored_record;
        !is_patch && (!is_made_from_stored || lacks_record)
    }

    /// The user name of the writer, or an empty string if the review has none.
    pub fn user(&self) -> &str {
        self.user_info.as_ref().map(|user| user.username.as_ref()).unwrap_or_default()
    }

    /// Whether the writer has a user name that is not a `ServiceAccount`'s.
    pub fn is_by_person(&self) -> bool {
        let user = self.user();
        !user.is_empty() && !user.starts_with("system:serviceaccount:")
    }
}

/// A `GroupVersionKind`.
#[derive(Deserialize)]
pub struct GroupVersionKind<'a> {
    /// Empty for the core group.
    #[serde(borrow, default, deserialize_with = "text_or_null")]
    pub group: Cow<'a, str>,
    /// Such as `v1`.
    #[serde(borrow, default, deserialize_with = "text_or_null")]
    pub version: Cow<'a, str>,
    /// Such as `Secret`.
    #[serde(borrow, default, deserialize_with = "text_or_null")]
    pub kind: Cow<'a, str>,
}

/// The part of the options that can show a PATCH.
#[derive(Deserialize)]
pub struct Options<'a> {
    /// `UpdateOptions` or `PatchOptions`.
    #[serde(borrow, default, deserialize_with = "text_or_null")]
    pub kind: Cow<'a, str>,
}

/// The part of the user info that is read.
#[derive(Deserialize)]
pub struct UserInfo<'a> {
    /// The name of the user.
    #[serde(borrow, default, deserialize_with = "text_or_null")]
    pub username: Cow<'a, str>,
}

/// The part of a Secret that is read.
#[derive(Deserialize, Default)]
pub struct ReviewedSecret<'a> {
    /// Such as `kubernetes.io/tls`.
    #[serde(borrow, default, rename = "type")]
    pub type_: Option<Text<'a>>,
    /// Whether its data is immutable.
    #[serde(default)]
    pub immutable: Option<bool>,
    /// Labels and annotations.
    #[serde(borrow, default)]
    metadata: Option<ReviewedMetadata<'a>>,
    #[serde(borrow, default)]
    data: Option<SecretData<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct ReviewedMetadata<'a> {
    #[serde(borrow, default)]
    uid: Option<Text<'a>>,
    #[serde(default)]
    managed_fields: Option<IgnoredAny>,
    #[serde(default)]
    owner_references: OwnerGroups,
    #[serde(borrow, default)]
    labels: Option<ReviewedLabels<'a>>,
    #[serde(borrow, default)]
    annotations: Option<ReviewedAnnotations<'a>>,
}

impl<'a> ReviewedSecret<'a> {
    /// The uid. A fresh object does not have one when it is reviewed. One that is far longer than
    /// those of the API server is not read, because each entry of the record repeats it.
    pub fn uid(&self) -> Option<&str> {
        let uid = self.metadata.as_ref()?.uid.as_deref();
        uid.filter(|uid| !uid.is_empty() && uid.len() <= MAX_UID)
    }

    /// The labels that we read, or `None` if the object has no such map.
    pub fn labels(&self) -> Option<&Strings<'a>> {
        self.metadata.as_ref()?.labels.as_ref().map(|labels| &labels.0)
    }

    /// The annotations that we read, or `None` if the object has no such map.
    pub fn annotations(&self) -> Option<&Strings<'a>> {
        self.metadata.as_ref()?.annotations.as_ref().map(|annotations| &annotations.0)
    }

    /// The value of a label, if it is one that we read.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels()?.get(key)
    }

    /// The value of an annotation, if it is one that we read.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations()?.get(key)
    }

    /// The text of its settings.
    pub fn raw_settings(&self) -> RawSettings<'_> {
        RawSettings {
            mode: self.label(names::MODE),
            keep: self.annotation(names::KEEP),
            window: self.annotation(names::WINDOW),
            distrust: self.annotation(names::DISTRUST),
            announce: self.annotation(names::ANNOUNCE),
            trust: self.annotation(names::TRUST),
        }
    }

    /// The owners by which a Secret is exempt.
    pub fn owners(&self) -> &OwnerGroups {
        self.metadata.as_ref().map_or(&exempt::NO_OWNERS, |metadata| &metadata.owner_references)
    }

    /// Whether the object has `metadata`, the parent of labels and annotations.
    pub fn has_metadata(&self) -> bool {
        self.metadata.is_some()
    }

    /// The base64 text of `ca.crt`.
    pub fn ca_crt(&self) -> Option<&str> {
        self.data.as_ref()?.ca_crt.as_deref()
    }

    /// The base64 text of `tls.crt`.
    pub fn tls_crt(&self) -> Option<&str> {
        self.data.as_ref()?.tls_crt.as_deref()
    }

    /// Whether there is a value under `key`. Knows only `ca.crt`, `tls.crt`, [`names::PENDING`] and
    /// [`exempt::WATCHED_KEYS`].
    pub fn has_key(&self, key: &str) -> bool {
        let Some(data) = &self.data else { return false };
        match key {
            names::CA_CRT => data.ca_crt.is_some(),
            names::TLS_CRT => data.tls_crt.is_some(),
            _ => data.watched.contains(&key),
        }
    }

    /// The sum of the decoded sizes of all values, in bytes, as the API server's limit counts it.
    pub fn data_size(&self) -> usize {
        self.data.as_ref().map_or(0, |data| data.size)
    }
}

/// The longest uid that is read, in bytes. The API server's are UUIDs.
const MAX_UID: usize = 64;

/// A map of strings, of which only the entries that we read are kept.
#[derive(Default)]
pub struct Strings<'a> {
    kept: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The bytes of all keys and values, including those that are not kept.
    pub size: usize,
}

impl Strings<'_> {
    /// A kept value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.kept.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_ref())
    }

    fn deserialize<'a, D: Deserializer<'a>>(
        deserializer: D,
        keep: fn(&str) -> bool,
    ) -> Result<Strings<'a>, D::Error> {
        deserializer.deserialize_map(StringsVisitor { keep })
    }
}

#[derive(Default)]
struct ReviewedLabels<'a>(Strings<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for ReviewedLabels<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Strings::deserialize(deserializer, |key| is_ours(key) || exempt::is_watched_label(key))
            .map(Self)
    }
}

#[derive(Default)]
struct ReviewedAnnotations<'a>(Strings<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for ReviewedAnnotations<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Strings::deserialize(deserializer, |key| {
            is_ours(key)
                || key == names::CERT_MANAGER_CERTIFICATE
                || exempt::is_watched_annotation(key)
        })
        .map(Self)
    }
}

fn is_ours(key: &str) -> bool {
    key.starts_with(names::PREFIX) && names::KEYS.contains(&key)
}

struct StringsVisitor {
    keep: fn(&str) -> bool,
}

impl<'de> Visitor<'de> for StringsVisitor {
    type Value = Strings<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut strings = Strings::default();
        while let Some(Text(key)) = map.next_key()? {
            if (self.keep)(&key) {
                let value = map.next_value::<Option<Text<'de>>>()?.map(|t| t.0).unwrap_or_default();
                strings.size += key.len() + value.len();
                strings.kept.push((key, value));
            } else {
                let value = map.next_value::<&RawValue>()?;
                strings.size += key.len() + string_len(value);
            }
        }
        Ok(strings)
    }
}

/// The `data` map: two values, the watched keys that it has, and the decoded size of all values.
#[derive(Default)]
struct SecretData<'a> {
    ca_crt: Option<Cow<'a, str>>,
    tls_crt: Option<Cow<'a, str>>,
    watched: Vec<&'static str>,
    size: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for SecretData<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SecretDataVisitor)
    }
}

struct SecretDataVisitor;

impl<'de> Visitor<'de> for SecretDataVisitor {
    type Value = SecretData<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of base64 strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut data = SecretData::default();
        while let Some(Text(key)) = map.next_key()? {
            match key.as_ref() {
                names::CA_CRT => data.ca_crt = Some(base64_value(&mut map, &mut data.size)?),
                names::TLS_CRT => data.tls_crt = Some(base64_value(&mut map, &mut data.size)?),
                other => {
                    let mut watched = names::PENDING.into_iter().chain(exempt::WATCHED_KEYS);
                    let watched = watched.find(|key| *key == other);
                    data.watched.extend(watched);
                    let value = map.next_value::<&RawValue>()?.get();
                    data.size += decoded_len(value.trim_matches('"'));
                }
            }
        }
        Ok(data)
    }
}

/// Reads a value, and adds its decoded size. Go writes an empty value as `null`.
fn base64_value<'de, A: MapAccess<'de>>(
    map: &mut A,
    size: &mut usize,
) -> Result<Cow<'de, str>, A::Error> {
    let value = map.next_value::<Option<Text<'de>>>()?.map(|text| text.0).unwrap_or_default();
    *size += decoded_len(&value);
    Ok(value)
}

/// The length of a JSON string's value. Without escapes that is the length of its text; a string
/// with escapes is parsed.
fn string_len(raw: &RawValue) -> usize {
    let text = raw.get();
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return text.len().saturating_sub(2);
    }
    serde_json::from_str::<Cow<'_, str>>(text).map_or(text.len(), |value| value.len())
}

/// Reads a string that may be `null`, which is an empty string to Go.
fn text_or_null<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Cow<'a, str>, D::Error> {
    Ok(Option::<Text<'a>>::deserialize(deserializer)?.map(|text| text.0).unwrap_or_default())
}

/// A string that is borrowed if it has no escapes. Serde's own `Cow` copies within an `Option`.
#[derive(Default)]
pub struct Text<'a>(Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

#[cfg(test)]
mod tests;
