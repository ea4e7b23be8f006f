//! The wire format of a review (Kubernetes `admission.k8s.io/v1`), borrowed from the body.
//!
//! Only what the decision needs is read: the parser skips everything else, so a private key is
//! never decoded or copied, and nonsense under a key that is not ours does no harm. None of these
//! types implements `Debug`: a review must not end up in a log.

pub mod pairs;

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::names;
use crate::overlap::exempt;
use crate::x509::pem::decoded_len;

/// Why a body is not a review. Says nothing of its content, as `serde`'s errors would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadReviewError {
    /// Not JSON, or not of the shape of a review.
    #[error("the body is not a JSON AdmissionReview")]
    Malformed,
    /// Another kind or version.
    #[error("the body is not an AdmissionReview of admission.k8s.io/v1")]
    WrongKind,
    /// There is no `request`, or it has no `uid`: no answer could name it.
    #[error("the AdmissionReview has no request with a uid")]
    NoRequest,
}

/// Reads the request of a review.
pub fn read(body: &[u8]) -> Result<Request<'_>, ReadReviewError> {
    let review: Review<'_> = parse(body).map_err(|_| ReadReviewError::Malformed)?;
    if review.kind != "AdmissionReview" || review.api_version != "admission.k8s.io/v1" {
        return Err(ReadReviewError::WrongKind);
    }
    let request = review.request.filter(|request| !request.uid.is_empty());
    request.map(|request| Request { body, ..request }).ok_or(ReadReviewError::NoRequest)
}

/// One check of the whole body is cheaper than one for each string. The API server sends UTF-8;
/// what is not, between the values that are read, does no harm.
fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> serde_json::Result<T> {
    match simdutf8::basic::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(body),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    request: Option<Request<'a>>,
}

/// What is asked.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<'a> {
    /// To be echoed.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    /// `UPDATE` for all that concerns us.
    #[serde(borrow, default, deserialize_with = "text_or_null")]
    pub operation: Cow<'a, str>,
    /// The kind of the objects.
    #[serde(borrow, default)]
    pub kind: Option<Kind<'a>>,
    /// Set for `/status` and the like.
    #[serde(borrow, default)]
    pub sub_resource: Option<Text<'a>>,
    /// The namespace of the object.
    #[serde(borrow, default)]
    pub namespace: Option<Text<'a>>,
    /// The name of the object.
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
    /// Whether nothing will be stored.
    #[serde(default)]
    pub dry_run: Option<bool>,
    /// The options of the API call.
    #[serde(borrow, default)]
    pub options: Option<Options<'a>>,
    /// Who writes.
    #[serde(borrow, default)]
    pub user_info: Option<UserInfo<'a>>,
    /// The Secret as the writer wants it.
    #[serde(borrow, default)]
    pub object: Option<Secret<'a>>,
    /// The Secret as it is.
    #[serde(borrow, default)]
    pub old_object: Option<Secret<'a>>,
    /// What all this was read from, for the rare second reading.
    #[serde(skip)]
    body: &'a [u8],
}

impl Request<'_> {
    /// Whether what the incoming object lacks was not removed on purpose: it is a fresh object, as
    /// generators PUT it that know nothing of us, or one whose annotations were replaced whole.
    ///
    /// The kind of the options does not tell: the API server reviews a PATCH with `UpdateOptions`
    /// too (`patchToUpdateOptions` in its `patch.go`). But an object that was made from the stored
    /// one, by a PATCH or by a program that had read it, has the stored one's uid and our record.
    /// The uid tells only of what an API server sends, which has managed fields by then: Secrets
    /// that people wrote to files for an offline review have the uid on both sides.
    pub fn is_wholesale(&self) -> bool {
        let (Some(object), Some(old)) = (&self.object, &self.old_object) else { return false };
        let is_patch = self.options.as_ref().is_some_and(|options| options.kind == "PatchOptions");
        let is_made_from_stored = object.uid().is_some_and(|uid| old.uid() == Some(uid))
            && object.metadata.as_ref().is_some_and(|m| m.managed_fields.is_some());
        let record = |secret: &Secret<'_>| secret.annotation(names::CARRIED).is_some();
        !is_patch && (!is_made_from_stored || (record(old) && !record(object)))
    }

    /// The name of the writer; empty where the review does not say.
    pub fn user(&self) -> &str {
        self.user_info.as_ref().map(|user| user.username.as_ref()).unwrap_or_default()
    }

    /// Whether a person, not a program of the cluster, writes.
    pub fn is_by_person(&self) -> bool {
        let user = self.user();
        !user.is_empty() && !user.starts_with("system:serviceaccount:")
    }
}

/// A `GroupVersionKind`.
#[derive(Deserialize)]
pub struct Kind<'a> {
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

/// The part of the options that can tell a PATCH.
#[derive(Deserialize)]
pub struct Options<'a> {
    /// `UpdateOptions` or `PatchOptions`.
    #[serde(borrow, default, deserialize_with = "text_or_null")]
    pub kind: Cow<'a, str>,
}

/// The part of the user info that tells people from programs.
#[derive(Deserialize)]
pub struct UserInfo<'a> {
    /// The name of the user.
    #[serde(borrow, default, deserialize_with = "text_or_null")]
    pub username: Cow<'a, str>,
}

/// What is read of a Secret.
#[derive(Deserialize, Default)]
pub struct Secret<'a> {
    /// Such as `kubernetes.io/tls`.
    #[serde(borrow, default, rename = "type")]
    pub type_: Option<Text<'a>>,
    /// Whether its data can never change.
    #[serde(default)]
    pub immutable: Option<bool>,
    /// Labels and annotations.
    #[serde(borrow, default)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow, default)]
    data: Option<Data<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow, default)]
    uid: Option<Text<'a>>,
    #[serde(default)]
    managed_fields: Option<IgnoredAny>,
    #[serde(borrow, default)]
    labels: Option<Labels<'a>>,
    #[serde(borrow, default)]
    annotations: Option<Annotations<'a>>,
}

impl<'a> Secret<'a> {
    /// The uid, which a fresh object does not have yet when it is reviewed.
    pub fn uid(&self) -> Option<&str> {
        self.metadata.as_ref()?.uid.as_deref().filter(|uid| !uid.is_empty())
    }

    /// The labels that concern us; `None` where the object has no such map.
    pub fn labels(&self) -> Option<&Strings<'a>> {
        self.metadata.as_ref()?.labels.as_ref().map(|labels| &labels.0)
    }

    /// The annotations that concern us; `None` where the object has no such map.
    pub fn annotations(&self) -> Option<&Strings<'a>> {
        self.metadata.as_ref()?.annotations.as_ref().map(|annotations| &annotations.0)
    }

    /// The value of a label, if it is one that concerns us.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels()?.get(key)
    }

    /// The value of an annotation, if it is one that concerns us.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations()?.get(key)
    }

    /// Whether the object has the map that labels or annotations live in.
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

    /// Whether there is a value under `key`; true for [`exempt::WATCHED_KEYS`], `ca.crt` and
    /// `tls.crt` alone.
    pub fn has_key(&self, key: &str) -> bool {
        let Some(data) = &self.data else { return false };
        match key {
            names::CA_CRT => data.ca_crt.is_some(),
            names::TLS_CRT => data.tls_crt.is_some(),
            _ => data.watched.contains(&key),
        }
    }

    /// The sum of the decoded sizes of all values, in bytes: what the API server's limit counts.
    pub fn data_size(&self) -> usize {
        self.data.as_ref().map_or(0, |data| data.size)
    }
}

/// A map of strings, of which only some are kept.
#[derive(Default)]
pub struct Strings<'a> {
    kept: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The bytes of all keys and values, also of those that are not kept.
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
struct Labels<'a>(Strings<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Labels<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Strings::deserialize(deserializer, |key| is_ours(key) || exempt::is_watched_label(key))
            .map(Self)
    }
}

#[derive(Default)]
struct Annotations<'a>(Strings<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Annotations<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Strings::deserialize(deserializer, |key| {
            is_ours(key) || key == names::CERT_MANAGER_CERTIFICATE
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

/// The `data` map: two values, some key names, and sizes.
#[derive(Default)]
struct Data<'a> {
    ca_crt: Option<Cow<'a, str>>,
    tls_crt: Option<Cow<'a, str>>,
    watched: Vec<&'static str>,
    size: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Data<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of base64 strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut data = Data::default();
        while let Some(Text(key)) = map.next_key()? {
            match key.as_ref() {
                names::CA_CRT => data.ca_crt = Some(base64_value(&mut map, &mut data.size)?),
                names::TLS_CRT => data.tls_crt = Some(base64_value(&mut map, &mut data.size)?),
                other => {
                    let watched = exempt::WATCHED_KEYS.into_iter().find(|key| *key == other);
                    data.watched.extend(watched);
                    let value = map.next_value::<&RawValue>()?.get();
                    data.size += decoded_len(value.trim_matches('"'));
                }
            }
        }
        Ok(data)
    }
}

/// A `null` is what Go writes for an empty value, and reads as one.
fn base64_value<'de, A: MapAccess<'de>>(
    map: &mut A,
    size: &mut usize,
) -> Result<Cow<'de, str>, A::Error> {
    let value = map.next_value::<Option<Text<'de>>>()?.map(|text| text.0).unwrap_or_default();
    *size += decoded_len(&value);
    Ok(value)
}

/// The length of a JSON string's value. Without escapes it is that of its text; with them the
/// value is read, and dropped.
fn string_len(raw: &RawValue) -> usize {
    let text = raw.get();
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return text.len().saturating_sub(2);
    }
    serde_json::from_str::<Cow<'_, str>>(text).map_or(text.len(), |value| value.len())
}

/// A string that may be `null`, which is what Go reads as an empty one.
fn text_or_null<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Cow<'a, str>, D::Error> {
    Ok(Option::<Text<'a>>::deserialize(deserializer)?.map(|text| text.0).unwrap_or_default())
}

/// A string that borrows wherever it has no escapes, within an `Option` too, where serde's own
/// handling of `Cow` copies.
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
