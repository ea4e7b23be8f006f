//! Handles the results of asks and restarts: counts them, publishes Events, schedules retries.

use tokio::time::Instant;

use super::super::backoff::{Retry, RetryCause, SEEN_AGAIN};
use super::super::events;
use super::super::reconcile::{FinishedAsk, RestartReport};
use super::Controller;
use crate::keeper::metrics::{AskKind, AskResult};
use crate::kubernetes::key::Key;
use crate::kubernetes::reason::Reason;
use crate::kubernetes::secret_view::SecretView;
use crate::overlap::stage_end::StageEnd;

/// After this many asks that the webhook did not see, in about two hours, the keeper gives up a
/// repair.
const MAX_UNSEEN_REPAIRS: u32 = 20;
/// How far the clocks of two machines may differ, in seconds.
const MAX_CLOCK_SKEW: f64 = 30.0;

impl Controller {
    pub(super) fn asked(&mut self, key: &Key, asked: FinishedAsk) {
        let FinishedAsk { kind, result, carried_again, restored, not_awaited, lateness, after } =
            asked;
        self.metrics.asked(kind, result);
        let uid = after.object_uid().map(ToOwned::to_owned);
        match result {
            AskResult::NotSeen => {
                let retry = self.unseen(key);
                if retry.is_news {
                    let text = format!(
                        "{}: the webhook did not see this ask and may be down, or not registered \
                         for this Secret; the keeper asks again",
                        kind.name()
                    );
                    self.events.publish(key, uid.as_deref(), Reason::AskFailed, text);
                }
                if kind == AskKind::Repair && retry.before >= MAX_UNSEEN_REPAIRS {
                    // The webhook seems not to be registered for this Secret, so remember it as it
                    // is now.
                    self.retries.forget(key);
                    self.remember(key, &after);
                }
            }
            AskResult::Refused => {
                self.retry_unseen();
                let is_by_clock = lateness.is_some_and(|seconds| seconds < MAX_CLOCK_SKEW);
                let cause = RetryCause::Refused { is_by_clock };
                if self.retry(key, cause, after.resource_version()) {
                    let text = format!(
                        "{}: the webhook saw this ask and changed nothing; its log says why",
                        kind.name()
                    );
                    self.events.publish(key, uid.as_deref(), Reason::AskFailed, text);
                }
                if kind == AskKind::Repair {
                    // By its rules the webhook would refuse again, so remember the Secret as it is
                    // now.
                    self.retries.forget(key);
                    self.remember(key, &after);
                }
            }
            _ => {
                self.retries.forget(key);
                if kind != AskKind::Withdraw {
                    self.retry_unseen();
                }
                if let Some(seconds) = lateness {
                    self.metrics.acted_after(seconds);
                }
                // `TrackedSecret::news` reports retirements and promotions, by any writer.
                if !not_awaited.is_empty() {
                    let text = events::of_group_wait(&not_awaited);
                    self.events.publish(key, uid.as_deref(), Reason::PromotedAlone, text);
                }
                if kind == AskKind::Repair {
                    let text = events::of_repair(&carried_again, &restored);
                    self.events.publish(key, uid.as_deref(), Reason::Repaired, text);
                }
            }
        }
        self.observe(&after);
    }

    /// Notes that the webhook is not called for this Secret, and tries again. A stage that is to end
    /// is looked at when `--group-wait` has passed, too.
    pub(super) fn unseen(&mut self, key: &Key) -> Retry {
        let retry = self.retries.failed(key, RetryCause::NotSeen, "");
        let (now, mut at) = (Instant::now(), Instant::now() + retry.pause);
        let wait_ends = self.retries.unseen_since(key).map(|s| s + self.reconciler.group_wait);
        if let Some(wait_ends) = wait_ends.filter(|ends| *ends > now) {
            at = at.min(wait_ends);
        }
        self.enqueue(key, at);
        retry
    }

    /// Reports a stage that the keeper has ended itself.
    pub(super) fn stage_ended(&mut self, key: &Key, after: &SecretView, end: StageEnd) {
        if after.view().waits() {
            return self.not_kept(key, after);
        }
        self.retries.forget(key);
        self.metrics.stage_ended();
        let (reason, text) = match end {
            StageEnd::Promote => (
                Reason::Promoted,
                "the webhook is not called for this Secret, so the keeper itself put the leaf \
                 that waited into tls.crt; it now manages the fields tls.crt and tls.key",
            ),
            StageEnd::Drop => (
                Reason::StageEnded,
                "the webhook is not called for this Secret, so the keeper itself removed the \
                 leaf that waited; the one in tls.crt is newer, or only that one verifies",
            ),
        };
        self.events.publish(key, after.object_uid(), reason, text.to_owned());
        self.observe(after);
    }

    /// Tries a write again, after a pause, that something undid in the same request. Trying at once
    /// would be a loop.
    pub(super) fn not_kept(&mut self, key: &Key, after: &SecretView) {
        let cause = RetryCause::Refused { is_by_clock: false };
        if self.retry(key, cause, after.resource_version()) {
            let text = "a write of the keeper did not stay: the webhook may have another \
                        --keeper-user, or another admission webhook undid it; the keeper tries \
                        again later";
            self.events.publish(key, after.object_uid(), Reason::AskFailed, text.to_owned());
        }
        self.observe(after);
    }

    pub(super) fn restarting(&mut self, key: &Key, restarting: &RestartReport) {
        self.retries.forget(key);
        for (workload, outcome) in &restarting.outcomes {
            let (result, reason, text) = events::of_restart(outcome);
            self.metrics.restart(result);
            let uid = restarting.after.object_uid();
            self.events.publish(key, uid, reason, format!("{workload}: {text}"));
        }
        self.observe(&restarting.after);
    }

    /// Takes in a write that a watch shows. If the webhook took part in it, the asks that it did not
    /// see are repeated within a minute. Not at once, because everyone who may write a Secret could
    /// imitate that at any time.
    pub(super) fn applied(&mut self, secret: &SecretView) {
        let key = Key::of(secret);
        // The task of this Secret reports the outcome of its own writes itself.
        let before = self.watched.get(&key).filter(|_| !self.tasks.is_running(&key)).cloned();
        self.observe(secret);
        let after = self.watched.get(&key);
        let seen = before.zip(after).is_some_and(|(before, after)| after.shows_webhook(&before));
        if seen {
            let at = Instant::now() + SEEN_AGAIN;
            for key in self.retries.not_seen() {
                self.queue.hasten(&key, at);
            }
        }
    }

    /// Repeats at once the asks that the webhook did not see, because it is up again.
    fn retry_unseen(&mut self) {
        for key in self.retries.not_seen() {
            self.enqueue(&key, Instant::now());
        }
    }
}
