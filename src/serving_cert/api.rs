//! The two objects of the cluster that `--self-managed` touches, and nothing else: get and update
//! of one Secret, get and patch of one `MutatingWebhookConfiguration`.
//!
//! Requests are made and answers read here, since the client library logs a body that it cannot
//! read, and its types print keys.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use http::{Method, Request, header};
use kube::Client;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::timeout;

/// A client and the names of the two objects.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    secret: Object,
    webhook: Object,
}

impl Cluster {
    /// For the Secret `secret` in `namespace` and the `MutatingWebhookConfiguration` `webhook`.
    pub fn new(client: Client, namespace: &str, secret: &str, webhook: &str) -> Self {
        Self {
            client,
            secret: Object {
                name: format!("Secret {namespace}/{secret}"),
                path: format!("/api/v1/namespaces/{namespace}/secrets/{secret}"),
            },
            webhook: Object {
                name: format!("MutatingWebhookConfiguration {webhook}"),
                path: format!(
                    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{webhook}"
                ),
            },
        }
    }

    /// Reads the Secret.
    pub async fn secret(&self) -> Result<Secret, ApiError> {
        self.call("get", &self.secret, Method::GET, "", Vec::new()).await
    }

    /// Writes what was read and changed; a conflict where another was faster.
    pub async fn replace_secret(&self, secret: &Secret) -> Result<(), ApiError> {
        let body = encode(secret, "update", &self.secret)?;
        let put = self.call("update", &self.secret, Method::PUT, "application/json", body);
        put.await.map(|_: Written| ())
    }

    /// Reads the `MutatingWebhookConfiguration`.
    pub async fn webhook(&self) -> Result<WebhookConfiguration, ApiError> {
        self.call("get", &self.webhook, Method::GET, "", Vec::new()).await
    }

    /// Patches it, and returns what the API server has stored.
    pub async fn patch_webhook(
        &self,
        patch: &[Operation],
    ) -> Result<WebhookConfiguration, ApiError> {
        let body = encode(patch, "patch", &self.webhook)?;
        let kind = "application/json-patch+json";
        self.call("patch", &self.webhook, Method::PATCH, kind, body).await
    }

    /// The name that messages call the `MutatingWebhookConfiguration` by.
    pub(super) fn webhook_name(&self) -> &str {
        &self.webhook.name
    }

    /// The name that messages call the Secret by.
    pub(super) fn secret_name(&self) -> &str {
        &self.secret.name
    }

    async fn call<T: DeserializeOwned>(
        &self,
        verb: &'static str,
        object: &Object,
        method: Method,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Result<T, ApiError> {
        let fail = |reason: String, advice: &'static str| ApiError::Failed {
            verb,
            object: object.name.clone(),
            reason,
            advice,
        };
        let mut request = Request::builder().method(method).uri(&object.path);
        if !content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request
            .body(body)
            .map_err(|_| fail("the name is not valid".into(), "check the flags"))?;
        let answer = match timeout(PATIENCE, self.client.request_text(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(kube::Error::Api(status))) => {
                return Err(match status.code {
                    401 => fail(
                        "the API server does not accept our credentials".into(),
                        "check the ServiceAccount's token",
                    ),
                    403 => fail(
                        "forbidden".into(),
                        "grant it to our ServiceAccount, as the manifests do",
                    ),
                    404 if verb == "get" => ApiError::Missing { object: object.name.clone() },
                    409 => ApiError::Conflict { object: object.name.clone() },
                    // The text may quote what was sent; the code and the reason do not.
                    code => fail(format!("status {code} {}", status.reason), "trying again"),
                });
            }
            Ok(Err(error)) => {
                return Err(fail(
                    format!("the API server cannot be reached: {}", root(&error)),
                    "trying again",
                ));
            }
            Err(_) => {
                return Err(fail(
                    format!("the API server did not answer within {} s", PATIENCE.as_secs()),
                    "trying again",
                ));
            }
        };
        // serde's error would quote the content.
        serde_json::from_str(&answer)
            .map_err(|_| fail("the answer is not readable".into(), "trying again"))
    }
}

/// One call, its retries included.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Object {
    name: String,
    path: String,
}

/// A Secret with all that it holds, so that an update changes nothing else. No `Debug`.
#[derive(Serialize, Deserialize)]
pub struct Secret {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Secret {
    /// The value of `key`, still in base64.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.data.as_ref()?.get(key).map(String::as_str)
    }

    /// Sets the value of `key`, in base64.
    pub fn set(&mut self, key: &str, value: String) {
        self.data.get_or_insert_default().insert(key.to_owned(), value);
    }
}

/// What we need of a `MutatingWebhookConfiguration`.
#[derive(Debug, Deserialize)]
pub struct WebhookConfiguration {
    metadata: Metadata,
    #[serde(default)]
    webhooks: Vec<Webhook>,
}

impl WebhookConfiguration {
    /// Where the webhook `name` stands in the list, and its caBundle, empty if it has none.
    pub fn ca_bundle(&self, name: &str) -> Option<(usize, &str)> {
        let at = self.webhooks.iter().position(|webhook| webhook.name == name)?;
        let webhook = self.webhooks.get(at)?;
        Some((at, webhook.client_config.ca_bundle.as_deref().unwrap_or_default()))
    }

    /// The version that was read.
    pub fn resource_version(&self) -> &str {
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

/// One operation of a JSON patch (RFC 6902).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Operation {
    pub(super) op: &'static str,
    pub(super) path: String,
    pub(super) value: String,
}

/// The answer to a write, of which nothing is needed.
#[derive(Deserialize)]
struct Written {}

/// Why a call has failed, with what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// Another writer was faster: read again.
    #[error("{object} was changed in between: reading it again")]
    Conflict {
        /// Kind and name.
        object: String,
    },
    /// Anything else.
    #[error("cannot {verb} {object}: {reason}: {advice}")]
    Failed {
        /// The verb, as RBAC names it.
        verb: &'static str,
        /// Kind and name.
        object: String,
        /// What happened.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// The object does not exist.
    #[error("{object} does not exist: apply the manifests, which hold it")]
    Missing {
        /// Kind and name.
        object: String,
    },
}

fn encode<T: Serialize + ?Sized>(
    value: &T,
    verb: &'static str,
    object: &Object,
) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(|_| ApiError::Failed {
        verb,
        object: object.name.clone(),
        reason: "it cannot be encoded".into(),
        advice: "trying again",
    })
}

/// The innermost cause: the outer ones say only that a request has failed.
fn root(error: &kube::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
