//! The two objects of the cluster that `--self-managed` touches, and nothing else: get and update
//! of one Secret, get and patch of one `MutatingWebhookConfiguration`.
//!
//! Requests are made and answers read here, since the client library logs a body that it cannot
//! read, and its types print keys.

use std::collections::BTreeMap;

use http::{Method, Request, header};
use kube::Client;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::kubernetes::call::{CallError, call};

/// The names of the two objects.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    /// Of the Secret.
    pub(crate) namespace: String,
    /// `--ca-secret`.
    pub(crate) secret: String,
    /// `--webhook-config`.
    pub(crate) webhook_config: String,
}

/// A client, and the two objects.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    secret: Object,
    webhook: Object,
}

impl Cluster {
    pub(crate) fn new(client: Client, objects: &Objects) -> Self {
        let Objects { namespace, secret, webhook_config } = objects;
        Self {
            client,
            secret: Object {
                name: format!("Secret {namespace}/{secret}"),
                path: format!("/api/v1/namespaces/{namespace}/secrets/{secret}"),
            },
            webhook: Object {
                name: format!("MutatingWebhookConfiguration {webhook_config}"),
                path: format!(
                    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{webhook_config}"
                ),
            },
        }
    }

    /// Reads the Secret.
    pub(super) async fn secret(&self) -> Result<Secret, ApiError> {
        self.send(GET, &self.secret, &Nothing {}).await
    }

    /// Writes what was read and changed; a conflict where another was faster.
    pub(super) async fn replace_secret(&self, secret: &Secret) -> Result<(), ApiError> {
        self.send(UPDATE, &self.secret, secret).await.map(|_: Nothing| ())
    }

    /// Reads the `MutatingWebhookConfiguration`.
    pub(super) async fn webhook(&self) -> Result<WebhookConfiguration, ApiError> {
        self.send(GET, &self.webhook, &Nothing {}).await
    }

    /// Patches it, and returns what the API server has stored.
    pub(super) async fn patch_webhook(
        &self,
        patch: &Value,
    ) -> Result<WebhookConfiguration, ApiError> {
        self.send(PATCH, &self.webhook, patch).await
    }

    /// The name that messages call the `MutatingWebhookConfiguration` by.
    pub(super) fn webhook_name(&self) -> &str {
        &self.webhook.name
    }

    /// The name that messages call the Secret by.
    pub(super) fn secret_name(&self) -> &str {
        &self.secret.name
    }

    async fn send<T: DeserializeOwned>(
        &self,
        (verb, method, content_type): (&'static str, Method, &'static str),
        object: &Object,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let fail = |error| ApiError { verb, object: object.name.clone(), error };
        let failed = |reason: &str| fail(CallError::Failed(reason.to_owned()));
        let body = if method == Method::GET {
            Vec::new()
        } else {
            serde_json::to_vec(body).map_err(|_| failed("it cannot be encoded"))?
        };
        let request = Request::builder().method(method).uri(&object.path);
        let request = request.header(header::CONTENT_TYPE, content_type).body(body);
        let request = request.map_err(|_| failed("the name is not valid: check the flags"))?;
        let answer = call(self.client.request_text(request)).await.map_err(fail)?;
        // serde's error would quote the content.
        serde_json::from_str(&answer).map_err(|_| failed("the answer is not readable"))
    }
}

const GET: (&str, Method, &str) = ("get", Method::GET, "application/json");
const UPDATE: (&str, Method, &str) = ("update", Method::PUT, "application/json");
const PATCH: (&str, Method, &str) = ("patch", Method::PATCH, "application/json-patch+json");

#[derive(Clone)]
struct Object {
    name: String,
    path: String,
}

/// A Secret with all that it holds, so that an update changes nothing else. No `Debug`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Secret {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Secret {
    /// The value of `key`, still in base64.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.data.as_ref()?.get(key).map(String::as_str)
    }

    /// Sets the value of `key`, in base64.
    pub(crate) fn set(&mut self, key: &str, value: String) {
        self.data.get_or_insert_default().insert(key.to_owned(), value);
    }
}

/// What we need of a `MutatingWebhookConfiguration`.
#[derive(Debug, Deserialize)]
pub(crate) struct WebhookConfiguration {
    metadata: Metadata,
    #[serde(default)]
    webhooks: Vec<Webhook>,
}

impl WebhookConfiguration {
    /// Where the webhook `name` stands in the list, and its caBundle, empty if it has none.
    pub(crate) fn ca_bundle(&self, name: &str) -> Option<(usize, &str)> {
        let at = self.webhooks.iter().position(|webhook| webhook.name == name)?;
        let webhook = self.webhooks.get(at)?;
        Some((at, webhook.client_config.ca_bundle.as_deref().unwrap_or_default()))
    }

    /// The version that was read.
    pub(crate) fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    resource_version: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Webhook {
    name: String,
    client_config: ClientConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientConfig {
    #[serde(default)]
    ca_bundle: Option<String>,
}

/// The body of a request that needs none, and what is needed of the answer to a write.
#[derive(Serialize, Deserialize)]
struct Nothing {}

/// Why a call has failed, with what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {object}: {error}: {}", advice(.error))]
pub(super) struct ApiError {
    /// As RBAC names it.
    verb: &'static str,
    /// Kind and name.
    object: String,
    pub(super) error: CallError,
}

fn advice(error: &CallError) -> &'static str {
    match error {
        CallError::Conflict => "reading it again",
        CallError::Denied(_) => "grant what the manifests grant to our ServiceAccount",
        CallError::Gone => "apply the manifests, which hold it",
        CallError::Failed(_) | CallError::NotLeading => "trying again",
    }
}
