//! Makes the calls of a [`RestartPass`]. [`crate::overlap::restart`] decides which workload
//! restarts, and what it waits for.

use jiff::Timestamp;

use super::super::secrets::MetadataChange;
use super::{ReconcileOutcome, Reconciler, RestartReport};
use crate::kubernetes::call::CallError;
use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::outlook::PublicSecret;
use crate::overlap::restart::{NextCall, PendingRestart, RestartOutcome, RestartPass};

impl Reconciler {
    /// Continues a restart: changes at most one workload.
    pub(super) async fn restart(
        &self,
        key: &Key,
        secret: SecretView,
        wanted: PendingRestart,
        now: Timestamp,
    ) -> Result<ReconcileOutcome, CallError> {
        let (mut pass, mut next) = RestartPass::begin(wanted, &self.rules, now);
        loop {
            next = match next {
                NextCall::Read(workload) => pass.found(self.restarter.find(key, &workload).await?),
                NextCall::List => {
                    let group = self.group(key, &secret).await?.members;
                    let group: Vec<PublicSecret<'_>> = group.iter().map(|it| it.view()).collect();
                    pass.listed(&group)
                }
                NextCall::Change(workload, version, annotations) => {
                    if let Some(audit) = &self.audit {
                        audit.restart(&secret, &workload);
                        next = pass.done(RestartOutcome::Complete);
                        continue;
                    }
                    let version = version.as_deref();
                    let change = self.restarter.change(key, &workload, version, &annotations);
                    pass.done(change.await?)
                }
                NextCall::Wait(since) => return Ok(ReconcileOutcome::waiting(secret, since)),
                NextCall::Note(note) => {
                    if let Some(audit) = &self.audit {
                        audit.not_restarted(&secret, &pass.into_outcomes());
                        audit.note(key, note);
                        return Ok(ReconcileOutcome::Nothing(Box::new(secret)));
                    }
                    let value = Some(note.as_str());
                    let change = MetadataChange::annotation(names::RESTARTED, value);
                    let after = self.secrets.change(key, &secret, change).await?;
                    if after.annotation(names::RESTARTED) != value {
                        return Ok(ReconcileOutcome::NotKept(Box::new(after)));
                    }
                    let outcomes = pass.into_outcomes();
                    return Ok(ReconcileOutcome::Restarting(Box::new(RestartReport {
                        outcomes,
                        after,
                    })));
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::super::super::election::Leadership;
    use super::super::super::mock::{api, reconciler};
    use super::super::super::workloads::MISSING;
    use super::super::ReconcileInput;
    use super::*;

    #[tokio::test]
    async fn a_missing_workload_is_not_mistaken_for_a_missing_secret() {
        let (client, mut api) = api();
        let (_, leadership) = Leadership::switched(true);
        let reconciler = reconciler(&client, leadership);
        let key = Key::new("n", "s");
        let mut stored = json!({
            "metadata": {
                "name": "s", "namespace": "n", "uid": "u", "resourceVersion": "7",
                "annotations": {names::RESTART: "deployment/a", names::RESTARTED: "another"},
            },
            "data": {"ca.crt": base64::Engine::encode(
                &base64::prelude::BASE64_STANDARD, devtools::certs::ca().pem,
            )},
        });
        let server = async {
            let secret = "/api/v1/namespaces/n/secrets/s";
            api.expect(&Method::GET, secret).await.answer(&stored);
            api.expect(&Method::GET, "/apis/apps/v1/namespaces/n/deployments/a")
                .await
                .refuse(404, "NotFound");
            let call = api.expect(&Method::PATCH, secret).await;
            let noted = call.body["metadata"]["annotations"][names::RESTARTED].clone();
            assert!(!noted.as_str().unwrap().contains(' '), "complete: {noted}");
            stored["metadata"]["annotations"][names::RESTARTED] = noted;
            call.answer(&stored);
        };
        let (outcome, ()) =
            tokio::join!(reconciler.reconcile(&key, ReconcileInput::default()), server);
        let ReconcileOutcome::Restarting(restarting) = outcome else { panic!("another outcome") };
        assert_eq!(restarting.outcomes, [("deployment/a".to_owned(), MISSING)]);
    }
}
