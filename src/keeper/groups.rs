//! Reads the Secrets of a group.
//!
//! A list shows the metadata of all Secrets of the namespace, because no selector finds an
//! annotation. Only members are read whole, one by one, and again only when they have changed.

use std::collections::BTreeMap;
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

/// The most members of one group, and the most bytes of their certificates. The others are not
/// read.
const MAX_MEMBERS: usize = 128;
const MAX_GROUP: usize = 4 << 20;
/// The most bytes that are kept of all members together.
const MAX_ALL: usize = 16 << 20;
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
    overflow: Overflow,
}

/// A member as it was last read.
struct ReadMember {
    secret: Arc<SecretView>,
    used: Instant,
}

/// The Secrets of a group.
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

impl Groups {
    pub(super) fn new(client: Client, sightings: Sightings, overflow: Overflow) -> Self {
        Self { client, sightings, read: Arc::new(Mutex::new(Fair::new(MAX_ALL))), overflow }
    }

    /// Reads the Secrets of a namespace that are in `group`.
    pub(super) async fn group(&self, namespace: &str, group: &str) -> Result<Group, CallError> {
        let (mut found, mut bytes) = (Group::default(), 0);
        for ((_, name), version) in self.list(namespace, group).await? {
            if found.members.len() >= MAX_MEMBERS || bytes >= MAX_GROUP {
                if found.unread.is_empty() {
                    self.overflow.note(Budget::Group, namespace);
                }
                found.unread.push(name);
                continue;
            }
            let key = Key::new(namespace, name);
            if let Some(secret) = self.member(&key, &version).await? {
                // It may have left the group in between.
                if secret.annotation(names::GROUP) == Some(group) {
                    bytes += size(&secret);
                    found.members.push(secret);
                }
            }
        }
        Ok(found)
    }

    /// The members, the oldest first. One more than [`MAX_MEMBERS`] shows that there are more.
    async fn list(&self, namespace: &str, group: &str) -> Result<Listed, CallError> {
        let mut found = Listed::new();
        let list = ListParams::default().limit(pages::MOST).fields(NOT_THESE);
        let mut pages = Pages::of(list);
        while let Some(page) = pages.next() {
            let request = Request::new(SecretView::url_path(&(), Some(namespace)));
            let request = request.list_metadata(&page).map_err(|error| {
                CallError::Failed(format!("the list of a group cannot be requested: {error}"))
            })?;
            let answer = async { pages.turn::<SecretView>(self.client.request(request).await) };
            for secret in call(answer).await? {
                if secret.annotation(names::GROUP) != Some(group) {
                    continue;
                }
                let name = secret.meta().name.clone().unwrap_or_default();
                found.insert((secret.created(), name), secret.resource_version().to_owned());
                if found.len() > MAX_MEMBERS + 1 {
                    found.pop_last();
                }
            }
        }
        Ok(found)
    }

    /// A member at this version or a later one; `None` if it is gone.
    async fn member(&self, key: &Key, version: &str) -> Result<Option<Arc<SecretView>>, CallError> {
        if let Some(read) = self.lock().get_mut(key.namespace(), key)
            && read.secret.resource_version() == version
        {
            read.used = Instant::now();
            self.sightings.is_same(key, Timestamp::now());
            return Ok(Some(Arc::clone(&read.secret)));
        }
        let api: Api<SecretView> = Api::namespaced(self.client.clone(), key.namespace());
        let found = match call(api.get_opt(key.name())).await {
            Err(CallError::Gone) => None,
            other => other?,
        };
        let Some(secret) = found else { return Ok(None) };
        let sighting = self.sightings.see(&secret, Timestamp::now());
        let secret = Arc::new(secret.with_sighting(sighting));
        let read = ReadMember { secret: Arc::clone(&secret), used: Instant::now() };
        let size = size(&secret);
        // Without a place here it is read again each time.
        let inserted = self.lock().insert(key.namespace(), key.clone(), read, size);
        for (key, _) in inserted.dropped(key.clone()) {
            self.overflow.note(Budget::Group, key.namespace());
        }
        Ok(Some(secret))
    }

    /// Forgets the members that were not asked for in a while.
    pub(super) fn expire(&self, now: Instant) {
        let mut read = self.lock();
        let old = read.iter().filter(|(_, read)| now - read.used >= FORGET_AFTER);
        for key in old.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            read.remove(key.namespace(), &key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Fair<Key, ReadMember>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    use http::Method;
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
        let read = async { tokio::join!(groups.group("n", "g"), server).0 };
        let group = timeout(Duration::from_secs(60), read).await.expect("it goes on").unwrap();
        assert_eq!(group.members.len(), 2);
    }
}
