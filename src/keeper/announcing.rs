//! The work on followers and sources: their watches, and the sources that are being read.

use std::collections::HashSet;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use tokio::time::Instant;

use super::backoff::Retries;
use super::groups::NOT_THESE;
use super::queue::Queue;
use super::renew::{Renewal, Renewals};
use super::tasks::{EndedTask, Tasks};
use super::trust::issuers::{self, IssuerEvent};
use super::trust::{SourceRead, Trust};
use crate::kubernetes::call::CallError;
use crate::kubernetes::key::Key;
use crate::kubernetes::pages;
use crate::kubernetes::secret_view::SecretView;

/// The most sources that are read at the same time.
pub(super) const MAX_READS: usize = 8;

/// Followers and sources, and the work on them.
pub(super) struct Announcing {
    pub(super) trust: Trust,
    /// Sources to read.
    pub(super) queue: Queue<Instant>,
    pub(super) reads: Tasks<Result<SourceRead, CallError>>,
    pub(super) retries: Retries,
    /// Followers that a task works on, to look at when it has ended.
    pub(super) later: HashSet<Key>,
    /// Whether it was logged that cert-manager is not installed.
    pub(super) is_reported: bool,
    /// `None` if no leaf is renewed.
    pub(super) renewals: Option<Renewals>,
}

/// What the watches show.
pub(super) enum TrustEvent {
    Secret(watcher::Result<Event<(Key, ObjectMeta)>>),
    Issuer(IssuerEvent),
}

/// A task that has ended.
pub(super) enum EndedWork {
    /// A source was read.
    Source(EndedTask<Result<SourceRead, CallError>>),
    /// A leaf was renewed, or not.
    Leaf(EndedTask<Result<Renewal, CallError>>),
}

impl Announcing {
    pub(super) fn new(trust: Trust) -> Self {
        Self {
            trust,
            queue: Queue::default(),
            reads: Tasks::default(),
            retries: Retries::default(),
            later: HashSet::new(),
            is_reported: false,
            renewals: None,
        }
    }

    /// The watches; they never end.
    pub(super) fn events(&self, client: &Client) -> BoxStream<'static, TrustEvent> {
        let secrets = secrets(client).map(TrustEvent::Secret).boxed();
        if !self.trust.follows_issuers() {
            return secrets;
        }
        let issuers = issuers::watch(client).map(TrustEvent::Issuer);
        stream::select(secrets, issuers).boxed()
    }

    /// Waits for a task that ends; forever if none runs.
    pub(super) async fn ended(&mut self) -> EndedWork {
        let renewal = async { self.renewals.as_mut()?.tasks.next().await };
        tokio::select! {
            Some(ended) = self.reads.next() => EndedWork::Source(ended),
            Some(ended) = renewal => EndedWork::Leaf(ended),
            else => std::future::pending().await,
        }
    }

    /// When the next source is to be read, or leaves are to be renewed.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let has_room = |namespace: &str| self.reads.has_room(namespace);
        let read = self.queue.first(now, has_room).filter(|_| self.reads.len() < MAX_READS);
        let renewals = self.renewals.as_ref().and_then(|renewals| renewals.next);
        read.into_iter().chain(renewals).min()
    }

    /// Reads a source at this time, if it is not to be read earlier.
    pub(super) fn read_at(&mut self, key: &Key, at: Instant) {
        drop(self.queue.set_by(key, at));
    }

    pub(super) fn abort(&mut self) {
        self.reads.abort();
        self.renewals.iter_mut().for_each(|renewals| renewals.tasks.abort());
    }

    pub(super) async fn shutdown(&mut self) {
        self.reads.shutdown().await;
        if let Some(renewals) = &mut self.renewals {
            renewals.tasks.shutdown().await;
        }
    }
}

/// The metadata of all Secrets that can follow or be followed.
fn secrets(
    client: &Client,
) -> impl Stream<Item = watcher::Result<Event<(Key, ObjectMeta)>>> + use<> {
    let api: Api<SecretView> = Api::all(pages::metadata_only(client.clone()));
    let config = watcher::Config::default().fields(NOT_THESE).page_size(pages::MOST);
    watcher::watcher(api, config).default_backoff().map(|event| {
        event.map(|event| {
            let pair = |secret: SecretView| (Key::of(&secret), secret.meta().clone());
            match event {
                Event::Init => Event::Init,
                Event::InitDone => Event::InitDone,
                Event::InitApply(it) => Event::InitApply(pair(it)),
                Event::Apply(it) => Event::Apply(pair(it)),
                Event::Delete(it) => Event::Delete(pair(it)),
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::overflow::Overflow;
    use super::*;

    #[test]
    fn a_source_that_is_to_be_read_soon_is_not_read_later() {
        let settle = Duration::from_secs(300);
        let trust = Trust::new(None, "ca-overlap".to_owned(), settle, Overflow::default());
        let mut announcing = Announcing::new(trust);
        let (key, now) = (Key::new("n", "s"), Instant::now());
        announcing.read_at(&key, now);
        announcing.read_at(&key, now + settle);
        assert_eq!(announcing.next(now), Some(now));
        assert_eq!(announcing.queue.pop(now, |_| true), Some(key.clone()));
        announcing.read_at(&key, now + settle);
        announcing.read_at(&key, now);
        assert_eq!(announcing.next(now), Some(now));
    }
}
