//! Reads the Secrets that a promotion waits for: those of a group, or without one those of type
//! `kubernetes.io/tls` in the namespace that hold the old CA.
//!
//! A list shows the metadata of all Secrets of the namespace, because no selector finds an
//! annotation, or of all of that type. Candidates are read one by one, and again only when they have
//! changed. Of those that turn out to be no members only the fingerprints of their CAs are kept.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::api::ListParams;
use kube::core::Request;
use kube::{Api, Client, Resource};
use tokio::time::Instant;

use super::fair::Fair;
use super::overflow::{Budget, Overflow};
use super::sightings::Sightings;
use crate::kubernetes::call::{CallError, call};
use crate::kubernetes::key::Key;
use crate::kubernetes::pages::{self, Pages};
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::MAX_STORED_BLOCKS;
use crate::x509::certs::{Bundle, Certificate, Fingerprint};

/// The most members of one group, and the most bytes of their certificates. The others are not
/// read.
const MAX_MEMBERS: usize = 128;
const MAX_GROUP: usize = 4 << 20;
/// The most Secrets that are read in search of those that hold a CA.
const MAX_CANDIDATES: usize = 1024;
/// The most bytes that are kept of all members together, and of the fingerprints of the others.
const MAX_ALL: usize = 16 << 20;
const MAX_PRINTS: usize = 4 << 20;
/// How long one list of candidates serves all that wait in its namespace. The keeper looks at each of
/// them again only after a longer pause.
const LIST_SERVES: Duration = Duration::from_secs(2);
/// How long a member is kept after it was last asked for.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// These are in no group, and are often many.
pub(super) const NOT_THESE: &str =
    "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token";

/// Reads groups. Clones share what they have read.
#[derive(Clone)]
pub(super) struct Groups {
    client: Client,
    sightings: Sightings,
    read: Arc<Mutex<Fair<Key, ReadMember>>>,
    others: Arc<Mutex<Fair<Key, OtherSecret>>>,
    lists: Arc<Mutex<RecentLists>>,
    overflow: Overflow,
}

/// Which Secrets are wanted.
#[derive(Clone, Copy)]
pub(super) enum Search<'a> {
    /// Those of this group.
    OfGroup(&'a str),
    /// Those of type `kubernetes.io/tls` that hold one of these CAs.
    Holding(&'a [Fingerprint]),
}

impl Search<'_> {
    fn selector(self) -> &'static str {
        match self {
            Self::OfGroup(_) => NOT_THESE,
            Self::Holding(_) => "type=kubernetes.io/tls",
        }
    }

    /// The most Secrets that are read.
    fn limit(self) -> usize {
        match self {
            Self::OfGroup(_) => MAX_MEMBERS,
            Self::Holding(_) => MAX_CANDIDATES,
        }
    }

    /// Whether a Secret of which only the metadata is known can be a member.
    fn admits(self, metadata: &SecretView) -> bool {
        match self {
            Self::OfGroup(group) => metadata.annotation(names::GROUP) == Some(group),
            Self::Holding(_) => true,
        }
    }

    fn finds(self, secret: &SecretView) -> bool {
        match self {
            Self::OfGroup(_) => self.admits(secret),
            Self::Holding(wanted) => holds(&prints(secret), wanted),
        }
    }
}

/// A Secret that was no member when it was last read.
struct OtherSecret {
    version: String,
    cas: Vec<Fingerprint>,
    used: Instant,
}

/// A member as it was last read.
struct ReadMember {
    secret: Arc<SecretView>,
    used: Instant,
}

/// The Secrets that were found.
#[derive(Default)]
pub(crate) struct Group {
    /// Those that were read.
    pub(crate) members: Vec<Arc<SecretView>>,
    /// The names of some that were not read, because there are too many, or they are too large.
    pub(crate) unread: Vec<String>,
}

/// The versions of members by the time of their creation and their names: the oldest come first, so
/// that whoever joins later pushes none of them out.
type Listed = BTreeMap<(Option<Timestamp>, String), String>;

/// The last list of candidates in each namespace, and when it was asked for.
type RecentLists = HashMap<String, (Instant, Arc<Listed>)>;

impl Groups {
    pub(super) fn new(client: Client, sightings: Sightings, overflow: Overflow) -> Self {
        let read = Arc::new(Mutex::new(Fair::new(MAX_ALL)));
        let others = Arc::new(Mutex::new(Fair::new(MAX_PRINTS)));
        Self { client, sightings, read, others, lists: Arc::default(), overflow }
    }

    /// Reads the wanted Secrets of a namespace.
    pub(super) async fn find(
        &self,
        namespace: &str,
        search: Search<'_>,
    ) -> Result<Group, CallError> {
        let (mut found, mut bytes) = (Group::default(), 0);
        let listed = match search {
            Search::OfGroup(_) => Arc::new(self.list(namespace, search).await?),
            Search::Holding(_) => self.recent_list(namespace, search).await?,
        };
        for (count, ((_, name), version)) in listed.iter().enumerate() {
            let key = Key::new(namespace, name);
            if let Search::Holding(wanted) = search
                && self.is_known_other(&key, version, wanted)
            {
                continue;
            }
            if count >= search.limit() || found.members.len() >= MAX_MEMBERS || bytes >= MAX_GROUP {
                self.overflow.note(Budget::Group, namespace);
                found.unread.push(name.clone());
                break;
            }
            if let Some(secret) = self.member(&key, version, search).await? {
                bytes += size(&secret);
                found.members.push(secret);
            }
        }
        Ok(found)
    }

    /// A list that is at most [`LIST_SERVES`] old.
    async fn recent_list(
        &self,
        namespace: &str,
        search: Search<'_>,
    ) -> Result<Arc<Listed>, CallError> {
        let now = Instant::now();
        let is_recent = |at: Instant| now - at < LIST_SERVES;
        if let Some((at, listed)) = lock(&self.lists).get(namespace)
            && is_recent(*at)
        {
            return Ok(Arc::clone(listed));
        }
        let listed = Arc::new(self.list(namespace, search).await?);
        let mut lists = lock(&self.lists);
        lists.retain(|_, (at, _)| is_recent(*at));
        lists.insert(namespace.to_owned(), (now, Arc::clone(&listed)));
        Ok(listed)
    }

    /// The candidates, the oldest first. One more than the limit shows that there are more.
    async fn list(&self, namespace: &str, search: Search<'_>) -> Result<Listed, CallError> {
        let mut found = Listed::new();
        let list = ListParams::default().limit(pages::MOST).fields(search.selector());
        let mut pages = Pages::of(list);
        while let Some(page) = pages.next() {
            let request = Request::new(SecretView::url_path(&(), Some(namespace)));
            let request = request.list_metadata(&page).map_err(|error| {
                CallError::Failed(format!("the list of a group cannot be requested: {error}"))
            })?;
            let answer = async { pages.turn::<SecretView>(self.client.request(request).await) };
            for secret in call(answer).await?.into_iter().filter(|it| search.admits(it)) {
                let name = secret.meta().name.clone().unwrap_or_default();
                found.insert((secret.created(), name), secret.resource_version().to_owned());
                if found.len() > search.limit() + 1 {
                    found.pop_last();
                }
            }
        }
        Ok(found)
    }

    /// Whether this version was read, and held none of these CAs.
    fn is_known_other(&self, key: &Key, version: &str, wanted: &[Fingerprint]) -> bool {
        let mut others = lock(&self.others);
        let Some(other) = others.get_mut(key.namespace(), key) else { return false };
        other.used = Instant::now();
        other.version == version && !holds(&other.cas, wanted)
    }

    /// A member at this version or a later one; `None` if it is gone, or is no member.
    async fn member(
        &self,
        key: &Key,
        version: &str,
        search: Search<'_>,
    ) -> Result<Option<Arc<SecretView>>, CallError> {
        if let Some(read) = lock(&self.read).get_mut(key.namespace(), key)
            && read.secret.resource_version() == version
        {
            read.used = Instant::now();
            self.sightings.is_same(key, Timestamp::now());
            return Ok(Some(Arc::clone(&read.secret)).filter(|secret| search.finds(secret)));
        }
        let api: Api<SecretView> = Api::namespaced(self.client.clone(), key.namespace());
        let found = match call(api.get_opt(key.name())).await {
            Err(CallError::Gone) => None,
            other => other?,
        };
        let Some(secret) = found else { return Ok(None) };
        if !search.finds(&secret) {
            if let Search::Holding(_) = search {
                self.note_other(key, &secret);
            }
            return Ok(None);
        }
        let sighting = self.sightings.see(&secret, Timestamp::now());
        let secret = Arc::new(secret.with_sighting(sighting));
        let read = ReadMember { secret: Arc::clone(&secret), used: Instant::now() };
        self.keep(&self.read, key, read, size(&secret));
        Ok(Some(secret))
    }

    /// Without a place it is read again each time.
    fn keep<V>(&self, all: &Mutex<Fair<Key, V>>, key: &Key, value: V, size: usize) {
        let inserted = lock(all).insert(key.namespace(), key.clone(), value, size);
        for (key, _) in inserted.dropped(key.clone()) {
            self.overflow.note(Budget::Group, key.namespace());
        }
    }

    fn note_other(&self, key: &Key, secret: &SecretView) {
        let cas = prints(secret);
        let size = 256 + cas.len() * size_of::<Fingerprint>();
        let version = secret.resource_version().to_owned();
        let other = OtherSecret { version, cas, used: Instant::now() };
        self.keep(&self.others, key, other, size);
    }

    /// Forgets the Secrets that were not asked for in a while.
    pub(super) fn expire(&self, now: Instant) {
        forget(&mut lock(&self.read), |read| now - read.used >= FORGET_AFTER);
        forget(&mut lock(&self.others), |other| now - other.used >= FORGET_AFTER);
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn forget<V>(all: &mut Fair<Key, V>, is_old: impl Fn(&V) -> bool) {
    let old = all.iter().filter(|(_, value)| is_old(value)).map(|(key, _)| key.clone());
    for key in old.collect::<Vec<_>>() {
        all.remove(key.namespace(), &key);
    }
}

/// The fingerprints of the certificates in `ca.crt`.
fn prints(secret: &SecretView) -> Vec<Fingerprint> {
    let text = secret.view().ca_crt.unwrap_or_default();
    let bundle = Bundle::parse(text, MAX_STORED_BLOCKS).unwrap_or_default();
    bundle.certificates().iter().map(Certificate::fingerprint).collect()
}

fn holds(cas: &[Fingerprint], wanted: &[Fingerprint]) -> bool {
    cas.iter().any(|ca| wanted.contains(ca))
}

/// The bytes that a Secret takes in memory.
fn size(secret: &SecretView) -> usize {
    const MAPS: usize = 1024;
    let view = secret.view();
    let values = [view.ca_crt, view.tls_crt, view.pending_tls_crt];
    let annotations: usize = view.annotations.values().map(String::len).sum();
    MAPS + annotations + values.iter().flatten().map(|value| value.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use base64::prelude::*;
    use devtools::certs::{self, Identity};
    use http::Method;
    use kube::ResourceExt;
    use serde_json::json;
    use tokio::time::timeout;

    use super::super::mock::api;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_list_that_expires_is_read_again_and_a_member_counts_once() {
        let (client, mut api) = api();
        let overflow = Overflow::default();
        let groups = Groups::new(client, Sightings::new(overflow.clone()), overflow);
        let path = "/api/v1/namespaces/n/secrets";
        let secret = |name: &str, version: &str| {
            json!({"metadata": {"namespace": "n", "name": name, "resourceVersion": version,
                "annotations": {names::GROUP: "g"}}})
        };
        let page = |next: &str, items| {
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"continue": next}, "items": items})
        };
        let server = async {
            let first = page("one", json!([secret("a", "1")]));
            api.expect(&Method::GET, path).await.answer(&first);
            api.expect(&Method::GET, path).await.refuse(410, "Expired");
            let all = page("", json!([secret("a", "2"), secret("b", "1")]));
            api.expect(&Method::GET, path).await.answer(&all);
            for (name, version) in [("a", "2"), ("b", "1")] {
                let call = api.expect(&Method::GET, &format!("{path}/{name}")).await;
                call.answer(&secret(name, version));
            }
        };
        let read = async { tokio::join!(groups.find("n", Search::OfGroup("g")), server).0 };
        let group = timeout(Duration::from_secs(60), read).await.expect("it continues").unwrap();
        assert_eq!(group.members.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn each_candidate_is_read_once_and_one_list_serves_all_that_wait() {
        let (client, mut api) = api();
        let overflow = Overflow::default();
        let groups = Groups::new(client, Sightings::new(overflow.clone()), overflow);
        let path = "/api/v1/namespaces/n/secrets";
        let [old, another] = ["old", "another"].map(certs::ca_named);
        let secret = |name: &str, version: &str, ca: &Identity| {
            json!({"metadata": {"namespace": "n", "name": name, "resourceVersion": version},
                "data": {"ca.crt": BASE64_STANDARD.encode(&ca.pem)}})
        };
        let list = |other: &str| {
            let items = [("a", "1"), ("b", other)];
            let items = items.map(|(name, version)| {
                json!({"metadata": {"namespace": "n", "name": name, "resourceVersion": version}})
            });
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": {}, "items": items})
        };
        let wanted = [Fingerprint::of(&old.der)];
        let find = async || {
            let found = groups.find("n", Search::Holding(&wanted)).await.unwrap();
            found.members.iter().map(|it| it.name_any()).collect::<Vec<_>>()
        };
        let (found, ()) = tokio::join!(find(), async {
            let call = api.expect(&Method::GET, path).await;
            assert!(call.path.contains("fieldSelector=type%3Dkubernetes.io%2Ftls"));
            call.answer(&list("1"));
            for (name, ca) in [("a", &old), ("b", &another)] {
                let call = api.expect(&Method::GET, &format!("{path}/{name}")).await;
                call.answer(&secret(name, "1", ca));
            }
        });
        assert_eq!(found, ["a"]);
        assert_eq!(find().await, ["a"], "nothing is read");
        tokio::time::advance(LIST_SERVES).await;
        let (found, ()) = tokio::join!(find(), async {
            api.expect(&Method::GET, path).await.answer(&list("2"));
            let call = api.expect(&Method::GET, &format!("{path}/b")).await;
            call.answer(&secret("b", "2", &old));
        });
        assert_eq!(found, ["a", "b"], "only what changed is read");
    }
}
