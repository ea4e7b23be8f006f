//! Restarts what cannot reload its CA (DESIGN §8.3): workloads that the Secret names, once per
//! change of trust, one after another.
//!
//! How far a restart has come stands on the Secret, so that whoever leads next goes on from there,
//! and an operator that takes our annotation back gets an Event and not a loop.

use std::fmt;
use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::api::{CallError, Key, call};
use super::due::Outlook;
use super::secret_view::SecretView;
use crate::names;
use crate::overlap::certs::Fingerprint;

/// On a pod template, with a word of the group's name behind it: the change of trust that it was
/// restarted for. Two groups that share a workload do not get into each other's way.
pub const RESTARTED_FOR: &str = "ca-overlap.dev/restarted-for";
/// On a workload: it may be restarted though its pods refer to no Secret of the group.
pub const ALLOW_RESTART: &str = "ca-overlap.dev/allow-restart";
/// A rollout that takes longer is left to its owner.
const PATIENCE: Duration = Duration::from_secs(600);
/// The most workloads that one Secret can name.
const MAX_WORKLOADS: usize = 16;

/// A restart that is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What it is for: changes with the generator's CAs, with distrust, and with promotion.
    pub trust: String,
    /// The workloads, in order.
    pub workloads: Vec<Workload>,
    /// How many were restarted, and when the last of them was.
    pub done: Option<(usize, Timestamp)>,
    /// Nothing is to be restarted: what is trusted now is only to be noted.
    pub is_first_sight: bool,
    /// How many words of the annotation do not parse.
    pub unreadable: usize,
    /// The annotation of the pod template.
    mark: String,
}

/// What can be restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    kind: Kind,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    DaemonSet,
    Deployment,
    StatefulSet,
}

impl Workload {
    /// Reads `deployment/x`, `statefulset/x` or `daemonset/x`.
    fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('/')?;
        let kind = match kind {
            "daemonset" => Kind::DaemonSet,
            "deployment" => Kind::Deployment,
            "statefulset" => Kind::StatefulSet,
            _ => return None,
        };
        let is_name = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        let fits = (1..=253).contains(&name.len()) && name.bytes().all(is_name);
        (fits && !name.starts_with('.')).then(|| Self { kind, name: name.to_owned() })
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::DaemonSet => "daemonset",
            Kind::Deployment => "deployment",
            Kind::StatefulSet => "statefulset",
        };
        write!(f, "{kind}/{}", self.name)
    }
}

/// What a Secret wants restarted; none where that was done.
pub fn wanted(secret: &SecretView, outlook: &Outlook) -> Option<Wanted> {
    let text = secret.annotation(names::RESTART)?;
    let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    let all: Vec<Option<Workload>> = items.iter().map(|item| Workload::parse(item)).collect();
    let unreadable = all.iter().filter(|workload| workload.is_none()).count();
    let workloads: Vec<Workload> = all.into_iter().flatten().take(MAX_WORKLOADS).collect();
    if workloads.is_empty() || outlook.certificates.is_empty() {
        return None;
    }
    let trust = trust(outlook);
    let noted = secret.annotation(names::RESTARTED).map(|text| text.split_ascii_whitespace());
    let (known, mut progress) = match noted {
        Some(mut words) => (words.next(), Some(words)),
        None => (None, None),
    };
    let mut next = || progress.as_mut()?.next();
    let done = match (next(), next()) {
        (Some(count), Some(at)) => count.parse().ok().zip(at.parse().ok()),
        _ => None,
    };
    let is_same = known == Some(trust.as_str());
    if is_same && done.is_none() {
        return None;
    }
    let carries = outlook.certificates.iter().any(|known| known.carried.is_some());
    let is_first_sight = known.is_none() && !carries;
    let done = done.filter(|_| is_same);
    let group = secret.annotation(names::GROUP).filter(|name| !name.is_empty());
    let group = group.or(secret.meta().name.as_deref()).unwrap_or_default();
    let mark = format!("{RESTARTED_FOR}.{}", hex(group.as_bytes(), 4));
    Some(Wanted { trust, workloads, done, is_first_sight, unreadable, mark })
}

/// The first bytes of the SHA-256.
fn hex(bytes: &[u8], count: usize) -> String {
    Fingerprint::of(bytes).to_string().chars().take(2 * count).collect()
}

/// What pods that have just started trust, in short: the generator's own CAs, what is distrusted
/// of them, and whether the new leaf still waits. What is carried does not count, because its end
/// needs no restart.
fn trust(outlook: &Outlook) -> String {
    let mut own: Vec<String> = outlook
        .certificates
        .iter()
        .filter(|known| known.carried.is_none())
        .map(|known| known.certificate.fingerprint().to_string())
        .collect();
    own.sort_unstable();
    let mut distrust: Vec<String> =
        outlook.settings.distrust.iter().map(ToString::to_string).collect();
    distrust.sort_unstable();
    let state = if outlook.stage.is_some() { "staged" } else { "" };
    let text = [own.concat(), distrust.concat(), state.to_owned()].join("\n");
    hex(text.as_bytes(), 16)
}

/// What came of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This one's pod template was changed just now.
    Started,
    /// Its rollout is complete.
    Complete,
    /// Something takes its time.
    Waiting,
    /// It must not be restarted, or does not exist; with the reason.
    NotAllowed(&'static str),
    /// Its owner has taken our annotation back.
    Reverted,
    /// Its rollout takes too long.
    Stuck,
}

/// What a workload is like.
struct State {
    /// Our annotation on the pod template.
    restarted_for: Option<String>,
    is_allowed: bool,
    is_paused: bool,
    is_complete: bool,
}

/// Restarts workloads.
#[derive(Clone)]
pub struct Restarter {
    client: Client,
}

impl Restarter {
    /// By this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Changes the pod template of a workload, unless that was done for this change of trust.
    /// `secrets` are the names of the group.
    pub async fn start(
        &self,
        key: &Key,
        wanted: &Wanted,
        workload: &Workload,
        secrets: &[String],
    ) -> Result<Step, CallError> {
        let Wanted { trust, mark, .. } = wanted;
        let Some(state) = self.state(key, workload, mark, secrets).await? else {
            return Ok(Step::NotAllowed("it does not exist"));
        };
        if !state.is_allowed {
            return Ok(Step::NotAllowed(
                "its pods refer to no Secret of the group, and it does not carry \
                 ca-overlap.dev/allow-restart=true",
            ));
        }
        if state.restarted_for.as_ref() == Some(trust) {
            return Ok(Step::Started);
        }
        if state.is_paused {
            return Ok(Step::Waiting);
        }
        let patch = json!({"spec": {"template": {"metadata": {"annotations": {
            mark: trust,
        }}}}});
        match workload.kind {
            Kind::DaemonSet => self.patch::<DaemonSet>(key, workload, &patch).await?,
            Kind::Deployment => self.patch::<Deployment>(key, workload, &patch).await?,
            Kind::StatefulSet => self.patch::<StatefulSet>(key, workload, &patch).await?,
        }
        Ok(Step::Started)
    }

    /// Whether the rollout of a workload that was started at `since` is complete.
    pub async fn follow(
        &self,
        key: &Key,
        wanted: &Wanted,
        workload: &Workload,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Step, CallError> {
        let Some(state) = self.state(key, workload, &wanted.mark, &[]).await? else {
            return Ok(Step::NotAllowed("it does not exist any more"));
        };
        let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        Ok(if state.restarted_for.as_ref() != Some(&wanted.trust) {
            Step::Reverted
        } else if state.is_complete {
            Step::Complete
        } else if age > PATIENCE {
            Step::Stuck
        } else {
            Step::Waiting
        })
    }

    async fn state(
        &self,
        key: &Key,
        workload: &Workload,
        mark: &str,
        secrets: &[String],
    ) -> Result<Option<State>, CallError> {
        Ok(match workload.kind {
            Kind::DaemonSet => {
                let found = self.read::<DaemonSet>(key, workload).await?;
                found.map(|it| daemon_set(&it, mark, secrets))
            }
            Kind::Deployment => {
                let found = self.read::<Deployment>(key, workload).await?;
                found.map(|it| deployment(&it, mark, secrets))
            }
            Kind::StatefulSet => {
                let found = self.read::<StatefulSet>(key, workload).await?;
                found.map(|it| stateful_set(&it, mark, secrets))
            }
        })
    }

    async fn read<K>(&self, key: &Key, workload: &Workload) -> Result<Option<K>, CallError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), key.namespace());
        call(api.get_opt(&workload.name)).await
    }

    async fn patch<K>(
        &self,
        key: &Key,
        workload: &Workload,
        patch: &serde_json::Value,
    ) -> Result<(), CallError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), key.namespace());
        let parameters = PatchParams {
            field_manager: Some(names::KEEPER_SERVICE_ACCOUNT.to_owned()),
            ..PatchParams::default()
        };
        call(api.patch(&workload.name, &parameters, &Patch::Merge(patch))).await.map(drop)
    }
}

fn deployment(it: &Deployment, mark: &str, secrets: &[String]) -> State {
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
        ..of(it, spec.map(|spec| &spec.template), mark, secrets)
    }
}

fn stateful_set(it: &StatefulSet, mark: &str, secrets: &[String]) -> State {
    let spec = it.spec.as_ref();
    let status = it.status.as_ref();
    let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let is_complete = status.is_some_and(|status| {
        status.observed_generation >= it.metadata.generation
            && status.updated_replicas.unwrap_or(0) >= wanted
            && status.available_replicas.unwrap_or(0) >= wanted
    });
    State { is_complete, ..of(it, spec.map(|spec| &spec.template), mark, secrets) }
}

fn daemon_set(it: &DaemonSet, mark: &str, secrets: &[String]) -> State {
    let is_complete = it.status.as_ref().is_some_and(|status| {
        let wanted = status.desired_number_scheduled;
        status.observed_generation >= it.metadata.generation
            && status.updated_number_scheduled.unwrap_or(0) >= wanted
            && status.number_available.unwrap_or(0) >= wanted
    });
    State { is_complete, ..of(it, it.spec.as_ref().map(|spec| &spec.template), mark, secrets) }
}

fn of(
    it: &impl Resource,
    template: Option<&PodTemplateSpec>,
    mark: &str,
    secrets: &[String],
) -> State {
    let annotations =
        template.and_then(|template| template.metadata.as_ref()?.annotations.as_ref());
    let own = it.meta().annotations.as_ref();
    let is_marked = own.and_then(|own| own.get(ALLOW_RESTART)).is_some_and(|value| value == "true");
    let pod = template.and_then(|template| template.spec.as_ref());
    State {
        restarted_for: annotations.and_then(|all| all.get(mark)).cloned(),
        is_allowed: is_marked || pod.is_some_and(|pod| refers_to_any(pod, secrets)),
        is_paused: false,
        is_complete: false,
    }
}

/// Whether pods mount one of these Secrets, or take variables from it.
fn refers_to_any(pod: &PodSpec, secrets: &[String]) -> bool {
    let is_one = |name: Option<&String>| name.is_some_and(|name| secrets.contains(name));
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
    by_volume.chain(by_projection).chain(by_variable).chain(by_all).any(is_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_read_and_what_is_none_is_not() {
        for text in ["deployment/envoy-ratelimit", "statefulset/db.a", "daemonset/x"] {
            assert_eq!(Workload::parse(text).unwrap().to_string(), text);
        }
        for text in
            ["", "x", "pod/x", "deployment/", "deployment/../x", "deployment/a/b", "deployment/A"]
        {
            assert_eq!(Workload::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_way_to_refer_to_a_secret_is_found() {
        let secrets = ["envoy".to_owned()];
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
            assert!(refers_to_any(&pod(spec.clone()), &secrets), "{spec}");
            assert!(!refers_to_any(&pod(spec), &["other".to_owned()]));
        }
        assert!(!refers_to_any(&pod(json!({"containers": []})), &secrets));
    }
}
