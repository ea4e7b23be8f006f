//! Ends the stage of one Secret.

use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde_json::json;

use crate::kubernetes::explain::{Audience, explain};
use crate::kubernetes::secret_view::SecretView;
use crate::kubernetes::stage_end::end_stage;
use crate::names;
use crate::overlap::ask::{Ask, nonce};
use crate::overlap::stage_end::stage_end;

/// How often the webhook is asked before its work is done here: it may just be restarting.
const ASKS: usize = 3;
/// The pause between two asks.
const PAUSE: Duration = Duration::from_secs(1);

/// What became of one Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EndResult {
    /// Nothing waits any more.
    Ended(EndedBy),
    /// Something still waits.
    Waits(Obstacle),
}

/// Who ended a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum EndedBy {
    /// The webhook, asked by this command.
    Webhook,
    /// This command: the webhook was not called.
    Command,
    /// Another writer, or the Secret is gone.
    Other,
}

/// Why something still waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) reason: String,
    /// Whether it is pointless to try again.
    pub(super) is_final: bool,
}

impl Obstacle {
    /// Nothing was tried.
    pub(super) fn trial() -> Self {
        Self { reason: "a dry run ends nothing".to_owned(), is_final: false }
    }
}

impl From<&kube::Error> for EndResult {
    fn from(error: &kube::Error) -> Self {
        let is_final = matches!(error, kube::Error::Api(status) if status.code == 403);
        Self::Waits(Obstacle { reason: explain(error, Audience::Caller), is_final })
    }
}

/// Asks the webhook to end the stage. If the webhook is not called, ends it by a patch that moves
/// the waiting pair.
pub(super) async fn end(client: &Client, secret: SecretView) -> EndResult {
    let waits =
        |reason: &str, is_final| EndResult::Waits(Obstacle { reason: reason.to_owned(), is_final });
    if secret.view().is_immutable {
        return waits("it is immutable: delete it, and have its generator make it again", true);
    }
    let asked = match ask(client, secret).await {
        Ok(Some(asked)) => asked,
        Ok(None) => return EndResult::Ended(EndedBy::Other),
        Err(error) => return EndResult::from(&error),
    };
    if !asked.view().waits() {
        return EndResult::Ended(EndedBy::Webhook);
    }
    if asked.annotation(names::ASK).is_none() {
        return waits("the webhook answered, but the pair still waits: see its log", false);
    }
    let Some(end) = stage_end(&asked.view(), Timestamp::now()) else {
        let reason = "the webhook is not called, and no leaf in it verifies against its ca.crt: have \
                      its generator write it again";
        return waits(reason, true);
    };
    match end_stage(client, &asked, end, names::DRAIN_HOLDER).await {
        Ok(after) if !after.view().waits() => EndResult::Ended(EndedBy::Command),
        // A webhook that is called after all takes part in this write, and keeps the stage.
        Ok(_) => waits("another writer changed it in the meantime", false),
        Err(kube::Error::Api(status)) if [404, 409, 422].contains(&status.code) => {
            waits("another writer changed it in the meantime", false)
        }
        Err(error) => EndResult::from(&error),
    }
}

/// Writes the ask until the webhook sees it, at most [`ASKS`] times. Returns the Secret as stored;
/// `None` if it is gone, or nothing waits in it any more.
async fn ask(client: &Client, mut secret: SecretView) -> Result<Option<SecretView>, kube::Error> {
    let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
    let api: Api<SecretView> = Api::namespaced(client.clone(), &namespace);
    let parameters = PatchParams {
        field_manager: Some(names::DRAIN_HOLDER.to_owned()),
        ..PatchParams::default()
    };
    for attempt in 1.. {
        let ask = Ask::Unstage.to_annotation(nonce(secret.annotation(names::ASK)));
        let patch = json!({"metadata": {
            "uid": secret.object_uid(),
            "resourceVersion": secret.resource_version(),
            "annotations": {names::ASK: ask},
        }});
        match api.patch(&name, &parameters, &Patch::Merge(patch)).await {
            Ok(after) if after.annotation(names::ASK).is_none() || attempt >= ASKS => {
                return Ok(Some(after));
            }
            Ok(after) => secret = after,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(kube::Error::Api(status)) if status.code == 409 && attempt < ASKS => {
                let Some(read) = api.get_opt(&name).await? else { return Ok(None) };
                if !read.view().waits() {
                    return Ok(None);
                }
                secret = read;
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(Some(secret))
}
