//! Restarts what cannot reload its CA (DESIGN §8.3): workloads that the Secret names, once per
//! change of trust, one after another.
//!
//! How far a restart has come stands on the Secret, so that whoever leads next goes on from there,
//! and an operator that takes our annotation back gets an Event and not a loop.

mod progress;
mod state;

use std::fmt::Debug;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

pub use self::progress::Progress;
pub use self::state::State;
use self::state::{daemon_set, deployment, stateful_set};
use super::api::fence;
use super::lease::Leadership;
use crate::kubernetes::call::{CallError, call};
use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::outlook::{self, Due, Outlook, Rules};
pub use crate::overlap::workload::{Kind, Workload, list};
use crate::x509::certs::Fingerprint;

/// On a pod template, with words of the group's and the Secret's name behind it: what its pods have
/// found in this Secret when they started.
pub const RESTARTED_FOR: &str = "ca-overlap.dev/restarted-for";
/// On a pod template: when that was.
pub const RESTARTED_AT: &str = "ca-overlap.dev/restarted-at";
/// On a workload: it may be restarted though its pods refer to no Secret of the group.
pub const ALLOW_RESTART: &str = "ca-overlap.dev/allow-restart";
/// A rollout that takes longer is left to its owner; so is one that is paused for longer.
const PATIENCE: Duration = Duration::from_secs(600);
/// No workload is restarted more often, whatever its Secrets do.
pub const INTERVAL: Duration = Duration::from_secs(590);
/// Secrets that rotate together are written one after another: the last one is waited for until it
/// is as old as this,
const PAUSE: Duration = Duration::from_secs(5);
/// but not for longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A restart that is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What it is for: changes with the generator's CAs, with distrust, and with promotion.
    pub trust: String,
    /// The workloads, in order.
    pub workloads: Vec<Workload>,
    /// How far it has come.
    pub progress: Option<Progress>,
    /// Nothing is to be restarted: what is trusted now is only to be noted.
    pub is_first_sight: bool,
    /// The pods trust these CAs already, since they were restarted while the leaf waited: only the
    /// leaf is new to them.
    pub is_for_leaf: bool,
    /// The beginning of the annotations of the pod template, of the whole group,
    scope: String,
    /// and the one of this Secret.
    mark: String,
}

/// What a Secret wants restarted; none where that was done.
pub fn wanted(secret: &SecretView, outlook: &Outlook) -> Option<Wanted> {
    let (workloads, _) = list(secret.annotation(names::RESTART)?);
    if workloads.is_empty() || outlook.certificates.is_empty() {
        return None;
    }
    let trust = trust(outlook, outlook.stage.is_some());
    let noted = secret.annotation(names::RESTARTED).unwrap_or_default();
    let known = noted.split_ascii_whitespace().next();
    let is_same = known == Some(trust.as_str());
    if is_same && !Progress::is_noted(noted) {
        return None;
    }
    let progress = Progress::parse(noted).filter(|_| is_same);
    let is_for_leaf = match &progress {
        Some(progress) => progress.is_for_leaf,
        None => outlook.stage.is_none() && noted == self::trust(outlook, true),
    };
    let carries = outlook.certificates.iter().any(|known| known.carried.is_some());
    let is_first_sight = known.is_none() && !carries;
    let (scope, mark) = (scope(secret), mark(secret));
    Some(Wanted { trust, workloads, progress, is_first_sight, is_for_leaf, scope, mark })
}

/// The beginning of the annotations of a pod template, for all of a Secret's group.
fn scope(secret: &SecretView) -> String {
    let group = secret.annotation(names::GROUP).filter(|name| !name.is_empty());
    let of_group = group.map(|group| hex(format!("group {group}").as_bytes(), 4));
    format!("{RESTARTED_FOR}.{}.", of_group.unwrap_or_else(|| of_secret(secret)))
}

/// The annotation of a pod template, for this Secret.
fn mark(secret: &SecretView) -> String {
    scope(secret) + &of_secret(secret)
}

fn of_secret(secret: &SecretView) -> String {
    let name = secret.meta().name.as_deref().unwrap_or_default();
    hex(format!("secret {name}").as_bytes(), 4)
}

/// Whether Secrets of a group are being written right now, or are about to be: pods that started
/// between the first and the last of them would have to start again. `waits` is since when that is
/// waited for, if it is.
pub fn is_on_its_way(
    group: &[SecretView],
    rules: &Rules,
    waits: Option<Timestamp>,
    now: Timestamp,
) -> bool {
    if group.len() < 2 || waits.is_some_and(|since| age(since, now) >= LONGEST_PAUSE) {
        return false;
    }
    group.iter().any(|member| {
        let is_young = member.written().is_some_and(|at| age(at, now) < PAUSE);
        is_young
            || matches!(outlook::outlook(&member.view(), rules, now).due, Some(Due::Promote(_)))
    })
}

impl Wanted {
    /// Where to go on: the index of the workload, and since when it is waited for if it is.
    pub fn position(&self) -> Option<(usize, &Progress)> {
        // A list that was edited meanwhile: what is not in it any more is not looked for, and what
        // was restarted already is found to be.
        let progress = self.progress.as_ref()?;
        let is_last = |workload: &Workload| workload.to_string() == progress.workload;
        Some((self.workloads.iter().position(is_last)?, progress))
    }

    /// Why a workload is not to be changed now, if so.
    pub fn before(&self, state: &State, now: Timestamp) -> Option<Step> {
        if self.is_done(state) {
            return Some(Step::Started);
        }
        let interval = SignedDuration::try_from(INTERVAL).unwrap_or_default();
        let is_recent = state.restarted_at.is_some_and(|at| {
            let age = now.duration_since(at);
            !age.is_negative() && age < interval
        });
        (state.is_paused || is_recent).then_some(Step::Waiting)
    }

    /// The change of the pod template: what its pods are going to find in this Secret, and in the
    /// others of `group` that want this workload restarted. Those then need no restart of their own.
    /// What is said of Secrets that have left the group goes.
    pub fn marks(
        &self,
        workload: &Workload,
        group: &[SecretView],
        rules: &Rules,
        state: &State,
        now: Timestamp,
    ) -> Map<String, Value> {
        let members: Vec<String> = group.iter().map(mark).chain([self.mark.clone()]).collect();
        let of_group = state.restarted_for.keys().filter(|key| key.starts_with(&self.scope));
        let left = of_group.filter(|key| !members.contains(key));
        let mut change: Map<String, Value> = left.map(|key| (key.clone(), Value::Null)).collect();
        for member in group {
            let (listed, _) = list(member.annotation(names::RESTART).unwrap_or_default());
            if listed.contains(workload) {
                let outlook = outlook::outlook(&member.view(), rules, now);
                let trust = trust(&outlook, outlook.stage.is_some());
                change.insert(mark(member), json!(trust));
            }
        }
        // Its own is what is being acted on, even if it has been written since.
        change.insert(self.mark.clone(), json!(self.trust));
        change.insert(RESTARTED_AT.to_owned(), json!(format!("{now:.0}")));
        change
    }

    /// Whether its pods have found this trust when they started.
    fn is_done(&self, state: &State) -> bool {
        state.restarted_for.get(&self.mark) == Some(&self.trust)
    }
}

/// The first bytes of the SHA-256.
fn hex(bytes: &[u8], count: usize) -> String {
    Fingerprint::of(bytes).to_string().chars().take(2 * count).collect()
}

/// What pods that have just started trust, in short: the generator's own CAs, what is distrusted,
/// and whether the new leaf still waits. What is carried does not count, because its end needs no
/// restart; nor does how often, or in which order, something stands there.
fn trust(outlook: &Outlook, is_staged: bool) -> String {
    let sorted = |mut all: Vec<String>| {
        all.sort_unstable();
        all.dedup();
        all.concat()
    };
    let own = outlook.certificates.iter().filter(|known| known.carried.is_none());
    let own = sorted(own.map(|known| known.certificate.fingerprint().to_string()).collect());
    let distrust = sorted(outlook.settings.distrust.iter().map(ToString::to_string).collect());
    let state = if is_staged { "staged" } else { "" };
    hex([own, distrust, state.to_owned()].join("\n").as_bytes(), 16)
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
    /// Its pods refer to none of the Secrets, as far as those are known.
    Stranger,
    /// The API server does not allow it, or an admission policy does not.
    Denied,
    /// Its owner has taken our annotation back.
    Reverted,
    /// Its rollout takes too long.
    Stuck,
    /// It is paused for too long.
    Paused,
}

/// How long ago, by clocks that may step.
pub fn age(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// Whether something has been waited for too long.
pub fn is_too_long(since: Timestamp, now: Timestamp) -> bool {
    age(since, now) > PATIENCE
}

/// Restarts workloads.
#[derive(Clone)]
pub struct Restarter {
    client: Client,
    leadership: Leadership,
}

impl Restarter {
    /// By this client. Nothing is written without leadership.
    pub fn new(client: Client, leadership: Leadership) -> Self {
        Self { client, leadership }
    }

    /// What a workload is like, or why it cannot be restarted.
    pub async fn find(
        &self,
        key: &Key,
        workload: &Workload,
    ) -> Result<Result<State, Step>, CallError> {
        match self.state(key, workload).await {
            Ok(state) => Ok(state.ok_or(MISSING)),
            // The others of the list do not wait for what may never be allowed.
            Err(CallError::Denied(_)) => Ok(Err(Step::Denied)),
            Err(error) => Err(error),
        }
    }

    /// Changes the pod template of a workload, as it was read, by `marks`.
    pub async fn start(
        &self,
        key: &Key,
        workload: &Workload,
        state: &State,
        marks: Map<String, Value>,
    ) -> Result<Step, CallError> {
        let patch = json!({
            "metadata": {"resourceVersion": state.resource_version},
            "spec": {"template": {"metadata": {"annotations": marks}}},
        });
        let done = match workload.kind {
            Kind::DaemonSet => self.patch::<DaemonSet>(key, workload, &patch).await,
            Kind::Deployment => self.patch::<Deployment>(key, workload, &patch).await,
            Kind::StatefulSet => self.patch::<StatefulSet>(key, workload, &patch).await,
        };
        match done {
            Ok(()) => Ok(Step::Started),
            Err(CallError::Denied(_)) => Ok(Step::Denied),
            // Not the Secret: this workload.
            Err(CallError::Gone) => Ok(MISSING),
            Err(error) => Err(error),
        }
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
        let state = match self.find(key, workload).await? {
            Ok(state) => state,
            Err(step) => return Ok(step),
        };
        Ok(if !wanted.is_done(&state) {
            Step::Reverted
        } else if state.is_complete {
            Step::Complete
        } else if is_too_long(since, now) {
            Step::Stuck
        } else {
            Step::Waiting
        })
    }

    async fn state(&self, key: &Key, workload: &Workload) -> Result<Option<State>, CallError> {
        Ok(match workload.kind {
            Kind::DaemonSet => self.read(key, workload).await?.as_ref().map(daemon_set),
            Kind::Deployment => self.read(key, workload).await?.as_ref().map(deployment),
            Kind::StatefulSet => self.read(key, workload).await?.as_ref().map(stateful_set),
        })
    }

    async fn read<K>(&self, key: &Key, workload: &Workload) -> Result<Option<K>, CallError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), key.namespace());
        match call(api.get_opt(&workload.name)).await {
            Err(CallError::Gone) => Ok(None),
            other => other,
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

const MISSING: Step = Step::NotAllowed("it does not exist");

#[cfg(test)]
mod tests;
