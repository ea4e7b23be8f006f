//! Restarts what cannot reload its CA (DESIGN §8.3): workloads that the Secret names, once per
//! change of trust, one after another.
//!
//! How far a restart has come stands on the Secret, so that whoever leads next goes on from there,
//! and an operator that takes our annotation back gets an Event and not a loop.

mod progress;
mod state;
mod workload;

use std::collections::BTreeMap;
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
use self::state::{State, daemon_set, deployment, stateful_set};
use self::workload::Kind;
pub use self::workload::{Workload, list};
use super::api::{CallError, Key, call, fence};
use super::due::Outlook;
use super::lease::Leadership;
use super::secret_view::SecretView;
use crate::names;
use crate::overlap::certs::Fingerprint;

/// On a pod template, with words of the group's and the Secret's name behind it: the change of
/// trust that it was restarted for. Two that share a workload do not get into each other's way.
pub const RESTARTED_FOR: &str = "ca-overlap.dev/restarted-for";
/// On a pod template: when that was.
pub const RESTARTED_AT: &str = "ca-overlap.dev/restarted-at";
/// On a workload: it may be restarted though its pods refer to no Secret of the group.
pub const ALLOW_RESTART: &str = "ca-overlap.dev/allow-restart";
/// A rollout that takes longer is left to its owner; so is one that is paused for longer.
const PATIENCE: Duration = Duration::from_secs(600);
/// No workload is restarted more often, whatever its Secrets do.
pub const INTERVAL: Duration = Duration::from_secs(590);

/// A restart that is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What it is for: changes with the generator's CAs, with distrust, and with promotion.
    pub trust: String,
    /// The trust before, if it is known.
    pub from: Option<String>,
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
    let from = if is_same {
        progress.as_ref().and_then(|progress| progress.from.clone())
    } else {
        known.map(ToOwned::to_owned)
    };
    let was_interrupted = !is_same && Progress::is_noted(noted);
    let is_for_leaf = !was_interrupted
        && outlook.stage.is_none()
        && from.as_ref().is_some_and(|from| *from == self::trust(outlook, true));
    let carries = outlook.certificates.iter().any(|known| known.carried.is_some());
    let is_first_sight = known.is_none() && !carries;
    let name = secret.meta().name.as_deref().unwrap_or_default();
    let group = secret.annotation(names::GROUP).filter(|name| !name.is_empty());
    let of_secret = hex(format!("secret {name}").as_bytes(), 4);
    let of_group = group.map(|group| hex(format!("group {group}").as_bytes(), 4));
    let scope = format!("{RESTARTED_FOR}.{}.", of_group.as_ref().unwrap_or(&of_secret));
    let mark = format!("{scope}{of_secret}");
    Some(Wanted { trust, from, workloads, progress, is_first_sight, is_for_leaf, scope, mark })
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

    /// Whether it was restarted for this change, by this Secret or another one of the group.
    fn is_done(&self, marks: &BTreeMap<String, String>) -> bool {
        self.of_group(marks).any(|(_, trust)| *trust == self.trust)
    }

    /// The change of the pod template. Marks of the trust before are of the group's earlier turn:
    /// were they left, a CA that comes back would count as restarted for.
    fn marks(&self, marks: &BTreeMap<String, String>, now: Timestamp) -> Map<String, Value> {
        let is_over = |trust: &String| self.from.as_ref() == Some(trust);
        let over = self.of_group(marks).filter(|(_, trust)| is_over(trust));
        let mut change: Map<String, Value> =
            over.map(|(key, _)| (key.clone(), Value::Null)).collect();
        change.insert(self.mark.clone(), json!(self.trust));
        change.insert(RESTARTED_AT.to_owned(), json!(format!("{now:.0}")));
        change
    }

    fn of_group<'a>(
        &'a self,
        marks: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = (&'a String, &'a String)> {
        marks.iter().filter(|(key, _)| key.starts_with(&self.scope))
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

    /// Changes the pod template of a workload, unless that was done for this change of trust.
    /// `secrets` are the names of the group, as far as they are known.
    pub async fn start(
        &self,
        key: &Key,
        wanted: &Wanted,
        workload: &Workload,
        secrets: &[String],
        now: Timestamp,
    ) -> Result<Step, CallError> {
        let state = match self.state(key, workload, secrets).await {
            Err(CallError::Denied(_)) => return Ok(Step::Denied),
            other => other?,
        };
        let Some(state) = state else { return Ok(Step::NotAllowed("it does not exist")) };
        if let Some(step) = before(&state, wanted, now) {
            return Ok(step);
        }
        let patch = json!({
            "metadata": {"resourceVersion": state.resource_version},
            "spec": {"template": {"metadata": {
                "annotations": wanted.marks(&state.restarted_for, now),
            }}},
        });
        let done = match workload.kind {
            Kind::DaemonSet => self.patch::<DaemonSet>(key, workload, &patch).await,
            Kind::Deployment => self.patch::<Deployment>(key, workload, &patch).await,
            Kind::StatefulSet => self.patch::<StatefulSet>(key, workload, &patch).await,
        };
        match done {
            Ok(()) => Ok(Step::Started),
            // The others of the list do not wait for what may never be allowed.
            Err(CallError::Denied(_)) => Ok(Step::Denied),
            // Not the Secret: this workload.
            Err(CallError::Gone) => Ok(Step::NotAllowed("it does not exist")),
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
        let state = match self.state(key, workload, &[]).await {
            Err(CallError::Denied(_)) => return Ok(Step::Denied),
            other => other?,
        };
        let Some(state) = state else {
            return Ok(Step::NotAllowed("it does not exist any more"));
        };
        Ok(if !wanted.is_done(&state.restarted_for) {
            Step::Reverted
        } else if state.is_complete {
            Step::Complete
        } else if is_too_long(since, now) {
            Step::Stuck
        } else {
            Step::Waiting
        })
    }

    async fn state(
        &self,
        key: &Key,
        workload: &Workload,
        secrets: &[String],
    ) -> Result<Option<State>, CallError> {
        Ok(match workload.kind {
            Kind::DaemonSet => {
                let found = self.read::<DaemonSet>(key, workload).await?;
                found.map(|it| daemon_set(&it, secrets))
            }
            Kind::Deployment => {
                let found = self.read::<Deployment>(key, workload).await?;
                found.map(|it| deployment(&it, secrets))
            }
            Kind::StatefulSet => {
                let found = self.read::<StatefulSet>(key, workload).await?;
                found.map(|it| stateful_set(&it, secrets))
            }
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

/// Why a workload is not to be changed now, if so.
fn before(state: &State, wanted: &Wanted, now: Timestamp) -> Option<Step> {
    if !state.is_allowed {
        return Some(Step::Stranger);
    }
    if wanted.is_done(&state.restarted_for) {
        return Some(Step::Started);
    }
    let interval = SignedDuration::try_from(INTERVAL).unwrap_or_default();
    let is_recent = state.restarted_at.is_some_and(|at| {
        let age = now.duration_since(at);
        !age.is_negative() && age < interval
    });
    (state.is_paused || is_recent).then_some(Step::Waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(trust: &str, from: Option<&str>, secret: &str) -> Wanted {
        let scope = format!("{RESTARTED_FOR}.group.");
        Wanted {
            trust: trust.to_owned(),
            from: from.map(ToOwned::to_owned),
            workloads: list("deployment/a,deployment/b").0,
            progress: None,
            is_first_sight: false,
            is_for_leaf: false,
            mark: format!("{scope}{secret}"),
            scope,
        }
    }

    fn now() -> Timestamp {
        "2026-03-01T10:00:00Z".parse().unwrap()
    }

    fn apply(marks: &mut BTreeMap<String, String>, wanted: &Wanted) -> bool {
        if wanted.is_done(marks) {
            return false;
        }
        for (key, value) in wanted.marks(marks, now()) {
            match value {
                Value::String(value) => drop(marks.insert(key, value)),
                _ => drop(marks.remove(&key)),
            }
        }
        true
    }

    #[test]
    fn two_of_a_group_restart_once_for_what_they_share_and_again_when_it_comes_back() {
        let mut marks = BTreeMap::new();
        assert!(apply(&mut marks, &wanted("T1", None, "a")));
        assert!(!apply(&mut marks, &wanted("T1", None, "b")), "the same trust");
        assert!(apply(&mut marks, &wanted("T2", Some("T1"), "b")));
        assert!(!apply(&mut marks, &wanted("T2", Some("T1"), "a")));
        // The CA before comes back: what is left of its first turn does not count.
        assert!(apply(&mut marks, &wanted("T1", Some("T2"), "a")));
        assert!(!apply(&mut marks, &wanted("T1", Some("T2"), "b")));
        // Two that differ leave each other's marks alone.
        assert!(apply(&mut marks, &wanted("X", None, "b")));
        assert!(wanted("T1", None, "a").is_done(&marks) && wanted("X", None, "b").is_done(&marks));
    }

    #[test]
    fn a_workload_has_its_rest_whoever_flips_its_ca() {
        let mut state = State {
            resource_version: None,
            restarted_for: BTreeMap::new(),
            restarted_at: Some(now() - SignedDuration::from_secs(589)),
            is_allowed: true,
            is_paused: false,
            is_complete: true,
        };
        let other = wanted("T2", Some("T1"), "a");
        assert_eq!(before(&state, &other, now()), Some(Step::Waiting));
        state.restarted_at = Some(now() - SignedDuration::from_secs(590));
        assert_eq!(before(&state, &other, now()), None);
        state.restarted_at = Some(now() + SignedDuration::from_secs(86_400));
        assert_eq!(before(&state, &other, now()), None, "a clock that was put back");
        state.is_paused = true;
        assert_eq!(before(&state, &other, now()), Some(Step::Waiting));
        state.is_allowed = false;
        assert_eq!(before(&state, &other, now()), Some(Step::Stranger));
    }

    #[test]
    fn a_list_that_was_edited_goes_on_behind_the_same_workload() {
        let mut it = wanted("T", None, "a");
        let progress = Progress {
            workload: "deployment/b".to_owned(),
            since: now(),
            is_waiting: false,
            from: None,
        };
        it.progress = Some(progress);
        it.workloads = list("statefulset/new,deployment/b,deployment/a").0;
        assert_eq!(it.position().map(|(index, _)| index), Some(1));
        it.workloads = list("deployment/a").0;
        assert_eq!(it.position(), None);
    }
}
