//! The calls that the keeper makes: it reads Secrets without their secrets, and writes annotations.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde_json::json;

use super::lease::Leadership;
use crate::kubernetes::call::{CallError, call};
use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::names;

/// What to change on a Secret: an annotation of the keeper's own. Of any other it would become the
/// manager, and stand in the way of those who apply without force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change<'a> {
    /// Which one.
    pub(crate) annotation: &'static str,
    /// To set or, by `None`, to remove.
    pub(crate) value: Option<&'a str>,
    /// Only tried out: nothing is stored (`dryRun`). The webhook is called all the same.
    pub(crate) is_trial: bool,
}

/// What tells a namespace from an earlier one of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tenant {
    /// Its uid.
    pub(crate) uid: String,
    /// When it was created, in whole seconds.
    pub(crate) created: Option<Timestamp>,
}

/// Reads and annotates Secrets.
#[derive(Clone)]
pub struct Secrets {
    client: Client,
    leadership: Leadership,
}

impl Secrets {
    /// By this client. Nothing is written without leadership.
    pub fn new(client: Client, leadership: Leadership) -> Self {
        Self { client, leadership }
    }

    /// Reads one; `None` where there is none.
    pub(crate) async fn get(&self, key: &Key) -> Result<Option<SecretView>, CallError> {
        let api: Api<SecretView> = Api::namespaced(self.client.clone(), key.namespace());
        match call(api.get_opt(key.name())).await {
            Err(CallError::Gone) => Ok(None),
            other => other,
        }
    }

    /// Which namespace has this name now; `None` where there is none.
    pub(crate) async fn namespace(&self, name: &str) -> Result<Option<Tenant>, CallError> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let Some(found) = call(api.get_metadata_opt(name)).await? else { return Ok(None) };
        let created = found.metadata.creation_timestamp.map(|time| time.0);
        Ok(found.metadata.uid.map(|uid| Tenant { uid, created }))
    }

    /// Changes an annotation of the version that was read. Gives what is stored afterwards, the
    /// webhook's changes included.
    pub(crate) async fn change(
        &self,
        key: &Key,
        read: &SecretView,
        change: Change<'_>,
    ) -> Result<SecretView, CallError> {
        let patch = json!({"metadata": {
            "uid": read.meta().uid,
            "resourceVersion": read.resource_version(),
            "annotations": {change.annotation: change.value},
        }});
        let api: Api<SecretView> = Api::namespaced(self.client.clone(), key.namespace());
        let parameters = PatchParams {
            field_manager: Some(names::KEEPER_SERVICE_ACCOUNT.to_owned()),
            dry_run: change.is_trial,
            ..PatchParams::default()
        };
        fence(&self.leadership)?;
        call(api.patch(key.name(), &parameters, &Patch::Merge(&patch))).await
    }

    /// The Secrets of a namespace that are in a group.
    pub(crate) async fn group(
        &self,
        namespace: &str,
        group: &str,
    ) -> Result<Vec<SecretView>, CallError> {
        let api: Api<SecretView> = Api::namespaced(self.client.clone(), namespace);
        let mut found = Vec::new();
        let mut parameters = ListParams::default().limit(PAGE);
        loop {
            let page = call(api.list(&parameters)).await?;
            let of_group =
                page.items.into_iter().filter(|s| s.annotation(names::GROUP) == Some(group));
            found.extend(of_group);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters.continue_token = Some(token),
                None => return Ok(found),
            }
        }
    }
}

/// Just before a write: what came before it may have taken longer than the Lease.
pub(super) fn fence(leadership: &Leadership) -> Result<(), CallError> {
    if leadership.may_act() { Ok(()) } else { Err(CallError::NotLeading) }
}

/// Secrets at a time: bounds what one answer takes in memory.
pub(super) const PAGE: u32 = 100;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::super::lease::{Election, Settings};
    use super::*;

    #[tokio::test]
    async fn without_leadership_a_write_is_not_even_sent() {
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = sent.clone();
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            counter.fetch_add(1, Ordering::SeqCst);
            async { Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("none")) }
        });
        let client = Client::new(service, "n");
        let settings = Settings {
            namespace: "n".into(),
            lease: "l".into(),
            identity: "me".into(),
            duration: Duration::from_secs(15),
        };
        let (_, leadership) = Election::new(client.clone(), settings);
        let secrets = Secrets::new(client, leadership);
        let read = json!({"metadata": {"name": "a", "namespace": "n"}});
        let read: SecretView = serde_json::from_value(read).unwrap();
        let key = Key::of(&read);
        for is_trial in [true, false] {
            let change = Change { annotation: names::ASK, value: None, is_trial };
            let refused = secrets.change(&key, &read, change).await;
            assert_eq!(refused.err(), Some(CallError::NotLeading));
        }
        assert_eq!(sent.load(Ordering::SeqCst), 0);
        assert!(secrets.get(&key).await.is_err());
        assert_eq!(sent.load(Ordering::SeqCst), 1, "the others would have been seen");
    }
}
