//! What a workload is like.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use kube::Resource;

use super::{ALLOW_RESTART, RESTARTED_AT, RESTARTED_FOR};

/// What a workload is like.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(super) resource_version: Option<String>,
    /// Our annotations on the pod template: what for it was restarted.
    pub(super) restarted_for: BTreeMap<String, String>,
    /// When it was restarted last.
    pub(super) restarted_at: Option<Timestamp>,
    /// It carries [`ALLOW_RESTART`].
    pub(super) is_marked: bool,
    /// The Secrets that its pods refer to.
    pub(super) secrets: BTreeSet<String>,
    pub(super) is_paused: bool,
    pub(super) is_complete: bool,
}

impl State {
    /// Whether a Secret of this name is reason enough.
    pub fn may_restart_for(&self, secret: &str) -> bool {
        self.is_marked || self.secrets.contains(secret)
    }
}

pub(super) fn deployment(it: &Deployment) -> State {
    let spec = it.spec.as_ref();
    let status = it.status.as_ref();
    let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let is_complete = status.is_some_and(|status| {
        status.observed_generation >= it.metadata.generation
            && status.updated_replicas.unwrap_or(0) >= wanted
            && status.replicas.unwrap_or(0) <= wanted
            && status.available_replicas.unwrap_or(0) >= wanted
    });
    State {
        is_paused: spec.and_then(|spec| spec.paused) == Some(true),
        is_complete,
        ..of(it, spec.map(|spec| &spec.template))
    }
}

pub(super) fn stateful_set(it: &StatefulSet) -> State {
    let spec = it.spec.as_ref();
    let status = it.status.as_ref();
    let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let is_complete = status.is_some_and(|status| {
        status.observed_generation >= it.metadata.generation
            && status.updated_replicas.unwrap_or(0) >= wanted
            && status.available_replicas.unwrap_or(0) >= wanted
    });
    State { is_complete, ..of(it, spec.map(|spec| &spec.template)) }
}

pub(super) fn daemon_set(it: &DaemonSet) -> State {
    let is_complete = it.status.as_ref().is_some_and(|status| {
        let wanted = status.desired_number_scheduled;
        status.observed_generation >= it.metadata.generation
            && status.updated_number_scheduled.unwrap_or(0) >= wanted
            && status.number_available.unwrap_or(0) >= wanted
    });
    State { is_complete, ..of(it, it.spec.as_ref().map(|spec| &spec.template)) }
}

fn of(it: &impl Resource, template: Option<&PodTemplateSpec>) -> State {
    let annotations =
        template.and_then(|template| template.metadata.as_ref()?.annotations.as_ref());
    let own = it.meta().annotations.as_ref();
    let is_marked = own.and_then(|own| own.get(ALLOW_RESTART)).is_some_and(|value| value == "true");
    let pod = template.and_then(|template| template.spec.as_ref());
    let marks = annotations.into_iter().flatten().filter(|(key, _)| key.starts_with(RESTARTED_FOR));
    State {
        resource_version: it.meta().resource_version.clone(),
        restarted_for: marks.map(|(key, value)| (key.clone(), value.clone())).collect(),
        restarted_at: annotations.and_then(|all| all.get(RESTARTED_AT)?.parse().ok()),
        is_marked,
        secrets: pod.map(secrets).unwrap_or_default(),
        is_paused: false,
        is_complete: false,
    }
}

/// The Secrets that pods mount, or take variables from.
fn secrets(pod: &PodSpec) -> BTreeSet<String> {
    let volumes = pod.volumes.iter().flatten();
    let by_volume =
        volumes.clone().filter_map(|v| v.secret.as_ref()).map(|s| s.secret_name.as_ref());
    let projected =
        volumes.filter_map(|v| v.projected.as_ref()).flat_map(|p| p.sources.iter().flatten());
    let by_projection = projected.filter_map(|s| s.secret.as_ref()).map(|s| Some(&s.name));
    let init = pod.init_containers.iter().flatten();
    let containers: Vec<_> = pod.containers.iter().chain(init).collect();
    let variables = containers.iter().flat_map(|c| c.env.iter().flatten());
    let by_variable = variables
        .filter_map(|v| v.value_from.as_ref()?.secret_key_ref.as_ref())
        .map(|s| Some(&s.name));
    let all = containers.iter().flat_map(|c| c.env_from.iter().flatten());
    let by_all = all.filter_map(|v| v.secret_ref.as_ref()).map(|s| Some(&s.name));
    let found = by_volume.chain(by_projection).chain(by_variable).chain(by_all);
    found.flatten().cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_refer_to_a_secret_is_found() {
        let pod = |spec: serde_json::Value| serde_json::from_value::<PodSpec>(spec).unwrap();
        let container = |more: serde_json::Value| {
            let mut container = json!({"name": "c"});
            container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            container
        };
        let env = json!([{"name": "E", "valueFrom": {"secretKeyRef": {"name": "envoy", "key": "ca.crt"}}}]);
        let env = container(json!({"env": env}));
        let all = container(json!({"envFrom": [{"secretRef": {"name": "envoy"}}]}));
        let mounted = json!([{"name": "v", "secret": {"secretName": "envoy"}}]);
        let projected =
            json!([{"name": "v", "projected": {"sources": [{"secret": {"name": "envoy"}}]}}]);
        for spec in [
            json!({"containers": [], "volumes": mounted}),
            json!({"containers": [], "volumes": projected}),
            json!({"containers": [env]}),
            json!({"containers": [], "initContainers": [all]}),
        ] {
            let found: Vec<String> = secrets(&pod(spec.clone())).into_iter().collect();
            assert_eq!(found, ["envoy"], "{spec}");
        }
        assert!(secrets(&pod(json!({"containers": []}))).is_empty());
    }
}
