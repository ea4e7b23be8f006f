//! Compares what is announced to a follower with what is to be announced, and asks for it.

use std::ops::ControlFlow;

use jiff::{SignedDuration, Timestamp};

use super::super::secrets::MetadataChange;
use super::{ReconcileError, ReconcileOutcome, Reconciler};
use crate::keeper::metrics::{AskKind, AskResult};
use crate::keeper::trust::{LabelRule, Offer, SourceRead, Wanted};
use crate::kubernetes::call::CallError;
use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::Contents;
use crate::overlap::announcement::{Announcement, MAX_ANNOUNCED};
use crate::overlap::ask::Ask;
use crate::overlap::outlook::{self, Outlook};
use crate::overlap::record::{Announcer, Record};
use crate::overlap::settings::Settings;
use crate::overlap::source::{self, Previous};
use crate::x509::certs::{Certificate, Fingerprint};

impl Reconciler {
    /// Asks to announce what is `wanted`. If the Secret needs no ask, its reconcile continues with it.
    pub(super) async fn announce(
        &self,
        key: &Key,
        mut secret: SecretView,
        outlook: &Outlook,
        wanted: &Wanted,
        now: Timestamp,
    ) -> Result<ControlFlow<ReconcileOutcome, SecretView>, ReconcileError> {
        let ask = ask(&secret, &outlook.settings, wanted);
        let is_due = outlook::announces(&secret.view(), &self.rules, ask.announced(), now);
        let is_recorded = secret.annotation(names::TRUSTED) == wanted.trusted.as_deref();
        let may_change = outlook::may_change_data(&secret.view(), &outlook.settings);
        if (!is_due && is_recorded) || !may_change {
            return Ok(ControlFlow::Continue(secret));
        }
        if self.is_opted_out(key).await? {
            return Ok(ControlFlow::Break(ReconcileOutcome::OptedOut(Box::new(secret))));
        }
        if let Some(audit) = &self.audit {
            if is_due {
                audit.ask(&secret, outlook, AskKind::Announce, Some(&ask));
            }
            return Ok(ControlFlow::Continue(secret));
        }
        if !is_recorded {
            self.pace.wait().await;
            let change = MetadataChange::annotation(names::TRUSTED, wanted.trusted.as_deref());
            secret = self.secrets.change(key, &secret, change).await?;
        }
        if !is_due {
            return Ok(ControlFlow::Continue(secret));
        }
        self.pace.wait().await;
        let answer = self.ask(key, secret, AskKind::Announce, Some(&ask)).await?;
        let mut asked = self.finished_ask(AskKind::Announce, outlook, answer);
        let is_left = || outlook::announces(&asked.after.view(), &self.rules, ask.announced(), now);
        if asked.result == AskResult::Done && is_left() {
            asked.result = AskResult::Refused;
        }
        Ok(ControlFlow::Break(ReconcileOutcome::Asked(Box::new(asked))))
    }

    /// Reads a source, and gives it the label that it is to have.
    pub(crate) async fn read_source(
        &self,
        key: &Key,
        label: LabelRule,
    ) -> Result<SourceRead, CallError> {
        let Some(secret) = self.secrets.get(key).await? else { return Ok(SourceRead::default()) };
        // After the Secret: then a Secret of a later namespace never counts as one of this.
        let namespace = self.secrets.namespace(key.namespace()).await?;
        let found = secret.label(names::SOURCE);
        let wanted = match (label, found) {
            (LabelRule::Issuer, None) => Some(Some(names::SOURCE_ISSUER)),
            (LabelRule::NotIssuer, Some(names::SOURCE_ISSUER)) => Some(None),
            _ => None,
        };
        let is_left = self.audit.is_some() || namespace.as_ref().is_some_and(|it| it.is_off);
        if let Some(value) = wanted.filter(|_| !is_left) {
            self.pace.wait().await;
            self.secrets.change(key, &secret, MetadataChange::label(names::SOURCE, value)).await?;
        }
        let view = secret.view();
        let settings = outlook::settings(&view, &self.rules);
        let record =
            secret.annotation(names::CARRIED).map(|text| Record::of_object(text, view.uid));
        let record = record.and_then(Result::ok).map(|(record, _)| record);
        let contents = Contents { ca_crt: view.ca_crt, tls_crt: view.tls_crt };
        let is_passed_on =
            |certificate: &Certificate| !settings.distrust.contains(&certificate.fingerprint());
        let held = source::held(contents, record.as_ref());
        let previous = Previous::parse_list(secret.annotation(names::PREVIOUS).unwrap_or_default());
        let previous = previous
            .into_iter()
            .filter_map(|it| Some((Certificate::from_der(it.der)?, it.since)))
            .filter(|(certificate, _)| is_passed_on(certificate));
        Ok(SourceRead {
            exists: true,
            consents: found == Some(names::SOURCE_TRUE),
            namespace_uid: namespace.map(|namespace| namespace.uid),
            held: held.into_iter().filter(is_passed_on).take(MAX_ANNOUNCED).collect(),
            previous: previous.collect(),
            distrust: settings.distrust,
        })
    }
}

/// The ask. The window of the follower limits what a source held before.
fn ask(secret: &SecretView, settings: &Settings, wanted: &Wanted) -> Ask {
    let record = secret.annotation(names::CARRIED);
    let record = record.and_then(|text| Record::of_object(text, secret.object_uid()).ok());
    let is_told = |ca: Fingerprint| {
        let entry = record.as_ref().and_then(|(record, _)| record.entry(ca));
        entry.is_some_and(|entry| entry.announced == Some(Announcer::Keeper))
    };
    let window = settings.window.length().and_then(|it| SignedDuration::try_from(it).ok());
    let stays = |certificate: &Certificate| is_told(certificate.fingerprint());
    let offers = wanted.offers.iter().filter(|it| !it.stays_only || stays(&it.certificate));
    let announcement = |offer: &Offer| Announcement {
        der: offer.certificate.der().to_vec(),
        until: offer.since.zip(window).and_then(|(since, window)| since.checked_add(window).ok()),
    };
    Ask::announcing(offers.take(MAX_ANNOUNCED).map(announcement).collect())
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::super::super::audit::Audit;
    use super::super::super::election::Leadership;
    use super::super::super::events::Events;
    use super::super::super::mock::{api, reconciler};
    use super::*;
    use crate::keeper::metrics::KeeperMetrics;

    #[tokio::test]
    async fn with_audit_the_source_of_an_issuer_is_read_and_gets_no_label() {
        let (client, mut api) = api();
        let (_, leadership) = Leadership::switched(true);
        let metrics = KeeperMetrics::default();
        let (events, _) = Events::new(client.clone(), "me".to_owned(), metrics.clone());
        let mut reconciler = reconciler(&client, leadership.auditing());
        reconciler.audit = Some(Audit::new(events, metrics));
        let server = async {
            let stored = json!({"metadata": {"name": "root", "namespace": "n", "uid": "u"}});
            api.expect(&Method::GET, "/api/v1/namespaces/n/secrets/root").await.answer(&stored);
            let namespace = json!({"metadata": {"name": "n", "uid": "n"}});
            api.expect(&Method::GET, "/api/v1/namespaces/n").await.answer(&namespace);
        };
        let key = Key::new("n", "root");
        let read = reconciler.read_source(&key, LabelRule::Issuer);
        let (read, ()) = tokio::join!(read, server);
        assert!(read.unwrap().exists && api.is_quiet());
    }
}
