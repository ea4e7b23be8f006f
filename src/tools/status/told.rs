//! What the keeper's Events tell and the Secrets do not: which restarts failed, because the keeper
//! gives up on a workload and continues with the next one; and with `--audit`, what it would do.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use serde::Serialize;

use crate::kubernetes::key::Key;
use crate::kubernetes::list::{Namespaces, Unread, read_each};
use crate::kubernetes::pages;
use crate::kubernetes::reason::{AUDIT_NOTE, Reason};
use crate::names;
use crate::tools::cluster::ScopedClient;
use crate::tools::text::printable;

/// What the keeper's Events tell. The API server forgets Events after an hour, unless it is
/// configured otherwise.
#[derive(Default)]
pub(super) struct Told {
    /// For each Secret its newest Event about a restart: when, and the text if that restart failed.
    restarts: BTreeMap<Key, (Timestamp, Option<String>)>,
    /// What would have been done. The names of Events begin with those of their Secrets, so this is in
    /// the order of the Secrets.
    pub(super) would: Vec<Would>,
}

/// What a keeper with `--audit` would have done.
#[derive(Serialize)]
pub(super) struct Would {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) at: Timestamp,
    /// The words after "would".
    pub(super) what: String,
}

impl Told {
    /// Reads the Events in scope; all of the keeper if `audit` is set. Says on standard error what
    /// could not be read.
    pub(super) async fn read(cluster: &ScopedClient, audit: bool) -> Self {
        let mut told = Self::default();
        let restarts =
            [Reason::RestartFailed, Reason::Restarted].map(|it| format!("reason={}", it.name()));
        let all = [format!("reportingController={}", names::KEEPER_SERVICE_ACCOUNT)];
        let selectors = if audit { &all[..] } else { &restarts[..] };
        for (number, selector) in selectors.iter().enumerate() {
            let page = ListParams::default().limit(pages::MOST).fields(selector);
            let api = |scope: &Namespaces| scope.api(&cluster.client);
            let keep = |event| told.take(event);
            let unread = read_each(&cluster.client, &cluster.scope, &page, api, keep).await;
            for Unread { error, .. } in unread.iter().filter(|_| number == 0) {
                eprintln!(
                    "ca-overlap: cannot read Events, so failed restarts are not shown: {error}"
                );
            }
        }
        told
    }

    fn take(&mut self, event: Event) {
        let Some((key, at)) = about(&event) else { return };
        let (reason, note) = (event.reason.unwrap_or_default(), event.note.unwrap_or_default());
        if let Some(what) = note.strip_prefix(AUDIT_NOTE) {
            let (namespace, name) = (key.namespace().to_owned(), key.name().to_owned());
            self.would.push(Would { namespace, name, at, what: printable(what) });
            return;
        }
        let failure = match reason.as_str() {
            it if it == Reason::RestartFailed.name() => Some(note),
            it if it == Reason::Restarted.name() => None,
            _ => return,
        };
        if self.restarts.get(&key).is_none_or(|(known, _)| *known <= at) {
            self.restarts.insert(key, (at, failure));
        }
    }

    /// What the newest Event about a restart of a Secret says, if that restart failed.
    pub(super) fn failed_restart(&self, key: &Key) -> Option<&str> {
        self.restarts.get(key)?.1.as_deref()
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
