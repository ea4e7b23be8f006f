//! What is inspected: from a file, from standard input, or from the cluster.

use std::path::Path;

use kube::api::GetParams;
use serde_json::Value;

use super::{InspectError, Object};
use crate::kubernetes::explain::{For, explain};
use crate::kubernetes::key;
use crate::tools::cluster::AccessArgs;
use crate::tools::documents::{self, as_pem, documents};
use crate::tools::progress;

/// Reads all objects that `what` names.
pub(super) async fn read(
    what: &str,
    leaf: Option<&Path>,
    access: &AccessArgs,
) -> Result<Vec<Object>, InspectError> {
    let path = Path::new(what);
    // A file counts more: that it is meant is certain, while a cluster may not even be there.
    if what == "-" || path.exists() {
        return of_text(what, documents::read(path)?, leaf);
    }
    let Some((Some(namespace), name)) = key::parse(what) else {
        return Err(InspectError::NoSource(what.to_owned()));
    };
    if leaf.is_some() {
        return Err(InspectError::LeafBesideSecret);
    }
    let secret = fetch(namespace, name, access).await?;
    Ok(vec![Object::of_secret(what.to_owned(), secret)?])
}

fn of_text(source: &str, text: Vec<u8>, leaf: Option<&Path>) -> Result<Vec<Object>, InspectError> {
    let source = if source == "-" { "standard input" } else { source };
    let documents = documents(&text);
    if documents.is_empty() {
        let ca_crt = as_pem(text);
        let ca_crt = ca_crt.ok_or_else(|| InspectError::NotUnderstood(source.to_owned()))?;
        let tls_crt = leaf.map(|leaf| {
            let text = as_pem(documents::read(leaf)?);
            text.ok_or_else(|| InspectError::NotUnderstood(leaf.display().to_string()))
        });
        return Ok(vec![Object::of_pem(source.to_owned(), ca_crt, tls_crt.transpose()?)]);
    }
    if leaf.is_some() {
        return Err(InspectError::LeafBesideSecret);
    }
    let mut objects = Vec::new();
    for secret in documents.into_iter().flat_map(items) {
        if secret["kind"] != "Secret" {
            return Err(InspectError::NotUnderstood(source.to_owned()));
        }
        objects.push(Object::of_secret(source.to_owned(), secret)?);
    }
    if objects.is_empty() {
        return Err(InspectError::NotUnderstood(source.to_owned()));
    }
    Ok(objects)
}

/// The Secrets of a list as kubectl prints it; anything else is one object.
fn items(mut document: Value) -> Vec<Value> {
    let is_list = document["kind"] == "List" || document["kind"] == "SecretList";
    match document.get_mut("items").filter(|_| is_list).map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => vec![document],
    }
}

async fn fetch(namespace: &str, name: &str, access: &AccessArgs) -> Result<Value, InspectError> {
    let name_of = || format!("{namespace}/{name}");
    let failed = |error| InspectError::Cluster { name: name_of(), error };
    let client = access.connect().await?;
    let url = format!("/api/v1/namespaces/{namespace}/secrets");
    let request = kube::core::Request::new(url).get(name, &GetParams::default());
    let request = request.map_err(|error| failed(error.to_string()))?;
    let reading = client.request::<Value>(request);
    match progress::during(|| format!("reading the Secret {}", name_of()), reading).await {
        Ok(secret) => Ok(secret),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            Err(InspectError::NotFound(name_of()))
        }
        Err(error) => Err(failed(explain(&error, For::Caller))),
    }
}
