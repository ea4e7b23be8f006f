//! Finds held leaves that the API server itself refuses.
//!
//! Some generators, such as Helm charts, write their new CA into the `caBundle` of their webhook as
//! well. The API server then rejects the leaf that a stage holds in service, and no pod's files
//! are worth that. So such a stage ends at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::prelude::*;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client};
use serde_json::Value;
use tokio::time::Instant;

use crate::kubernetes::call::{CallError, call};
use crate::kubernetes::pages::{self, Pages};
use crate::overlap::outlook::StageOutlook;
use crate::x509::certs::Fingerprint;
use crate::x509::pem;

/// How long what was read serves all stages. The keeper looks at each of them after a longer pause.
const SERVES: Duration = Duration::from_secs(2);
/// How long the keeper does not ask again after it was refused.
const DENIED: Duration = Duration::from_secs(600);
/// The most bundles that are kept, and certificates of each.
const MAX: usize = 4096;

/// The `caBundle`s of webhooks and API services. Clones share what was read.
#[derive(Clone)]
pub struct CaBundles {
    client: Client,
    read: Arc<Mutex<Option<ReadBundles>>>,
}

#[derive(Clone)]
struct ReadBundles {
    until: Instant,
    /// `None` without the right to list them.
    bundles: Option<Arc<Vec<CaBundle>>>,
}

/// A `caBundle` beside the Service that is verified against it.
#[derive(Debug, PartialEq, Eq)]
struct CaBundle {
    /// The namespace of the Service.
    namespace: String,
    cas: Vec<Fingerprint>,
}

impl CaBundles {
    /// Nothing is read yet.
    pub fn new(client: Client) -> Self {
        Self { client, read: Arc::default() }
    }

    /// Whether it is worth looking: the keeper has the right, and the two leaves have different CAs.
    pub(super) fn may_refuse(&self, stage: &StageOutlook) -> bool {
        let is_denied = |read: &ReadBundles| read.bundles.is_none() && Instant::now() < read.until;
        !stage.held_anchors.is_empty()
            && !stage.anchors.is_empty()
            && !self.lock().as_ref().is_some_and(is_denied)
    }

    /// Whether a `caBundle` for this namespace holds the CA of the waiting leaf, and no CA of the held
    /// one. `None` if the keeper may not know.
    pub(super) async fn refuse(&self, namespace: &str, stage: &StageOutlook) -> Option<bool> {
        if !self.may_refuse(stage) {
            return None;
        }
        let bundles = self.bundles().await?;
        let holds = |bundle: &CaBundle, wanted: &[Fingerprint]| {
            bundle.cas.iter().any(|ca| wanted.contains(ca))
        };
        Some(bundles.iter().any(|bundle| {
            bundle.namespace == namespace
                && holds(bundle, &stage.anchors)
                && !holds(bundle, &stage.held_anchors)
        }))
    }

    async fn bundles(&self) -> Option<Arc<Vec<CaBundle>>> {
        if let Some(read) = self.lock().clone().filter(|read| Instant::now() < read.until) {
            return read.bundles;
        }
        let (bundles, serves) = match self.list().await {
            Ok(bundles) => (Some(Arc::new(bundles)), SERVES),
            Err(CallError::Denied(_)) => (None, DENIED),
            Err(error) => {
                tracing::debug!(%error, "cannot read the caBundles of webhooks");
                (Some(Arc::default()), SERVES)
            }
        };
        let read = ReadBundles { until: Instant::now() + serves, bundles };
        *self.lock() = Some(read.clone());
        read.bundles
    }

    fn lock(&self) -> MutexGuard<'_, Option<ReadBundles>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn list(&self) -> Result<Vec<CaBundle>, CallError> {
        let mut found = Vec::new();
        for kind in [
            ApiResource::erase::<MutatingWebhookConfiguration>(&()),
            ApiResource::erase::<ValidatingWebhookConfiguration>(&()),
            ApiResource::erase::<APIService>(&()),
        ] {
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
            let mut pages = Pages::of(ListParams::default().limit(pages::MOST));
            while let Some(page) = pages.next() {
                let answer = async { pages.turn(api.list(&page).await) };
                for object in call(answer).await? {
                    collect(&object.data, &mut found);
                }
            }
        }
        Ok(found)
    }
}

/// Adds each `caBundle` at any depth that stands beside a Service.
fn collect(value: &Value, found: &mut Vec<CaBundle>) {
    let namespace = value["service"]["namespace"].as_str();
    if let (Some(bundle), Some(namespace)) = (value["caBundle"].as_str(), namespace)
        && found.len() < MAX
    {
        let text = BASE64_STANDARD.decode(bundle).unwrap_or_default();
        let blocks = pem::blocks(&text).filter(pem::Block::is_certificate).take(MAX);
        let cas = blocks.filter_map(|block| block.contents()).map(|der| Fingerprint::of(&der));
        found.push(CaBundle { namespace: namespace.to_owned(), cas: cas.collect() });
    }
    match value {
        Value::Object(fields) => fields.values().for_each(|value| collect(value, found)),
        Value::Array(items) => items.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}
