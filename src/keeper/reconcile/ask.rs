//! Writes an ask, and finds out what the webhook did in the same request.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use kube::Resource;

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

/// The answer to an ask: the Secret as stored now, and whether the webhook saw the ask.
pub(super) struct AskAnswer {
    after: SecretView,
    is_seen: bool,
}

/// The namespaces where the webhook was called for an announcement, for Secrets with a label `mode`
/// and for those without one. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Called(Arc<Mutex<HashSet<(String, bool)>>>);

impl Called {
    /// The most namespaces that are kept. It only saves requests.
    const MAX: usize = 10_000;

    fn entry(secret: &SecretView) -> (String, bool) {
        let namespace = secret.meta().namespace.clone().unwrap_or_default();
        (namespace, secret.label(names::MODE).is_some())
    }

    fn is_known(&self, secret: &SecretView) -> bool {
        self.lock().contains(&Self::entry(secret))
    }

    fn set(&self, secret: &SecretView, is_called: bool) {
        let mut called = self.lock();
        if !is_called || called.len() >= Self::MAX {
            called.remove(&Self::entry(secret));
        } else {
            called.insert(Self::entry(secret));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(String, bool)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reconciler {
    /// Writes an ask, or removes it.
    ///
    /// If an earlier ask is still there, the webhook did not see it. Then a dry run first finds out
    /// whether the webhook is called, so that a webhook that is never called causes no writes. So it
    /// does before the first announcement in a namespace, because many Secrets may follow.
    pub(super) async fn ask(
        &self,
        key: &Key,
        secret: SecretView,
        kind: AskKind,
        ask: Option<&Ask>,
    ) -> Result<AskAnswer, ReconcileError> {
        let failed = |error| ReconcileError { asking: Some(kind), error };
        let standing = secret.annotation(names::ASK);
        let value = ask.map(|ask| ask.to_annotation(nonce(standing)));
        let change = MetadataChange::annotation(names::ASK, value.as_deref());
        let is_new = kind == AskKind::Announce && !self.called.is_known(&secret);
        if value.is_some() && (standing.is_some() || is_new) {
            let dry_run = change.as_dry_run();
            let tried = self.secrets.change(key, &secret, dry_run).await.map_err(failed)?;
            if tried.annotation(names::ASK).is_some() {
                return Ok(AskAnswer { after: secret, is_seen: false });
            }
        }
        let after = self.secrets.change(key, &secret, change).await.map_err(failed)?;
        let is_seen = after.annotation(names::ASK).is_none();
        if kind == AskKind::Announce {
            self.called.set(&after, is_seen);
        }
        Ok(AskAnswer { after, is_seen })
    }

    /// Finds out what the webhook did, from the Secret before and after.
    pub(super) fn finished_ask(
        &self,
        kind: AskKind,
        before: &Outlook,
        AskAnswer { after, is_seen }: AskAnswer,
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
        let result = if !is_seen {
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
