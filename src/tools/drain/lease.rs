//! The keeper's Lease, held by `drain`: meanwhile no keeper acts, and the webhook stages nothing.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::names;

/// How long the Lease is valid without a renewal, in seconds. If this command is killed, the keeper
/// acts again after this time.
const SECONDS: i32 = 15;
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(4);
/// How often taking it is tried when the keeper renews it at the same moment.
const ATTEMPTS: usize = 8;

/// The Lease. If the cluster has none, no keeper acts anyway.
pub(super) struct HeldLease {
    api: Api<Lease>,
    name: String,
    identity: String,
    is_there: bool,
}

impl HeldLease {
    /// Takes the Lease from the keeper.
    pub(super) async fn take(
        client: &Client,
        namespace: &str,
        name: &str,
    ) -> Result<Self, kube::Error> {
        let mut held = Self {
            api: Api::namespaced(client.clone(), namespace),
            name: name.to_owned(),
            identity: format!("{}-{}", names::DRAIN_HOLDER, std::process::id()),
            is_there: false,
        };
        for attempt in 1.. {
            let Some(stored) = held.api.get_opt(name).await? else { break };
            let now = MicroTime(Timestamp::now());
            let patch = json!({
                "metadata": {"resourceVersion": stored.metadata.resource_version},
                "spec": {
                    "holderIdentity": held.identity, "leaseDurationSeconds": SECONDS,
                    "acquireTime": now, "renewTime": now,
                },
            });
            match held.patch(&patch).await {
                Ok(()) => {
                    held.is_there = true;
                    break;
                }
                Err(kube::Error::Api(status)) if status.code == 409 && attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
        Ok(held)
    }

    /// Renews the Lease; never ends. An error is not reported: the next renewal comes soon.
    pub(super) async fn keep(&self) {
        loop {
            tokio::time::sleep(RENEWAL).await;
            let now = MicroTime(Timestamp::now());
            let spec = json!({
                "holderIdentity": self.identity, "leaseDurationSeconds": SECONDS, "renewTime": now,
            });
            if self.is_there {
                let _ = self.patch(&json!({"spec": spec})).await;
            }
        }
    }

    /// Gives the Lease back. Removes its fields, because the keeper applies them server side, and
    /// fields of another manager would be a conflict.
    pub(super) async fn release(&self) -> Result<(), kube::Error> {
        if !self.is_there {
            return Ok(());
        }
        let nothing = json!({
            "holderIdentity": null, "leaseDurationSeconds": null, "acquireTime": null,
            "renewTime": null,
        });
        self.patch(&json!({"spec": nothing})).await
    }

    async fn patch(&self, patch: &Value) -> Result<(), kube::Error> {
        let parameters = PatchParams {
            field_manager: Some(names::DRAIN_HOLDER.to_owned()),
            ..PatchParams::default()
        };
        self.api.patch(&self.name, &parameters, &Patch::Merge(patch)).await.map(drop)
    }
}
