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
use crate::overlap::restart::{NextCall, PendingRestart, RestartPass};

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
                    let version = version.as_deref();
                    let change = self.restarter.change(key, &workload, version, &annotations);
                    pass.done(change.await?)
                }
                NextCall::Wait(since) => return Ok(ReconcileOutcome::waiting(secret, since)),
                NextCall::Note(note) => {
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
    use std::time::Duration;

    use http::Method;
    use serde_json::json;

    use super::super::super::election::Leadership;
    use super::super::super::mock::api;
    use super::super::super::pace::Pace;
    use super::super::super::secrets::Secrets;
    use super::super::super::workloads::{MISSING, Restarter};
    use super::super::{Called, ReconcileInput};
    use super::*;
    use crate::overlap::outlook::Rules;
    use crate::overlap::settings::Defaults;

    #[tokio::test]
    async fn a_missing_workload_is_not_mistaken_for_a_missing_secret() {
        let (client, mut api) = api();
        let (_, leadership) = Leadership::switched(true);
        let reconciler = Reconciler {
            secrets: Secrets::new(client.clone(), leadership.clone()),
            restarter: Restarter::new(client, leadership.clone()),
            rules: Rules { defaults: Defaults::default(), settle: Duration::from_secs(120) },
            group_wait: Duration::from_secs(360),
            pace: Pace::default(),
            called: Called::default(),
            leadership,
        };
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
