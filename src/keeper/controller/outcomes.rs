//! What comes of asks and restarts: counted, said, and tried again where that helps.

use tokio::time::Instant;

use super::super::backoff::Trouble;
use super::super::events::{self, Reason};
use super::super::reconcile::{Asked, Restarting};
use super::Controller;
use crate::keeper::metrics::{AskKind, AskResult, RestartResult};
use crate::kubernetes::key::Key;
use crate::overlap::restart::RestartOutcome;

/// A repair that was not seen so often, within some two hours, never will be.
const HOPELESS: u32 = 20;
/// By so much, in seconds, the clocks of two machines may differ without anybody's fault.
const SKEW: f64 = 30.0;

impl Controller {
    pub(super) fn asked(&mut self, key: &Key, asked: Asked) {
        let Asked { kind, result, carried_again, restored, lateness, after } = asked;
        self.metrics.asked(kind, result);
        let uid = after.object_uid().map(ToOwned::to_owned);
        match result {
            AskResult::NotSeen => {
                let turn = self.retries.wrong(key, Trouble::NotSeen, "");
                self.looks.set(key, Instant::now() + turn.pause);
                if turn.is_news {
                    let text = format!(
                        "{}: the webhook did not see this ask: is it down, or not registered for \
                         this Secret? It is asked again",
                        kind.name()
                    );
                    self.events.say(key, uid.as_deref(), Reason::AskFailed, text);
                }
                if kind == AskKind::Repair && turn.before >= HOPELESS {
                    // The webhook is not registered for it: so it is from now on.
                    self.retries.forget(key);
                    self.remember(key, &after);
                }
            }
            AskResult::Refused => {
                self.seen();
                let is_by_clock = lateness.is_some_and(|seconds| seconds < SKEW);
                let trouble = Trouble::Refused { is_by_clock };
                if self.retry(key, trouble, after.resource_version()) {
                    let text = format!("{}: the webhook has changed nothing", kind.name());
                    self.events.say(key, uid.as_deref(), Reason::AskFailed, text);
                }
                if kind == AskKind::Repair {
                    // By the same rules it would refuse again: so it is from now on.
                    self.retries.forget(key);
                    self.remember(key, &after);
                }
            }
            _ => {
                self.retries.forget(key);
                if kind != AskKind::Withdraw {
                    self.seen();
                }
                if let Some(seconds) = lateness {
                    self.metrics.acted_after(seconds);
                }
                // Of a retirement and a promotion the Secret itself tells, whoever wrote it.
                if kind == AskKind::Repair {
                    let text = events::of_repair(&carried_again, &restored);
                    self.events.say(key, uid.as_deref(), Reason::Repaired, text);
                }
            }
        }
        self.observe(&after);
    }

    pub(super) fn restarting(&mut self, key: &Key, restarting: &Restarting) {
        self.retries.forget(key);
        for (workload, step) in &restarting.steps {
            let (result, reason, text) = match step {
                RestartOutcome::Complete => {
                    (RestartResult::Done, Reason::Restarted, "its rollout is complete")
                }
                RestartOutcome::Denied => (
                    RestartResult::Failed,
                    Reason::RestartFailed,
                    "the API server, or an admission policy, does not allow it",
                ),
                RestartOutcome::Unrelated => (
                    RestartResult::NotAllowed,
                    Reason::RestartFailed,
                    "its pods refer to no Secret of the group, and it does not carry \
                     ca-overlap.dev/allow-restart=true",
                ),
                RestartOutcome::Paused => (
                    RestartResult::Stuck,
                    Reason::RestartFailed,
                    "it was paused, or restarted before, for longer than ten minutes",
                ),
                RestartOutcome::NotAllowed(why) => {
                    (RestartResult::NotAllowed, Reason::RestartFailed, *why)
                }
                RestartOutcome::Reverted => (
                    RestartResult::Reverted,
                    Reason::RestartFailed,
                    "something has taken the annotation of its pod template back",
                ),
                RestartOutcome::Stuck => (
                    RestartResult::Stuck,
                    Reason::RestartFailed,
                    "its rollout takes longer than ten minutes",
                ),
                RestartOutcome::Started | RestartOutcome::Waiting => (
                    RestartResult::Started,
                    Reason::Restarted,
                    "its pods are replaced, because the trust has changed",
                ),
            };
            self.metrics.restart(result);
            let uid = restarting.after.object_uid();
            self.events.say(key, uid, reason, format!("{workload}: {text}"));
        }
        self.observe(&restarting.after);
    }

    /// The webhook is called: whoever waits for that tries again.
    fn seen(&mut self) {
        for key in self.retries.seen() {
            self.looks.set(&key, Instant::now());
        }
    }
}
