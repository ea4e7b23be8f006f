//! Changes one annotation of Secrets, and reads back what the webhook did.

use std::cell::Cell;

use clap::{Args, ValueEnum};
use futures::{StreamExt, stream};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

use super::progress_line;
use crate::kubernetes::explain::{Audience, explain};
use crate::kubernetes::secret_view::SecretView;

/// How many Secrets are written at the same time.
const AT_ONCE: usize = 8;
/// How often a write is tried when others write the same Secret at the same time.
const ATTEMPTS: usize = 8;

/// The flag of a trial.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct DryRunArgs {
    /// Store nothing and show what would happen. With server, or without a value, the API server and
    /// the webhook answer; with client nothing is sent to them
    #[arg(
        long,
        value_name = "WHO",
        num_args = 0..=1,
        require_equals = true,
        default_value = "none",
        default_missing_value = "server"
    )]
    pub(crate) dry_run: DryRun,
}

/// Who answers a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum DryRun {
    /// It is no trial
    None,
    /// This program, which only reads
    Client,
    /// The API server and the webhook
    Server,
}

impl DryRun {
    /// What a report says of a trial: a heading and a text.
    pub(crate) fn hint(self) -> Option<(String, &'static str)> {
        let text = match self {
            Self::None => return None,
            Self::Client => {
                "Nothing was sent, so this is not what the webhook says. --dry-run=server asks it."
            }
            Self::Server => {
                "The API server and the webhook answered a dry run. Run the command without \
                 --dry-run to store the result."
            }
        };
        Some(("Nothing was stored".to_owned(), text))
    }
}

/// Writes Secrets with `write`, some at the same time, and shows how many are done. The results have
/// the order of the Secrets.
pub(crate) async fn each<F: Future>(
    secrets: Vec<SecretView>,
    write: impl Fn(SecretView) -> F,
) -> Vec<F::Output> {
    let (all, finished) = (secrets.len(), Cell::new(0_usize));
    let work = stream::iter(secrets)
        .map(write)
        .buffered(AT_ONCE)
        .inspect(|_| finished.set(finished.get() + 1))
        .collect();
    let line = || format!("writing Secrets, {} of {all}", finished.get());
    progress_line::during(line, work).await
}

/// An annotation to change.
#[derive(Clone, Copy)]
pub(crate) struct Annotation {
    pub(crate) key: &'static str,
    /// The field manager of the write, in `managedFields`.
    pub(crate) manager: &'static str,
    pub(crate) dry_run: DryRun,
}

/// What became of a Secret.
pub(crate) enum Written {
    /// It is as the API server stored it after admission, or as it was: there is nothing to write.
    Is(Box<SecretView>),
    /// It would be written.
    Planned,
    /// Another writer has deleted it.
    Gone,
}

impl Annotation {
    /// Writes the annotation of `secret` to `value`, where null removes it, if there is something
    /// to write. Starts again from the new state when another writer changes the Secret in the
    /// meantime. The error is a text for people.
    pub(crate) async fn write(
        self,
        client: &Client,
        mut secret: SecretView,
        value: impl Fn(&SecretView) -> Result<Option<Value>, String>,
    ) -> Result<Written, String> {
        let api: Api<SecretView> =
            Api::namespaced(client.clone(), &secret.namespace().unwrap_or_default());
        let name = secret.name_any();
        for _ in 0..ATTEMPTS {
            let Some(value) = value(&secret)? else { return Ok(Written::Is(secret.into())) };
            if self.dry_run == DryRun::Client {
                return Ok(Written::Planned);
            }
            match self.patch(&api, &secret, &value).await {
                Ok(after) => return Ok(Written::Is(after.into())),
                Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {}
                Err(error) => return Err(explain(&error, Audience::Caller)),
            }
            match api.get_opt(&name).await {
                Ok(Some(read)) => secret = read,
                Ok(None) => return Ok(Written::Gone),
                Err(error) => return Err(explain(&error, Audience::Caller)),
            }
        }
        Err(format!(
            "other writers changed it {ATTEMPTS} times in the meantime; run this command again"
        ))
    }

    /// Patches the annotation if the Secret still has the resourceVersion that was read.
    async fn patch(
        self,
        api: &Api<SecretView>,
        secret: &SecretView,
        value: &Value,
    ) -> Result<SecretView, kube::Error> {
        let patch = json!({"metadata": {
            "resourceVersion": secret.resource_version(),
            "annotations": {self.key: value},
        }});
        let parameters = PatchParams {
            dry_run: self.dry_run == DryRun::Server,
            ..PatchParams::apply(self.manager)
        };
        api.patch(&secret.name_any(), &parameters, &Patch::Merge(patch)).await
    }
}
