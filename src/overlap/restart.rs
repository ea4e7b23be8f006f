//! Decides when to restart the workloads that cannot reload their CA (docs/design.md, "The
//! keeper"). The Secret names them. They restart once per change of trust. Each waits for the
//! rollout of the one before it, for at most ten minutes.
//!
//! This module is pure: `RestartPass` returns the next call, and `keeper/reconcile/rollout.rs`
//! makes it. The progress is stored on the Secret, so the next leader continues from there. If an
//! operator reverts our annotation, an Event reports it, and the keeper does not restart the
//! workload again and again.

mod progress;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

pub use self::progress::RestartProgress;
use crate::names;
use crate::overlap::outlook::{self, BundleCertificate, Due, Outlook, PublicSecret, Rules};
use crate::overlap::workload::{Workload, parse_list};
use crate::x509::certs::Fingerprint;

/// The longest wait for a rollout, or for a paused workload. After that, the workload is left to
/// its owner.
const PATIENCE: Duration = Duration::from_secs(600);
/// The shortest time between two restarts of a workload, however often its Secrets change.
const INTERVAL: Duration = Duration::from_secs(590);
/// How long a group must be unchanged before its workloads restart. Secrets that rotate together
/// are written one after another.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest wait for a group that keeps changing.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A restart that is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRestart {
    /// A hash of the trust that the pods must load. It changes with the own and the announced CAs,
    /// with `distrust`, and with a promotion.
    pub trust: String,
    /// The workloads, in order.
    pub(crate) workloads: Vec<Workload>,
    /// Its progress, if it has begun.
    pub progress: Option<RestartProgress>,
    /// Whether the Secret has no recorded trust yet, and carries nothing. The trust is then only
    /// noted, and nothing restarts.
    pub is_first_sight: bool,
    /// Whether the pods already trust these CAs, because they restarted while the leaf waited. Only
    /// the leaf is new to them.
    pub is_for_leaf: bool,
    /// The Secret's name.
    secret: String,
    /// The key of the pod template annotation for this Secret.
    mark: String,
    /// The key that the first edition used.
    old_mark: String,
}

/// The restart that a Secret needs; `None` if it is complete.
pub(crate) fn pending_restart(
    secret: &PublicSecret<'_>,
    outlook: &Outlook,
) -> Option<PendingRestart> {
    let workloads = restarts(secret);
    if workloads.is_empty() || outlook.certificates.is_empty() {
        return None;
    }
    let trust = trust(outlook, outlook.stage.is_some());
    let noted = secret.annotation(names::RESTARTED).unwrap_or_default();
    let known = noted.split_ascii_whitespace().next();
    let is_same = known == Some(trust.as_str());
    if is_same && !RestartProgress::is_noted(noted) {
        return None;
    }
    let progress = RestartProgress::parse(noted).filter(|_| is_same);
    let is_for_leaf = match &progress {
        Some(progress) => progress.is_for_leaf,
        None => outlook.stage.is_none() && noted == self::trust(outlook, true),
    };
    let carries = outlook.certificates.iter().any(|known| known.carried.is_some());
    Some(PendingRestart {
        trust,
        workloads,
        progress,
        is_first_sight: known.is_none() && !carries,
        is_for_leaf,
        secret: secret.name.to_owned(),
        mark: mark(secret),
        old_mark: old_mark(secret),
    })
}

/// The workloads that a Secret names.
fn restarts(secret: &PublicSecret<'_>) -> Vec<Workload> {
    secret.annotation(names::RESTART).map(|text| parse_list(text).0).unwrap_or_default()
}

/// A hash of what pods load when they start: the own and the announced CAs, `distrust`, and whether
/// the new leaf still waits. Previous CAs do not count, because their end needs no restart. Neither
/// does the list of the cluster, because most pods never loaded what it lists. Order and repetition
/// do not count either.
fn trust(outlook: &Outlook, is_staged: bool) -> String {
    let sorted = |mut all: Vec<String>| {
        all.sort_unstable();
        all.dedup();
        all.concat()
    };
    let is_loaded = |known: &&BundleCertificate| known.carried.is_none() || known.is_announced();
    let cas = outlook.certificates.iter().filter(is_loaded);
    let cas = sorted(cas.map(|known| known.certificate.fingerprint().to_string()).collect());
    let distrust =
        sorted(outlook.settings.distrust.own().iter().map(ToString::to_string).collect());
    let state = if is_staged { "staged" } else { "" };
    hex([cas, distrust, state.to_owned()].join("\n").as_bytes(), 16)
}

/// The key of the pod template annotation for this Secret. Pods use Secrets of their own namespace
/// only, so the name is enough.
fn mark(secret: &PublicSecret<'_>) -> String {
    format!("{}.{}", names::RESTARTED_FOR, of_secret(secret, 16))
}

/// The key that the first edition wrote, with hashes that are short enough to collide. It is only
/// read, so that an upgrade repeats no restart. The next restart removes it.
fn old_mark(secret: &PublicSecret<'_>) -> String {
    let of_group = secret.group().map(|group| hex(format!("group {group}").as_bytes(), 4));
    let scope = of_group.unwrap_or_else(|| of_secret(secret, 4));
    format!("{}.{scope}.{}", names::RESTARTED_FOR, of_secret(secret, 4))
}

fn of_secret(secret: &PublicSecret<'_>, count: usize) -> String {
    hex(format!("secret {}", secret.name).as_bytes(), count)
}

/// The first `count` bytes of the SHA-256, in hexadecimal.
fn hex(bytes: &[u8], count: usize) -> String {
    Fingerprint::of(bytes).to_string().chars().take(2 * count).collect()
}

/// The state of a workload.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkloadState {
    /// The `resourceVersion` that was read. A change applies to this version only.
    pub(crate) version: Option<String>,
    /// The pod template's annotations whose keys begin with [`names::RESTARTED_FOR`].
    pub(crate) restarted_for: BTreeMap<String, String>,
    /// When the keeper last restarted it.
    pub(crate) restarted_at: Option<Timestamp>,
    /// Whether it carries the annotation [`names::ALLOW_RESTART`].
    pub(crate) is_marked: bool,
    /// The names of the Secrets that its pods use.
    pub(crate) secrets: BTreeSet<String>,
    /// Whether its owner has paused its rollouts.
    pub(crate) is_paused: bool,
    /// Whether its last rollout is complete.
    pub(crate) is_complete: bool,
}

impl WorkloadState {
    /// Changes annotations of the pod template. `None` removes one.
    pub(crate) fn annotate(&mut self, changes: BTreeMap<String, Option<String>>, now: Timestamp) {
        self.restarted_at = Some(now);
        for (key, value) in changes {
            match value {
                Some(value) => drop(self.restarted_for.insert(key, value)),
                None => drop(self.restarted_for.remove(&key)),
            }
        }
    }

    /// Whether the keeper restarted it for another Secret while this one has waited since `awaited`.
    /// Its new pods then load the trust that this Secret held when it began to wait. The Secrets
    /// need no group for that. Both times have full seconds, so an equal one may be earlier.
    fn is_newer(&self, awaited: Option<Timestamp>, now: Timestamp) -> bool {
        let restarted = self.restarted_at.filter(|at| *at <= now);
        awaited.is_some_and(|since| restarted > Some(since))
    }

    /// Whether its owner lets this Secret restart it: the pod template refers to the Secret, or the
    /// workload carries [`names::ALLOW_RESTART`]. What a Secret says of itself is no consent, because
    /// anyone who may create Secrets can name a workload.
    fn may_restart_for(&self, secret: &str) -> bool {
        self.is_marked || self.secrets.contains(secret)
    }
}

/// The outcome for one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RestartOutcome {
    /// Its pod template has been changed for this trust. From now on the keeper follows its
    /// rollout.
    Started,
    /// Its rollout is complete.
    Complete,
    /// The keeper waits for its rollout, for its owner or for its group.
    Waiting,
    /// It must not be restarted, or does not exist. Holds the reason.
    NotAllowed(&'static str),
    /// Neither the workload nor a Secret that its pods use consents.
    NoConsent,
    /// RBAC or an admission policy denies the change.
    Denied,
    /// Its owner has reverted our annotation.
    Reverted,
    /// Its rollout has taken too long.
    Stuck,
    /// It has been paused for too long.
    Paused,
}

/// The next call of a [`RestartPass`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NextCall {
    /// Read this workload, then call [`RestartPass::found`].
    Read(Workload),
    /// List the Secret's group, with the Secret itself, then call [`RestartPass::listed`].
    List,
    /// Change annotations of this workload's pod template (`None` removes one), if it still has
    /// this version. Then call [`RestartPass::done`].
    Change(Workload, Option<String>, BTreeMap<String, Option<String>>),
    /// End the pass, and try again later. Waiting began at this time.
    Wait(Timestamp),
    /// Write this value of [`names::RESTARTED`] to the Secret, and end the pass.
    Note(String),
}

/// One pass over the workloads of a Secret. It changes at most one of them.
#[derive(Debug)]
pub(crate) struct RestartPass<'a> {
    pending: PendingRestart,
    rules: &'a Rules,
    now: Timestamp,
    /// The index of the current workload.
    index: usize,
    /// When its rollout started, if it has.
    followed: Option<Timestamp>,
    /// When the keeper began to wait until its rollout may start, if it has.
    awaited: Option<Timestamp>,
    state: WorkloadState,
    outcomes: Vec<(String, RestartOutcome)>,
}

impl<'a> RestartPass<'a> {
    /// Begins where the last pass ended.
    pub(crate) fn begin(
        pending: PendingRestart,
        rules: &'a Rules,
        now: Timestamp,
    ) -> (Self, NextCall) {
        let (mut index, mut followed, mut awaited) = (0, None, None);
        if let Some((last, progress)) = pending.position() {
            index = last;
            let since = if progress.is_waiting { &mut awaited } else { &mut followed };
            *since = Some(progress.since);
        }
        let (state, outcomes) = (WorkloadState::default(), Vec::new());
        let pass = Self { pending, rules, now, index, followed, awaited, state, outcomes };
        let next = pass.next();
        (pass, next)
    }

    /// The outcome for each workload of this pass, except those that it still waits for.
    pub(crate) fn into_outcomes(self) -> Vec<(String, RestartOutcome)> {
        self.outcomes
    }

    fn next(&self) -> NextCall {
        let is_complete = self.pending.is_first_sight;
        let workload = self.pending.workloads.get(self.index).filter(|_| !is_complete);
        workload.map_or_else(
            || NextCall::Note(self.pending.trust.clone()),
            |it| NextCall::Read(it.clone()),
        )
    }

    /// Takes the state of the current workload, or the reason why it cannot restart.
    pub(crate) fn found(&mut self, found: Result<WorkloadState, RestartOutcome>) -> NextCall {
        let state = match found {
            Ok(state) => state,
            Err(outcome) => return self.done(outcome),
        };
        if let Some(since) = self.followed {
            let is_there = self.pending.is_marked(&state) || state.restarted_at >= Some(since);
            return self.done(if !is_there {
                RestartOutcome::Reverted
            } else if state.is_complete {
                RestartOutcome::Complete
            } else if is_too_long(since, self.now) {
                RestartOutcome::Stuck
            } else {
                RestartOutcome::Waiting
            });
        }
        self.state = state;
        if self.state.may_restart_for(&self.pending.secret)
            && let Some(outcome) = self.obstacle()
        {
            return self.done(outcome);
        }
        NextCall::List
    }

    /// Takes the Secrets of the group; none if the Secret has no group.
    pub(crate) fn listed(&mut self, group: &[PublicSecret<'_>]) -> NextCall {
        let (pending, state, now) = (&self.pending, &self.state, self.now);
        let Some(workload) = pending.workloads.get(self.index) else { return self.next() };
        // Any Secret can join a group. So a member gives consent only if it names the workload, too.
        let consents = |member: &PublicSecret<'_>| {
            restarts(member).contains(workload) && state.may_restart_for(member.name)
        };
        if !state.may_restart_for(&pending.secret) && !group.iter().any(consents) {
            return self.done(RestartOutcome::NoConsent);
        }
        if let Some(outcome) = self.obstacle() {
            return self.done(outcome);
        }
        if is_changing(group, self.rules, self.awaited, now) {
            return self.done(RestartOutcome::Waiting);
        }
        let marks = pending.marks(workload, group, self.rules, state, now);
        NextCall::Change(workload.clone(), state.version.clone(), marks)
    }

    /// The outcome if the pod template must not be changed now, because its pods have loaded this
    /// trust already, or because it is too early. `None` if it may be changed.
    fn obstacle(&self) -> Option<RestartOutcome> {
        let (state, now) = (&self.state, self.now);
        if self.pending.is_marked(state) || state.is_newer(self.awaited, now) {
            return Some(RestartOutcome::Started);
        }
        let interval = SignedDuration::try_from(INTERVAL).unwrap_or_default();
        let is_recent = state.restarted_at.is_some_and(|at| {
            let age = now.duration_since(at);
            !age.is_negative() && age < interval
        });
        (state.is_paused || is_recent).then_some(RestartOutcome::Waiting)
    }

    /// Takes the outcome for the current workload, and goes to the next one.
    pub(crate) fn done(&mut self, outcome: RestartOutcome) -> NextCall {
        let Some(workload) = self.pending.workloads.get(self.index) else { return self.next() };
        let workload = workload.to_string();
        let (followed, awaited) = (self.followed.take(), self.awaited.take());
        let is_waiting = outcome == RestartOutcome::Waiting;
        let outcome = match followed.or(awaited).filter(|_| is_waiting) {
            // The order matters, so the later workloads wait too, until the wait is too long.
            Some(since) if followed.is_some() || !is_too_long(since, self.now) => {
                return NextCall::Wait(since);
            }
            Some(_) => RestartOutcome::Paused,
            None => outcome,
        };
        let is_begun = followed.is_none()
            && matches!(outcome, RestartOutcome::Started | RestartOutcome::Waiting);
        if outcome != RestartOutcome::Waiting {
            self.outcomes.push((workload.clone(), outcome));
        }
        if is_begun {
            let is_for_leaf = self.pending.is_for_leaf;
            let shared = self.state.restarted_at.filter(|_| self.state.is_newer(awaited, self.now));
            let since = shared.unwrap_or(self.now);
            let progress = RestartProgress { workload, since, is_waiting, is_for_leaf };
            return NextCall::Note(progress.to_annotation(&self.pending.trust));
        }
        self.index += 1;
        self.next()
    }
}

impl PendingRestart {
    /// Where to continue: the index of the current workload, and its progress.
    fn position(&self) -> Option<(usize, &RestartProgress)> {
        // A person may have edited the list. If the workload is gone, the list starts again: the
        // pod templates show which workloads have restarted already.
        let progress = self.progress.as_ref()?;
        let is_last = |workload: &Workload| workload.to_string() == progress.workload;
        Some((self.workloads.iter().position(is_last)?, progress))
    }

    /// The changes of the pod template's annotations: the trust that its new pods load from this
    /// Secret, and from the other Secrets of `group` that name this workload. Those Secrets then
    /// need no restart of their own. All other marks go: they tell of pods that are being replaced.
    fn marks(
        &self,
        workload: &Workload,
        group: &[PublicSecret<'_>],
        rules: &Rules,
        state: &WorkloadState,
        now: Timestamp,
    ) -> BTreeMap<String, Option<String>> {
        let before = state.restarted_for.keys();
        let mut change: BTreeMap<_, _> = before.map(|key| (key.clone(), None)).collect();
        for member in group {
            if restarts(member).contains(workload) {
                let outlook = outlook::outlook(member, rules, now);
                change.insert(mark(member), Some(trust(&outlook, outlook.stage.is_some())));
            }
        }
        // This Secret gets the trust that the pass acts on, even if it has changed since.
        change.insert(self.mark.clone(), Some(self.trust.clone()));
        change.insert(names::RESTARTED_AT.to_owned(), Some(format!("{now:.0}")));
        change
    }

    /// Whether the pod template says that its pods loaded this trust when they started.
    fn is_marked(&self, state: &WorkloadState) -> bool {
        let mut marks = [&self.mark, &self.old_mark].into_iter();
        marks.any(|key| state.restarted_for.get(key) == Some(&self.trust))
    }
}

/// Whether Secrets of a group have just changed, or are about to change. Pods that start between
/// the first and the last change would have to restart again. `waits` says since when the keeper
/// has waited for this, if it has; after [`LONGEST_PAUSE`] the answer is no.
fn is_changing(
    group: &[PublicSecret<'_>],
    rules: &Rules,
    waits: Option<Timestamp>,
    now: Timestamp,
) -> bool {
    if group.len() < 2 || waits.is_some_and(|since| age(since, now) >= LONGEST_PAUSE) {
        return false;
    }
    group.iter().any(|member| {
        let is_young = member.written.is_some_and(|at| age(at, now) < PAUSE);
        is_young || matches!(outlook::outlook(member, rules, now).due, Some(Due::Promote(_)))
    })
}

/// The time since `since`; zero if the clock was set back.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// Whether a wait since `since` is longer than [`PATIENCE`]. A date that is as far in the future
/// counts too: a clock was set back, and nobody knows how long the wait was.
fn is_too_long(since: Timestamp, now: Timestamp) -> bool {
    now.duration_since(since).unsigned_abs() > PATIENCE
}

#[cfg(test)]
mod tests;
