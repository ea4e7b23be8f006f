//! What the cluster says of ca-overlap itself: whether it calls the webhook, and whom it distrusts.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use serde_json::{Value, json};

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
        let url = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        let read = match http::Request::get(url).body(Vec::new()) {
            Ok(request) => client.request::<Value>(request).await,
            Err(error) => Err(kube::Error::HttpError(error)),
        };
        match read {
            Ok(list) => Self::of(&list),
            Err(error) => Self::Unknown(explain(&error, Audience::Caller)),
        }
    }

    fn of(list: &Value) -> Self {
        let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let items = all(&list["items"]);
        let webhooks = items.iter().flat_map(|item| all(&item["webhooks"]));
        let is_ours = |webhook: &Value| webhook["name"] == names::WEBHOOK;
        let ours: Vec<_> = webhooks.filter(is_ours).collect();
        let is_audit = |item: &Value| {
            item["metadata"]["annotations"][names::AUDIT] == "true"
                && all(&item["webhooks"]).iter().any(is_ours)
        };
        let has_ca = |webhook: &Value| {
            webhook["clientConfig"]["caBundle"].as_str().is_some_and(|text| !text.is_empty())
        };
        if ours.iter().any(has_ca) {
            if items.iter().any(is_audit) { Self::Audit } else { Self::InForce }
        } else if ours.is_empty() {
            Self::NotInForce("no MutatingWebhookConfiguration has the webhook of ca-overlap")
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
            Self::Audit => json!({"inForce": true, "audit": true}),
            Self::InForce => json!({"inForce": true}),
            Self::NotInForce(why) => json!({"inForce": false, "reason": why}),
            Self::Unknown(why) => json!({"inForce": null, "reason": why}),
        }
    }
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
