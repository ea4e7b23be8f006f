//! Adds the certificates to the list of the cluster: the ConfigMap `ca-overlap-distrusted`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::MANAGER;
use super::argument::DistrustedCa;
use crate::kubernetes::explain::{Audience, explain};
use crate::names;
use crate::overlap::distrust::{DistrustList, MAX_LISTED};
use crate::tools::registration::contents;
use crate::x509::certs::Fingerprint;

/// Adds an entry for each certificate. Returns the SHA-256 of the list, by which replicas say that
/// they use it.
///
/// Each entry has a key of its own, so that two writers cannot lose each other's. Its value says
/// when it was written: then the SHA-256 differs even if nothing was added, and a replica that
/// reports it has read the list after this call.
pub(super) async fn add(
    client: &Client,
    namespace: &str,
    wanted: &[DistrustedCa],
    dry_run: bool,
) -> Result<Fingerprint, String> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let now = Timestamp::now();
    let entry = |ca: &DistrustedCa| {
        let subject = ca.known.as_ref().map(|(subject, _)| format!("{subject}, "));
        (ca.fingerprint.to_string(), format!("{}distrusted {now}", subject.unwrap_or_default()))
    };
    let data: BTreeMap<String, String> = wanted.iter().map(entry).collect();
    let parameters = PatchParams { dry_run, ..PatchParams::apply(MANAGER) };
    let patch = Patch::Merge(json!({ "data": data }));
    let stored = match api.patch(names::DISTRUSTED_CONFIG_MAP, &parameters, &patch).await {
        Ok(stored) => stored,
        Err(kube::Error::Api(status)) if status.code == 404 => {
            return Err(format!(
                "there is no ConfigMap {} in namespace {namespace}; apply the manifests of this \
                 version, or say with --ca-overlap-namespace where ca-overlap is installed",
                names::DISTRUSTED_CONFIG_MAP
            ));
        }
        Err(error) => return Err(explain(&error, Audience::Caller)),
    };
    let list = DistrustList::read(&contents(stored));
    if wanted.iter().any(|ca| !list.contains(&ca.fingerprint)) {
        return Err(format!("the list is full: only {MAX_LISTED} fingerprints count"));
    }
    list.sha256().ok_or_else(|| "the list is empty".to_owned())
}
