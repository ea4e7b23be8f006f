//! Reads the objects to inspect: from a file, from standard input or from the cluster.

use std::cell::Cell;
use std::fmt::Display;
use std::path::Path;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, ResourceExt};
use serde_json::Value;

use super::InspectedObject;
use crate::kubernetes::explain::{Audience, explain};
use crate::kubernetes::list::{self, Namespaces, Unread};
use crate::kubernetes::pages;
use crate::names;
use crate::tools::cluster::{ScopeArgs, ScopedClient, SecretName};
use crate::tools::documents::{self, as_pem, documents};
use crate::tools::error::ToolError;
use crate::tools::registration::Registration;
use crate::tools::{plain, progress_line};

/// What an argument names.
pub(super) enum Source<'a> {
    /// `-` is standard input.
    File(&'a str),
    Secret(SecretName<'a>),
}

/// Tells files from Secrets. A file is preferred: it exists, and there may be no cluster.
pub(super) fn sort<'a>(
    what: &'a [String],
    scope: &ScopeArgs,
) -> Result<Vec<Source<'a>>, ToolError> {
    let is_file = |text: &&String| *text == "-" || Path::new(text).exists();
    let mut sources = Vec::new();
    for text in what {
        if is_file(&text) {
            if let Some(flag) = scope.wider() {
                return Err(ToolError::usage(flag, "does not go with a file"));
            }
            sources.push(Source::File(text));
            continue;
        }
        let neither = || {
            let problem = format!("{text} is neither a file nor the NAMESPACE/NAME of a Secret");
            ToolError::usage("FILE|SECRET", problem)
        };
        // Alone it is rather a file that is missing than a name in a namespace that nobody mentions.
        if !text.contains('/') && scope.namespace.is_none() {
            return Err(neither());
        }
        let name = scope.named(std::slice::from_ref(text)).map_err(|error| match error {
            ToolError::Usage { flag: "SECRET", .. } => neither(),
            error => error,
        })?;
        sources.extend(name.into_iter().map(Source::Secret));
    }
    Ok(sources)
}

/// Reads a file, or standard input.
pub(super) fn of_file(path: &str, leaf: Option<&Path>) -> Result<Vec<InspectedObject>, ToolError> {
    of_text(path, documents::read(Path::new(path))?, leaf)
}

/// Calls `each` with every Secret in scope that holds certificates. Returns what could not be read.
pub(super) async fn scan(
    cluster: &ScopedClient,
    registration: Option<&Registration>,
    mut each: impl FnMut(&InspectedObject),
) -> Vec<Unread> {
    let kind = ApiResource::erase::<Secret>(&());
    let mut page = ListParams::default().limit(pages::MOST);
    page.label_selector.clone_from(&cluster.selector);
    let api = |namespaces: &Namespaces| match namespaces {
        Namespaces::All => Api::<DynamicObject>::all_with(cluster.client.clone(), &kind),
        Namespaces::One(name) => Api::namespaced_with(cluster.client.clone(), name, &kind),
    };
    let seen = Cell::new(0_usize);
    let take = |secret: DynamicObject| {
        seen.set(seen.get() + 1);
        let has = |key: &&str| secret.data["data"].get(key).is_some();
        if ![names::CA_CRT, names::TLS_CRT, names::PENDING_TLS_CRT].iter().any(has) {
            return;
        }
        let namespace = secret.namespace().unwrap_or_default();
        let source = format!("{namespace}/{}", secret.name_any());
        let object = serde_json::to_value(secret).ok();
        let object = object.and_then(|it| InspectedObject::of_secret(source, it).ok());
        if let Some(mut object) = object {
            object.registration = registration.cloned();
            each(&object);
        }
    };
    let reading = list::read_each(&cluster.client, &cluster.scope, &page, api, take);
    progress_line::during(|| format!("reading Secrets, {} so far", seen.get()), reading).await
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

/// Reads a Secret of the cluster.
pub(super) async fn fetch(
    cluster: &ScopedClient,
    (namespace, name): SecretName<'_>,
) -> Result<InspectedObject, ToolError> {
    let namespace = namespace.unwrap_or(&cluster.namespace);
    let name_of = || format!("{namespace}/{name}");
    let failed = |error| ToolError::failed(format!("cannot read the Secret {}", name_of()), error);
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
    let reading = plain::get(&cluster.client, &path);
    match progress_line::during(|| format!("reading the Secret {}", name_of()), reading).await {
        Ok(Some(secret)) => InspectedObject::of_secret(name_of(), secret),
        Ok(None) => Err(ToolError::Failed(format!(
            "there is no file {name}, and no Secret {} in the cluster",
            name_of()
        ))),
        Err(error) => Err(failed(explain(&error, Audience::Caller))),
    }
}

fn not_understood(source: impl Display) -> ToolError {
    ToolError::expected(source, "Secrets as JSON or YAML, or certificates as PEM or DER")
}

pub(super) fn leaf_beside_secret() -> ToolError {
    ToolError::usage("--leaf", "works only with a PEM file; a Secret has its own tls.crt")
}
