//! Who reads a Secret: the workloads whose pods mount it, or take variables from it.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams};

use crate::kubernetes::key::Key;
use crate::kubernetes::list::{self, Namespaces, Unread};
use crate::kubernetes::pages;
use crate::kubernetes::pod_secrets::{SecretUse, uses};
use crate::overlap::workload::Workload;
use crate::tools::cluster::ScopedClient;
use crate::tools::progress_line;
use crate::tools::text::printable;

/// Pods that have ended read nothing any more.
const ALIVE: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// The readers of a Secret, and how each reads it.
pub(super) type Readers = BTreeMap<Reader, BTreeSet<SecretUse>>;

/// What a pod belongs to, in the namespace of the Secret. `Display` shows it as kubectl takes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reader {
    pub(super) kind: String,
    /// Empty for the kinds of Kubernetes itself.
    pub(super) group: String,
    pub(super) name: String,
}

impl Reader {
    /// The controller of a pod, or the pod itself.
    fn of(pod: &DynamicObject) -> Self {
        let of_kubernetes = |kind: &str, name: &str| Self {
            kind: kind.to_owned(),
            group: String::new(),
            name: name.to_owned(),
        };
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let mut owners = pod.metadata.owner_references.iter().flatten();
        // A Node owns the pods of its kubelet's own files.
        let owner = owners.find(|owner| owner.controller == Some(true) && owner.kind != "Node");
        let Some(owner) = owner else { return of_kubernetes("Pod", name) };
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        if !["", "apps", "batch"].contains(&group) {
            let (kind, group, name) = (owner.kind.clone(), group.to_owned(), owner.name.clone());
            return Self { kind, group, name };
        }
        // A Deployment names its ReplicaSets by its own name and this hash.
        let labels = pod.metadata.labels.as_ref();
        let hash = labels.and_then(|labels| labels.get("pod-template-hash"));
        let deployment = hash
            .filter(|_| owner.kind == "ReplicaSet")
            .and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
        match deployment {
            Some(deployment) => of_kubernetes("Deployment", deployment),
            None => of_kubernetes(&owner.kind, &owner.name),
        }
    }

    /// As the keeper restarts it; `None` if it does not restart workloads of this kind.
    pub(super) fn workload(&self) -> Option<Workload> {
        Workload::parse(&self.to_string())
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever creates a pod chooses these texts.
        f.write_str(&printable(&self.kind.to_lowercase()))?;
        if !self.group.is_empty() {
            write!(f, ".{}", printable(&self.group))?;
        }
        write!(f, "/{}", printable(&self.name))
    }
}

/// Whether a reader with these uses certainly never sees a new file. Otherwise it cannot be told: a
/// process may read a mounted file once, or again and again.
pub(super) fn never_sees_new_files(uses: &BTreeSet<SecretUse>) -> bool {
    let has = |how| uses.contains(&how);
    has(SecretUse::SubPath)
        || has(SecretUse::Environment)
        || has(SecretUse::InitContainer) && !has(SecretUse::Mount)
}

/// Calls `each` with every reader of a Secret in scope, and returns what could not be read.
pub(super) async fn read(
    cluster: &ScopedClient,
    mut each: impl FnMut(&Key, Reader, SecretUse),
) -> Vec<Unread> {
    let seen = Cell::new(0_usize);
    let kind = ApiResource::erase::<Pod>(&());
    let api = |namespaces: &Namespaces| match namespaces {
        Namespaces::All => Api::<DynamicObject>::all_with(cluster.client.clone(), &kind),
        Namespaces::One(name) => Api::namespaced_with(cluster.client.clone(), name, &kind),
    };
    let note = |pod: DynamicObject| {
        seen.set(seen.get() + 1);
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for (secret, how) in uses(&pod.data["spec"]) {
            if how != SecretUse::Other {
                each(&Key::new(namespace, secret), Reader::of(&pod), how);
            }
        }
    };
    let page = ListParams::default().limit(pages::MOST).fields(ALIVE);
    let reading = list::read_each(&cluster.client, &cluster.scope, &page, api, note);
    progress_line::during(|| format!("reading pods, {} so far", seen.get()), reading).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_belongs_to_its_controller() {
        let owner = |version: &str, kind: &str, name: &str| {
            json!([{"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "1"},
                {"apiVersion": version, "kind": kind, "name": name, "uid": "2", "controller": true}])
        };
        let hash = json!({"pod-template-hash": "6d5f"});
        for (owners, labels, expected, is_restarted) in [
            (owner("apps/v1", "ReplicaSet", "api-6d5f"), hash.clone(), "deployment/api", true),
            (owner("apps/v1", "ReplicaSet", "api-6d5f"), json!({}), "replicaset/api-6d5f", false),
            (owner("apps/v1", "ReplicaSet", "bare"), hash, "replicaset/bare", false),
            (owner("apps/v1", "StatefulSet", "db"), json!({}), "statefulset/db", true),
            (owner("apps/v1", "DaemonSet", "agent"), json!({}), "daemonset/agent", true),
            (owner("batch/v1", "Job", "once"), json!({}), "job/once", false),
            // The keeper does not know this kind, in spite of its name.
            (
                owner("apps.kruise.io/v1", "StatefulSet", "db"),
                json!({}),
                "statefulset.apps.kruise.io/db",
                false,
            ),
            (owner("apps/v1", "Deployment", "x;\u{1b}[2J"), json!({}), "deployment/x;?[2J", false),
            (owner("v1", "Node", "n1"), json!({}), "pod/p", false),
            (json!(null), json!({}), "pod/p", false),
        ] {
            let metadata = json!({"name": "p", "ownerReferences": owners, "labels": labels});
            let pod = json!({"metadata": metadata});
            let reader = Reader::of(&serde_json::from_value(pod).unwrap());
            assert_eq!(reader.to_string(), expected);
            assert_eq!(reader.workload().is_some(), is_restarted, "{expected}");
        }
    }

    #[test]
    fn a_reader_never_sees_a_new_file_if_one_of_its_ways_shows_none() {
        use SecretUse::{Environment, InitContainer, Mount, SubPath};
        for (uses, expected) in [
            (vec![Mount], false),
            (vec![SubPath], true),
            (vec![Environment], true),
            (vec![InitContainer], true),
            // What the init container makes of it cannot be told.
            (vec![Mount, InitContainer], false),
            (vec![Mount, SubPath], true),
            (vec![Mount, Environment], true),
        ] {
            assert_eq!(never_sees_new_files(&uses.iter().copied().collect()), expected, "{uses:?}");
        }
    }
}
