//! A Secret with its public certificates only.
//!
//! The parser skips private keys without copying or decoding them. Of the annotations only ours are
//! kept, because kubectl's `last-applied-configuration` holds whole Secrets.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::prelude::*;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, Time};
use kube::Resource;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::names;
use crate::overlap::exempt::{self, OwnerGroups};
use crate::overlap::outlook::{PublicSecret, Sighting};

/// A Secret without private keys. `Debug` shows its namespace and name, never a value.
#[derive(Clone, Deserialize)]
pub struct SecretView {
    metadata: ViewMetadata,
    #[serde(default)]
    immutable: Option<bool>,
    #[serde(default, rename = "type")]
    type_: Option<String>,
    #[serde(default)]
    data: Option<PublicData>,
    #[serde(skip)]
    seen: Option<Sighting>,
}

impl SecretView {
    /// The input for [`crate::overlap::outlook`].
    pub fn view(&self) -> PublicSecret<'_> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        let value = |get: fn(&PublicData) -> &Option<Vec<u8>>| {
            self.data.as_ref().and_then(|data| get(data).as_deref())
        };
        PublicSecret {
            name: self.metadata.object.name.as_deref().unwrap_or_default(),
            uid: self.object_uid(),
            labels: self.metadata.object.labels.as_ref().unwrap_or(&NONE),
            annotations: self.metadata.object.annotations.as_ref().unwrap_or(&NONE),
            ca_crt: value(|data| &data.ca_crt),
            tls_crt: value(|data| &data.tls_crt),
            pending_tls_crt: value(|data| &data.pending_tls_crt),
            owners: &self.metadata.owners,
            keys: self.data.as_ref().map_or(&[], |data| data.keys.as_slice()),
            is_immutable: self.immutable == Some(true),
            is_token: exempt::is_token(self.type_.as_deref()),
            written: self.written(),
            seen: self.seen,
        }
    }

    /// Adds what the keeper saw of its `ca.crt`.
    #[must_use]
    pub fn with_sighting(self, seen: Sighting) -> Self {
        Self { seen: Some(seen), ..self }
    }

    /// One of our annotations.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.object.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// One of our labels, or a label by which a Secret is exempt.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.object.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether its type is `kubernetes.io/tls`.
    pub fn is_tls(&self) -> bool {
        self.type_.as_deref() == Some("kubernetes.io/tls")
    }

    /// Its type; empty if it was not read.
    pub(crate) fn kind(&self) -> &str {
        self.type_.as_deref().unwrap_or_default()
    }

    /// Whether it has the private key of its leaf.
    pub(crate) fn has_tls_key(&self) -> bool {
        self.data.as_ref().is_some_and(|data| data.has_tls_key)
    }

    /// Whether it has keys that this view does not name.
    pub(crate) fn has_other_keys(&self) -> bool {
        self.data.as_ref().is_some_and(|data| data.has_others)
    }

    /// The object's uid.
    pub fn object_uid(&self) -> Option<&str> {
        self.metadata.object.uid.as_deref()
    }

    /// When the object was created.
    pub fn created(&self) -> Option<Timestamp> {
        self.metadata.object.creation_timestamp.as_ref().map(|time| time.0)
    }

    /// When a writer other than the keeper last changed it, by the times of its managed fields.
    pub fn written(&self) -> Option<Timestamp> {
        let fields = self.metadata.object.managed_fields.iter().flatten();
        fields.filter_map(|field| field.time.as_ref()).map(|time| time.0).max()
    }

    /// The version that was read.
    pub fn resource_version(&self) -> &str {
        self.metadata.object.resource_version.as_deref().unwrap_or_default()
    }
}

impl fmt::Debug for SecretView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretView")
            .field("namespace", &self.metadata.object.namespace)
            .field("name", &self.metadata.object.name)
            .finish_non_exhaustive()
    }
}

impl Resource for SecretView {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Secret".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "secrets".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata.object
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata.object
    }
}

/// The values that are read, decoded. It has no `Debug`, so that none is printed.
#[derive(Clone, Default)]
struct PublicData {
    ca_crt: Option<Vec<u8>>,
    tls_crt: Option<Vec<u8>>,
    pending_tls_crt: Option<Vec<u8>>,
    /// Which of [`exempt::WATCHED_KEYS`] are there, and whether a key waits; without values.
    keys: Vec<&'static str>,
    /// Whether `tls.key` is there.
    has_tls_key: bool,
    /// Whether keys are there that none of these fields tells of.
    has_others: bool,
}

impl<'de> Deserialize<'de> for PublicData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PublicDataVisitor)
    }
}

struct PublicDataVisitor;

impl<'de> Visitor<'de> for PublicDataVisitor {
    type Value = PublicData;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the data of a Secret")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PublicData, A::Error> {
        let mut found = PublicData::default();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let value = match key.as_ref() {
                names::CA_CRT => &mut found.ca_crt,
                names::TLS_CRT => &mut found.tls_crt,
                names::PENDING_TLS_CRT => &mut found.pending_tls_crt,
                other => {
                    let known = exempt::WATCHED_KEYS.into_iter().chain([names::PENDING_TLS_KEY]);
                    let watched = known.into_iter().find(|key| *key == other);
                    found.has_tls_key |= other == names::TLS_KEY;
                    found.has_others |= watched.is_none() && other != names::TLS_KEY;
                    found.keys.extend(watched);
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            // The API server sends valid base64; anything else counts as absent.
            *value =
                map.next_value::<Option<String>>()?.and_then(|v| BASE64_STANDARD.decode(v).ok());
        }
        Ok(found)
    }
}

/// The metadata that is needed.
#[derive(Clone, Deserialize)]
#[serde(from = "SecretMetadata")]
struct ViewMetadata {
    /// Of the managed fields it has only the last time.
    object: ObjectMeta,
    owners: OwnerGroups,
}

impl From<SecretMetadata> for ViewMetadata {
    fn from(found: SecretMetadata) -> Self {
        let owners = found.owner_references.clone();
        Self { object: object_meta(found), owners }
    }
}

fn object_meta(found: SecretMetadata) -> ObjectMeta {
    let OwnKeys(labels) = found.labels.unwrap_or_default();
    let OwnKeys(annotations) = found.annotations.unwrap_or_default();
    ObjectMeta {
        name: found.name,
        namespace: found.namespace,
        uid: found.uid,
        resource_version: found.resource_version,
        creation_timestamp: found.creation_timestamp,
        labels: (!labels.is_empty()).then_some(labels),
        annotations: (!annotations.is_empty()).then_some(annotations),
        managed_fields: found.managed_fields.and_then(|fields| {
            // The keeper's own asks do not count.
            let of_others = |field: &ManagedField| {
                field.manager.as_deref() != Some(names::KEEPER_SERVICE_ACCOUNT)
            };
            let last = fields
                .into_iter()
                .filter(of_others)
                .filter_map(|field| field.time)
                .max_by_key(|time| time.0)?;
            Some(vec![ManagedFieldsEntry { time: Some(last), ..ManagedFieldsEntry::default() }])
        }),
        ..ObjectMeta::default()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretMetadata {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    uid: Option<String>,
    #[serde(default)]
    resource_version: Option<String>,
    #[serde(default)]
    creation_timestamp: Option<Time>,
    #[serde(default)]
    labels: Option<OwnKeys<true>>,
    #[serde(default)]
    annotations: Option<OwnKeys<false>>,
    #[serde(default)]
    managed_fields: Option<Vec<ManagedField>>,
    #[serde(default)]
    owner_references: OwnerGroups,
}

#[derive(Deserialize)]
struct ManagedField {
    #[serde(default)]
    manager: Option<String>,
    #[serde(default)]
    time: Option<Time>,
}

/// The entries of a map whose keys are ours, and those by which a Secret is exempt.
#[derive(Default)]
struct OwnKeys<const ARE_LABELS: bool>(BTreeMap<String, String>);

impl<'de, const ARE_LABELS: bool> Deserialize<'de> for OwnKeys<ARE_LABELS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OwnKeysVisitor::<ARE_LABELS>)
    }
}

struct OwnKeysVisitor<const ARE_LABELS: bool>;

impl<'de, const ARE_LABELS: bool> Visitor<'de> for OwnKeysVisitor<ARE_LABELS> {
    type Value = OwnKeys<ARE_LABELS>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("labels or annotations")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = BTreeMap::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let is_watched = if ARE_LABELS {
                exempt::is_watched_label(&key) || key == names::CERT_MANAGER_OWNED
            } else {
                exempt::is_watched_annotation(&key)
                    || names::CERT_MANAGER_ISSUER.contains(&key.as_ref())
                    || key == names::CERT_MANAGER_CERTIFICATE
            };
            if is_watched || names::KEYS.contains(&key.as_ref()) {
                found.insert(key.into_owned(), map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(OwnKeys(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "Q0FOQVJZLWluLXRscy5rZXk=";

    fn read() -> SecretView {
        let text = format!(
            r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"envoy","namespace":"a",
            "uid":"u","resourceVersion":"7","creationTimestamp":"2026-02-01T10:00:00Z","managedFields":[{{"manager":"{CANARY}","time":"2026-03-01T10:00:00Z"}},{{}},
            {{"manager":"ca-overlap-keeper","time":"2026-03-02T10:00:00Z"}}],
            "ownerReferences":[{{"apiVersion":"secrets.hashicorp.com/v1beta1","name":"{CANARY}"}}],
            "labels":{{"app":"{CANARY}","strimzi.io/kind":"Kafka","ca-overlap.dev/phase":"overlap"}},
            "annotations":{{"strimzi.io/kind":"{CANARY}","secret-data-hash":"1","kubectl.kubernetes.io/last-applied-configuration":"{CANARY}",
            "ca-overlap.dev/keep":"2"}}}},"type":"kubernetes.io/tls","data":{{"ca.crt":"Y2E=",
            "tls.crt":"bGVhZg==","tls.key":"{CANARY}","pending.tls.key":"{CANARY}",
            "ca.key":"{CANARY}","old-ca.crt":null,"other":null}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn only_public_values_and_our_own_labels_and_annotations_are_read() {
        let secret = read();
        let view = secret.view();
        assert_eq!(view.ca_crt, Some(&b"ca"[..]));
        assert_eq!(view.tls_crt, Some(&b"leaf"[..]));
        assert_eq!(view.pending_tls_crt, None);
        assert_eq!(view.labels.len() + view.annotations.len(), 4);
        assert_eq!(
            (secret.label("strimzi.io/kind"), view.keys),
            (Some("Kafka"), &["pending.tls.key", "ca.key", "old-ca.crt"][..])
        );
        assert!(!view.is_token && !view.is_immutable);
        assert!(secret.has_tls_key() && secret.has_other_keys());
        assert_ne!(view.owners, &exempt::NO_OWNERS);
        assert_eq!(secret.annotation(names::KEEP), Some("2"));
        assert_eq!(secret.label(names::PHASE), Some("overlap"));
        assert_eq!(secret.resource_version(), "7");
        assert_eq!(secret.created().unwrap().to_string(), "2026-02-01T10:00:00Z");
        assert_eq!(secret.written().unwrap().to_string(), "2026-03-01T10:00:00Z");
        assert!(!format!("{:?}", secret.meta()).contains(CANARY));
    }

    #[test]
    fn debug_shows_no_value() {
        assert_eq!(
            format!("{:?}", read()),
            r#"SecretView { namespace: Some("a"), name: Some("envoy"), .. }"#
        );
    }

    #[test]
    fn a_secret_without_data_and_labels_is_read() {
        let text = r#"{"metadata":{"name":"a","labels":null},"data":null,"immutable":true,
            "type":"kubernetes.io/service-account-token"}"#;
        let secret: SecretView = serde_json::from_str(text).unwrap();
        assert!(secret.view().ca_crt.is_none() && secret.view().is_immutable);
        assert!(secret.view().is_token && secret.view().keys.is_empty());
        assert!(secret.view().annotations.is_empty());
        let text = r#"{"metadata":{},"data":{"ca.crt":"Y2E=","tls.crt":"","pending.tls.key":"","ca.key":""}}"#;
        let secret: SecretView = serde_json::from_str(text).unwrap();
        assert!(!secret.has_tls_key() && !secret.has_other_keys());
    }
}
