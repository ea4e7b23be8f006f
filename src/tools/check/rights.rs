//! The rights that the manifests give to the two `ServiceAccount`s, and whether they have them.

use futures::future::join_all;
use kube::Client;
use serde_json::{Value, json};

use super::report::Line;
use crate::names;
use crate::tools::installed::{Installed, Server};
use crate::tools::plain;
use crate::tools::text::counted;

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    /// Empty for any.
    name: String,
    /// Whether it is needed in the namespace of ca-overlap alone.
    is_local: bool,
}

/// What a server needs by its flags, and by whether the webhook runs with `--staged`.
fn needed(component: &str, server: &Server, is_staged: bool) -> Vec<Right> {
    let mut all = Vec::new();
    let mut add = |verbs: &[&'static str], group, resource, name: &str, is_local| {
        all.extend(verbs.iter().map(|verb| Right {
            verb,
            group,
            resource,
            name: name.to_owned(),
            is_local,
        }));
    };
    let lease = ("coordination.k8s.io", "leases");
    let registrations = "admissionregistration.k8s.io";
    if component == "webhookRights" {
        if server.is_on("--self-managed") {
            let secret = server.named("--ca-secret", names::CA_SECRET);
            add(&["get", "update"], "", "secrets", &secret, true);
            let name = server.named("--webhook-config", names::WEBHOOK_CONFIGURATION);
            add(&["get", "patch"], registrations, "mutatingwebhookconfigurations", &name, false);
        }
        if is_staged {
            let name = server.named("--keeper-lease", names::KEEPER_LEASE);
            add(&["get", "list", "watch"], lease.0, lease.1, &name, true);
        }
        return all;
    }
    add(&["get", "list", "watch", "patch"], "", "secrets", "", false);
    add(&["get"], "", "namespaces", "", false);
    for workloads in ["deployments", "statefulsets", "daemonsets"] {
        add(&["get", "patch"], "apps", workloads, "", false);
    }
    add(&["create"], "events.k8s.io", "events", "", false);
    let name = server.named("--lease", names::KEEPER_LEASE);
    add(&["get", "list", "watch", "patch"], lease.0, lease.1, &name, true);
    add(&["create"], lease.0, lease.1, "", true);
    if is_staged {
        for webhooks in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
            add(&["list"], registrations, webhooks, "", false);
        }
        add(&["list"], "apiregistration.k8s.io", "apiservices", "", false);
    }
    if server.is_on("--follow-issuers") {
        for issuers in ["issuers", "clusterissuers"] {
            add(&["list", "watch"], "cert-manager.io", issuers, "", false);
        }
    }
    if server.is_on("--renew-leaves") {
        add(&["get"], "cert-manager.io", "certificates", "", false);
        add(&["patch"], "cert-manager.io", "certificates/status", "", false);
    }
    all
}

/// The objects of the manifests, and whether each stands in the namespace of ca-overlap.
const OBJECTS: [(&str, &str, bool); 13] = [
    ("", "namespaces", false),
    ("", "serviceaccounts", true),
    ("", "secrets", true),
    ("", "configmaps", true),
    ("", "services", true),
    ("apps", "deployments", true),
    ("policy", "poddisruptionbudgets", true),
    ("networking.k8s.io", "networkpolicies", true),
    ("rbac.authorization.k8s.io", "roles", true),
    ("rbac.authorization.k8s.io", "rolebindings", true),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", false),
];

/// Whether the caller may create what the manifests hold.
pub(super) async fn to_create(client: &Client, namespace: &str) -> Line {
    const NAME: &str = "rights";
    let of = |(group, resource, is_local)| right("create", group, resource, is_local);
    let needed = OBJECTS.map(of);
    match missing(client, &needed, namespace, None).await {
        Err(error) => Line::unread(NAME, &error),
        Ok(missing) if missing.is_empty() => {
            Line::good(NAME, format!("you may create the {} kinds of objects", needed.len()))
        }
        Ok(missing) => Line::bad(NAME, format!("you may not {}", list(&missing)), ADMINISTRATOR),
    }
}

/// Whether the caller may give webhook and keeper their rights: the API server rejects a role with
/// rights that its writer lacks, unless he has the verbs `escalate` and `bind`.
pub(super) async fn to_give(client: &Client, namespace: &str) -> Line {
    const NAME: &str = "grants";
    let rbac = "rbac.authorization.k8s.io";
    let verbs = ["escalate", "bind"].into_iter();
    let any: Vec<Right> = verbs
        .flat_map(|verb| {
            [right(verb, rbac, "roles", true), right(verb, rbac, "clusterroles", false)]
        })
        .collect();
    let needed = of_full();
    let asked = async {
        let missing = missing(client, &needed, namespace, None).await?;
        let may_give_any =
            !missing.is_empty() && self::missing(client, &any, namespace, None).await?.is_empty();
        Ok::<_, kube::Error>((missing, may_give_any))
    };
    match asked.await {
        Err(error) => Line::unread(NAME, &error),
        Ok((missing, may_give_any)) if missing.is_empty() || may_give_any => Line::good(
            NAME,
            format!("you may give webhook and keeper their {}", counted(needed.len(), "right")),
        ),
        Ok((missing, _)) => Line::bad(
            NAME,
            format!("you may not give webhook and keeper what you lack: {}", list(&missing)),
            ADMINISTRATOR,
        ),
    }
}

const ADMINISTRATOR: &str = "an administrator of the cluster has to install it";

/// What webhook and keeper need with `overlays/full`.
fn of_full() -> Vec<Right> {
    let servers = [
        deployment("webhook", &["--self-managed", "--staged"]),
        deployment("keeper", &["--follow-issuers"]),
    ];
    let Installed { webhook, keeper } = Installed::of(&servers);
    let servers = [("webhookRights", webhook), ("keeperRights", keeper)].into_iter();
    servers.filter_map(|(name, server)| Some(needed(name, &server?, true))).flatten().collect()
}

/// A Deployment of the manifests, as far as its rights depend on it.
fn deployment(component: &str, args: &[&str]) -> Value {
    json!({
        "metadata": {"labels": {"app.kubernetes.io/component": component}},
        "spec": {"template": {"spec": {"containers": [{"args": args}]}}},
    })
}

fn right(verb: &'static str, group: &'static str, resource: &'static str, is_local: bool) -> Right {
    Right { verb, group, resource, name: String::new(), is_local }
}

fn list(rights: &[&Right]) -> String {
    rights.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Asks the API server for each right, of a user or of the caller. Returns those that are missing.
async fn missing<'a>(
    client: &Client,
    needed: &'a [Right],
    namespace: &str,
    user: Option<&str>,
) -> Result<Vec<&'a Right>, kube::Error> {
    let asks = needed.iter().map(|right| {
        let (resource, part) = right.resource.split_once('/').unwrap_or((right.resource, ""));
        let mut of = json!({"verb": right.verb, "group": right.group, "resource": resource, "subresource": part});
        for (key, value) in [("name", &*right.name), ("namespace", namespace)] {
            if !value.is_empty() && (key == "name" || right.is_local) {
                of[key] = value.into();
            }
        }
        let mut spec = json!({"resourceAttributes": of});
        if let Some(user) = user {
            spec["user"] = user.into();
            spec["groups"] = json!([
                "system:serviceaccounts",
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated",
            ]);
        }
        let (kind, path) = match user {
            None => ("SelfSubjectAccessReview", "selfsubjectaccessreviews"),
            Some(_) => ("SubjectAccessReview", "subjectaccessreviews"),
        };
        let review =
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec});
        async move {
            let path = format!("/apis/authorization.k8s.io/v1/{path}");
            plain::post(client, &path, &review).await
        }
    });
    let mut missing = Vec::new();
    for (right, answer) in needed.iter().zip(join_all(asks).await) {
        if answer?["status"]["allowed"] != true {
            missing.push(right);
        }
    }
    Ok(missing)
}

/// Asks the API server for each right of a server.
pub(super) async fn line(
    client: &Client,
    name: &'static str,
    server: &Server,
    is_staged: bool,
    namespace: &str,
) -> Line {
    let account = match &*server.service_account {
        "" => "default",
        account => account,
    };
    let user = format!("system:serviceaccount:{namespace}:{account}");
    let needed = needed(name, server, is_staged);
    if needed.is_empty() {
        return Line::good(name, "needs none");
    }
    let missing = match missing(client, &needed, namespace, Some(&user)).await {
        Ok(missing) => missing,
        Err(error) => return Line::unread(name, &error),
    };
    if missing.is_empty() {
        return Line::good(
            name,
            format!("{account} has the {} that it needs", counted(needed.len(), "right")),
        );
    }
    let advice = format!("apply the RBAC of the manifests again (they are for {user})");
    Line::bad(name, format!("{account} may not {}", list(&missing)), advice)
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.name.is_empty() {
            write!(f, "/{}", self.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::tools::documents::documents;

    /// The rights that the manifests give to a component, and whether by a Role.
    fn given(component: &str) -> BTreeSet<(String, String, String, String, bool)> {
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
        let components = std::fs::read_dir(manifests.join("components")).unwrap();
        let directories = components.map(|entry| entry.unwrap().path());
        let files = directories.chain([manifests.join("base")]).map(|it| it.join("rbac.yaml"));
        let mut all = BTreeSet::new();
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().map(|it| it.as_str().unwrap().into()).collect()
        };
        for file in files.filter(|file| file.exists()) {
            let roles = documents(&std::fs::read(file).unwrap()).into_iter();
            let label =
                |it: &Value| it["metadata"]["labels"]["app.kubernetes.io/component"] == component;
            for role in roles.filter(label) {
                for rule in role["rules"].as_array().into_iter().flatten() {
                    let mut named = texts(&rule["resourceNames"]);
                    if named.is_empty() {
                        named.push(String::new());
                    }
                    for (group, resource, verb, name) in combined(rule, &texts, &named) {
                        all.insert((verb, group, resource, name, role["kind"] == "Role"));
                    }
                }
            }
        }
        all
    }

    fn combined(
        rule: &Value,
        texts: &dyn Fn(&Value) -> Vec<String>,
        named: &[String],
    ) -> Vec<(String, String, String, String)> {
        let mut all = Vec::new();
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    for name in named {
                        all.push((group.clone(), resource.clone(), verb.clone(), name.clone()));
                    }
                }
            }
        }
        all
    }

    #[test]
    fn the_objects_are_those_of_the_manifests() {
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
        let mut directories = vec![manifests.join("base")];
        for component in ["keeper", "staged", "cert-manager-issuers"] {
            directories.push(manifests.join("components").join(component));
        }
        let mut found = BTreeSet::new();
        let files = directories.iter().flat_map(|it| std::fs::read_dir(it).unwrap());
        for file in files.map(|it| it.unwrap().path()) {
            // A list of changes is no list of objects.
            for it in documents(&std::fs::read(file).unwrap()) {
                let text = |key: &str| it[key].as_str().unwrap_or_default().to_owned();
                if text("apiVersion").starts_with("kustomize") {
                    continue;
                }
                let group = text("apiVersion");
                let group = group.split_once('/').map_or("", |(group, _)| group).to_owned();
                let kind = text("kind").to_lowercase();
                let plural = match kind.strip_suffix('y') {
                    Some(stem) => format!("{stem}ies"),
                    None => format!("{kind}s"),
                };
                found.insert((group, plural, it["metadata"]["namespace"].is_string()));
            }
        }
        let known = OBJECTS
            .map(|(group, resource, is_local)| (group.to_owned(), resource.to_owned(), is_local));
        assert_eq!(found, BTreeSet::from(known));
    }

    #[test]
    fn the_rights_are_those_of_the_manifests() {
        let servers = [
            deployment("webhook", &["--self-managed", "--staged"]),
            deployment("keeper", &["--follow-issuers", "--renew-leaves"]),
        ];
        let installed = Installed::of(&servers);
        for (name, component, server) in [
            ("webhookRights", "webhook", installed.webhook.unwrap()),
            ("keeperRights", "keeper", installed.keeper.unwrap()),
        ] {
            let found = needed(name, &server, true).into_iter().map(|it| {
                (it.verb.into(), it.group.into(), it.resource.into(), it.name, it.is_local)
            });
            assert_eq!(found.collect::<BTreeSet<_>>(), given(component), "{name}");
        }
    }
}
