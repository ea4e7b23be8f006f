//! Restarts what cannot reload its CA (DESIGN §8.3): workloads that the Secret names, once per
//! change of trust, one after another.
//!
//! Pure: `Pass` says which call comes next, and whoever drives it makes the call. How far a restart
//! has come stands on the Secret, so that whoever leads next goes on from there, and an operator that
//! takes our annotation back gets an Event and not a loop.

mod progress;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

pub use self::progress::Progress;
use crate::names;
use crate::overlap::outlook::{self, Due, Outlook, Rules, View};
use crate::overlap::workload::{Workload, list};
use crate::x509::certs::Fingerprint;

/// A rollout that takes longer is left to its owner; so is one that is paused for longer.
const PATIENCE: Duration = Duration::from_secs(600);
/// No workload is restarted more often, whatever its Secrets do.
const INTERVAL: Duration = Duration::from_secs(590);
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
    pub(crate) workloads: Vec<Workload>,
    /// How far it has come.
    pub progress: Option<Progress>,
    /// Nothing is to be restarted: what is trusted now is only to be noted.
    pub is_first_sight: bool,
    /// The pods trust these CAs already, since they were restarted while the leaf waited: only the
    /// leaf is new to them.
    pub is_for_leaf: bool,
    /// The Secret's name.
    secret: String,
    /// The beginning of the annotations of the pod template, of the whole group,
    scope: String,
    /// and the one of this Secret.
    mark: String,
}

/// What a Secret wants restarted; none where that was done.
pub(crate) fn wanted(secret: &View<'_>, outlook: &Outlook) -> Option<Wanted> {
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
    Some(Wanted {
        trust,
        workloads,
        progress,
        is_first_sight: known.is_none() && !carries,
        is_for_leaf,
        secret: secret.name.to_owned(),
        scope: scope(secret),
        mark: mark(secret),
    })
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

/// The beginning of the annotations of a pod template, for all of a Secret's group.
fn scope(secret: &View<'_>) -> String {
    let of_group = secret.group().map(|group| hex(format!("group {group}").as_bytes(), 4));
    format!("{}.{}.", names::RESTARTED_FOR, of_group.unwrap_or_else(|| of_secret(secret)))
}

/// The annotation of a pod template, for this Secret.
fn mark(secret: &View<'_>) -> String {
    scope(secret) + &of_secret(secret)
}

fn of_secret(secret: &View<'_>) -> String {
    hex(format!("secret {}", secret.name).as_bytes(), 4)
}

/// The first bytes of the SHA-256.
fn hex(bytes: &[u8], count: usize) -> String {
    Fingerprint::of(bytes).to_string().chars().take(2 * count).collect()
}

/// What a workload is like.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// The version that was read: no other is changed.
    pub(crate) version: Option<String>,
    /// The annotations [`names::RESTARTED_FOR`] of the pod template: what for it was restarted.
    pub(crate) restarted_for: BTreeMap<String, String>,
    /// When it was restarted last.
    pub(crate) restarted_at: Option<Timestamp>,
    /// It carries [`names::ALLOW_RESTART`].
    pub(crate) is_marked: bool,
    /// The Secrets that its pods refer to.
    pub(crate) secrets: BTreeSet<String>,
    /// Its owner has paused its rollouts.
    pub(crate) is_paused: bool,
    /// Its last rollout is complete.
    pub(crate) is_complete: bool,
}

impl State {
    /// Changes annotations of its pod template; `None` removes one.
    pub(crate) fn annotate(&mut self, changes: BTreeMap<String, Option<String>>, now: Timestamp) {
        self.restarted_at = Some(now);
        for (key, value) in changes {
            match value {
                Some(value) => drop(self.restarted_for.insert(key, value)),
                None => drop(self.restarted_for.remove(&key)),
            }
        }
    }

    /// Whether a Secret of this name is reason enough.
    fn may_restart_for(&self, secret: &str) -> bool {
        self.is_marked || self.secrets.contains(secret)
    }
}

/// What came of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
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

/// The call that comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Read this workload, and go on with [`Pass::found`].
    Read(Workload),
    /// List the Secret's group, itself too, and go on with [`Pass::listed`].
    List,
    /// Change annotations of this pod template, `None` removing one, if the workload still has this
    /// version. Then go on with [`Pass::done`].
    Change(Workload, Option<String>, BTreeMap<String, Option<String>>),
    /// Nothing now: something has been waited for since then. The pass is over.
    Wait(Timestamp),
    /// Note on the Secret how far the restart has come. The pass is over.
    Note(String),
}

/// One pass over the workloads of a Secret. At most one of them is changed.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    wanted: Wanted,
    rules: &'a Rules,
    now: Timestamp,
    /// The workload in question.
    index: usize,
    /// Since when its rollout goes on; else it is to be started,
    followed: Option<Timestamp>,
    /// and has been waited for since then.
    awaited: Option<Timestamp>,
    state: State,
    steps: Vec<(String, Step)>,
}

impl<'a> Pass<'a> {
    /// Begins where the last pass has ended.
    pub(crate) fn begin(wanted: Wanted, rules: &'a Rules, now: Timestamp) -> (Self, Next) {
        let (mut index, mut followed, mut awaited) = (0, None, None);
        if let Some((last, progress)) = wanted.position() {
            index = last;
            let since = if progress.is_waiting { &mut awaited } else { &mut followed };
            *since = Some(progress.since);
        }
        let (state, steps) = (State::default(), Vec::new());
        let pass = Self { wanted, rules, now, index, followed, awaited, state, steps };
        let next = pass.next();
        (pass, next)
    }

    /// What came of each workload that this pass has looked at.
    pub(crate) fn into_steps(self) -> Vec<(String, Step)> {
        self.steps
    }

    fn next(&self) -> Next {
        let is_over = self.wanted.is_first_sight;
        let workload = self.wanted.workloads.get(self.index).filter(|_| !is_over);
        workload.map_or_else(|| Next::Note(self.wanted.trust.clone()), |it| Next::Read(it.clone()))
    }

    /// The workload in question is like this, or cannot be restarted.
    pub(crate) fn found(&mut self, found: Result<State, Step>) -> Next {
        let state = match found {
            Ok(state) => state,
            Err(step) => return self.done(step),
        };
        if let Some(since) = self.followed {
            return self.done(if !self.wanted.is_done(&state) {
                Step::Reverted
            } else if state.is_complete {
                Step::Complete
            } else if is_too_long(since, self.now) {
                Step::Stuck
            } else {
                Step::Waiting
            });
        }
        if state.may_restart_for(&self.wanted.secret)
            && let Some(step) = self.wanted.before(&state, self.now)
        {
            return self.done(step);
        }
        self.state = state;
        Next::List
    }

    /// Its group is these; none if it is in no group.
    pub(crate) fn listed(&mut self, group: &[View<'_>]) -> Next {
        let (wanted, state, now) = (&self.wanted, &self.state, self.now);
        let may_restart = |name| state.may_restart_for(name);
        if !may_restart(&wanted.secret) && !group.iter().any(|member| may_restart(member.name)) {
            return self.done(Step::Stranger);
        }
        if let Some(step) = wanted.before(state, now) {
            return self.done(step);
        }
        if is_on_its_way(group, self.rules, self.awaited, now) {
            return self.done(Step::Waiting);
        }
        let Some(workload) = wanted.workloads.get(self.index) else { return self.next() };
        let marks = wanted.marks(workload, group, self.rules, state, now);
        Next::Change(workload.clone(), state.version.clone(), marks)
    }

    /// This has come of the workload in question.
    pub(crate) fn done(&mut self, step: Step) -> Next {
        let Some(workload) = self.wanted.workloads.get(self.index) else { return self.next() };
        let workload = workload.to_string();
        let (followed, awaited) = (self.followed.take(), self.awaited.take());
        let is_waiting = step == Step::Waiting;
        let step = match followed.or(awaited).filter(|_| is_waiting) {
            // The order matters: the next one waits, too, but not for ever.
            Some(since) if followed.is_some() || !is_too_long(since, self.now) => {
                return Next::Wait(since);
            }
            Some(_) => Step::Paused,
            None => step,
        };
        let is_begun = followed.is_none() && matches!(step, Step::Started | Step::Waiting);
        if step != Step::Waiting {
            self.steps.push((workload.clone(), step));
        }
        if is_begun {
            let is_for_leaf = self.wanted.is_for_leaf;
            let progress = Progress { workload, since: self.now, is_waiting, is_for_leaf };
            return Next::Note(progress.to_annotation(&self.wanted.trust));
        }
        self.index += 1;
        self.next()
    }
}

impl Wanted {
    /// Where to go on: the index of the workload, and since when it is waited for if it is.
    fn position(&self) -> Option<(usize, &Progress)> {
        // A list that was edited meanwhile: what is not in it any more is not looked for, and what
        // was restarted already is found to be.
        let progress = self.progress.as_ref()?;
        let is_last = |workload: &Workload| workload.to_string() == progress.workload;
        Some((self.workloads.iter().position(is_last)?, progress))
    }

    /// Why a workload is not to be changed now, if so.
    fn before(&self, state: &State, now: Timestamp) -> Option<Step> {
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
    fn marks(
        &self,
        workload: &Workload,
        group: &[View<'_>],
        rules: &Rules,
        state: &State,
        now: Timestamp,
    ) -> BTreeMap<String, Option<String>> {
        let members: Vec<String> = group.iter().map(mark).chain([self.mark.clone()]).collect();
        let of_group = state.restarted_for.keys().filter(|key| key.starts_with(&self.scope));
        let left = of_group.filter(|key| !members.contains(key));
        let mut change: BTreeMap<_, _> = left.map(|key| (key.clone(), None)).collect();
        for member in group {
            let (listed, _) = list(member.annotation(names::RESTART).unwrap_or_default());
            if listed.contains(workload) {
                let outlook = outlook::outlook(member, rules, now);
                change.insert(mark(member), Some(trust(&outlook, outlook.stage.is_some())));
            }
        }
        // Its own is what is being acted on, even if it has been written since.
        change.insert(self.mark.clone(), Some(self.trust.clone()));
        change.insert(names::RESTARTED_AT.to_owned(), Some(format!("{now:.0}")));
        change
    }

    /// Whether its pods have found this trust when they started.
    fn is_done(&self, state: &State) -> bool {
        state.restarted_for.get(&self.mark) == Some(&self.trust)
    }
}

/// Whether Secrets of a group are being written right now, or are about to be: pods that started
/// between the first and the last of them would have to start again. `waits` is since when that is
/// waited for, if it is.
fn is_on_its_way(
    group: &[View<'_>],
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

/// How long ago, by clocks that may step.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// Whether something has been waited for too long.
fn is_too_long(since: Timestamp, now: Timestamp) -> bool {
    age(since, now) > PATIENCE
}

#[cfg(test)]
mod tests;
