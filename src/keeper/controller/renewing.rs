//! Renews the leaves of previous CAs: starts what [`Renewals`] lets pass, and reports the results.

use jiff::Timestamp;
use tokio::time::Instant;

use super::super::renew::{Renewal, Renewals};
use super::super::tasks::EndedTask;
use super::Controller;
use crate::keeper::metrics::RenewalResult;
use crate::kubernetes::call::CallError;
use crate::kubernetes::reason::Reason;

impl Controller {
    /// Renews the leaves of previous CAs of the issuers that are followed.
    #[must_use]
    pub fn renewing(mut self) -> Self {
        if let Some(announcing) = &mut self.announcing {
            announcing.renewals = Some(Renewals::default());
        }
        self
    }

    /// Starts the renewals that are due.
    pub(super) fn start_renewals(&mut self, leads: bool) {
        let now = Instant::now();
        let Some(announcing) = self.announcing.as_mut().filter(|_| leads) else { return };
        let Some(renewals) = &mut announcing.renewals else { return };
        if !renewals.is_due(now) {
            return;
        }
        let cascades = announcing.trust.cascades(Timestamp::now());
        self.metrics.cascades(&cascades);
        renewals.keep(&cascades, now);
        for cascade in cascades {
            if self.reconciler.audit.is_some() {
                if renewals.is_new(&cascade, now) {
                    let leaves = cascade.leaves.len();
                    let what = format!("renew {leaves} leaves of a previous CA, a few at a time");
                    self.events.would(&cascade.source, None, Reason::Renewed, &what);
                }
                continue;
            }
            if let Some(text) = renewals.waits(&cascade, self.reconciler.group_wait, now) {
                self.events.publish(&cascade.source, None, Reason::RenewalBlocked, text);
            }
            for leaf in renewals.start(&cascade, now) {
                let (reconciler, held) = (self.reconciler.clone(), cascade.held.clone());
                let target = leaf.clone();
                let renewal = async move { reconciler.renew(&target, &held).await };
                renewals.tasks.start(&leaf, renewal);
            }
        }
    }

    /// Takes in a renewal that has ended.
    pub(super) fn renewed(&mut self, ended: EndedTask<Result<Renewal, CallError>>) {
        let EndedTask { key, result, .. } = ended;
        let result = match result {
            Ok(result) => result,
            Err(error) if error.is_cancelled() => Err(CallError::NotLeading),
            Err(_) => Err(CallError::Failed("renewing it panicked".to_owned())),
        };
        let Some(announcing) = &mut self.announcing else { return };
        let Some(renewals) = &mut announcing.renewals else { return };
        renewals.ended(&key, &result, Instant::now());
        let uid = announcing.trust.uid(&key);
        match result {
            Ok(Renewal::Renewed) => {
                self.metrics.renewal(RenewalResult::Done);
                let text = "cert-manager has reissued the leaf, by the present CA of its issuer";
                self.events.publish(&key, uid, Reason::Renewed, text.to_owned());
            }
            Ok(Renewal::Failed(why)) => {
                self.metrics.renewal(RenewalResult::Failed);
                let text = format!("the leaf is still of a previous CA: {why}");
                self.events.publish(&key, uid, Reason::RenewalFailed, text);
            }
            Ok(Renewal::Skipped(why)) => {
                self.metrics.renewal(RenewalResult::Skipped);
                tracing::debug!(secret = %key, why, "the leaf is not renewed");
            }
            Err(CallError::Conflict | CallError::NotLeading) => {}
            Err(error) => {
                self.metrics.renewal(RenewalResult::Failed);
                tracing::warn!(secret = %key, %error, "cannot renew a leaf: trying again");
            }
        }
    }
}
