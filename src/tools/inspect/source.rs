//! What is inspected: from a file, from standard input, or from the cluster.

use std::path::Path;

use kube::api::GetParams;
use serde_json::Value;

use super::{InspectError, Object};
use crate::kubernetes::explain::{For, explain};
use crate::tools::cluster::AccessArgs;
use crate::tools::documents::{self, documents};
use crate::tools::progress;
use crate::x509::certs::Certificate;
use crate::x509::pem;

/// Reads all objects that `what` names.
pub(super) async fn read(
    what: &str,
    leaf: Option<&Path>,
    access: &AccessArgs,
) -> Result<Vec<Object>, InspectError> {
    let path = Path::new(what);
    // A file counts more: that it is meant is certain, while a cluster may not even be there.
    if what == "-" || path.exists() {
        return of_text(what, file(path)?, leaf);
    }
    let (namespace, name) =
        secret_name(what).ok_or_else(|| InspectError::NoSource(what.to_owned()))?;
    if leaf.is_some() {
        return Err(InspectError::LeafBesideSecret);
    }
    let secret = fetch(namespace, name, access).await?;
    Ok(vec![Object::of_secret(what.to_owned(), secret)?])
}

/// What the API server takes as the name of a namespace, and of a Secret.
fn secret_name(what: &str) -> Option<(&str, &str)> {
    let (namespace, name) = what.split_once('/')?;
    let is_label = |part: &str| {
        let known = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let edge = |c: Option<char>| c.is_some_and(|c| c != '-');
        part.bytes().all(known) && edge(part.chars().next()) && edge(part.chars().last())
    };
    let is_name = name.len() <= 253 && name.split('.').all(is_label);
    (namespace.len() <= 63 && is_label(namespace) && is_name).then_some((namespace, name))
}

fn of_text(source: &str, text: Vec<u8>, leaf: Option<&Path>) -> Result<Vec<Object>, InspectError> {
    let source = if source == "-" { "standard input" } else { source };
    let documents = documents(&text);
    if documents.is_empty() {
        let ca_crt = certificates(text);
        let ca_crt = ca_crt.ok_or_else(|| InspectError::NotUnderstood(source.to_owned()))?;
        let tls_crt = leaf.map(|leaf| {
            let text = certificates(file(leaf)?);
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

/// Certificates as PEM, whatever they came as.
fn certificates(text: Vec<u8>) -> Option<Vec<u8>> {
    if pem::blocks(&text).next().is_some() {
        return Some(text);
    }
    let certificate = Certificate::from_der(text)?;
    let mut text = Vec::new();
    pem::encode_certificate(certificate.der(), &mut text);
    Some(text)
}

fn file(path: &Path) -> Result<Vec<u8>, InspectError> {
    documents::read(path).map_err(|error| InspectError::Read { path: path.to_owned(), error })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_told_from_paths() {
        assert_eq!(secret_name("gateway/envoy"), Some(("gateway", "envoy")));
        assert_eq!(secret_name("a-1/b.c-d"), Some(("a-1", "b.c-d")));
        for path in [
            "ca.pem", "./a", "a/b/c", "/a", "a/", "A/b", "a.b/c", "-a/b", "a/.b", "a/b..c", "", "/",
        ] {
            assert_eq!(secret_name(path), None, "{path}");
        }
    }
}
