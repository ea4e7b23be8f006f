//! The rights that the manifests give to the two `ServiceAccount`s, and whether they have them.

use futures::future::join_all;
use kube::Client;
use serde_json::{Value, json};

use super::report::Line;
use crate::names;
use crate::tools::installed::Server;
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
    let asks = needed.iter().map(|right| {
        let (resource, part) = right.resource.split_once('/').unwrap_or((right.resource, ""));
        let mut of = json!({"verb": right.verb, "group": right.group, "resource": resource, "subresource": part});
        for (key, value) in [("name", &*right.name), ("namespace", namespace)] {
            if !value.is_empty() && (key == "name" || right.is_local) {
                of[key] = value.into();
            }
        }
        let groups = [
            "system:serviceaccounts",
            &format!("system:serviceaccounts:{namespace}"),
            "system:authenticated",
        ];
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": groups, "resourceAttributes": of},
        });
        async move {
            let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            plain::post(client, path, &review).await
        }
    });
    if needed.is_empty() {
        return Line::good(name, "needs none");
    }
    let mut missing = Vec::new();
    for (right, answer) in needed.iter().zip(join_all(asks).await) {
        match answer {
            Err(error) => return Line::unread(name, &error),
            Ok(answer) if is_allowed(&answer) => {}
            Ok(_) => missing.push(right.to_string()),
        }
    }
    if missing.is_empty() {
        return Line::good(
            name,
            format!("{account} has the {} that it needs", counted(needed.len(), "right")),
        );
    }
    let advice = format!("apply the RBAC of the manifests again (they are for {user})");
    Line::bad(name, format!("{account} may not {}", missing.join(", ")), advice)
}

fn is_allowed(review: &Value) -> bool {
    review["status"]["allowed"] == true
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
    use crate::tools::installed::Installed;

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
    fn the_rights_are_those_of_the_manifests() {
        let deployment = |component: &str, args: &[&str]| {
            json!({
                "metadata": {"labels": {"app.kubernetes.io/component": component}},
                "spec": {"template": {"spec": {"containers": [{"args": args}]}}},
            })
        };
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
