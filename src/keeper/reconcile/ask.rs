//! Writes an ask, and finds out what the webhook did in the same request.

use jiff::Timestamp;

use super::super::secrets::MetadataChange;
use super::{ReconcileError, Reconciler};
use crate::keeper::metrics::{AskKind, AskResult};
use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::ask::{Ask, nonce};
use crate::overlap::outlook::{self, Due, Outlook};
use crate::x509::certs::Fingerprint;

/// An ask, and what the webhook did.
pub(crate) struct FinishedAsk {
    /// What was asked.
    pub(crate) kind: AskKind,
    /// What the webhook did.
    pub(crate) result: AskResult,
    /// The certificates that are carried now and were not carried before.
    pub(crate) carried_again: Vec<Fingerprint>,
    /// The keys of the settings that a repair has restored.
    pub(crate) restored: Vec<&'static str>,
    /// The Secrets that a promotion did not wait for any longer.
    pub(crate) not_awaited: Vec<String>,
    /// The seconds from when it was due until the webhook answered.
    pub(crate) lateness: Option<f64>,
    /// The Secret as stored now.
    pub(crate) after: SecretView,
}

impl Reconciler {
    /// Writes an ask, or removes it. Returns the Secret as stored afterwards.
    ///
    /// If an earlier ask is still there, the webhook did not see it. Then a dry run first finds out
    /// whether the webhook is called, so that a webhook that is never called causes no writes.
    pub(super) async fn ask(
        &self,
        key: &Key,
        secret: SecretView,
        kind: AskKind,
        ask: Option<&Ask>,
    ) -> Result<SecretView, ReconcileError> {
        let failed = |error| ReconcileError { asking: Some(kind), error };
        let standing = secret.annotation(names::ASK);
        let value = ask.map(|ask| ask.to_annotation(nonce(standing)));
        let change = MetadataChange::annotation(names::ASK, value.as_deref());
        if value.is_some() && standing.is_some() {
            let dry_run = change.as_dry_run();
            let tried = self.secrets.change(key, &secret, dry_run).await.map_err(failed)?;
            if tried.annotation(names::ASK).is_some() {
                return Ok(secret);
            }
        }
        self.secrets.change(key, &secret, change).await.map_err(failed)
    }

    /// Finds out what the webhook did, from the Secret before and after.
    pub(super) fn finished_ask(
        &self,
        kind: AskKind,
        before: &Outlook,
        after: SecretView,
    ) -> FinishedAsk {
        let outlook = outlook::outlook(&after.view(), &self.rules, Timestamp::now());
        let left = |fingerprint: &Fingerprint| {
            outlook.certificates.iter().any(|k| k.certificate.fingerprint() == *fingerprint)
        };
        let all = before.certificates.iter().map(|known| known.certificate.fingerprint());
        let mut gone = all.filter(|fingerprint| !left(fingerprint));
        let is_new = |now: &Fingerprint| carried(before).all(|was| was != *now);
        let carried_again: Vec<Fingerprint> = carried(&outlook).filter(is_new).collect();
        let is_done = match kind {
            // What has ended can stay announced.
            AskKind::Retire => {
                gone.next().is_some() || !matches!(outlook.due, Some(Due::Retire(_)))
            }
            AskKind::Promote => outlook.stage.is_none(),
            AskKind::Unstage => !after.view().waits(),
            AskKind::Repair => !carried_again.is_empty(),
            // Whether an announcement is done depends on what was announced.
            AskKind::Announce | AskKind::Withdraw => true,
        };
        let result = if after.annotation(names::ASK).is_some() {
            AskResult::NotSeen
        } else if is_done {
            AskResult::Done
        } else {
            AskResult::Refused
        };
        FinishedAsk {
            kind,
            result,
            carried_again,
            restored: Vec::new(),
            not_awaited: Vec::new(),
            lateness: None,
            after,
        }
    }
}

/// The carried certificates.
fn carried(outlook: &Outlook) -> impl Iterator<Item = Fingerprint> {
    let carried = outlook.certificates.iter().filter(|known| known.carried.is_some());
    carried.map(|known| known.certificate.fingerprint())
}
