//! What else the cluster holds: cert-manager, other webhooks, namespaces that are opted out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use kube::Client;
use serde_json::Value;

use super::super::report::Line;
use crate::kubernetes::issuer::{GROUP, Issuer, IssuerKey, IssuerKind};
use crate::kubernetes::key::Key;
use crate::kubernetes::list::Namespaces;
use crate::names;
use crate::tools::cluster::ScopedClient;
use crate::tools::error::ToolError;
use crate::tools::text::counted;
use crate::tools::{plain, registration};

/// Whether ca-overlap is there already, and which other webhooks change Secrets.
pub(super) async fn webhooks(client: &Client) -> Line {
    const NAME: &str = "webhooks";
    let all = match registration::all(client).await {
        Ok(all) => all,
        Err(error) => return Line::unread(NAME, &error),
    };
    if all.iter().any(registration::is_ours) {
        return Line::good(NAME, "ca-overlap is installed already: see check without --pre");
    }
    let others = all.iter().filter(|it| changes_secrets(it));
    let others: Vec<&str> = others.filter_map(|it| it["metadata"]["name"].as_str()).collect();
    match others.len() {
        0 => Line::good(NAME, "no other webhook changes Secrets"),
        count => {
            let others = others.join(", ");
            Line::good(
                NAME,
                format!("{} may change Secrets, too: {others}", counted(count, "webhook")),
            )
        }
    }
}

/// Whether a `MutatingWebhookConfiguration` is called for updates of Secrets.
fn changes_secrets(registration: &Value) -> bool {
    let has = |list: &Value, words: &[&str]| {
        let mut list = list.as_array().into_iter().flatten();
        list.any(|it| words.iter().any(|word| it == word))
    };
    let entries = registration["webhooks"].as_array().into_iter().flatten();
    let mut rules = entries.filter_map(|entry| entry["rules"].as_array()).flatten();
    rules.any(|rule| {
        has(&rule["apiGroups"], &["", "*"])
            && has(&rule["resources"], &["secrets", "*", "*/*"])
            && has(&rule["operations"], &["UPDATE", "*"])
    })
}

/// The CA issuers of cert-manager and the Secrets that they sign with, and a line about it.
pub(super) async fn cert_manager(cluster: &ScopedClient) -> (BTreeMap<IssuerKey, Key>, Line) {
    const NAME: &str = "certManager";
    let api = format!("/apis/{GROUP}/v1");
    let controller = match plain::get(&cluster.client, &api).await {
        Err(error) => return (BTreeMap::new(), Line::unread(NAME, &error)),
        Ok(None) => return (BTreeMap::new(), Line::good(NAME, "not installed")),
        Ok(Some(_)) => controller(&cluster.client).await,
    };
    let metadata = &controller["metadata"];
    let version = metadata["labels"]["app.kubernetes.io/version"].as_str();
    let namespace = metadata["namespace"].as_str().unwrap_or(NAMESPACE);
    match issuers(cluster, &api, namespace).await {
        Err(error) => (BTreeMap::new(), Line::unread(NAME, &error)),
        Ok((issuers, all)) => {
            let mut found = format!(
                "{}; issuers with a CA, which is announced before its leaves: {} of {all}",
                version.unwrap_or("version not known"),
                issuers.len(),
            );
            if namespace != NAMESPACE {
                let _ =
                    write!(found, "; the keeper needs --cluster-resource-namespace={namespace}");
            }
            (issuers, Line::good(NAME, found))
        }
    }
}

/// The namespace of cert-manager, and the default of the keeper's `--cluster-resource-namespace`.
const NAMESPACE: &str = "cert-manager";

/// The Deployment of cert-manager's controller, by the labels that its manifests set.
async fn controller(client: &Client) -> Value {
    let path = "/apis/apps/v1/deployments?labelSelector=app.kubernetes.io%2Fname%3Dcert-manager,app.kubernetes.io%2Fcomponent%3Dcontroller";
    plain::list(client, path).await.ok().and_then(|mut found| found.pop()).unwrap_or_default()
}

/// The CA issuers in scope, and how many issuers there are. The Secrets of `ClusterIssuer`s are in
/// `cluster_namespace`.
async fn issuers(
    cluster: &ScopedClient,
    api: &str,
    cluster_namespace: &str,
) -> Result<(BTreeMap<IssuerKey, Key>, usize), kube::Error> {
    let (mut issuers, mut all) = (BTreeMap::new(), 0);
    for kind in IssuerKind::ALL {
        let (_, plural) = kind.names();
        let path = match (&cluster.scope, kind) {
            (Namespaces::One(name), IssuerKind::Issuer) => {
                format!("{api}/namespaces/{name}/{plural}")
            }
            _ => format!("{api}/{plural}"),
        };
        for issuer in plain::list(&cluster.client, &path).await? {
            all += 1;
            let Ok(issuer) = serde_json::from_value::<Issuer>(issuer) else { continue };
            let key = issuer.key();
            let namespace =
                if key.namespace.is_empty() { cluster_namespace } else { &key.namespace };
            let secret = issuer.secret_name().map(|name| Key::new(namespace, name));
            issuers.extend(secret.map(|secret| (key, secret)));
        }
    }
    Ok((issuers, all))
}

/// The namespaces in scope that are opted out. The inner error says that there is no such namespace.
pub(super) async fn namespaces_off(
    cluster: &ScopedClient,
) -> Result<Result<BTreeSet<String>, ToolError>, kube::Error> {
    let found = match &cluster.scope {
        Namespaces::All => {
            let label = names::MODE.replace('/', "%2F");
            let path = format!("/api/v1/namespaces?labelSelector={label}%3Doff");
            plain::list(&cluster.client, &path).await?
        }
        Namespaces::One(name) => {
            let path = format!("/api/v1/namespaces/{name}");
            let Some(namespace) = plain::get(&cluster.client, &path).await? else {
                return Ok(Err(ToolError::Failed(format!("there is no namespace {name}"))));
            };
            vec![namespace]
        }
    };
    let off = found.iter().filter(|it| it["metadata"]["labels"][names::MODE] == "off");
    Ok(Ok(off.filter_map(|it| Some(it["metadata"]["name"].as_str()?.to_owned())).collect()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_webhooks_for_updates_of_secrets_change_them() {
        for (groups, resources, operations, expected) in [
            (json!([""]), json!(["secrets"]), json!(["CREATE", "UPDATE"]), true),
            (json!(["*"]), json!(["*"]), json!(["*"]), true),
            (json!(["*"]), json!(["*/*"]), json!(["UPDATE"]), true),
            (json!([""]), json!(["pods"]), json!(["UPDATE"]), false),
            (json!(["apps"]), json!(["*"]), json!(["UPDATE"]), false),
            (json!([""]), json!(["secrets"]), json!(["CREATE"]), false),
        ] {
            let rule =
                json!({"apiGroups": groups, "resources": resources, "operations": operations});
            let it = json!({"webhooks": [{"rules": []}, {"rules": [rule]}]});
            assert_eq!(changes_secrets(&it), expected, "{it}");
        }
    }
}
