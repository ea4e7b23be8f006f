//! What the cluster says of ca-overlap itself: whether it calls the webhook, and whom it distrusts.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::plain;
use crate::kubernetes::explain::{Audience, explain};
use crate::names;
use crate::overlap::distrust::DistrustList;

/// Whether the API server calls the webhook. If it does not, nothing is bundled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Registration {
    /// The webhook is called, but the registration says that it changes nothing.
    Audit,
    /// A registration has the webhook, and a CA to verify it.
    InForce,
    /// None does. Holds the reason.
    NotInForce(&'static str),
    /// The user may not read it. Holds the reason.
    Unknown(String),
}

impl Registration {
    /// Reads all `MutatingWebhookConfigurations`, because their names can be changed.
    pub(crate) async fn read(client: &Client) -> Self {
        match registrations(client).await {
            Ok(ours) => Self::of(&ours),
            Err(error) => Self::Unknown(explain(&error, Audience::Caller)),
        }
    }

    fn of(ours: &[Value]) -> Self {
        let has_ca = |it: &Value| {
            let mut all = entries(it).filter(|entry| entry["name"] == names::WEBHOOK);
            all.any(|entry| ca_bundle(entry).is_some())
        };
        if ours.iter().any(has_ca) {
            if ours.iter().any(is_audit) { Self::Audit } else { Self::InForce }
        } else if ours.is_empty() {
            Self::NotInForce(NONE)
        } else {
            Self::NotInForce("the caBundle of its registration is empty, so that each call fails")
        }
    }

    /// Why nothing is bundled, in words; `None` if something may be.
    pub(crate) fn problem(&self) -> Option<String> {
        match self {
            Self::NotInForce(why) => Some(format!("the webhook is not called: {why}")),
            Self::Audit | Self::InForce | Self::Unknown(_) => None,
        }
    }

    /// Says on standard error that it could not be read.
    pub(crate) fn warn(&self) {
        if let Self::Unknown(why) = self {
            eprintln!("ca-overlap: cannot tell whether the webhook is registered: {why}");
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::Audit => json!({"inForce": true, "state": "audit", "audit": true}),
            Self::InForce => json!({"inForce": true, "state": "inForce"}),
            Self::NotInForce(why) => {
                json!({"inForce": false, "state": "notInForce", "reason": why})
            }
            Self::Unknown(why) => json!({"inForce": null, "state": "unknown", "reason": why}),
        }
    }
}

/// What is wrong if there is none.
pub(crate) const NONE: &str = "no MutatingWebhookConfiguration has the webhook of ca-overlap";

/// The `MutatingWebhookConfigurations` that have our webhook.
pub(crate) async fn registrations(client: &Client) -> Result<Vec<Value>, kube::Error> {
    Ok(all(client).await?.into_iter().filter(is_ours).collect())
}

/// All `MutatingWebhookConfigurations`.
pub(crate) async fn all(client: &Client) -> Result<Vec<Value>, kube::Error> {
    plain::list(client, "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations").await
}

/// Whether a `MutatingWebhookConfiguration` has our webhook.
pub(crate) fn is_ours(it: &Value) -> bool {
    entries(it).any(|entry| entry["name"] == names::WEBHOOK)
}

/// Our entries in a registration.
pub(crate) fn entries(registration: &Value) -> impl Iterator<Item = &Value> {
    let all = registration["webhooks"].as_array().into_iter().flatten();
    all.filter(|entry| OURS.iter().any(|name| entry["name"] == *name))
}

const OURS: [&str; 2] = [names::WEBHOOK, names::STRANGER_WEBHOOK];

/// The caBundle of an entry, unless it is empty.
pub(crate) fn ca_bundle(entry: &Value) -> Option<&str> {
    entry["clientConfig"]["caBundle"].as_str().filter(|text| !text.is_empty())
}

/// Whether it says that the webhook changes nothing.
pub(crate) fn is_audit(registration: &Value) -> bool {
    registration["metadata"]["annotations"][names::AUDIT] == "true"
}

/// The list of the cluster; empty if there is none, or if the user may not read it.
pub(crate) async fn distrusted(client: &Client, namespace: &str) -> Arc<DistrustList> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    match api.get_opt(names::DISTRUSTED_CONFIG_MAP).await {
        Ok(Some(map)) => Arc::new(DistrustList::read(&contents(map))),
        Ok(None) => Arc::default(),
        Err(error) => {
            let why = explain(&error, Audience::Caller);
            eprintln!("ca-overlap: cannot read the list of distrusted CAs: {why}");
            Arc::default()
        }
    }
}

/// All keys and values of a ConfigMap, as the kubelet mounts them.
pub(crate) fn contents(map: ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
    let binary = map.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
    text.chain(binary).collect()
}
