//! Reads and writes the two objects of `--self-managed`: gets and updates one Secret, gets and
//! patches one `MutatingWebhookConfiguration`.
//!
//! Builds the requests and parses the answers itself, because the client library logs a body that
//! it cannot parse, and its types print keys.

use std::collections::BTreeMap;

use http::{Method, Request, header};
use kube::Client;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::kubernetes::call::{CallError, call};
use crate::names;

/// The names of the two objects.
#[derive(Clone, Debug)]
pub(crate) struct ObjectNames {
    /// The namespace of the Secret.
    pub(crate) namespace: String,
    /// `--ca-secret`.
    pub(crate) secret: String,
    /// `--webhook-config`.
    pub(crate) webhook_config: String,
}

/// A client for the two objects.
#[derive(Clone)]
pub(crate) struct ObjectClient {
    client: Client,
    secret: ObjectPath,
    webhook: ObjectPath,
}

impl ObjectClient {
    pub(crate) fn new(client: Client, objects: &ObjectNames) -> Self {
        let ObjectNames { namespace, secret, webhook_config } = objects;
        Self {
            client,
            secret: ObjectPath {
                name: format!("Secret {namespace}/{secret}"),
                path: format!("/api/v1/namespaces/{namespace}/secrets/{secret}"),
            },
            webhook: ObjectPath {
                name: format!("MutatingWebhookConfiguration {webhook_config}"),
                path: format!(
                    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{webhook_config}"
                ),
            },
        }
    }

    /// Reads the Secret.
    pub(super) async fn secret(&self) -> Result<CaSecret, ApiError> {
        self.send(GET, &self.secret, &EmptyBody {}).await
    }

    /// Replaces the Secret. Conflicts if another writer changed it since it was read.
    pub(super) async fn replace_secret(&self, secret: &CaSecret) -> Result<(), ApiError> {
        self.send(UPDATE, &self.secret, secret).await.map(|_: EmptyBody| ())
    }

    /// Reads the `MutatingWebhookConfiguration`.
    pub(super) async fn webhook(&self) -> Result<WebhookConfiguration, ApiError> {
        self.send(GET, &self.webhook, &EmptyBody {}).await
    }

    /// Patches the `MutatingWebhookConfiguration`, and returns what the API server stored.
    pub(super) async fn patch_webhook(
        &self,
        patch: &Value,
    ) -> Result<WebhookConfiguration, ApiError> {
        self.send(PATCH, &self.webhook, patch).await
    }

    /// The name of the `MutatingWebhookConfiguration` in messages.
    pub(super) fn webhook_name(&self) -> &str {
        &self.webhook.name
    }

    /// The name of the Secret in messages.
    pub(super) fn secret_name(&self) -> &str {
        &self.secret.name
    }

    async fn send<T: DeserializeOwned>(
        &self,
        (verb, method, content_type): (&'static str, Method, &'static str),
        object: &ObjectPath,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let fail = |error| ApiError { verb, object: object.name.clone(), error };
        let failed = |reason: &str| fail(CallError::Failed(reason.to_owned()));
        let body = if method == Method::GET {
            Vec::new()
        } else {
            serde_json::to_vec(body).map_err(|_| failed("the request cannot be encoded"))?
        };
        let request = Request::builder().method(method).uri(&object.path);
        let request = request.header(header::CONTENT_TYPE, content_type).body(body);
        let request = request.map_err(|_| failed("the name is not valid: check the flags"))?;
        let answer = call(self.client.request_text(request)).await.map_err(fail)?;
        // The error of serde would quote the content.
        serde_json::from_str(&answer).map_err(|_| failed("the answer is not readable"))
    }
}

const GET: (&str, Method, &str) = ("get", Method::GET, "application/json");
const UPDATE: (&str, Method, &str) = ("update", Method::PUT, "application/json");
const PATCH: (&str, Method, &str) = ("patch", Method::PATCH, "application/json-patch+json");

/// One object: its name in messages and its path in the API.
#[derive(Clone)]
struct ObjectPath {
    name: String,
    path: String,
}

/// The CA Secret with all of its fields, so that an update keeps the others. Has no `Debug`.
#[derive(Serialize, Deserialize)]
pub(crate) struct CaSecret {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl CaSecret {
    /// The value of `key`, as base64.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.data.as_ref()?.get(key).map(String::as_str)
    }

    /// Sets the value of `key`, which is base64.
    pub(crate) fn set(&mut self, key: &str, value: String) {
        self.data.get_or_insert_default().insert(key.to_owned(), value);
    }
}

/// The part of a `MutatingWebhookConfiguration` that is read.
#[derive(Debug, Deserialize)]
pub(crate) struct WebhookConfiguration {
    metadata: WebhookMetadata,
    #[serde(default)]
    webhooks: Vec<Webhook>,
}

impl WebhookConfiguration {
    /// The index of each of our entries in the list, and its caBundle, which may be empty.
    pub(crate) fn ca_bundles(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_ours = |webhook: &Webhook| {
            [names::WEBHOOK, names::STRANGER_WEBHOOK].contains(&webhook.name.as_str())
        };
        let entries = self.webhooks.iter().enumerate().filter(move |(_, it)| is_ours(it));
        entries.map(|(at, it)| (at, it.client_config.ca_bundle.as_deref().unwrap_or_default()))
    }

    /// The `resourceVersion` that was read.
    pub(crate) fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WebhookMetadata {
    #[serde(default)]
    resource_version: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Webhook {
    name: String,
    client_config: WebhookClientConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WebhookClientConfig {
    #[serde(default)]
    ca_bundle: Option<String>,
}

/// An empty request body, or an answer of which nothing is read.
#[derive(Serialize, Deserialize)]
struct EmptyBody {}

/// A failed call: what failed, why, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {object}: {error}: {}", advice(.error))]
pub(super) struct ApiError {
    /// The verb, as RBAC names it.
    verb: &'static str,
    /// The kind and the name of the object.
    object: String,
    pub(super) error: CallError,
}

fn advice(error: &CallError) -> &'static str {
    match error {
        CallError::Conflict => "reading it again",
        CallError::Denied(_) => "grant our ServiceAccount the rights that the manifests grant",
        CallError::Gone => "apply the manifests, which create it",
        CallError::Audit | CallError::Failed(_) | CallError::NotLeading => "trying again",
    }
}
