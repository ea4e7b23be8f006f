//! The restarts that failed, by the keeper's Events. The Secret itself does not tell: the keeper
//! gives up on a workload and goes on with the next one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;

use crate::kubernetes::key::Key;
use crate::kubernetes::list::{Namespaces, Unread, read_each};
use crate::kubernetes::pages;
use crate::kubernetes::reason::Reason;
use crate::names;
use crate::tools::cluster::ScopedClient;

/// For each Secret what its newest Event about a restart says, if that restart failed. The API
/// server forgets Events after an hour, unless it is configured otherwise.
pub(super) struct FailedRestarts(BTreeMap<Key, String>);

impl FailedRestarts {
    /// Reads the Events in scope. Says on standard error what could not be read.
    pub(super) async fn read(cluster: &ScopedClient) -> Self {
        let mut newest: BTreeMap<Key, (Timestamp, Option<String>)> = BTreeMap::new();
        for reason in [Reason::RestartFailed, Reason::Restarted] {
            let is_failure = reason == Reason::RestartFailed;
            let keep = |event: Event| {
                let Some((key, at)) = about(&event) else { return };
                let failure = is_failure.then(|| event.note.unwrap_or_default());
                if newest.get(&key).is_none_or(|(known, _)| *known <= at) {
                    newest.insert(key, (at, failure));
                }
            };
            let selector = format!("reason={}", reason.name());
            let page = ListParams::default().limit(pages::MOST).fields(&selector);
            let api = |scope: &Namespaces| scope.api(&cluster.client);
            let unread = read_each(&cluster.client, &cluster.scope, &page, api, keep).await;
            for Unread { error, .. } in unread.iter().filter(|_| is_failure) {
                eprintln!(
                    "ca-overlap: cannot read Events, so failed restarts are not shown: {error}"
                );
            }
        }
        let failed = newest.into_iter().filter_map(|(key, (_, failure))| Some((key, failure?)));
        Self(failed.collect())
    }

    pub(super) fn of(&self, key: &Key) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

/// The Secret that an Event of the keeper is about, and when it was last seen.
fn about(event: &Event) -> Option<(Key, Timestamp)> {
    if event.reporting_controller.as_deref() != Some(names::KEEPER_SERVICE_ACCOUNT) {
        return None;
    }
    let regarding = event.regarding.as_ref().filter(|it| it.kind.as_deref() == Some("Secret"))?;
    let series = event.series.as_ref().map(|series| series.last_observed_time.0);
    let at = series.or(event.event_time.as_ref().map(|time| time.0))?;
    Some((Key::new(regarding.namespace.clone()?, regarding.name.clone()?), at))
}
