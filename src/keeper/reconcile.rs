//! Reconciles one Secret: reads it, decides, asks the webhook, and checks what it did.

mod announce;
mod ask;
mod rollout;

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

pub use self::ask::Called;
pub(crate) use self::ask::FinishedAsk;
use super::audit::Audit;
use super::ca_bundles::CaBundles;
use super::election::Leadership;
use super::groups::{Group, Search};
use super::memory::{Remembered, RepairPlan};
use super::pace::Pace;
use super::secrets::Secrets;
use super::trust::Wanted;
use super::workloads::Restarter;
use crate::keeper::metrics::{AskKind, AskResult};
use crate::kubernetes::call::CallError;
use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::action::{Action, awaited, next_action};
use crate::overlap::ask::Ask;
use crate::overlap::distrust::FormerDistrust;
use crate::overlap::outlook::{self, Due, Outlook, PublicSecret, Rules, StageOutlook};
use crate::overlap::restart::RestartOutcome;
use crate::overlap::stage_end::{StageEnd, stage_end};

/// Reconciles Secrets; clones share their clients.
#[derive(Clone)]
pub struct Reconciler {
    /// The calls for Secrets.
    pub secrets: Secrets,
    /// Restarts workloads.
    pub restarter: Restarter,
    /// The defaults and the settle time.
    pub rules: Rules,
    /// `--group-wait`: the longest wait for other Secrets, and for the webhook before
    /// the keeper ends a stage itself.
    pub group_wait: Duration,
    /// `--announce-rate`
    pub pace: Pace,
    /// Which held leaves the API server rejects.
    pub ca_bundles: CaBundles,
    /// For which Secrets the webhook was seen to be called.
    pub called: Called,
    /// With `--audit`: says what would be done.
    pub audit: Option<Audit>,
    /// Whether this replica may act. Each write requires it.
    pub leadership: Leadership,
}

/// What the controller knows of a Secret before it is read.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReconcileInput {
    /// Its last known state.
    pub(crate) secret: Option<Arc<Remembered>>,
    /// The uid of its namespace at that time.
    pub(crate) namespace_uid: Option<String>,
    /// The CAs that were once distrusted in its namespace; a repair never restores them.
    pub(crate) distrusted: FormerDistrust,
    /// Since when the webhook is not called for it.
    pub(crate) unseen_since: Option<Instant>,
    /// What is to be announced to it, if it is a follower and all is known.
    pub(crate) wanted: Option<Wanted>,
}

/// The result of a reconcile.
pub(crate) enum ReconcileOutcome {
    /// The webhook was asked.
    Asked(Box<FinishedAsk>),
    /// With `--audit`: it was said what the webhook would be asked.
    Audited(Box<SecretView>, AskKind),
    /// The stage was ended without the webhook.
    Ended(Box<SecretView>, StageEnd),
    /// Something failed.
    Failed(ReconcileError),
    /// There is no such Secret.
    Gone,
    /// The uid of a namespace was read; `None` if there is no such namespace.
    Namespace(Option<String>),
    /// This replica may not act any more.
    NotLeading,
    /// The Secret does not hold what the keeper has just written to it: something undid it.
    NotKept(Box<SecretView>),
    /// There is nothing to do now.
    Nothing(Box<SecretView>),
    /// Something is due, but the namespace is opted out, so nothing is asked.
    OptedOut(Box<SecretView>),
    /// A restart made one step; the Secret says how far it has come.
    Restarting(Box<RestartReport>),
    /// A stage is to end, and the webhook is not called for this Secret.
    Uncalled(Box<SecretView>),
    /// Since this time it has waited for other Secrets or workloads, or its leaf has been held: it is
    /// looked at again after a pause.
    Waiting(Box<SecretView>, Timestamp),
}

impl ReconcileOutcome {
    fn waiting(secret: SecretView, since: Timestamp) -> Self {
        tracing::debug!(secret = %Key::of(&secret), "due, but waiting for others to be ready");
        Self::Waiting(Box::new(secret), since)
    }

    /// The Secret as stored now, if it was compared with what is to be announced to it.
    pub(super) fn secret(&self) -> Option<&SecretView> {
        match self {
            // What is missing is repaired first.
            Self::Asked(asked) if asked.kind == AskKind::Repair => None,
            Self::Asked(asked) => Some(&asked.after),
            Self::Restarting(report) => Some(&report.after),
            Self::Audited(secret, _)
            | Self::Nothing(secret)
            | Self::OptedOut(secret)
            | Self::Waiting(secret, _) => Some(secret),
            _ => None,
        }
    }
}

/// Why a reconcile failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReconcileError {
    /// The ask that failed, if it got that far.
    pub(crate) asking: Option<AskKind>,
    /// The failed call.
    pub(crate) error: CallError,
}

impl From<CallError> for ReconcileError {
    fn from(error: CallError) -> Self {
        Self { asking: None, error }
    }
}

/// A step of a restart.
pub(crate) struct RestartReport {
    /// The result for each workload that was checked.
    pub(crate) outcomes: Vec<(String, RestartOutcome)>,
    /// The Secret as stored now.
    pub(crate) after: SecretView,
}

impl Reconciler {
    /// Reads one Secret, and asks for what is due. A key without a namespace names a namespace.
    /// Only the uid of that namespace is read.
    pub(crate) async fn reconcile(&self, key: &Key, known: ReconcileInput) -> ReconcileOutcome {
        if key.namespace().is_empty() {
            let found = self.secrets.namespace(key.name()).await;
            let uid = found.map(|found| found.map(|identity| identity.uid));
            let failed = |error| ReconcileOutcome::Failed(ReconcileError::from(error));
            return uid.map_or_else(failed, ReconcileOutcome::Namespace);
        }
        match self.try_reconcile(key, known).await {
            Ok(outcome) => outcome,
            Err(ReconcileError { error: CallError::NotLeading, .. }) => {
                ReconcileOutcome::NotLeading
            }
            // `CallError::Gone` may be about another object, such as a workload. Only a read of the
            // Secret shows whether the Secret is gone.
            Err(failure) => ReconcileOutcome::Failed(failure),
        }
    }

    async fn try_reconcile(
        &self,
        key: &Key,
        known: ReconcileInput,
    ) -> Result<ReconcileOutcome, ReconcileError> {
        // A CA has thousands of followers, of which only metadata was seen.
        let seen = known.wanted.as_ref().filter(|_| known.secret.is_none());
        let seen = seen.map(|wanted| wanted.seen.as_str()).unwrap_or_default();
        let Some(secret) = self.secrets.get_since(key, seen).await? else {
            return Ok(ReconcileOutcome::Gone);
        };
        let secret = self.noted(&secret).into_owned();
        let (now, unseen_since) = (Timestamp::now(), known.unseen_since);
        let outlook = outlook::outlook(&secret.view(), &self.rules, now);
        let is_over = outlook.is_stage_over(&secret.view(), now);
        if is_over && self.is_opted_out(key).await? {
            return self.end_stage(secret, &outlook, unseen_since).await;
        }
        let is_repeated = secret.annotation(names::ASK).is_some();
        let outcome = self.act(key, secret, &outlook, known, now).await?;
        // Whatever was asked for first: the webhook will not see the promotion either.
        if let ReconcileOutcome::Asked(asked) = &outcome
            && is_over
            && is_repeated
            && asked.result == AskResult::NotSeen
        {
            let after = asked.after.clone();
            let ended = self.end_stage(after, &outlook, unseen_since).await?;
            if matches!(ended, ReconcileOutcome::Ended(..)) {
                return Ok(ended);
            }
        }
        Ok(outcome)
    }

    /// Does what is due.
    async fn act(
        &self,
        key: &Key,
        secret: SecretView,
        outlook: &Outlook,
        known: ReconcileInput,
        now: Timestamp,
    ) -> Result<ReconcileOutcome, ReconcileError> {
        let compare =
            |before: &Arc<Remembered>| before.compare(&secret, &self.rules, &known.distrusted, now);
        if let Some(plan) = known.secret.as_ref().and_then(compare) {
            if self.is_opted_out(key).await? {
                return Ok(ReconcileOutcome::OptedOut(Box::new(secret)));
            }
            return self.repair(key, secret, plan, known.namespace_uid).await;
        }
        let secret = match &known.wanted {
            None => secret,
            Some(wanted) => match self.announce(key, secret, outlook, wanted, now).await? {
                ControlFlow::Break(outcome) => return Ok(outcome),
                ControlFlow::Continue(secret) => secret,
            },
        };
        let refused = match &outlook.stage {
            Some(stage) => self.ca_bundles.refuse(key.namespace(), stage).await,
            None => None,
        };
        let action = match &outlook.stage {
            Some(stage) if refused == Some(true) => Action::Ask(Due::Promote(stage.stage.pending)),
            _ => next_action(&secret.view(), outlook, now),
        };
        let due = match action {
            Action::Restart(wanted) => return Ok(self.restart(key, secret, wanted, now).await?),
            Action::Ask(due) => due,
            Action::Nothing => {
                return Ok(match &outlook.stage {
                    // A `caBundle` can be written after the Secret.
                    Some(stage) if refused.is_some() => {
                        ReconcileOutcome::Waiting(Box::new(secret), stage.stage.since)
                    }
                    _ => ReconcileOutcome::Nothing(Box::new(secret)),
                });
            }
        };
        let mut not_awaited = Vec::new();
        if let (Due::Promote(_), Some(staged)) = (&due, &outlook.stage)
            && refused != Some(true)
        {
            let is_over = staged.is_wait_over(self.group_wait, now);
            not_awaited = match self.awaited(key, &secret, staged, now).await {
                // A group that cannot be listed must not delay it forever.
                Err(_) if is_over => Vec::new(),
                found => found?,
            };
            if !is_over && !not_awaited.is_empty() {
                return Ok(ReconcileOutcome::waiting(secret, staged.ready.min(now)));
            }
        }
        let due = if due == Due::Withdraw || !self.is_opted_out(key).await? {
            due
        } else if secret.annotation(names::ASK).is_some() {
            // The webhook will not see it.
            Due::Withdraw
        } else {
            return Ok(ReconcileOutcome::OptedOut(Box::new(secret)));
        };
        let (kind, ask) = match due {
            Due::Retire(_) => (AskKind::Retire, Some(Ask::Retire)),
            Due::Promote(pending) => (AskKind::Promote, Some(Ask::Promote(pending))),
            Due::Unstage => (AskKind::Unstage, Some(Ask::Unstage)),
            Due::Withdraw => (AskKind::Withdraw, None),
        };
        if let Some(audit) = &self.audit {
            audit.ask(&secret, outlook, kind, ask.as_ref());
            return Ok(ReconcileOutcome::Audited(Box::new(secret), kind));
        }
        let answer = self.ask(key, secret, kind, ask.as_ref()).await?;
        let mut asked = self.finished_ask(kind, outlook, answer);
        asked.not_awaited = not_awaited;
        asked.lateness = due_since(outlook, now).map(|since| seconds(since, Timestamp::now()));
        Ok(ReconcileOutcome::Asked(Box::new(asked)))
    }

    /// The Secret, with `--audit` as the keeper would have annotated it.
    pub(super) fn noted<'a>(&self, secret: &'a SecretView) -> Cow<'a, SecretView> {
        self.audit.as_ref().map_or(Cow::Borrowed(secret), |audit| audit.noted(secret))
    }

    /// Whether the webhook is not called for the Secrets of this namespace.
    pub(super) async fn is_opted_out(&self, key: &Key) -> Result<bool, CallError> {
        self.secrets.is_opted_out(key.namespace()).await
    }

    /// Ends a stage without the webhook, which has not been called since `unseen_since`. If that is
    /// not long ago, or neither leaf verifies, or the group is still waited for, nothing
    /// changes.
    async fn end_stage(
        &self,
        secret: SecretView,
        outlook: &Outlook,
        unseen_since: Option<Instant>,
    ) -> Result<ReconcileOutcome, ReconcileError> {
        let now = Timestamp::now();
        let is_away = unseen_since.is_some_and(|since| since.elapsed() >= self.group_wait);
        let end = is_away.then(|| stage_end(&secret.view(), now)).flatten();
        let is_ready = |stage: &StageOutlook| stage.is_wait_over(self.group_wait, now);
        let Some(end) = end.filter(|_| outlook.stage.as_ref().is_none_or(is_ready)) else {
            return Ok(ReconcileOutcome::Uncalled(Box::new(secret)));
        };
        if let Some(audit) = &self.audit {
            let (kind, ask) = match outlook.due {
                Some(Due::Promote(pending)) => (AskKind::Promote, Ask::Promote(pending)),
                _ => (AskKind::Unstage, Ask::Unstage),
            };
            audit.ask(&secret, outlook, kind, Some(&ask));
            return Ok(ReconcileOutcome::Audited(Box::new(secret), kind));
        }
        let after = self.secrets.end_stage(&secret, end).await?;
        Ok(ReconcileOutcome::Ended(Box::new(after), end))
    }

    /// Asks to restore what was dropped by a write that the webhook did not see.
    async fn repair(
        &self,
        key: &Key,
        secret: SecretView,
        plan: RepairPlan,
        namespace_uid: Option<String>,
    ) -> Result<ReconcileOutcome, ReconcileError> {
        if plan.is_recreated {
            // A later namespace of this name may belong to other people: restore nothing there.
            let found = self.secrets.namespace(key.namespace()).await?;
            let is_same = found.as_ref().is_some_and(|identity| {
                namespace_uid.as_ref() == Some(&identity.uid) && plan.can_be_of(identity.created)
            });
            if !is_same {
                return Ok(ReconcileOutcome::Namespace(found.map(|identity| identity.uid)));
            }
        }
        let repair = plan.repair();
        let settings = repair.settings.clone();
        let before = outlook::outlook(&secret.view(), &self.rules, Timestamp::now());
        let ask = Ask::Repair(repair);
        if let Some(audit) = &self.audit {
            audit.ask(&secret, &before, AskKind::Repair, Some(&ask));
            return Ok(ReconcileOutcome::Audited(Box::new(secret), AskKind::Repair));
        }
        let answer = self.ask(key, secret, AskKind::Repair, Some(&ask)).await?;
        let mut asked = self.finished_ask(AskKind::Repair, &before, answer);
        let is_back = |(key, value): &(&'static str, String)| {
            let stored = asked.after.annotation(key).or_else(|| asked.after.label(key));
            (stored == Some(value)).then_some(*key)
        };
        asked.restored = settings.iter().filter_map(is_back).collect();
        if asked.result == AskResult::Refused && !asked.restored.is_empty() {
            asked.result = AskResult::Done;
        }
        Ok(ReconcileOutcome::Asked(Box::new(asked)))
    }

    /// The names of the Secrets that a promotion waits for.
    async fn awaited(
        &self,
        key: &Key,
        secret: &SecretView,
        staged: &StageOutlook,
        now: Timestamp,
    ) -> Result<Vec<String>, CallError> {
        let search =
            secret.view().group().map_or(Search::Holding(&staged.held_anchors), Search::OfGroup);
        if let Search::Holding([]) = search {
            return Ok(Vec::new());
        }
        let Group { members, unread } = self.secrets.groups.find(key.namespace(), search).await?;
        let members: Vec<PublicSecret<'_>> = members.iter().map(|member| member.view()).collect();
        let awaited = awaited(&secret.view(), staged, &members, &self.rules, now);
        Ok(awaited.into_iter().map(ToOwned::to_owned).chain(unread).collect())
    }

    /// The Secrets of its group, including itself; empty if it is in no group.
    async fn group(&self, key: &Key, secret: &SecretView) -> Result<Group, CallError> {
        match secret.view().group() {
            Some(group) => self.secrets.groups.find(key.namespace(), Search::OfGroup(group)).await,
            None => Ok(Group::default()),
        }
    }
}

/// Since when something has been due, if the clock alone made it due.
pub(super) fn due_since(outlook: &Outlook, now: Timestamp) -> Option<Timestamp> {
    match outlook.due.as_ref()? {
        Due::Retire(_) => {
            let ends = outlook.certificates.iter().filter_map(|known| known.ends);
            ends.filter(|ends| *ends <= now).max()
        }
        Due::Promote(_) => outlook.stage.as_ref().map(|staged| staged.ready),
        Due::Unstage | Due::Withdraw => None,
    }
}

/// The time from `start` to `end` in seconds; zero if a clock was set back.
fn seconds(start: Timestamp, end: Timestamp) -> f64 {
    end.duration_since(start).as_secs_f64().max(0.0)
}
