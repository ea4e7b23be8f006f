//! Which Secrets the containers of a pod read, and how each gets them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::names;

/// How a pod reads the certificates of a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SecretUse {
    /// As files of a mounted directory, which the kubelet replaces.
    Mount,
    /// As a file that is mounted by itself, which the kubelet never replaces.
    SubPath,
    /// As environment variables, which are set once.
    Environment,
    /// In an init container, which ends before the others start.
    InitContainer,
    /// Not at all: it reads other keys, or mounts nothing of the volume.
    Other,
}

/// The Secrets that a pod mounts or takes environment variables from. Those that only the kubelet
/// uses, to pull images or to mount storage, are not among them: no process of the pod reads them.
pub(crate) fn uses(pod: &Value) -> BTreeSet<(&str, SecretUse)> {
    let mut found = BTreeSet::new();
    for volume in items(&pod["volumes"]) {
        let sources = items(&volume["projected"]["sources"]);
        let sources = sources.map(|source| (&source["secret"], "name"));
        for (source, key) in sources.chain([(&volume["secret"], "secretName")]) {
            let Some(secret) = source[key].as_str() else { continue };
            let mut chosen = items(&source["items"]).peekable();
            let is_read = chosen.peek().is_none() || chosen.any(|item| is_ours(&item["key"]));
            let mut mounts = mounts(pod, &volume["name"]).filter(|_| is_read).peekable();
            if mounts.peek().is_none() {
                found.insert((secret, SecretUse::Other));
            }
            found.extend(mounts.map(|mount| (secret, mount)));
        }
    }
    for (container, is_init) in containers(pod) {
        let ours = if is_init { SecretUse::InitContainer } else { SecretUse::Environment };
        let variables = items(&container["env"]).map(|it| &it["valueFrom"]["secretKeyRef"]);
        let variables =
            variables.map(|it| (it, if is_ours(&it["key"]) { ours } else { SecretUse::Other }));
        let all = items(&container["envFrom"]).map(|it| (&it["secretRef"], ours));
        found
            .extend(variables.chain(all).filter_map(|(it, how)| Some((it["name"].as_str()?, how))));
    }
    found
}

/// How the containers mount a volume.
fn mounts<'a>(pod: &'a Value, volume: &'a Value) -> impl Iterator<Item = SecretUse> {
    containers(pod).flat_map(move |(container, is_init)| {
        let mounts = items(&container["volumeMounts"]).filter(move |it| it["name"] == *volume);
        let is_file = |it: &Value| {
            ["subPath", "subPathExpr"]
                .iter()
                .any(|key| it[*key].as_str().is_some_and(|p| !p.is_empty()))
        };
        mounts.map(move |it| {
            if is_init {
                SecretUse::InitContainer
            } else if is_file(it) {
                SecretUse::SubPath
            } else {
                SecretUse::Mount
            }
        })
    })
}

/// All containers, and whether each ends before the others start. A sidecar does not.
fn containers(pod: &Value) -> impl Iterator<Item = (&Value, bool)> {
    let init = items(&pod["initContainers"]).map(|it| (it, it["restartPolicy"] != "Always"));
    items(&pod["containers"]).map(|it| (it, false)).chain(init)
}

fn is_ours(key: &Value) -> bool {
    [names::CA_CRT, names::TLS_CRT, names::TLS_KEY].iter().any(|ours| key == ours)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// How a pod with these parts reads the Secret `envoy`.
    fn uses_of(parts: &[(&str, Value)]) -> Vec<SecretUse> {
        let mut pod = json!({"containers": []});
        for (key, value) in parts {
            pod[*key] = value.clone();
        }
        let found = uses(&pod);
        assert!(found.iter().all(|(name, _)| *name == "envoy"), "{pod}");
        found.into_iter().map(|(_, how)| how).collect()
    }

    #[test]
    fn each_way_to_read_a_secret_is_told_apart() {
        use SecretUse::{Environment, InitContainer, Mount, Other, SubPath};
        let volume = |source: Value| {
            let mut volume = json!({"name": "v"});
            volume.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
            ("volumes", json!([volume]))
        };
        let secret = || volume(json!({"secret": {"secretName": "envoy", "optional": true}}));
        let projected = volume(
            json!({"projected": {"sources": [{"secret": {"name": "envoy"}}, {"configMap": {"name": "m"}}]}}),
        );
        let keys = |keys: &[&str]| {
            let items: Vec<_> = keys.iter().map(|key| json!({"key": key, "path": "p"})).collect();
            volume(json!({"secret": {"secretName": "envoy", "items": items}}))
        };
        let mount = |mount: Value| json!([{"name": "c", "volumeMounts": [mount, {"name": "w", "subPath": "x"}]}]);
        let plain = || mount(json!({"name": "v", "mountPath": "/tls"}));
        let file = |key: &str| mount(json!({"name": "v", "mountPath": "/ca", key: "ca.crt"}));
        let sidecar = || json!([{"restartPolicy": "Always", "volumeMounts": [{"name": "v"}]}]);
        let variable = |key: &str| {
            let source = json!({"secretKeyRef": {"name": "envoy", "key": key}});
            json!([{"name": "c", "env": [{"name": "E", "valueFrom": source}, {"name": "F", "value": "1"}]}])
        };
        let all = || json!([{"name": "c", "envFrom": [{"secretRef": {"name": "envoy"}}]}]);
        let both = json!([plain()[0], file("subPath")[0]]);
        for (parts, expected) in [
            (vec![secret(), ("containers", plain())], vec![Mount]),
            (vec![projected.clone(), ("containers", plain())], vec![Mount]),
            (vec![secret(), ("containers", file("subPath"))], vec![SubPath]),
            (vec![projected, ("containers", file("subPathExpr"))], vec![SubPath]),
            (vec![secret(), ("containers", both)], vec![Mount, SubPath]),
            (vec![secret(), ("initContainers", plain())], vec![InitContainer]),
            (vec![secret(), ("initContainers", sidecar())], vec![Mount]),
            (vec![secret()], vec![Other]),
            (vec![keys(&["ca.crt"]), ("containers", plain())], vec![Mount]),
            (vec![keys(&["password"]), ("containers", plain())], vec![Other]),
            (vec![("containers", variable("ca.crt"))], vec![Environment]),
            (vec![("containers", variable("password"))], vec![Other]),
            (vec![("initContainers", variable("tls.crt"))], vec![InitContainer]),
            (vec![("containers", all())], vec![Environment]),
            (vec![], vec![]),
        ] {
            assert_eq!(uses_of(&parts), expected, "{parts:?}");
        }
    }

    #[test]
    fn what_the_kubelet_alone_uses_and_other_objects_of_the_name_do_not_count() {
        let csi = json!({"driver": "d", "nodePublishSecretRef": {"name": "envoy"}});
        let volumes = json!([
            {"name": "v", "csi": csi}, {"name": "envoy", "configMap": {"name": "envoy"}},
            {"name": "w", "projected": {"sources": [{"configMap": {"name": "envoy"}}]}},
        ]);
        let env =
            json!([{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "envoy", "key": "k"}}}]);
        let of_map = json!([{"env": env, "envFrom": [{"configMapRef": {"name": "envoy"}}]}]);
        let pull = json!([{"name": "envoy"}]);
        let parts = [("containers", of_map), ("imagePullSecrets", pull), ("volumes", volumes)];
        assert_eq!(uses_of(&parts), []);
    }
}
