//! The keeper's calls for Secrets: reads them without private keys, and writes annotations.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{GetParams, Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde_json::json;

use super::election::Leadership;
use super::groups::Groups;
use super::overflow::Overflow;
use super::sightings::Sightings;
use crate::kubernetes::call::{CallError, call};
use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::kubernetes::stage_end::end_stage;
use crate::names;
use crate::overlap::stage_end::StageEnd;

/// A change of one annotation or label that belongs to the keeper. The keeper becomes the manager of
/// what it writes, so writing anything else would cause conflicts for a server-side apply without
/// force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MetadataChange<'a> {
    /// `annotations` or `labels`.
    map: &'static str,
    /// The key of the annotation or label.
    key: &'static str,
    /// Its new value; `None` removes it.
    value: Option<&'a str>,
    /// With `dryRun` the API server stores nothing, but it still calls the webhook.
    is_dry_run: bool,
}

impl<'a> MetadataChange<'a> {
    /// Changes an annotation.
    pub(crate) fn annotation(key: &'static str, value: Option<&'a str>) -> Self {
        Self { map: "annotations", key, value, is_dry_run: false }
    }

    /// Changes a label.
    pub(crate) fn label(key: &'static str, value: Option<&'a str>) -> Self {
        Self { map: "labels", key, value, is_dry_run: false }
    }
}

impl MetadataChange<'_> {
    /// The same change, which the API server does not store.
    pub(crate) fn as_dry_run(self) -> Self {
        Self { is_dry_run: true, ..self }
    }
}

/// Distinguishes a namespace from an earlier one of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamespaceIdentity {
    /// The uid of the namespace.
    pub(crate) uid: String,
    /// When the namespace was created, in whole seconds.
    pub(crate) created: Option<Timestamp>,
    /// Whether it is opted out, so that the webhook is not called there.
    pub(crate) is_off: bool,
}

/// Reads and annotates Secrets.
#[derive(Clone)]
pub struct Secrets {
    client: Client,
    leadership: Leadership,
    pub(super) sightings: Sightings,
    pub(super) groups: Groups,
}

impl Secrets {
    /// Creates the calls for Secrets. They write only while `leadership` lets this replica act.
    pub fn new(client: Client, leadership: Leadership) -> Self {
        let overflow = Overflow::default();
        let sightings = Sightings::new(overflow.clone());
        let groups = Groups::new(client.clone(), sightings.clone(), overflow);
        Self { client, leadership, sightings, groups }
    }

    /// Reports to `overflow` what does not fit.
    #[must_use]
    pub fn reporting(self, overflow: Overflow) -> Self {
        let sightings = Sightings::new(overflow.clone());
        let groups = Groups::new(self.client.clone(), sightings.clone(), overflow);
        Self { sightings, groups, ..self }
    }

    /// The client, for calls about other objects.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Reads a Secret; `None` if it does not exist.
    pub(crate) async fn get(&self, key: &Key) -> Result<Option<SecretView>, CallError> {
        self.get_since(key, "").await
    }

    /// Reads a Secret in this version or a later one, which the API server can have in memory.
    /// Without a version it reads the latest from its storage.
    /// <https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list>
    pub(crate) async fn get_since(
        &self,
        key: &Key,
        version: &str,
    ) -> Result<Option<SecretView>, CallError> {
        let api: Api<SecretView> = Api::namespaced(self.client.clone(), key.namespace());
        let parameters =
            if version.is_empty() { GetParams::default() } else { GetParams::at(version) };
        match call(api.get_with(key.name(), &parameters)).await {
            Err(CallError::Gone) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Whether the webhook is not called for the Secrets of this namespace. The API server answers
    /// from memory, as it does to itself when it decides whether to call the webhook.
    pub(crate) async fn is_opted_out(&self, namespace: &str) -> Result<bool, CallError> {
        let found = self.namespace_with(namespace, &GetParams::any()).await?;
        Ok(found.is_some_and(|namespace| namespace.is_off))
    }

    /// Reads the namespace that has this name now; `None` if there is none.
    pub(crate) async fn namespace(
        &self,
        name: &str,
    ) -> Result<Option<NamespaceIdentity>, CallError> {
        self.namespace_with(name, &GetParams::default()).await
    }

    async fn namespace_with(
        &self,
        name: &str,
        parameters: &GetParams,
    ) -> Result<Option<NamespaceIdentity>, CallError> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let found = match call(api.get_metadata_opt_with(name, parameters)).await {
            Err(CallError::Gone) => None,
            other => other?,
        };
        let Some(found) = found else { return Ok(None) };
        let created = found.metadata.creation_timestamp.map(|time| time.0);
        let mode = found.metadata.labels.as_ref().and_then(|labels| labels.get(names::MODE));
        let is_off = mode.is_some_and(|mode| mode == "off");
        Ok(found.metadata.uid.map(|uid| NamespaceIdentity { uid, created, is_off }))
    }

    /// Changes an annotation or a label; fails if the Secret is no longer the version that was read. Returns
    /// what is stored afterwards, including the webhook's changes.
    pub(crate) async fn change(
        &self,
        key: &Key,
        read: &SecretView,
        change: MetadataChange<'_>,
    ) -> Result<SecretView, CallError> {
        let patch = json!({"metadata": {
            "uid": read.meta().uid,
            "resourceVersion": read.resource_version(),
            change.map: {change.key: change.value},
        }});
        let api: Api<SecretView> = Api::namespaced(self.client.clone(), key.namespace());
        let parameters = PatchParams {
            field_manager: Some(names::KEEPER_SERVICE_ACCOUNT.to_owned()),
            dry_run: change.is_dry_run,
            ..PatchParams::default()
        };
        fence(&self.leadership)?;
        call(api.patch(key.name(), &parameters, &Patch::Merge(&patch))).await
    }

    /// Ends the stage of a Secret without the webhook. Fails if the Secret is no longer the version
    /// that was read. Returns what is stored afterwards.
    pub(crate) async fn end_stage(
        &self,
        read: &SecretView,
        end: StageEnd,
    ) -> Result<SecretView, CallError> {
        fence(&self.leadership)?;
        call(end_stage(&self.client, read, end, names::KEEPER_SERVICE_ACCOUNT)).await
    }
}

/// Checks leadership just before a write, because earlier calls may have outlasted the Lease. With
/// `--audit` no write is sent.
pub(super) fn fence(leadership: &Leadership) -> Result<(), CallError> {
    if leadership.is_audit() {
        return Err(CallError::Audit);
    }
    if leadership.may_act() { Ok(()) } else { Err(CallError::NotLeading) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::super::election::{Election, ElectionConfig};
    use super::*;

    #[tokio::test]
    async fn a_write_without_leadership_is_not_sent() {
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = sent.clone();
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            counter.fetch_add(1, Ordering::SeqCst);
            async { Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("none")) }
        });
        let client = Client::new(service, "n");
        let config = ElectionConfig {
            namespace: "n".into(),
            lease: "l".into(),
            identity: "me".into(),
            duration: Duration::from_secs(15),
        };
        let (_, leadership) = Election::new(client.clone(), config);
        let (_, leads) = Leadership::switched(true);
        let trial = Secrets::new(client.clone(), leads.auditing());
        let secrets = Secrets::new(client, leadership);
        let read = json!({"metadata": {"name": "a", "namespace": "n"}});
        let read: SecretView = serde_json::from_value(read).unwrap();
        let key = Key::of(&read);
        for is_dry_run in [true, false] {
            let change =
                MetadataChange { is_dry_run, ..MetadataChange::annotation(names::ASK, None) };
            let refused = secrets.change(&key, &read, change).await;
            assert_eq!(refused.err(), Some(CallError::NotLeading));
            let refused = trial.change(&key, &read, change).await;
            assert_eq!(refused.err(), Some(CallError::Audit), "a leader with --audit");
        }
        let refused = trial.end_stage(&read, StageEnd::Promote).await;
        assert_eq!(refused.err(), Some(CallError::Audit));
        assert_eq!(sent.load(Ordering::SeqCst), 0);
        assert!(secrets.get(&key).await.is_err());
        assert_eq!(sent.load(Ordering::SeqCst), 1, "control: a call is counted");
    }
}
