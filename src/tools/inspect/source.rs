//! What is inspected: from a file, from standard input, or from the cluster.

use std::fmt::Display;
use std::path::Path;

use kube::api::GetParams;
use serde_json::Value;

use super::Object;
use crate::kubernetes::explain::{Audience, explain};
use crate::kubernetes::key;
use crate::tools::cluster::AccessArgs;
use crate::tools::documents::{self, as_pem, documents};
use crate::tools::error::Error;
use crate::tools::progress;

/// Reads all objects that `what` names.
pub(super) async fn read(
    what: &str,
    leaf: Option<&Path>,
    access: &AccessArgs,
) -> Result<Vec<Object>, Error> {
    let path = Path::new(what);
    // A file counts more: that it is meant is certain, while a cluster may not even be there.
    if what == "-" || path.exists() {
        return of_text(what, documents::read(path)?, leaf);
    }
    let Some((Some(namespace), name)) = key::parse(what) else {
        return Err(Error::usage(
            "FILE|NAMESPACE/NAME",
            format!("{what} is neither a file nor a Secret's NAMESPACE/NAME"),
        ));
    };
    if leaf.is_some() {
        return Err(leaf_beside_secret());
    }
    let secret = fetch(namespace, name, access).await?;
    Ok(vec![Object::of_secret(what.to_owned(), secret)?])
}

fn of_text(source: &str, text: Vec<u8>, leaf: Option<&Path>) -> Result<Vec<Object>, Error> {
    let source = if source == "-" { "standard input" } else { source };
    let documents = documents(&text);
    if documents.is_empty() {
        let ca_crt = as_pem(text);
        let ca_crt = ca_crt.ok_or_else(|| not_understood(source))?;
        let tls_crt = leaf.map(|leaf| {
            let text = as_pem(documents::read(leaf)?);
            text.ok_or_else(|| not_understood(leaf.display()))
        });
        return Ok(vec![Object::of_pem(source.to_owned(), ca_crt, tls_crt.transpose()?)]);
    }
    if leaf.is_some() {
        return Err(leaf_beside_secret());
    }
    let mut objects = Vec::new();
    for secret in documents.into_iter().flat_map(items) {
        if secret["kind"] != "Secret" {
            return Err(not_understood(source));
        }
        objects.push(Object::of_secret(source.to_owned(), secret)?);
    }
    if objects.is_empty() {
        return Err(not_understood(source));
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

async fn fetch(namespace: &str, name: &str, access: &AccessArgs) -> Result<Value, Error> {
    let name_of = || format!("{namespace}/{name}");
    let failed = |error| Error::failed(format!("cannot read the Secret {}", name_of()), error);
    let client = access.connect().await?;
    let url = format!("/api/v1/namespaces/{namespace}/secrets");
    let request = kube::core::Request::new(url).get(name, &GetParams::default());
    let request = request.map_err(|error| failed(error.to_string()))?;
    let reading = client.request::<Value>(request);
    match progress::during(|| format!("reading the Secret {}", name_of()), reading).await {
        Ok(secret) => Ok(secret),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let name = name_of();
            Err(Error::Failed(format!(
                "there is no file {name}, and no Secret of that namespace and name"
            )))
        }
        Err(error) => Err(failed(explain(&error, Audience::Caller))),
    }
}

fn not_understood(source: impl Display) -> Error {
    Error::expected(source, "Secrets as JSON or YAML, or certificates as PEM or DER")
}

fn leaf_beside_secret() -> Error {
    Error::usage("--leaf", "is for PEM files; a Secret brings its own tls.crt")
}
