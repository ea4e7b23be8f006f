//! Reads workloads and changes their pod templates. [`crate::overlap::restart`] decides what to
//! change, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::election::Leadership;
use super::secrets::fence;
use crate::kubernetes::call::{CallError, call};
use crate::kubernetes::key::Key;
use crate::names;
use crate::overlap::restart::{RestartOutcome, WorkloadState};
use crate::overlap::workload::{Workload, WorkloadKind};

/// Restarts workloads.
#[derive(Clone)]
pub struct Restarter {
    client: Client,
    leadership: Leadership,
}

impl Restarter {
    /// Creates a restarter. It writes only while `leadership` lets this replica act.
    pub fn new(client: Client, leadership: Leadership) -> Self {
        Self { client, leadership }
    }

    /// Reads the state of a workload; the inner error says why it cannot be restarted.
    pub(crate) async fn find(
        &self,
        key: &Key,
        workload: &Workload,
    ) -> Result<Result<WorkloadState, RestartOutcome>, CallError> {
        let found = match workload.kind {
            WorkloadKind::DaemonSet => self.read(key, workload, daemon_set).await,
            WorkloadKind::Deployment => self.read(key, workload, deployment).await,
            WorkloadKind::StatefulSet => self.read(key, workload, stateful_set).await,
        };
        match found {
            Ok(state) => Ok(state.ok_or(MISSING)),
            // The call may never be allowed, so the other workloads do not wait for this one.
            Err(CallError::Denied(_)) => Ok(Err(RestartOutcome::Denied)),
            Err(error) => Err(error),
        }
    }

    /// Changes annotations of a workload's pod template; `None` removes one. Fails if the workload
    /// no longer has the `version` that was read.
    pub(crate) async fn change(
        &self,
        key: &Key,
        workload: &Workload,
        version: Option<&str>,
        annotations: &BTreeMap<String, Option<String>>,
    ) -> Result<RestartOutcome, CallError> {
        let patch = json!({
            "metadata": {"resourceVersion": version},
            "spec": {"template": {"metadata": {"annotations": annotations}}},
        });
        let done = match workload.kind {
            WorkloadKind::DaemonSet => self.patch::<DaemonSet>(key, workload, &patch).await,
            WorkloadKind::Deployment => self.patch::<Deployment>(key, workload, &patch).await,
            WorkloadKind::StatefulSet => self.patch::<StatefulSet>(key, workload, &patch).await,
        };
        match done {
            Ok(()) => Ok(RestartOutcome::Started),
            Err(CallError::Denied(_)) => Ok(RestartOutcome::Denied),
            // The workload is gone, not the Secret.
            Err(CallError::Gone) => Ok(MISSING),
            Err(error) => Err(error),
        }
    }

    async fn read<K>(
        &self,
        key: &Key,
        workload: &Workload,
        state: fn(&K) -> WorkloadState,
    ) -> Result<Option<WorkloadState>, CallError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), key.namespace());
        match call(api.get_opt(&workload.name)).await {
            Err(CallError::Gone) => Ok(None),
            other => other.map(|found| found.as_ref().map(state)),
        }
    }

    async fn patch<K>(&self, key: &Key, workload: &Workload, patch: &Value) -> Result<(), CallError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), key.namespace());
        let parameters = PatchParams {
            field_manager: Some(names::KEEPER_SERVICE_ACCOUNT.to_owned()),
            ..PatchParams::default()
        };
        fence(&self.leadership)?;
        call(api.patch(&workload.name, &parameters, &Patch::Merge(patch))).await.map(drop)
    }
}

pub(super) const MISSING: RestartOutcome = RestartOutcome::NotAllowed("it does not exist");

fn deployment(it: &Deployment) -> WorkloadState {
    let spec = it.spec.as_ref();
    let status = it.status.as_ref();
    let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let is_complete = status.is_some_and(|status| {
        status.observed_generation >= it.metadata.generation
            && status.updated_replicas.unwrap_or(0) >= wanted
            && status.replicas.unwrap_or(0) <= wanted
            && status.available_replicas.unwrap_or(0) >= wanted
    });
    WorkloadState {
        is_paused: spec.and_then(|spec| spec.paused) == Some(true),
        is_complete,
        ..state(it, spec.map(|spec| &spec.template))
    }
}

fn stateful_set(it: &StatefulSet) -> WorkloadState {
    let spec = it.spec.as_ref();
    let status = it.status.as_ref();
    let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let is_complete = status.is_some_and(|status| {
        status.observed_generation >= it.metadata.generation
            && status.updated_replicas.unwrap_or(0) >= wanted
            && status.available_replicas.unwrap_or(0) >= wanted
    });
    WorkloadState { is_complete, ..state(it, spec.map(|spec| &spec.template)) }
}

fn daemon_set(it: &DaemonSet) -> WorkloadState {
    let is_complete = it.status.as_ref().is_some_and(|status| {
        let wanted = status.desired_number_scheduled;
        status.observed_generation >= it.metadata.generation
            && status.updated_number_scheduled.unwrap_or(0) >= wanted
            && status.number_available.unwrap_or(0) >= wanted
    });
    WorkloadState { is_complete, ..state(it, it.spec.as_ref().map(|spec| &spec.template)) }
}

fn state(it: &impl Resource, template: Option<&PodTemplateSpec>) -> WorkloadState {
    let annotations =
        template.and_then(|template| template.metadata.as_ref()?.annotations.as_ref());
    let own = it.meta().annotations.as_ref();
    let is_marked =
        own.and_then(|own| own.get(names::ALLOW_RESTART)).is_some_and(|value| value == "true");
    let pod = template.and_then(|template| template.spec.as_ref());
    let marks =
        annotations.into_iter().flatten().filter(|(key, _)| key.starts_with(names::RESTARTED_FOR));
    WorkloadState {
        version: it.meta().resource_version.clone(),
        restarted_for: marks.map(|(key, value)| (key.clone(), value.clone())).collect(),
        restarted_at: annotations.and_then(|all| all.get(names::RESTARTED_AT)?.parse().ok()),
        is_marked,
        secrets: pod.map(secrets).unwrap_or_default(),
        is_paused: false,
        is_complete: false,
    }
}

/// The Secrets that a pod mounts or takes environment variables from. Those that only the kubelet
/// uses, to pull images or to mount storage, are not among them: no process of the pod reads them.
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
    use http::Method;

    use super::super::mock::{MockApi, api};
    use super::*;

    #[test]
    fn every_kind_of_reference_to_a_secret_is_found() {
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
        // What the kubelet alone uses, and other objects of the same name.
        let pull = json!([{"name": "envoy"}]);
        let csi = json!({"driver": "d", "nodePublishSecretRef": {"name": "envoy"}});
        let others = json!([
            {"name": "v", "csi": csi}, {"name": "envoy", "configMap": {"name": "envoy"}},
            {"name": "w", "projected": {"sources": [{"configMap": {"name": "envoy"}}]}},
        ]);
        let of_map =
            json!([{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "envoy", "key": "k"}}}]);
        let of_map = container(json!({
            "env": of_map, "envFrom": [{"configMapRef": {"name": "envoy"}}],
        }));
        for spec in [
            json!({"containers": []}),
            json!({"containers": [of_map], "imagePullSecrets": pull, "volumes": others}),
        ] {
            assert!(secrets(&pod(spec.clone())).is_empty(), "{spec}");
        }
    }

    const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/n/deployments/a";

    /// A restarter, and the mock API server that it calls.
    fn restarter() -> (Restarter, MockApi) {
        let (client, api) = api();
        let (_, leadership) = Leadership::switched(true);
        (Restarter::new(client, leadership), api)
    }

    #[tokio::test]
    async fn a_change_names_the_version_that_was_read_and_each_answer_becomes_a_step() {
        let workload = Workload::parse("deployment/a").unwrap();
        let key = Key::new("n", "s");
        for (status, reason, expected) in [
            (200, "", Ok(RestartOutcome::Started)),
            // Another writer changed it in between: it is read again.
            (409, "Conflict", Err(CallError::Conflict)),
            // The workload is gone, not the Secret.
            (404, "NotFound", Ok(MISSING)),
            (403, "Forbidden", Ok(RestartOutcome::Denied)),
        ] {
            let (restarter, mut api) = restarter();
            let marks =
                BTreeMap::from([("a".to_owned(), Some("b".to_owned())), ("c".to_owned(), None)]);
            let server = async {
                let call = api.expect(&Method::PATCH, DEPLOYMENT).await;
                assert_eq!(call.body["metadata"]["resourceVersion"], "41");
                assert_eq!(
                    call.body["spec"]["template"]["metadata"]["annotations"],
                    json!({"a": "b", "c": null})
                );
                if status == 200 {
                    call.answer(&json!({"metadata": {"name": "a"}}));
                } else {
                    call.refuse(status, reason);
                }
            };
            let (step, ()) =
                tokio::join!(restarter.change(&key, &workload, Some("41"), &marks), server);
            assert_eq!(step, expected, "{status}");
        }
    }
}
