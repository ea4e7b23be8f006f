//! The loop: watches in, looks out.
//!
//! Nothing is remembered that matters: whatever is due is found again in the Secrets themselves by
//! whoever leads next. Each Secret is looked at by at most one task, and few are at a time.

mod outcomes;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;

use super::backoff::{Retries, Trouble};
use super::events::Events;
use super::lease::stopped;
use super::memory::Memory;
use super::queue::Agenda;
use super::reconcile::{Actor, Before, Failure, Outcome, due_since};
use super::running::{Ended, Running};
use super::secrets::PAGE;
use super::tracked::{Source, Tracked, Watched};
use crate::keeper::metrics::{AskResult, KeeperMetrics};
use crate::kubernetes::call::CallError;
use crate::kubernetes::explain::{For, explain_watch};
use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::overlap::action::pause;
use crate::overlap::outlook::{self, Problem};
use crate::overlap::restart;

/// Keeps the Secrets that are watched, and acts on them; see [`Controller::run`].
pub struct Controller {
    actor: Actor,
    events: Events,
    metrics: KeeperMetrics,
    watched: Watched,
    /// What was kept of those that no watch shows any more, while their names are looked at.
    parted: HashMap<Key, Tracked>,
    memory: Memory,
    /// Deadlines, by the wall clock.
    deadlines: Agenda<Timestamp>,
    /// Looks to take, by the monotonic clock.
    looks: Agenda<Instant>,
    /// Namespaces to read: whoever does not lead reads them, too, while their Secrets are there.
    reads: Agenda<Instant>,
    /// Whoever is here waits for its turn whatever the watch says.
    retries: Retries,
    running: Running<Outcome>,
    /// What each list has shown that is not complete yet.
    lists: [Option<HashSet<Key>>; 2],
    complete: watch::Sender<[bool; 2]>,
}

/// Looks at the same time.
const AT_ONCE: usize = 8;
/// How often the wall clock is compared with the deadlines, at least: it may step.
const GLANCE: Duration = Duration::from_secs(15);
/// After a deadline: the clocks of the webhook's machines may be slow by a little, and it would
/// refuse what is not over by its own.
const SLACK: Duration = Duration::from_secs(1);

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
            parted: HashMap::new(),
            memory: Memory::default(),
            metrics,
            deadlines: Agenda::default(),
            looks: Agenda::default(),
            reads: Agenda::default(),
            retries: Retries::default(),
            running: Running::default(),
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
        let mut led = false;
        loop {
            let leads = leadership.may_act();
            if led && !leads {
                // What is under way may end in a write. It is taken up again by whoever leads next.
                self.running.abort();
            }
            led = leads;
            self.metrics.leads(leads);
            self.start(leads);
            let wake = self.wake(leadership.until());
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = leadership.changed() => {}
                Some(ended) = self.running.next() => self.ended(ended),
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
            self.retries.changed(&key, None);
            self.schedule(&key);
        }
        while self.running.len() < AT_ONCE {
            let now = Instant::now();
            let read = self.reads.pop(now);
            let Some(key) = read.or_else(|| leads.then(|| self.looks.pop(now))?) else { return };
            if self.running.change(&key) {
                continue;
            }
            let actor = self.actor.clone();
            let before = Before {
                secret: self.memory.get(&key, now),
                namespace_uid: self.memory.namespace_uid(&key).map(ToOwned::to_owned),
                distrusted: self.watched.distrusted(),
            };
            let looked_at = key.clone();
            self.running.start(&key, async move { actor.look(&looked_at, before).await });
        }
    }

    /// A look as soon as there is room; one that has failed waits for its turn.
    fn schedule(&mut self, key: &Key) {
        if !self.retries.is_waiting(key) {
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
        let now = Instant::now();
        self.parted.retain(|key, _| self.memory.get(key, now).is_some());
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
                    error = explain_watch(&error, For::Log),
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
        let parted = self.unwatch(key);
        if let Some(again) = self.memory.lose(key, Instant::now()) {
            self.looks.set(key, again);
            self.parted.extend(parted.map(|parted| (key.clone(), parted)));
        } else {
            self.parted.remove(key);
        }
        self.count_remembered();
    }

    fn unwatch(&mut self, key: &Key) -> Option<Tracked> {
        self.deadlines.remove(key);
        self.looks.remove(key);
        self.retries.forget(key);
        self.watched.remove(key)
    }

    /// What a watch or an answer shows.
    fn observe(&mut self, secret: &SecretView) {
        let key = Key::of(secret);
        let now = Timestamp::now();
        let outlook = outlook::outlook(&secret.view(), &self.actor.rules, now);
        self.retries.changed(&key, Some(secret.resource_version()));
        let mut tracked = Tracked::of(secret, &outlook);
        if self.retries.is_refused(&key) {
            tracked.add(Problem::AskRefused);
        }
        let before = self.memory.get(&key, Instant::now());
        let distrusted = self.watched.distrusted();
        let is_damaged = before
            .is_some_and(|b| b.compare(secret, &self.actor.rules, &distrusted, now).is_some());
        if !is_damaged {
            self.tell(&key, secret, &tracked, &outlook, now);
        }
        self.parted.remove(&key);
        if Source::ALL.into_iter().any(|source| tracked.is_selected(source)) {
            self.watched.insert(&key, tracked);
        } else if is_damaged {
            // A repair that was not seen waits for its turn, also of one that has no labels.
            self.memory.found(&key, secret);
            self.deadlines.remove(&key);
            self.watched.remove(&key);
            self.schedule(&key);
            return;
        } else {
            // A person took the labels away: it is none of ours any more.
            self.unwatch(&key);
            self.memory.forget(&key);
            self.count_remembered();
            return;
        }
        if is_damaged {
            self.schedule(&key);
        } else {
            self.remember(&key, secret);
        }
        let next = outlook.next.map(|next| next.at.saturating_add(SLACK).unwrap_or(next.at));
        match next.into_iter().chain(outlook.check).min() {
            Some(at) => self.deadlines.set(&key, at),
            None => self.deadlines.remove(&key),
        }
        let is_just_due = due_since(&outlook, now).is_some_and(|at| restart::age(at, now) < SLACK);
        if is_just_due && !self.retries.is_waiting(&key) {
            self.looks.add(&key, Instant::now() + SLACK);
        } else if outlook.due.is_some()
            || restart::pending_restart(&secret.view(), &outlook).is_some()
        {
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
    fn tell(
        &self,
        key: &Key,
        secret: &SecretView,
        tracked: &Tracked,
        outlook: &outlook::Outlook,
        now: Timestamp,
    ) {
        let before = self.watched.get(key).or_else(|| self.parted.get(key));
        let before = before.filter(|before| before.uid == tracked.uid);
        let is_first_list = *self.complete.borrow() != [true; 2];
        if !self.actor.leadership.may_act() || (before.is_none() && is_first_list) {
            return;
        }
        for (reason, text) in tracked.news(before, secret, outlook, now) {
            self.events.say(key, Some(&tracked.uid), reason, text);
        }
    }

    fn ended(&mut self, ended: Ended<Outcome>) {
        let Ended { key, result, is_changed } = ended;
        match result {
            Ok(outcome) => self.finish(&key, outcome),
            Err(error) if error.is_cancelled() => self.look_at(&key, Instant::now()),
            Err(_) => {
                tracing::error!(secret = %key, "a look at a Secret panicked: trying again");
                self.retry(&key, Trouble::Failed, "");
            }
        }
        if is_changed {
            self.schedule(&key);
        }
    }

    fn finish(&mut self, key: &Key, outcome: Outcome) {
        match outcome {
            Outcome::Asked(asked) => self.asked(key, *asked),
            Outcome::Failed(failure) => self.failed(key, &failure),
            Outcome::Gone => self.lost(key),
            Outcome::Namespace(uid) => {
                self.retries.forget(key);
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
                self.retries.forget(key);
                self.observe(&secret);
            }
            Outcome::Restarting(restarting) => self.restarting(key, &restarting),
            Outcome::Waiting(secret, since) => {
                tracing::debug!(secret = %key, "due, but others have to be ready first");
                self.retries.forget(key);
                self.observe(&secret);
                self.looks.set(key, Instant::now() + pause(since, Timestamp::now()));
            }
        }
    }

    fn failed(&mut self, key: &Key, failure: &Failure) {
        let Failure { asking, error } = failure;
        let is_conflict = *error == CallError::Conflict;
        if let Some(kind) = *asking {
            let result = if is_conflict { AskResult::Conflict } else { AskResult::Failed };
            self.metrics.asked(kind, result);
        }
        let trouble = if is_conflict { Trouble::Conflict } else { Trouble::Failed };
        if self.retry(key, trouble, "") && !is_conflict {
            tracing::warn!(secret = %key, %error, "cannot look at a Secret: trying again");
        }
    }

    /// Again after a while. Says whether that is news.
    fn retry(&mut self, key: &Key, trouble: Trouble, version: &str) -> bool {
        let turn = self.retries.wrong(key, trouble, version);
        self.look_at(key, Instant::now() + turn.pause);
        turn.is_news
    }
}

/// The watch of one selector, for ever.
fn events_of(
    client: &Client,
    source: Source,
) -> impl Stream<Item = (Source, watcher::Result<Event<SecretView>>)> + use<> {
    let config = watcher::Config::default().labels(source.label()).page_size(PAGE);
    let api: Api<SecretView> = Api::all(client.clone());
    watcher::watcher(api, config).default_backoff().map(move |event| (source, event))
}
