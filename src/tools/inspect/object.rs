//! The parts of a Secret, or of a PEM file, that `inspect` looks at. Private keys are not decoded:
//! only their key in `data` and their size are kept.

use std::collections::BTreeMap;

use base64::prelude::*;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::names;
use crate::overlap::exempt::{OwnerGroups, WATCHED_KEYS, is_token};
use crate::overlap::outlook::PublicSecret;
use crate::tools::documents::merged;
use crate::tools::error::ToolError;
use crate::tools::registration::Registration;
use crate::x509::pem::decoded_len;

/// A Secret, or a PEM file with the content of a `ca.crt`.
#[derive(Default)]
pub(super) struct InspectedObject {
    /// Where it was read from, for messages.
    pub(super) source: String,
    /// `None` for a PEM file.
    pub(super) identity: Option<SecretIdentity>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) is_immutable: bool,
    /// `data["ca.crt"]`, decoded.
    pub(super) ca_crt: Option<Vec<u8>>,
    /// `data["tls.crt"]`, decoded.
    pub(super) tls_crt: Option<Vec<u8>>,
    /// `data["pending.tls.crt"]`, decoded.
    pub(super) pending_tls_crt: Option<Vec<u8>>,
    /// Decoded values whose keys look like PKCS#12 or Java keystores.
    pub(super) stores: BTreeMap<String, Vec<u8>>,
    /// All keys of `data`.
    pub(super) keys: Vec<String>,
    /// The sum of the decoded sizes of all values, in bytes.
    pub(super) size: usize,
    /// The last write of each key, if the managed fields name it.
    pub(super) written: BTreeMap<String, Written>,
    /// The keys that decide whether the data is left alone.
    watched: Vec<&'static str>,
    /// The owners that decide the same.
    owners: OwnerGroups,
    /// Whether the cluster calls the webhook; `None` for a file.
    pub(super) registration: Option<Registration>,
}

/// Identifies a Secret.
pub(super) struct SecretIdentity {
    pub(super) uid: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    /// The field `type`.
    pub(super) kind: String,
}

/// A write of one key.
pub(super) struct Written {
    pub(super) at: Timestamp,
    pub(super) by: String,
}

/// Suffixes of keys that hold keystores; case does not matter.
const STORES: [&str; 4] = [".jks", ".p12", ".pfx", ".pkcs12"];

impl InspectedObject {
    pub(super) fn of_pem(source: String, ca_crt: Vec<u8>, tls_crt: Option<Vec<u8>>) -> Self {
        Self {
            source,
            size: ca_crt.len() + tls_crt.as_ref().map_or(0, Vec::len),
            ca_crt: Some(ca_crt),
            tls_crt,
            ..Self::default()
        }
    }

    pub(super) fn of_secret(source: String, secret: Value) -> Result<Self, ToolError> {
        let secret = merged(secret);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let metadata = &secret["metadata"];
        let data: BTreeMap<&str, &str> = secret["data"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
            .collect();
        let value = |key: &str| {
            let decoded = data.get(key).map(|value| BASE64_STANDARD.decode(value));
            decoded
                .transpose()
                .map_err(|_| ToolError::Failed(format!("{source}: data[\"{key}\"] is not base64")))
        };
        let mut stores = BTreeMap::new();
        for key in data.keys().filter(|key| is_store(key)) {
            stores.extend(value(key)?.map(|content| ((*key).to_owned(), content)));
        }
        Ok(Self {
            identity: Some(SecretIdentity {
                uid: text(&metadata["uid"]),
                namespace: text(&metadata["namespace"]),
                name: text(&metadata["name"]).unwrap_or_else(|| "(no name)".to_owned()),
                kind: text(&secret["type"]).unwrap_or_else(|| "Opaque".to_owned()),
            }),
            labels: strings(&metadata["labels"]),
            annotations: strings(&metadata["annotations"]),
            is_immutable: secret["immutable"] == true,
            ca_crt: value(names::CA_CRT)?,
            tls_crt: value(names::TLS_CRT)?,
            pending_tls_crt: value(names::PENDING_TLS_CRT)?,
            stores,
            keys: data.keys().map(|key| (*key).to_owned()).collect(),
            size: data.values().map(|value| decoded_len(value)).sum(),
            written: written(&metadata["managedFields"]),
            watched: WATCHED_KEYS
                .into_iter()
                .chain([names::PENDING_TLS_KEY])
                .filter(|key| data.contains_key(*key))
                .collect(),
            registration: None,
            owners: OwnerGroups::deserialize(&metadata["ownerReferences"]).unwrap_or_default(),
            source,
        })
    }

    /// The view for [`crate::overlap::outlook`].
    pub(super) fn view(&self) -> PublicSecret<'_> {
        let identity = self.identity.as_ref();
        PublicSecret {
            name: identity.map_or("", |identity| identity.name.as_str()),
            uid: identity.and_then(|identity| identity.uid.as_deref()),
            labels: &self.labels,
            annotations: &self.annotations,
            ca_crt: self.ca_crt.as_deref(),
            tls_crt: self.tls_crt.as_deref(),
            pending_tls_crt: self.pending_tls_crt.as_deref(),
            keys: &self.watched,
            owners: &self.owners,
            is_immutable: self.is_immutable,
            is_token: is_token(identity.map(|identity| identity.kind.as_str())),
            seen: None,
            written: None,
        }
    }
}

fn is_store(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    STORES.iter().any(|end| key.ends_with(end))
}

fn strings(map: &Value) -> BTreeMap<String, String> {
    let pairs = map.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// For each key, the newest entry of the managed fields that owns it.
fn written(managed_fields: &Value) -> BTreeMap<String, Written> {
    let mut all: BTreeMap<String, Written> = BTreeMap::new();
    for entry in managed_fields.as_array().into_iter().flatten() {
        let time = entry["time"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
        let Some(at) = time else { continue };
        let keys = entry["fieldsV1"]["f:data"].as_object().into_iter().flatten();
        for key in keys.filter_map(|(key, _)| key.strip_prefix("f:")) {
            if all.get(key).is_none_or(|known| known.at < at) {
                let by = entry["manager"].as_str().unwrap_or_default().to_owned();
                all.insert(key.to_owned(), Written { at, by });
            }
        }
    }
    all
}
