//! Requests to the Secrets of a namespace, as a generator or a person sends them.

use base64::prelude::*;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::certs::Identity;
use crate::control_plane::send;

/// The media type of a JSON merge patch (RFC 7396).
pub const MERGE: &str = "application/merge-patch+json";
/// The media type of a strategic merge patch.
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// The media type of a JSON patch (RFC 6902).
pub const JSON_PATCH: &str = "application/json-patch+json";
/// The media type of server-side apply.
pub const APPLY: &str = "application/apply-patch+yaml";

/// The Secrets of one namespace, requested by one client.
#[derive(Clone)]
pub struct Secrets {
    /// The client that sends the requests.
    pub client: kube::Client,
    /// The namespace of the Secrets.
    pub namespace: String,
}

/// An answer of the API server.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The object, or a `Status` after an error.
    pub body: Value,
    /// The unquoted texts of the `Warning` headers (RFC 7234, section 5.5).
    pub warnings: Vec<String>,
}

/// A record or a stage, the value of an annotation, as the first edition wrote it.
pub fn without_uids(mut value: Value) -> Value {
    let entries = match &mut value {
        Value::Array(entries) => entries.iter_mut().collect(),
        one => vec![one],
    };
    for entry in entries.into_iter().filter_map(Value::as_object_mut) {
        entry.remove("uid");
    }
    value
}

impl Secrets {
    /// The Secrets of `namespace`.
    pub fn new(client: kube::Client, namespace: String) -> Self {
        Self { client, namespace }
    }

    /// Sends any request. `name` is empty for POST and LIST; `query` may be empty.
    pub async fn request(
        &self,
        method: &str,
        name: &str,
        query: &str,
        content_type: Option<&str>,
        body: Vec<u8>,
    ) -> Answer {
        let slash = if name.is_empty() { "" } else { "/" };
        let path = format!("/api/v1/namespaces/{}/secrets{slash}{name}?{query}", self.namespace);
        let response = send(&self.client, method, &path, content_type, body).await.unwrap();
        let warnings = response
            .headers()
            .get_all("warning")
            .iter()
            .filter_map(|value| value.to_str().ok()?.split_once('"'))
            .map(|(_, text)| text.trim_end_matches('"').replace("\\\"", "\""))
            .collect();
        Answer { status: response.status(), body: response.into_body(), warnings }
    }

    /// GETs one Secret.
    pub async fn get(&self, name: &str) -> Answer {
        self.request("GET", name, "", None, Vec::new()).await
    }

    /// POSTs a new Secret.
    pub async fn create(&self, secret: &Value) -> Answer {
        let body = secret.to_string().into_bytes();
        self.request("POST", "", "", Some("application/json"), body).await
    }

    /// PUTs a whole object. A `resourceVersion` in it makes the write conditional.
    pub async fn put(&self, name: &str, secret: &Value) -> Answer {
        self.put_with(name, "", secret).await
    }

    /// PUTs a whole object, with a query.
    pub async fn put_with(&self, name: &str, query: &str, secret: &Value) -> Answer {
        let body = secret.to_string().into_bytes();
        self.request("PUT", name, query, Some("application/json"), body).await
    }

    /// Sends a PATCH of media type `kind`. `query` is such as
    /// `fieldManager=x&force=true&dryRun=All`.
    pub async fn patch(&self, name: &str, kind: &str, query: &str, patch: &Value) -> Answer {
        self.request("PATCH", name, query, Some(kind), patch.to_string().into_bytes()).await
    }

    /// Applies an object server side.
    pub async fn apply(&self, name: &str, manager: &str, force: bool, secret: &Value) -> Answer {
        let query = format!("fieldManager={manager}&force={force}");
        self.patch(name, APPLY, &query, secret).await
    }

    /// DELETEs one Secret.
    pub async fn delete(&self, name: &str) -> Answer {
        self.request("DELETE", name, "", None, Vec::new()).await
    }
}

impl Answer {
    /// Returns the answer if the status is 2xx. Panics with the message otherwise.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.is_success(), "{}: {}", self.status, self.body["message"]);
        self
    }

    /// `metadata.resourceVersion`.
    pub fn resource_version(&self) -> &str {
        self.body["metadata"]["resourceVersion"].as_str().unwrap()
    }

    /// The value of an annotation, by its full key.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.body["metadata"]["annotations"][key].as_str()
    }

    /// The value of a label, by its full key.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.body["metadata"]["labels"][key].as_str()
    }

    /// A value of `data`, decoded.
    pub fn data(&self, key: &str) -> Option<Vec<u8>> {
        self.body["data"][key].as_str().map(|value| BASE64_STANDARD.decode(value).unwrap())
    }

    /// A PEM value of `data`.
    pub fn pem(&self, key: &str) -> String {
        String::from_utf8(self.data(key).unwrap_or_default()).unwrap()
    }
}

/// A Secret object with these `data`, given unencoded.
pub fn secret(name: &str, kind: &str, data: &[(&str, &[u8])]) -> Value {
    let data: Map<String, Value> = data
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(BASE64_STANDARD.encode(value))))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": kind,
        "data": data,
    })
}

/// A Secret of type `kubernetes.io/tls` with `ca.crt`, `tls.crt` and `tls.key`.
pub fn tls_secret(name: &str, ca: &str, leaf: &Identity) -> Value {
    let data = [
        ("ca.crt", ca.as_bytes()),
        ("tls.crt", leaf.pem.as_bytes()),
        ("tls.key", leaf.key.as_bytes()),
    ];
    secret(name, "kubernetes.io/tls", &data)
}
