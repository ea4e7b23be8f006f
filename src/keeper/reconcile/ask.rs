//! An ask, and what the webhook makes of it in the same request.

use jiff::Timestamp;

use super::super::secrets::Change;
use super::{Actor, Failure};
use crate::keeper::metrics::{AskKind, AskResult};
use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::ask::{Ask, nonce};
use crate::overlap::outlook::{self, Outlook};
use crate::x509::certs::Fingerprint;

/// An ask and what the webhook made of it.
pub(crate) struct Asked {
    /// What was asked.
    pub(crate) kind: AskKind,
    /// What the webhook made of it.
    pub(crate) result: AskResult,
    /// The certificates that are carried since a repair.
    pub(crate) carried_again: Vec<Fingerprint>,
    /// The keys of the settings that it has brought back.
    pub(crate) restored: Vec<&'static str>,
    /// How long after it was due it was done, in seconds.
    pub(crate) lateness: Option<f64>,
    /// The Secret as it is now.
    pub(crate) after: SecretView,
}

impl Actor {
    /// Asks. Gives what is stored afterwards.
    ///
    /// One that still stands was not seen. Whether the next one would be is tried out first: where
    /// the webhook is never called nothing is written again and again.
    pub(super) async fn ask(
        &self,
        key: &Key,
        secret: SecretView,
        kind: AskKind,
        ask: Option<&Ask>,
    ) -> Result<SecretView, Failure> {
        let failed = |error| Failure { asking: Some(kind), error };
        let standing = secret.annotation(names::ASK);
        let value = ask.map(|ask| ask.to_annotation(nonce(standing)));
        let change = Change { annotation: names::ASK, value: value.as_deref(), is_trial: false };
        if value.is_some() && standing.is_some() {
            let trial = Change { is_trial: true, ..change };
            let tried = self.secrets.change(key, &secret, trial).await.map_err(failed)?;
            if tried.annotation(names::ASK).is_some() {
                return Ok(secret);
            }
        }
        self.secrets.change(key, &secret, change).await.map_err(failed)
    }

    /// What the webhook made of an ask.
    pub(super) fn judge(&self, kind: AskKind, before: &Outlook, after: SecretView) -> Asked {
        let outlook = outlook::outlook(&after.view(), &self.rules, Timestamp::now());
        let left = |fingerprint: &Fingerprint| {
            outlook.certificates.iter().any(|k| k.certificate.fingerprint() == *fingerprint)
        };
        let all = before.certificates.iter().map(|known| known.certificate.fingerprint());
        let mut gone = all.filter(|fingerprint| !left(fingerprint));
        let is_new = |now: &Fingerprint| carried(before).all(|was| was != *now);
        let carried_again: Vec<Fingerprint> = carried(&outlook).filter(is_new).collect();
        let is_done = match kind {
            AskKind::Retire => gone.next().is_some(),
            AskKind::Promote => outlook.stage.is_none(),
            AskKind::Repair => !carried_again.is_empty(),
            AskKind::Withdraw => true,
        };
        let result = if after.annotation(names::ASK).is_some() {
            AskResult::NotSeen
        } else if is_done {
            AskResult::Done
        } else {
            AskResult::Refused
        };
        Asked { kind, result, carried_again, restored: Vec::new(), lateness: None, after }
    }
}

/// What is carried.
fn carried(outlook: &Outlook) -> impl Iterator<Item = Fingerprint> {
    let carried = outlook.certificates.iter().filter(|known| known.carried.is_some());
    carried.map(|known| known.certificate.fingerprint())
}
