//! Reads the objects to inspect: from a file, from standard input or from the cluster.

use std::fmt::Display;
use std::path::Path;

use kube::Client;
use kube::api::GetParams;
use serde_json::Value;

use super::InspectedObject;
use crate::kubernetes::explain::{Audience, explain};
use crate::names;
use crate::tools::cluster::KubeconfigArgs;
use crate::tools::documents::{self, as_pem, documents};
use crate::tools::error::ToolError;
use crate::tools::progress_line;
use crate::tools::registration::Registration;

/// Reads the objects that `what` names. For a Secret of the cluster, also returns the client.
pub(super) async fn read(
    what: &str,
    leaf: Option<&Path>,
    access: &KubeconfigArgs,
) -> Result<(Vec<InspectedObject>, Option<Client>), ToolError> {
    let path = Path::new(what);
    // A file is preferred: it exists, and there may be no cluster.
    if what == "-" || path.exists() {
        return Ok((of_text(what, documents::read(path)?, leaf)?, None));
    }
    let Some((Some(namespace), name)) = names::parse_secret(what) else {
        return Err(ToolError::usage(
            "FILE|NAMESPACE/NAME",
            format!("{what} is neither a file nor the NAMESPACE/NAME of a Secret"),
        ));
    };
    if leaf.is_some() {
        return Err(leaf_beside_secret());
    }
    let client = access.connect().await?;
    let secret = fetch(namespace, name, &client).await?;
    let mut object = InspectedObject::of_secret(what.to_owned(), secret)?;
    object.registration = Some(Registration::read(&client).await);
    Ok((vec![object], Some(client)))
}

fn of_text(
    source: &str,
    text: Vec<u8>,
    leaf: Option<&Path>,
) -> Result<Vec<InspectedObject>, ToolError> {
    let source = if source == "-" { "standard input" } else { source };
    let documents = documents(&text);
    if documents.is_empty() {
        let ca_crt = as_pem(text);
        let ca_crt = ca_crt.ok_or_else(|| not_understood(source))?;
        let tls_crt = leaf.map(|leaf| {
            let text = as_pem(documents::read(leaf)?);
            text.ok_or_else(|| not_understood(leaf.display()))
        });
        return Ok(vec![InspectedObject::of_pem(source.to_owned(), ca_crt, tls_crt.transpose()?)]);
    }
    if leaf.is_some() {
        return Err(leaf_beside_secret());
    }
    let mut objects = Vec::new();
    for secret in documents.into_iter().flat_map(items) {
        if secret["kind"] != "Secret" {
            return Err(not_understood(source));
        }
        objects.push(InspectedObject::of_secret(source.to_owned(), secret)?);
    }
    if objects.is_empty() {
        return Err(not_understood(source));
    }
    Ok(objects)
}

/// The items of a list as kubectl prints it. Any other document is one object.
fn items(mut document: Value) -> Vec<Value> {
    let is_list = document["kind"] == "List" || document["kind"] == "SecretList";
    match document.get_mut("items").filter(|_| is_list).map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => vec![document],
    }
}

async fn fetch(namespace: &str, name: &str, client: &Client) -> Result<Value, ToolError> {
    let name_of = || format!("{namespace}/{name}");
    let failed = |error| ToolError::failed(format!("cannot read the Secret {}", name_of()), error);
    let url = format!("/api/v1/namespaces/{namespace}/secrets");
    let request = kube::core::Request::new(url).get(name, &GetParams::default());
    let request = request.map_err(|error| failed(error.to_string()))?;
    let reading = client.request::<Value>(request);
    match progress_line::during(|| format!("reading the Secret {}", name_of()), reading).await {
        Ok(secret) => Ok(secret),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let name = name_of();
            Err(ToolError::Failed(format!(
                "there is no file {name}, and no Secret of that name in the cluster"
            )))
        }
        Err(error) => Err(failed(explain(&error, Audience::Caller))),
    }
}

fn not_understood(source: impl Display) -> ToolError {
    ToolError::expected(source, "Secrets as JSON or YAML, or certificates as PEM or DER")
}

fn leaf_beside_secret() -> ToolError {
    ToolError::usage("--leaf", "works only with a PEM file; a Secret has its own tls.crt")
}
