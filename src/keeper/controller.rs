//! The control loop: receives watch events and reconciles Secrets.
//!
//! A new leader finds what is due in the Secrets themselves, so no state has to be handed over.
//! At most one task reconciles a given Secret, and at most 8 tasks run at a time.

mod announcing;
mod outcomes;
mod renewing;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;

use super::announcing::{Announcing, EndedWork};
use super::backoff::{Retries, RetryCause};
use super::election::stopped;
use super::events::Events;
use super::memory::Memory;
use super::overflow::{Budget, Overflow};
use super::queue::Queue;
use super::reconcile::{ReconcileError, ReconcileInput, ReconcileOutcome, Reconciler, due_since};
use super::sweep;
use super::tasks::{EndedTask, Tasks};
use super::tracked::{Selector, TrackedSecret, TrackedSecrets};
use super::trust::Trust;
use crate::keeper::metrics::{AskKind, AskResult, KeeperMetrics};
use crate::kubernetes::call::CallError;
use crate::kubernetes::explain::{Audience, explain_watch};
use crate::kubernetes::key::Key;
use crate::kubernetes::pages;
use crate::kubernetes::reason::Reason;
use crate::kubernetes::secret_view::SecretView;
use crate::overlap::action::pause;
use crate::overlap::distrust::DistrustList;
use crate::overlap::outlook::{self, Due, Problem};
use crate::overlap::restart;

/// Tracks the watched Secrets and acts on them; see [`Controller::run`].
pub struct Controller {
    reconciler: Reconciler,
    events: Events,
    metrics: KeeperMetrics,
    watched: TrackedSecrets,
    /// The last state of Secrets that left both watches, while the keeper still polls their names.
    unwatched: HashMap<Key, TrackedSecret>,
    memory: Memory,
    overflow: Overflow,
    /// When something becomes due, by the wall clock.
    deadlines: Queue<Timestamp>,
    /// Secrets to reconcile, by the monotonic clock.
    queue: Queue<Instant>,
    /// Namespaces whose uid is to be read. Standbys read it too, because it has to be known
    /// before the namespace is deleted.
    namespace_queue: Queue<Instant>,
    /// Keys in backoff. A watch event does not shorten their wait, except after a refusal.
    retries: Retries,
    tasks: Tasks<ReconcileOutcome>,
    /// What each list has shown so far, until it is complete.
    shown: [Option<HashSet<Key>>; 2],
    complete: watch::Sender<[bool; 2]>,
    /// `None` if nothing is announced.
    announcing: Option<Announcing>,
    /// The list of distrusted CAs.
    lists: watch::Receiver<Arc<DistrustList>>,
}

/// How many tasks run at the same time.
const MAX_CONCURRENT: usize = 8;
/// The longest time between two comparisons of the deadlines with the wall clock, which may jump.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(15);
/// The wait after a deadline. The webhook's clock may be a little slow, and it refuses to retire a
/// CA before the deadline by its own clock.
const DEADLINE_MARGIN: Duration = Duration::from_secs(1);
/// When the keeper first looks whether the API server rejects a held leaf. A generator writes its
/// `caBundle` shortly before or after the Secret.
const CA_BUNDLE_DELAY: Duration = Duration::from_secs(2);

impl Controller {
    /// Creates the controller. The receiver says which first lists are complete.
    pub fn new(
        reconciler: Reconciler,
        events: Events,
        metrics: KeeperMetrics,
    ) -> (Self, watch::Receiver<[bool; 2]>) {
        let (complete, receiver) = watch::channel([false; 2]);
        let (_, lists) = watch::channel(Arc::clone(&reconciler.rules.defaults.distrusted));
        let overflow = Overflow::new(metrics.clone());
        let reconciler =
            Reconciler { secrets: reconciler.secrets.reporting(overflow.clone()), ..reconciler };
        let controller = Self {
            reconciler,
            events,
            watched: TrackedSecrets::new(metrics.clone()),
            unwatched: HashMap::new(),
            memory: Memory::new(overflow.clone()),
            overflow,
            metrics,
            deadlines: Queue::default(),
            queue: Queue::default(),
            namespace_queue: Queue::default(),
            retries: Retries::default(),
            tasks: Tasks::default(),
            shown: [None, None],
            complete,
            announcing: None,
            lists,
        };
        (controller, receiver)
    }

    /// Follows a list of distrusted CAs that changes while the keeper runs.
    #[must_use]
    pub fn following(self, lists: watch::Receiver<Arc<DistrustList>>) -> Self {
        Self { lists, ..self }
    }

    /// Announces the CAs of sources to their followers. `cluster_namespace` holds the Secrets of
    /// `ClusterIssuer`s; without it no issuer is followed. The webhook is never called for the Secrets
    /// of `own_namespace`.
    #[must_use]
    pub fn announcing(self, cluster_namespace: Option<String>, own_namespace: String) -> Self {
        let settle = self.reconciler.rules.settle;
        let trust = Trust::new(cluster_namespace, own_namespace, settle, self.overflow.clone());
        Self { announcing: Some(Announcing::new(trust)), ..self }
    }

    /// Runs until `stop` is true.
    pub async fn run(mut self, client: Client, stop: watch::Receiver<bool>) {
        let [by_phase, by_mode] = Selector::ALL.map(|selector| events_of(&client, selector));
        let mut events = pin!(stream::select(by_phase, by_mode));
        let trust = self.announcing.as_ref().map(|announcing| announcing.events(&client));
        let mut trust = trust.unwrap_or_else(|| stream::pending().boxed());
        let mut left_over = pin!(sweep::left_over(client, self.reconciler.leadership.clone()));
        let mut stop = pin!(stopped(stop));
        let mut leadership = self.reconciler.leadership.clone();
        let mut led = false;
        loop {
            let leads = leadership.may_act();
            if led && !leads {
                // Abort the tasks, because each may end in a write. The next leader does the work
                // again.
                self.tasks.abort();
                self.announcing.iter_mut().for_each(Announcing::abort);
            }
            led = leads;
            self.metrics.leads(leads);
            self.start(leads);
            self.read_sources(leads);
            self.start_renewals(leads);
            let wake = self.next_wake(leadership.until());
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = leadership.changed() => {}
                Some(ended) = self.tasks.next() => self.ended(ended),
                ended = work_ended(&mut self.announcing) => match ended {
                    EndedWork::Source(ended) => self.source_read(ended),
                    EndedWork::Leaf(ended) => self.renewed(ended),
                },
                Some(key) = left_over.next() => self.schedule(&key),
                Some((selector, event)) = events.next() => self.watch_event(selector, event),
                Some(event) = trust.next() => self.trust_event(event),
                Ok(()) = self.lists.changed() => self.distrust(),
                () = tokio::time::sleep_until(wake) => self.expire(),
            }
        }
        self.tasks.shutdown().await;
        if let Some(announcing) = &mut self.announcing {
            announcing.shutdown().await;
        }
        self.metrics.leads(false);
    }

    /// When the loop wakes up, if nothing wakes it earlier.
    fn next_wake(&self, leads_until: Option<Instant>) -> Instant {
        let now = Instant::now();
        let is_full = self.tasks.len() >= MAX_CONCURRENT;
        let next_check = now + CLOCK_CHECK_INTERVAL;
        let namespace = self.namespace_queue.first(now, |_| true).filter(|_| !is_full);
        let next_check = namespace.unwrap_or(next_check).min(next_check);
        // A standby only watches. The leader has to notice the end of its term.
        let Some(until) = leads_until else { return next_check };
        let next_reconcile = self.queue.first(now, |namespace| self.tasks.has_room(namespace));
        let next_reconcile = next_reconcile.filter(|_| !is_full).unwrap_or(next_check);
        let deadline = self.deadlines.first(Timestamp::now(), |_| true);
        let deadline = deadline.filter(|_| !is_full).map_or(next_check, |deadline| {
            let left = deadline.duration_since(Timestamp::now());
            now + Duration::try_from(left).unwrap_or_default().min(CLOCK_CHECK_INTERVAL)
        });
        let source = self.announcing.as_ref().and_then(|announcing| announcing.next(now));
        next_check.min(until).min(next_reconcile).min(deadline).min(source.unwrap_or(next_check))
    }

    /// Starts tasks for what is due, up to [`MAX_CONCURRENT`].
    fn start(&mut self, leads: bool) {
        while leads && let Some(key) = self.deadlines.pop(Timestamp::now(), |_| true) {
            self.retries.changed(&key, None);
            self.schedule(&key);
        }
        while self.tasks.len() < MAX_CONCURRENT {
            let now = Instant::now();
            let has_room = |namespace: &str| self.tasks.has_room(namespace);
            let namespace = self.namespace_queue.pop(now, |_| true);
            let Some(key) = namespace.or_else(|| leads.then(|| self.queue.pop(now, has_room))?)
            else {
                return;
            };
            if self.tasks.change(&key) {
                continue;
            }
            let reconciler = self.reconciler.clone();
            let input = ReconcileInput {
                secret: self.memory.get(&key, now),
                namespace_uid: self.memory.namespace_uid(&key).map(ToOwned::to_owned),
                distrusted: self.memory.distrusted(key.namespace()),
                unseen_since: self.retries.unseen_since(&key),
                wanted: self.wanted(&key),
            };
            let target = key.clone();
            self.tasks.start(&key, async move { reconciler.reconcile(&target, input).await });
        }
    }

    /// Takes in another list of distrusted CAs. Any Secret may hold one of them.
    fn distrust(&mut self) {
        let list = self.lists.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.reconciler.rules.defaults.distrusted, list);
        self.memory.delist(&before);
        for key in self.watched.keys().cloned().collect::<Vec<_>>() {
            self.retries.changed(&key, None);
            self.schedule(&key);
        }
    }

    /// Reconciles `key` as soon as a task is free, unless it is in backoff.
    fn schedule(&mut self, key: &Key) {
        if !self.retries.is_waiting(key) {
            self.enqueue(key, Instant::now());
        }
    }

    fn enqueue(&mut self, key: &Key, at: Instant) {
        let queue =
            if key.namespace().is_empty() { &mut self.namespace_queue } else { &mut self.queue };
        for dropped in queue.set(key, at) {
            self.overflow.note(Budget::Queue, dropped.namespace());
            self.retries.forget(&dropped);
        }
    }

    /// As [`Self::enqueue`], but a key that is in the queue keeps its time.
    fn enqueue_new(&mut self, key: &Key, at: Instant) {
        if !self.queue.contains(key) {
            self.enqueue(key, at);
        }
    }

    /// Forgets Secrets that have been gone for too long.
    fn expire(&mut self) {
        for key in self.memory.expire(Instant::now()) {
            self.queue.remove(&key);
        }
        let now = Instant::now();
        self.unwatched.retain(|key, _| self.memory.get(key, now).is_some());
        let is_watched = |key: &Key| self.watched.get(key).is_some();
        self.reconciler.secrets.sightings.expire(Timestamp::now(), is_watched);
        self.reconciler.secrets.groups.expire(now);
        self.count_remembered();
    }

    fn count_remembered(&self) {
        self.metrics.remembers(self.memory.len(), self.memory.refused());
    }

    fn watch_event(&mut self, selector: Selector, event: watcher::Result<Event<SecretView>>) {
        match event {
            Ok(Event::Init) => self.shown[selector as usize] = Some(HashSet::new()),
            Ok(Event::InitApply(secret)) => {
                self.observe(&secret);
                let key = Key::of(&secret);
                // A Secret for which there is no room is not missed when the list is complete.
                if self.watched.get(&key).is_some()
                    && let Some(list) = &mut self.shown[selector as usize]
                {
                    list.insert(key);
                }
            }
            Ok(Event::InitDone) => self.list_complete(selector),
            Ok(Event::Apply(secret)) => self.applied(&secret),
            Ok(Event::Delete(secret)) => self.deselected(&Key::of(&secret), selector),
            Err(error) => {
                self.metrics.watch_failed();
                tracing::warn!(
                    error = explain_watch(&error, Audience::Log),
                    selector = selector.label(),
                    "cannot watch Secrets: trying again"
                );
            }
        }
    }

    /// Drops the Secrets that a complete list did not show.
    fn list_complete(&mut self, selector: Selector) {
        let list = self.shown[selector as usize].take().unwrap_or_default();
        let gone: Vec<Key> =
            self.watched.of(selector).filter(|key| !list.contains(*key)).cloned().collect();
        for key in gone {
            self.deselected(&key, selector);
        }
        if self.complete.send_if_modified(|c| !std::mem::replace(&mut c[selector as usize], true)) {
            let (label, secrets) = (selector.label(), list.len());
            tracing::info!(secrets, selector = label, "the first list of Secrets is complete");
        }
    }

    /// Handles a Secret that left one watch. The other watch may still show it.
    fn deselected(&mut self, key: &Key, selector: Selector) {
        let Some(tracked) = self.watched.get(key) else { return };
        let other = Selector::ALL.into_iter().find(|other| *other != selector);
        if other.is_none_or(|other| !tracked.is_selected(other)) {
            self.gone(key);
        } else {
            // The other watch has its present state; reconciling finds what is due.
            self.schedule(key);
        }
    }

    /// Handles a Secret that is gone, or has lost its labels. Its name is polled for a while,
    /// because a generator that creates it again does not set our labels, and no watch shows it.
    fn gone(&mut self, key: &Key) {
        let unwatched = self.unwatch(key);
        let waits = unwatched.as_ref().is_some_and(|unwatched| unwatched.waits);
        if let Some(again) = self.memory.lose(key, Instant::now()) {
            self.enqueue(key, again);
            self.unwatched.extend(unwatched.map(|unwatched| (key.clone(), unwatched)));
        } else {
            self.unwatched.remove(key);
        }
        if waits {
            // A leaf waits in it, unless it is gone.
            self.enqueue(key, Instant::now());
        }
        self.count_remembered();
    }

    fn unwatch(&mut self, key: &Key) -> Option<TrackedSecret> {
        self.deadlines.remove(key);
        self.queue.remove(key);
        self.retries.forget(key);
        self.watched.remove(key)
    }

    /// Takes in the state of a Secret from a watch or a response.
    fn observe(&mut self, secret: &SecretView) {
        let secret = &*self.reconciler.noted(secret);
        let key = Key::of(secret);
        let now = Timestamp::now();
        // A promotion in its group asks later when its `ca.crt` changed.
        self.reconciler.secrets.sightings.see(secret, now);
        let outlook = outlook::outlook(&secret.view(), &self.reconciler.rules, now);
        self.retries.changed(&key, Some(secret.resource_version()));
        let mut tracked = TrackedSecret::of(secret, &outlook);
        if self.retries.is_refused(&key) {
            tracked.add(Problem::AskRefused);
        }
        self.memory.distrust(&key, outlook.settings.distrust.own());
        let before = self.memory.get(&key, Instant::now());
        let distrusted = self.memory.distrusted(key.namespace());
        let is_damaged = before
            .is_some_and(|b| b.compare(secret, &self.reconciler.rules, &distrusted, now).is_some());
        if !is_damaged {
            self.publish_events(&key, secret, &tracked, &outlook, now);
        }
        self.unwatched.remove(&key);
        if Selector::ALL.into_iter().any(|selector| tracked.is_selected(selector)) {
            let dropped = self.watched.insert(&key, tracked);
            for dropped in &dropped {
                self.overflow.note(Budget::Watched, dropped.namespace());
                self.unwatch(dropped);
                self.memory.forget(dropped);
            }
            if dropped.contains(&key) {
                return;
            }
        } else if outlook.due == Some(Due::Unstage) && !is_damaged {
            // No watch shows it, so only the queue and the backoff lead to the end of its stage.
            self.deadlines.remove(&key);
            self.watched.remove(&key);
            self.schedule(&key);
            return;
        } else if is_damaged {
            // It has lost its labels too. No watch shows it any more, so only the queue leads to
            // its repair.
            self.memory.found(&key, secret);
            self.deadlines.remove(&key);
            self.watched.remove(&key);
            self.schedule(&key);
            return;
        } else {
            // A person removed the labels: ca-overlap no longer handles it, unless it is a follower,
            // whose queue and backoff lead to the next try.
            if self.announcing.as_ref().is_some_and(|it| it.trust.is_follower(&key)) {
                self.deadlines.remove(&key);
                self.watched.remove(&key);
            } else {
                self.unwatch(&key);
            }
            self.memory.forget(&key);
            self.count_remembered();
            return;
        }
        if is_damaged {
            self.schedule(&key);
        } else {
            self.remember(&key, secret);
        }
        let next =
            outlook.next.map(|next| next.at.saturating_add(DEADLINE_MARGIN).unwrap_or(next.at));
        match next.into_iter().chain(outlook.check).min() {
            // It holds watched Secrets only, so there is always room.
            Some(at) => drop(self.deadlines.set(&key, at)),
            None => self.deadlines.remove(&key),
        }
        let is_just_due =
            due_since(&outlook, now).is_some_and(|at| restart::age(at, now) < DEADLINE_MARGIN);
        if is_just_due && !self.retries.is_waiting(&key) {
            self.enqueue_new(&key, Instant::now() + DEADLINE_MARGIN);
        } else if outlook.due.is_some()
            || restart::pending_restart(&secret.view(), &outlook).is_some()
        {
            self.schedule(&key);
        } else if outlook.stage.as_ref().is_some_and(|it| self.reconciler.ca_bundles.may_refuse(it))
        {
            self.enqueue_new(&key, Instant::now() + CA_BUNDLE_DELAY);
        }
    }

    fn remember(&mut self, key: &Key, secret: &SecretView) {
        if let Some(namespace) = self.memory.remember(key, secret) {
            self.schedule(&namespace);
        }
        self.count_remembered();
    }

    /// Publishes Events about what has changed. Only the leader publishes them, and not about
    /// Secrets that the first lists show.
    fn publish_events(
        &self,
        key: &Key,
        secret: &SecretView,
        tracked: &TrackedSecret,
        outlook: &outlook::Outlook,
        now: Timestamp,
    ) {
        let before = self.watched.get(key).or_else(|| self.unwatched.get(key));
        let before = before.filter(|before| before.uid == tracked.uid);
        let is_first_list = *self.complete.borrow() != [true; 2];
        if !self.reconciler.leadership.may_act() || (before.is_none() && is_first_list) {
            return;
        }
        // A stage that the keeper ends itself is reported by its task, which knows who did it.
        let is_own = self.retries.unseen_since(key).is_some() && self.tasks.is_running(key);
        let is_end = |reason| matches!(reason, Reason::Promoted | Reason::StageEnded);
        for (reason, text) in tracked.news(before, secret, outlook, now) {
            if is_own && is_end(reason) {
                continue;
            }
            self.events.publish(key, Some(&tracked.uid), reason, text);
        }
    }

    fn ended(&mut self, ended: EndedTask<ReconcileOutcome>) {
        let EndedTask { key, result, is_changed } = ended;
        match result {
            Ok(outcome) => {
                // First the Secret itself, which sets a new deadline.
                let compared = outcome.secret().cloned();
                let is_opted_out = matches!(outcome, ReconcileOutcome::OptedOut(_));
                self.finish(&key, outcome);
                if let Some(secret) = compared {
                    self.compared(&key, &secret, is_opted_out);
                }
            }
            Err(error) if error.is_cancelled() => self.enqueue(&key, Instant::now()),
            Err(_) => {
                tracing::error!(secret = %key, "reconciling a Secret panicked: trying again");
                self.retry(&key, RetryCause::Failed, "");
            }
        }
        if is_changed {
            self.schedule(&key);
        }
        self.look_again(&key);
    }

    fn finish(&mut self, key: &Key, outcome: ReconcileOutcome) {
        match outcome {
            ReconcileOutcome::Asked(asked) => self.asked(key, *asked),
            ReconcileOutcome::Audited(secret, AskKind::Repair) => {
                // What is lost stays lost, and something else may be due.
                self.retries.forget(key);
                self.remember(key, &secret);
                self.observe(&secret);
            }
            ReconcileOutcome::Audited(secret, _) => {
                self.retry(key, RetryCause::Audit, secret.resource_version());
                self.observe(&secret);
            }
            ReconcileOutcome::Ended(after, end) => self.stage_ended(key, &after, end),
            ReconcileOutcome::Failed(failure) => self.failed(key, &failure),
            ReconcileOutcome::Gone => self.gone(key),
            ReconcileOutcome::Namespace(uid) => {
                self.retries.forget(key);
                let is_itself = key.namespace().is_empty();
                let namespace = if is_itself { key.name() } else { key.namespace() };
                tracing::debug!(namespace, "read the uid of a namespace");
                self.memory.set_namespace_uid(namespace, uid.as_deref());
                if !is_itself {
                    tracing::info!(
                        secret = %key,
                        "not repaired: the namespace was deleted and created again"
                    );
                    self.memory.forget(key);
                    self.count_remembered();
                }
            }
            ReconcileOutcome::NotKept(secret) => self.not_kept(key, &secret),
            ReconcileOutcome::NotLeading => self.enqueue_new(key, Instant::now()),
            ReconcileOutcome::OptedOut(secret) => {
                tracing::debug!(
                    secret = %key,
                    "nothing is asked, because the namespace is opted out"
                );
                self.retry(key, RetryCause::OptedOut, "");
                self.observe(&secret);
            }
            ReconcileOutcome::Nothing(secret) => {
                self.retries.forget(key);
                self.observe(&secret);
            }
            ReconcileOutcome::Restarting(restarting) => self.restarting(key, &restarting),
            ReconcileOutcome::Uncalled(secret) => {
                self.unseen(key);
                self.observe(&secret);
            }
            ReconcileOutcome::Waiting(secret, since) => {
                self.retries.forget(key);
                self.observe(&secret);
                self.enqueue(key, Instant::now() + pause(since, Timestamp::now()));
            }
        }
    }

    fn failed(&mut self, key: &Key, failure: &ReconcileError) {
        let ReconcileError { asking, error } = failure;
        let is_conflict = *error == CallError::Conflict;
        if let Some(kind) = *asking {
            let result = if is_conflict { AskResult::Conflict } else { AskResult::Failed };
            self.metrics.asked(kind, result);
        }
        let cause = if is_conflict { RetryCause::Conflict } else { RetryCause::Failed };
        if self.retry(key, cause, "") && !is_conflict {
            tracing::warn!(secret = %key, %error, "cannot reconcile a Secret: trying again");
        }
    }

    /// Tries `key` again after its backoff. Returns whether to report the failure.
    fn retry(&mut self, key: &Key, cause: RetryCause, version: &str) -> bool {
        let retry = self.retries.failed(key, cause, version);
        self.enqueue(key, Instant::now() + retry.pause);
        retry.is_news
    }
}

/// Waits for a task on sources or leaves.
async fn work_ended(announcing: &mut Option<Announcing>) -> EndedWork {
    match announcing {
        Some(announcing) => announcing.ended().await,
        None => std::future::pending().await,
    }
}

/// The watch of one selector; it never ends.
fn events_of(
    client: &Client,
    selector: Selector,
) -> impl Stream<Item = (Selector, watcher::Result<Event<SecretView>>)> + use<> {
    let config = watcher::Config::default().labels(selector.label()).page_size(pages::MOST);
    let api: Api<SecretView> = Api::all(client.clone());
    watcher::watcher(api, config).default_backoff().map(move |event| (selector, event))
}
