//! One look at one Secret: read it, decide, ask, and see what the webhook made of it.

mod ask;
mod restart;

use std::sync::Arc;

use jiff::Timestamp;

pub(crate) use self::ask::Asked;
use super::lease::Leadership;
use super::memory::{Plan, Remembered};
use super::secrets::Secrets;
use super::workloads::Restarter;
use crate::keeper::metrics::{AskKind, AskResult};
use crate::kubernetes::call::CallError;
use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::overlap::action::{Action, is_group_ready, next_action};
use crate::overlap::ask::Ask;
use crate::overlap::outlook::{self, Due, Outlook, PublicSecret, Rules, StageOutlook};
use crate::overlap::restart::RestartOutcome;
use crate::x509::certs::Fingerprint;

/// What every look needs.
#[derive(Clone)]
pub struct Actor {
    /// The calls.
    pub secrets: Secrets,
    /// Restarts workloads.
    pub restarter: Restarter,
    /// What counts for every Secret.
    pub rules: Rules,
    /// Nothing is written without it.
    pub leadership: Leadership,
}

/// What is known before a look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Before {
    /// What the Secret was like.
    pub(crate) secret: Option<Arc<Remembered>>,
    /// The uid of its namespace at that time.
    pub(crate) namespace_uid: Option<String>,
    /// What any Secret that is watched distrusts: none of it comes back anywhere.
    pub(crate) distrusted: Vec<Fingerprint>,
}

/// What came of a look.
pub(crate) enum Outcome {
    /// The webhook was asked.
    Asked(Box<Asked>),
    /// Something failed.
    Failed(Failure),
    /// There is no such Secret.
    Gone,
    /// The uid of a namespace was read.
    Namespace(Option<String>),
    /// This replica may not act any more.
    NotLeading,
    /// There is nothing to do now.
    Nothing(Box<SecretView>),
    /// A restart has gone on by a step; how far stands on the Secret.
    Restarting(Box<Restarting>),
    /// It is due, but others have to be ready first; and since when it has waited for them.
    Waiting(Box<SecretView>, Timestamp),
}

impl Outcome {
    fn waiting(secret: SecretView, since: Timestamp) -> Self {
        Self::Waiting(Box::new(secret), since)
    }
}

/// A look that has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What was being asked, if it came to that.
    pub(crate) asking: Option<AskKind>,
    /// Why.
    pub(crate) error: CallError,
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self { asking: None, error }
    }
}

/// A step of a restart.
pub(crate) struct Restarting {
    /// What came of each workload that was looked at.
    pub(crate) steps: Vec<(String, RestartOutcome)>,
    /// The Secret as it is now.
    pub(crate) after: SecretView,
}

impl Actor {
    /// Looks at one Secret, and asks for what is due. A key without a namespace is the namespace
    /// itself, of which the uid is read.
    pub(crate) async fn look(&self, key: &Key, before: Before) -> Outcome {
        if key.namespace().is_empty() {
            let found = self.secrets.namespace(key.name()).await;
            let uid = found.map(|found| found.map(|tenant| tenant.uid));
            let failed = |error| Outcome::Failed(Failure::from(error));
            return uid.map_or_else(failed, Outcome::Namespace);
        }
        match self.try_look(key, before).await {
            Ok(outcome) => outcome,
            Err(Failure { error: CallError::NotLeading, .. }) => Outcome::NotLeading,
            // Whatever it is that has gone: whether it is the Secret only reading it tells.
            Err(failure) => Outcome::Failed(failure),
        }
    }

    async fn try_look(&self, key: &Key, known: Before) -> Result<Outcome, Failure> {
        let Some(secret) = self.secrets.get(key).await? else { return Ok(Outcome::Gone) };
        let now = Timestamp::now();
        let compare =
            |before: &Arc<Remembered>| before.compare(&secret, &self.rules, &known.distrusted, now);
        if let Some(plan) = known.secret.as_ref().and_then(compare) {
            return self.repair(key, secret, plan, known.namespace_uid).await;
        }
        let outlook = outlook::outlook(&secret.view(), &self.rules, now);
        let due = match next_action(&secret.view(), &outlook, now) {
            Action::Restart(wanted) => return Ok(self.restart(key, secret, wanted, now).await?),
            Action::Ask(due) => due,
            Action::Nothing => return Ok(Outcome::Nothing(Box::new(secret))),
        };
        if let (Due::Promote(_), Some(staged)) = (&due, &outlook.stage)
            && !self.is_group_ready(key, &secret, staged, now).await?
        {
            return Ok(Outcome::waiting(secret, staged.ready.min(now)));
        }
        let (kind, ask) = match due {
            Due::Retire(_) => (AskKind::Retire, Some(Ask::Retire)),
            Due::Promote(pending) => (AskKind::Promote, Some(Ask::Promote(pending))),
            Due::Withdraw => (AskKind::Withdraw, None),
        };
        let after = self.ask(key, secret, kind, ask.as_ref()).await?;
        let mut asked = self.judge(kind, &outlook, after);
        asked.lateness = due_since(&outlook, now).map(|since| seconds(since, Timestamp::now()));
        Ok(Outcome::Asked(Box::new(asked)))
    }

    /// Brings back what a write has dropped that the webhook did not see.
    async fn repair(
        &self,
        key: &Key,
        secret: SecretView,
        plan: Plan,
        namespace_uid: Option<String>,
    ) -> Result<Outcome, Failure> {
        if plan.is_recreated {
            // Nothing comes into another tenant's namespace of the same name.
            let found = self.secrets.namespace(key.namespace()).await?;
            let is_same = found.as_ref().is_some_and(|tenant| {
                namespace_uid.as_ref() == Some(&tenant.uid) && plan.can_be_of(tenant.created)
            });
            if !is_same {
                return Ok(Outcome::Namespace(found.map(|tenant| tenant.uid)));
            }
        }
        let repair = plan.repair();
        let settings = repair.settings.clone();
        let before = outlook::outlook(&secret.view(), &self.rules, Timestamp::now());
        let ask = Ask::Repair(repair);
        let after = self.ask(key, secret, AskKind::Repair, Some(&ask)).await?;
        let mut asked = self.judge(AskKind::Repair, &before, after);
        let is_back = |(key, value): &(&'static str, String)| {
            let stored = asked.after.annotation(key).or_else(|| asked.after.label(key));
            (stored == Some(value)).then_some(*key)
        };
        asked.restored = settings.iter().filter_map(is_back).collect();
        if asked.result == AskResult::Refused && !asked.restored.is_empty() {
            asked.result = AskResult::Done;
        }
        Ok(Outcome::Asked(Box::new(asked)))
    }

    /// Whether the group lets it be promoted; it is listed only where there is one.
    async fn is_group_ready(
        &self,
        key: &Key,
        secret: &SecretView,
        staged: &StageOutlook,
        now: Timestamp,
    ) -> Result<bool, CallError> {
        if staged.latest <= now {
            return Ok(true);
        }
        let group = self.group(key, secret).await?;
        let group: Vec<PublicSecret<'_>> = group.iter().map(SecretView::view).collect();
        Ok(is_group_ready(&secret.view(), staged, &group, &self.rules, now))
    }

    /// The Secrets of its group, itself too; none if it is in no group.
    async fn group(&self, key: &Key, secret: &SecretView) -> Result<Vec<SecretView>, CallError> {
        match secret.view().group() {
            Some(group) => self.secrets.group(key.namespace(), group).await,
            None => Ok(Vec::new()),
        }
    }
}

/// Since when it has been due, if the clock alone made it due.
pub(super) fn due_since(outlook: &Outlook, now: Timestamp) -> Option<Timestamp> {
    match outlook.due.as_ref()? {
        Due::Retire(_) => {
            let ends = outlook.certificates.iter().filter_map(|known| known.ends);
            ends.filter(|ends| *ends <= now).max()
        }
        Due::Promote(_) => outlook.stage.as_ref().map(|staged| staged.ready),
        Due::Withdraw => None,
    }
}

/// From `start` to `end`, in seconds; none if a clock was put back.
fn seconds(start: Timestamp, end: Timestamp) -> f64 {
    end.duration_since(start).as_secs_f64().max(0.0)
}
