//! The known CA issuers of cert-manager, and the Secrets that they sign with.

use std::collections::{BTreeMap, BTreeSet};

use futures::{Stream, StreamExt, stream};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};

use crate::keeper::fair::Fair;
use crate::kubernetes::issuer::{Issuer, IssuerKey, IssuerKind};
use crate::kubernetes::key::Key;
use crate::kubernetes::pages;

/// The most issuers that are followed.
const MAX: usize = 20_000;

/// What a watch of issuers shows.
pub(crate) type IssuerEvent = (IssuerKind, watcher::Result<Event<Issuer>>);

/// Watches both kinds of issuers; never ends. It keeps trying where cert-manager is not installed.
pub(crate) fn watch(client: &Client) -> impl Stream<Item = IssuerEvent> + use<> {
    let watches = IssuerKind::ALL.map(|kind| {
        let api: Api<Issuer> = Api::all_with(client.clone(), &kind);
        let config = watcher::Config::default().page_size(pages::MOST);
        watcher::watcher(api, config).default_backoff().map(move |event| (kind, event)).boxed()
    });
    stream::select_all(watches)
}

/// Whether this error says that cert-manager is not installed.
pub(crate) fn is_not_installed(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(error)
    | watcher::Error::WatchStartFailed(error)
    | watcher::Error::WatchFailed(error)) = error
    else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// The known issuers.
#[derive(Debug)]
pub(super) struct Issuers {
    /// The namespace of the Secrets of `ClusterIssuer`s.
    cluster_namespace: String,
    secrets: Fair<IssuerKey, Key>,
    /// The issuers of each Secret.
    of_secret: BTreeMap<Key, BTreeSet<IssuerKey>>,
    /// What each list has shown so far, until it is complete.
    shown: [Option<BTreeSet<IssuerKey>>; 2],
    is_listed: [bool; 2],
}

impl Issuers {
    pub(super) fn new(cluster_namespace: String) -> Self {
        Self {
            cluster_namespace,
            secrets: Fair::new(MAX),
            of_secret: BTreeMap::new(),
            shown: [None, None],
            is_listed: [false; 2],
        }
    }

    /// Takes in what a watch shows. Returns the issuers whose Secret is another one now.
    pub(super) fn take(&mut self, kind: IssuerKind, event: Event<Issuer>) -> Vec<IssuerKey> {
        match event {
            Event::Init => {
                self.shown[kind as usize] = Some(BTreeSet::new());
                Vec::new()
            }
            Event::InitApply(issuer) => {
                let key = issuer.key();
                if let Some(shown) = &mut self.shown[kind as usize] {
                    shown.insert(key.clone());
                }
                self.set(key, issuer.secret_name())
            }
            Event::InitDone => {
                let shown = self.shown[kind as usize].take().unwrap_or_default();
                let is_of_kind = |key: &IssuerKey| {
                    key.namespace.is_empty() == (kind == IssuerKind::ClusterIssuer)
                };
                let known = self.secrets.iter().map(|(key, _)| key);
                let gone: Vec<_> =
                    known.filter(|key| is_of_kind(key) && !shown.contains(*key)).cloned().collect();
                let mut changed: Vec<_> =
                    gone.into_iter().flat_map(|key| self.set(key, None)).collect();
                if !std::mem::replace(&mut self.is_listed[kind as usize], true) {
                    // What followed an issuer without a Secret can be decided now.
                    changed.extend(shown);
                }
                changed
            }
            Event::Apply(issuer) => self.set(issuer.key(), issuer.secret_name()),
            Event::Delete(issuer) => self.set(issuer.key(), None),
        }
    }

    /// The Secret that this issuer signs with; `None` if it has none, or is not known.
    pub(super) fn secret(&self, issuer: &IssuerKey) -> Option<&Key> {
        self.secrets.get(&issuer.namespace, issuer)
    }

    /// Whether it is known which Secret this issuer signs with, or that there is none.
    pub(super) fn is_known(&self, issuer: &IssuerKey) -> bool {
        let kind = if issuer.namespace.is_empty() {
            IssuerKind::ClusterIssuer
        } else {
            IssuerKind::Issuer
        };
        self.secret(issuer).is_some() || self.is_listed[kind as usize]
    }

    /// Whether an issuer signs with this Secret; `None` if that is not known yet.
    pub(super) fn is_signer(&self, key: &Key) -> Option<bool> {
        if self.of_secret.contains_key(key) {
            return Some(true);
        }
        (self.is_listed == [true; 2]).then_some(false)
    }

    /// Whether both lists are complete.
    pub(super) fn is_listed(&self) -> bool {
        self.is_listed == [true; 2]
    }

    fn set(&mut self, issuer: IssuerKey, name: Option<String>) -> Vec<IssuerKey> {
        let namespace =
            if issuer.namespace.is_empty() { &self.cluster_namespace } else { &issuer.namespace };
        let secret = name.map(|name| Key::new(namespace.as_str(), name));
        let before = self.secrets.get(&issuer.namespace, &issuer).cloned();
        if before == secret {
            return Vec::new();
        }
        let mut changed = vec![issuer.clone()];
        self.forget(&issuer);
        if let Some(secret) = secret {
            self.of_secret.entry(secret.clone()).or_default().insert(issuer.clone());
            let namespace = issuer.namespace.clone();
            let inserted = self.secrets.insert(&namespace, issuer.clone(), secret, 1);
            for (dropped, secret) in inserted.dropped(issuer) {
                self.unlink(&dropped, &secret);
                changed.push(dropped);
            }
        }
        changed
    }

    fn forget(&mut self, issuer: &IssuerKey) {
        if let Some(secret) = self.secrets.remove(&issuer.namespace, issuer) {
            self.unlink(issuer, &secret);
        }
    }

    fn unlink(&mut self, issuer: &IssuerKey, secret: &Key) {
        if let Some(issuers) = self.of_secret.get_mut(secret) {
            issuers.remove(issuer);
            if issuers.is_empty() {
                self.of_secret.remove(secret);
            }
        }
    }
}
