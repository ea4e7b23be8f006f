//! The loop: watches in, looks out.
//!
//! Nothing is remembered that matters: whatever is due is found again in the Secrets themselves by
//! whoever leads next. Each Secret is looked at by at most one task, and few are at a time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::Client;
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::act::{Actor, Asked, Before, Outcome, Restarting};
use super::agenda::Agenda;
use super::api::{CallError, Key};
use super::due;
use super::events::{self, Events, Reason};
use super::lease::stopped;
use super::memory::Memory;
use super::restart::{self, Step};
use super::secret_view::SecretView;
use super::tracked::{Source, Tracked, Watched};
use super::watches::{describe, events_of};
use crate::telemetry::{AskKind, AskResult, KeeperMetrics, RestartResult};

/// Keeps the Secrets that are watched, and acts on them; see [`Controller::run`].
pub struct Controller {
    actor: Actor,
    events: Events,
    metrics: KeeperMetrics,
    watched: Watched,
    memory: Memory,
    /// Deadlines, by the wall clock.
    deadlines: Agenda<Timestamp>,
    /// Looks to take, by the monotonic clock.
    looks: Agenda<Instant>,
    /// Namespaces to read: whoever does not lead reads them, too, while their Secrets are there.
    reads: Agenda<Instant>,
    /// Failures in a row; whoever is here waits for its turn whatever the watch says.
    failures: HashMap<Key, u32>,
    running: JoinSet<(Key, Outcome)>,
    /// Those that are looked at, and whether they have changed since.
    in_flight: BTreeMap<Key, bool>,
    /// What each list has shown that is not complete yet.
    lists: [Option<HashSet<Key>>; 2],
    complete: watch::Sender<[bool; 2]>,
}

/// Looks at the same time.
const AT_ONCE: usize = 8;
/// How often the wall clock is compared with the deadlines, at least: it may step.
const GLANCE: Duration = Duration::from_secs(15);
/// How often it is asked whether a group is ready.
const GROUP_POLL: Duration = Duration::from_secs(3);
/// After a conflict: another writer has just been there.
const AFTER_CONFLICT: Duration = Duration::from_millis(50);
/// The longest pause between two tries.
const LONGEST: Duration = Duration::from_secs(15);
/// After as many failures in a row, some ten minutes, it is tried every five minutes only.
const PATIENT: u32 = 40;
/// What was refused is likely to be refused again.
const AFTER_REFUSAL: Duration = Duration::from_secs(60);

impl Controller {
    /// Not running yet. What is returned beside it says which of the watches are complete.
    pub fn new(
        actor: Actor,
        events: Events,
        metrics: KeeperMetrics,
    ) -> (Self, watch::Receiver<[bool; 2]>) {
        let (complete, receiver) = watch::channel([false; 2]);
        let controller = Self {
            actor,
            events,
            watched: Watched::new(metrics.clone()),
            memory: Memory::default(),
            metrics,
            deadlines: Agenda::default(),
            looks: Agenda::default(),
            reads: Agenda::default(),
            failures: HashMap::new(),
            running: JoinSet::new(),
            in_flight: BTreeMap::new(),
            lists: [None, None],
            complete,
        };
        (controller, receiver)
    }

    /// Runs until `stop` says so.
    pub async fn run(mut self, client: Client, stop: watch::Receiver<bool>) {
        let [by_phase, by_mode] = Source::ALL.map(|source| events_of(&client, source));
        let mut events = pin!(stream::select(by_phase, by_mode));
        let mut stop = pin!(stopped(stop));
        let mut leadership = self.actor.leadership.clone();
        loop {
            let leads = leadership.may_act();
            self.metrics.leads(leads);
            self.start(leads);
            let wake = self.wake(leadership.until());
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = leadership.changed() => {}
                Some(done) = self.running.join_next() => {
                    // A look that panicked was logged, and is repeated by the next event.
                    if let Ok((key, outcome)) = done {
                        self.finish(&key, outcome);
                    }
                }
                Some((source, event)) = events.next() => self.on(source, event),
                () = tokio::time::sleep_until(wake) => self.expire(),
            }
        }
        self.running.shutdown().await;
        self.metrics.leads(false);
    }

    /// When to look at the clocks again.
    fn wake(&self, leads_until: Option<Instant>) -> Instant {
        let now = Instant::now();
        let is_full = self.running.len() >= AT_ONCE;
        let glance = now + GLANCE;
        let glance = self.reads.first().filter(|_| !is_full).unwrap_or(glance).min(glance);
        // One that may not act only watches, and one that may has to notice when that ends.
        let Some(until) = leads_until else { return glance };
        let look = self.looks.first().filter(|_| !is_full).unwrap_or(glance);
        let deadline = self.deadlines.first().filter(|_| !is_full).map_or(glance, |deadline| {
            let left = deadline.duration_since(Timestamp::now());
            now + Duration::try_from(left).unwrap_or_default().min(GLANCE)
        });
        glance.min(until).min(look).min(deadline)
    }

    /// Starts what is due, as far as there is room.
    fn start(&mut self, leads: bool) {
        while leads && let Some(key) = self.deadlines.pop(Timestamp::now()) {
            self.schedule(&key);
        }
        while self.running.len() < AT_ONCE {
            let now = Instant::now();
            let read = self.reads.pop(now);
            let Some(key) = read.or_else(|| leads.then(|| self.looks.pop(now))?) else { return };
            if let Some(is_changed) = self.in_flight.get_mut(&key) {
                *is_changed = true;
                continue;
            }
            self.in_flight.insert(key.clone(), false);
            let actor = self.actor.clone();
            let before = Before {
                secret: self.memory.get(&key, now),
                namespace_uid: self.memory.namespace_uid(&key).map(ToOwned::to_owned),
                distrusted: self.watched.distrusted(),
            };
            self.running.spawn(async move {
                let outcome = actor.look(&key, before).await;
                (key, outcome)
            });
        }
    }

    /// A look as soon as there is room; one that has failed waits for its turn.
    fn schedule(&mut self, key: &Key) {
        if !self.failures.contains_key(key) {
            self.look_at(key, Instant::now());
        }
    }

    fn look_at(&mut self, key: &Key, at: Instant) {
        let agenda = if key.namespace().is_empty() { &mut self.reads } else { &mut self.looks };
        agenda.set(key, at);
    }

    /// What has been gone for long does not come back.
    fn expire(&mut self) {
        for key in self.memory.expire(Instant::now()) {
            self.looks.remove(&key);
        }
        self.count_remembered();
    }

    fn count_remembered(&self) {
        self.metrics.remembers(self.memory.len(), self.memory.refused());
    }

    fn on(&mut self, source: Source, event: watcher::Result<Event<SecretView>>) {
        match event {
            Ok(Event::Init) => self.lists[source as usize] = Some(HashSet::new()),
            Ok(Event::InitApply(secret)) => {
                if let Some(list) = &mut self.lists[source as usize] {
                    list.insert(Key::of(&secret));
                }
                self.observe(&secret);
            }
            Ok(Event::InitDone) => self.swept(source),
            Ok(Event::Apply(secret)) => self.observe(&secret),
            Ok(Event::Delete(secret)) => self.deselected(&Key::of(&secret), source),
            Err(error) => {
                self.metrics.watch_failed();
                tracing::warn!(
                    error = %describe(&error),
                    selector = source.label(),
                    "the watch of Secrets is broken: trying again"
                );
            }
        }
    }

    /// A list is complete: what it did not show is gone.
    fn swept(&mut self, source: Source) {
        let list = self.lists[source as usize].take().unwrap_or_default();
        let gone: Vec<Key> =
            self.watched.of(source).filter(|key| !list.contains(*key)).cloned().collect();
        for key in gone {
            self.deselected(&key, source);
        }
        if self.complete.send_if_modified(|c| !std::mem::replace(&mut c[source as usize], true)) {
            let (label, secrets) = (source.label(), list.len());
            tracing::info!(secrets, selector = label, "the first list of Secrets is complete");
        }
    }

    /// A watch does not show it any more. The other one may.
    fn deselected(&mut self, key: &Key, source: Source) {
        let Some(tracked) = self.watched.get(key) else { return };
        let other = Source::ALL.into_iter().find(|other| *other != source);
        if other.is_none_or(|other| !tracked.is_selected(other)) {
            self.lost(key);
        } else {
            // Its own watch tells what it is like now; what is due is found by looking.
            self.schedule(key);
        }
    }

    /// It has gone, or its labels have. Whoever makes it anew knows nothing of them: its name is
    /// looked at for a while.
    fn lost(&mut self, key: &Key) {
        self.unwatch(key);
        if let Some(again) = self.memory.lose(key, Instant::now()) {
            self.looks.set(key, again);
        }
        self.count_remembered();
    }

    fn unwatch(&mut self, key: &Key) {
        self.watched.remove(key);
        self.deadlines.remove(key);
        self.looks.remove(key);
        self.failures.remove(key);
    }

    /// What a watch or an answer shows.
    fn observe(&mut self, secret: &SecretView) {
        let key = Key::of(secret);
        let now = Timestamp::now();
        let outlook = due::outlook(&secret.view(), &self.actor.rules, now);
        let tracked = Tracked::of(secret, &outlook);
        let before = self.memory.get(&key, Instant::now());
        let distrusted = self.watched.distrusted();
        let is_damaged = before
            .is_some_and(|b| b.compare(secret, &self.actor.rules, &distrusted, now).is_some());
        if Source::ALL.into_iter().any(|source| tracked.is_selected(source)) {
            self.tell(&key, &tracked, &outlook);
            self.watched.insert(&key, tracked);
        } else {
            self.unwatch(&key);
            if is_damaged {
                self.schedule(&key);
            } else {
                // A person took the labels away: it is none of ours any more.
                self.memory.forget(&key);
                self.count_remembered();
            }
            return;
        }
        if is_damaged {
            self.schedule(&key);
        } else {
            self.remember(&key, secret);
        }
        match outlook.next {
            Some(next) => self.deadlines.set(&key, next.at),
            None => self.deadlines.remove(&key),
        }
        if outlook.due.is_some() || restart::wanted(secret, &outlook).is_some() {
            self.schedule(&key);
        }
    }

    fn remember(&mut self, key: &Key, secret: &SecretView) {
        if let Some(namespace) = self.memory.remember(key, secret) {
            self.schedule(&namespace);
        }
        self.count_remembered();
    }

    /// Events about what has changed. Only by the leader, and not about what was found at start.
    fn tell(&self, key: &Key, tracked: &Tracked, outlook: &due::Outlook) {
        let before = self.watched.get(key).filter(|before| before.uid == tracked.uid);
        let is_first_list = *self.complete.borrow() != [true; 2];
        if !self.actor.leadership.may_act() || (before.is_none() && is_first_list) {
            return;
        }
        for (reason, text) in tracked.news(before, outlook) {
            self.events.say(key, Some(&tracked.uid), reason, text);
        }
    }

    fn finish(&mut self, key: &Key, outcome: Outcome) {
        let is_changed = self.in_flight.remove(key) == Some(true);
        match outcome {
            Outcome::Asked(asked) => self.asked(key, *asked),
            Outcome::AskFailed(kind, error) => {
                let is_conflict = error == CallError::Conflict;
                let result = if is_conflict { AskResult::Conflict } else { AskResult::Failed };
                self.metrics.asked(kind, result);
                self.finish(key, Outcome::Failed(error));
            }
            Outcome::Failed(CallError::Conflict) => self.retry(key, AFTER_CONFLICT),
            Outcome::Failed(error) => {
                if !self.failures.contains_key(key) {
                    tracing::warn!(secret = %key, %error, "cannot look at a Secret: trying again");
                }
                self.retry(key, Duration::from_secs(1));
            }
            Outcome::Gone => self.lost(key),
            Outcome::Namespace(uid) => {
                self.failures.remove(key);
                let is_itself = key.namespace().is_empty();
                let namespace = if is_itself { key.name() } else { key.namespace() };
                tracing::debug!(namespace, "the uid of a namespace is known");
                self.memory.set_namespace_uid(namespace, uid.as_deref());
                if !is_itself {
                    tracing::info!(secret = %key, "its namespace is another one: nothing comes back");
                    self.memory.forget(key);
                    self.count_remembered();
                }
            }
            Outcome::NotLeading => self.looks.add(key, Instant::now()),
            Outcome::Nothing(secret) => {
                self.failures.remove(key);
                self.observe(&secret);
            }
            Outcome::Restarting(restarting) => self.restarting(key, &restarting),
            Outcome::Waiting(secret) => {
                tracing::debug!(secret = %key, "due, but others have to be ready first");
                self.failures.remove(key);
                self.observe(&secret);
                self.looks.set(key, Instant::now() + GROUP_POLL);
            }
        }
        if is_changed {
            self.schedule(key);
        }
    }

    fn asked(&mut self, key: &Key, asked: Asked) {
        let Asked { kind, result, gone, lateness, after } = asked;
        self.metrics.asked(kind, result);
        let uid = after.object_uid().map(ToOwned::to_owned);
        let is_first = !self.failures.contains_key(key);
        let complain = |text: String| {
            if is_first {
                self.events.say(key, uid.as_deref(), Reason::AskFailed, text);
            }
        };
        match result {
            AskResult::NotSeen => {
                let ask = kind.name();
                complain(format!(
                    "{ask}: the webhook did not see this ask: is it down, or not registered for \
                     this Secret? It is asked again"
                ));
                let is_hopeless = self.failures.get(key).is_some_and(|count| *count >= PATIENT);
                if kind == AskKind::Repair && is_hopeless {
                    // The webhook is not registered for it: so it is from now on.
                    self.failures.remove(key);
                    self.remember(key, &after);
                } else {
                    self.retry(key, Duration::from_secs(1));
                }
            }
            AskResult::Refused => {
                complain(format!("{}: the webhook has changed nothing", kind.name()));
                if kind == AskKind::Repair {
                    // By the same rules it would refuse again: so it is from now on.
                    self.failures.remove(key);
                    self.remember(key, &after);
                } else {
                    self.retry(key, AFTER_REFUSAL);
                }
            }
            _ => {
                self.failures.remove(key);
                if let Some(seconds) = lateness {
                    self.metrics.acted_after(seconds);
                }
                if let Some((reason, text)) = events::of_ask(kind, &gone) {
                    self.events.say(key, uid.as_deref(), reason, text);
                }
            }
        }
        self.observe(&after);
    }

    fn restarting(&mut self, key: &Key, restarting: &Restarting) {
        self.failures.remove(key);
        for (workload, step) in &restarting.steps {
            let (result, reason, text) = match step {
                Step::Complete => {
                    (RestartResult::Done, Reason::Restarted, "its rollout is complete")
                }
                Step::NotAllowed(why) => (RestartResult::NotAllowed, Reason::RestartFailed, *why),
                Step::Reverted => (
                    RestartResult::Reverted,
                    Reason::RestartFailed,
                    "something has taken the annotation of its pod template back",
                ),
                Step::Stuck => (
                    RestartResult::Stuck,
                    Reason::RestartFailed,
                    "its rollout takes longer than ten minutes",
                ),
                Step::Started | Step::Waiting => (
                    RestartResult::Started,
                    Reason::Restarted,
                    "its pods are replaced, because the trust has changed",
                ),
            };
            self.metrics.restart(result);
            let uid = restarting.after.object_uid();
            self.events.say(key, uid, reason, format!("{workload}: {text}"));
        }
        self.observe(&restarting.after);
    }

    /// Again after `first`, doubled with each failure.
    fn retry(&mut self, key: &Key, first: Duration) {
        let failures = self.failures.entry(key.clone()).or_default();
        let longest = if *failures < PATIENT { LONGEST } else { LONGEST * 20 };
        let pause = first.saturating_mul(1 << (*failures).min(10)).min(longest.max(first));
        *failures = failures.saturating_add(1);
        self.look_at(key, Instant::now() + pause);
    }
}
