//! Changes one annotation of Secrets, and reads back what the webhook did.

use std::cell::Cell;

use futures::{StreamExt, stream};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::progress_line;
use crate::kubernetes::explain::{Audience, explain};
use crate::kubernetes::secret_view::SecretView;

/// How many Secrets are written at the same time.
const AT_ONCE: usize = 8;
/// How often a write is tried when others write the same Secret at the same time.
const ATTEMPTS: usize = 8;

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
    /// Whether nothing is stored.
    pub(crate) dry_run: bool,
}

impl Annotation {
    /// Writes the annotation of `secret` to `value`, where null removes it, if there is something
    /// to write. Starts again from the new state when another writer changes the Secret in the
    /// meantime. Returns the Secret as stored after admission; `None` if it is gone. The error is a
    /// text for people.
    pub(crate) async fn write(
        self,
        client: &Client,
        mut secret: SecretView,
        value: impl Fn(&SecretView) -> Result<Option<Value>, String>,
    ) -> Result<Option<SecretView>, String> {
        let api: Api<SecretView> =
            Api::namespaced(client.clone(), &secret.namespace().unwrap_or_default());
        let name = secret.name_any();
        for _ in 0..ATTEMPTS {
            let Some(value) = value(&secret)? else { return Ok(Some(secret)) };
            match self.patch(&api, &secret, &value).await {
                Ok(after) => return Ok(Some(after)),
                Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {}
                Err(error) => return Err(explain(&error, Audience::Caller)),
            }
            match api.get_opt(&name).await {
                Ok(Some(read)) => secret = read,
                Ok(None) => return Ok(None),
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
        let parameters = PatchParams { dry_run: self.dry_run, ..PatchParams::apply(self.manager) };
        api.patch(&secret.name_any(), &parameters, &Patch::Merge(patch)).await
    }
}
