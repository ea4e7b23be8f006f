//! Reads workloads and changes their pod templates. [`crate::overlap::restart`] decides what to
//! change, and when.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::election::Leadership;
use super::secrets::fence;
use crate::kubernetes::call::{CallError, call};
use crate::kubernetes::key::Key;
use crate::kubernetes::pod_secrets::uses;
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
        match call(self.api(key, workload).get_opt(&workload.name)).await {
            Ok(Some(found)) => Ok(Ok(state(&found, workload.kind))),
            Ok(None) | Err(CallError::Gone) => Ok(Err(MISSING)),
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
        let parameters = PatchParams {
            field_manager: Some(names::KEEPER_SERVICE_ACCOUNT.to_owned()),
            ..PatchParams::default()
        };
        fence(&self.leadership)?;
        let api = self.api(key, workload);
        match call(api.patch(&workload.name, &parameters, &Patch::Merge(&patch))).await {
            Ok(_) => Ok(RestartOutcome::Started),
            Err(CallError::Denied(_)) => Ok(RestartOutcome::Denied),
            // The workload is gone, not the Secret.
            Err(CallError::Gone) => Ok(MISSING),
            Err(error) => Err(error),
        }
    }

    /// Read as plain JSON: the code that reads whole pod templates would add 400 kilobytes.
    fn api(&self, key: &Key, workload: &Workload) -> Api<DynamicObject> {
        let resource = match workload.kind {
            WorkloadKind::DaemonSet => ApiResource::erase::<DaemonSet>(&()),
            WorkloadKind::Deployment => ApiResource::erase::<Deployment>(&()),
            WorkloadKind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
        };
        Api::namespaced_with(self.client.clone(), key.namespace(), &resource)
    }
}

pub(super) const MISSING: RestartOutcome = RestartOutcome::NotAllowed("it does not exist");

fn state(it: &DynamicObject, kind: WorkloadKind) -> WorkloadState {
    let spec = &it.data["spec"];
    let template = &spec["template"];
    let mark = |key: &str| template["metadata"]["annotations"][key].as_str();
    let marks = template["metadata"]["annotations"].as_object().into_iter().flatten();
    let marks = marks.filter(|(key, _)| key.starts_with(names::RESTARTED_FOR));
    let marks = marks.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    let consent = it.metadata.annotations.as_ref().and_then(|own| own.get(names::ALLOW_RESTART));
    WorkloadState {
        version: it.metadata.resource_version.clone(),
        restarted_for: marks.collect(),
        restarted_at: mark(names::RESTARTED_AT).and_then(|at| at.parse().ok()),
        is_marked: consent.is_some_and(|value| value == "true"),
        secrets: uses(&template["spec"]).into_iter().map(|(name, _)| name.to_owned()).collect(),
        is_paused: spec["paused"] == true,
        is_complete: is_complete(it, kind),
    }
}

/// Whether the rollout of the present pod template is over, as `kubectl rollout status` judges it.
fn is_complete(it: &DynamicObject, kind: WorkloadKind) -> bool {
    let status = &it.data["status"];
    let number = |key: &str| status[key].as_i64().unwrap_or(0);
    let replicas = it.data["spec"]["replicas"].as_i64().unwrap_or(1);
    let (wanted, updated, available) = if kind == WorkloadKind::DaemonSet {
        (number("desiredNumberScheduled"), "updatedNumberScheduled", "numberAvailable")
    } else {
        (replicas, "updatedReplicas", "availableReplicas")
    };
    let is_old_gone = kind != WorkloadKind::Deployment || number("replicas") <= wanted;
    status.is_object()
        && status["observedGeneration"].as_i64() >= it.metadata.generation
        && number(updated) >= wanted
        && number(available) >= wanted
        && is_old_gone
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::mock::{MockApi, api};
    use super::*;

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
                    call.answer(&json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "a"}}));
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
