//! One look at one Secret: read it, decide, ask, and see what the webhook made of it.

use std::sync::Arc;

use jiff::Timestamp;
use kube::Resource;

use super::api::{CallError, Change, Key, Secrets};
use super::due::{self, Due, Outlook, Rules, Staged};
use super::lease::Leadership;
use super::memory::{Plan, Remembered};
use super::restart::{self, Restarter, Step, Wanted};
use super::secret_view::SecretView;
use crate::names;
use crate::overlap::ask::Ask;
use crate::overlap::certs::Fingerprint;
use crate::telemetry::{AskKind, AskResult};

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
pub struct Before {
    /// What the Secret was like.
    pub secret: Option<Arc<Remembered>>,
    /// The uid of its namespace at that time.
    pub namespace_uid: Option<String>,
    /// What any Secret that is watched distrusts: none of it comes back anywhere.
    pub distrusted: Vec<Fingerprint>,
}

/// What came of a look.
pub enum Outcome {
    /// The webhook was asked.
    Asked(Box<Asked>),
    /// The webhook could not be asked.
    AskFailed(AskKind, CallError),
    /// Something failed.
    Failed(CallError),
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
    /// It is due, but others have to be ready first.
    Waiting(Box<SecretView>),
}

/// An ask and what the webhook made of it.
pub struct Asked {
    /// What was asked.
    pub kind: AskKind,
    /// What the webhook made of it.
    pub result: AskResult,
    /// The certificates that are gone since.
    pub gone: Vec<Fingerprint>,
    /// How long after it was due it was done, in seconds.
    pub lateness: Option<f64>,
    /// The Secret as it is now.
    pub after: SecretView,
}

/// A step of a restart.
pub struct Restarting {
    /// What came of each workload that was looked at.
    pub steps: Vec<(String, Step)>,
    /// The Secret as it is now.
    pub after: SecretView,
}

impl Actor {
    /// Looks at one Secret, and asks for what is due. A key without a namespace is the namespace
    /// itself, of which the uid is read.
    pub async fn look(&self, key: &Key, before: Before) -> Outcome {
        if key.namespace().is_empty() {
            let found = self.secrets.namespace(key.name()).await;
            let uid = found.map(|found| found.map(|tenant| tenant.uid));
            return uid.map_or_else(Outcome::Failed, Outcome::Namespace);
        }
        match self.try_look(key, before).await {
            Ok(outcome) => outcome,
            Err(CallError::Gone) => Outcome::Gone,
            Err(error) => Outcome::Failed(error),
        }
    }

    async fn try_look(&self, key: &Key, known: Before) -> Result<Outcome, CallError> {
        let Some(secret) = self.secrets.get(key).await? else { return Ok(Outcome::Gone) };
        let now = Timestamp::now();
        let compare =
            |before: &Arc<Remembered>| before.compare(&secret, &self.rules, &known.distrusted, now);
        if let Some(plan) = known.secret.as_ref().and_then(compare) {
            return self.repair(key, secret, plan, known.namespace_uid).await;
        }
        let outlook = due::outlook(&secret.view(), &self.rules, now);
        let is_urgent = outlook.stage.as_ref().is_some_and(|staged| staged.latest <= now);
        if !matches!(outlook.due, Some(Due::Retire(_)))
            && let Some(wanted) = restart::wanted(&secret, &outlook).filter(|_| !is_urgent)
        {
            return self.restart(key, secret, wanted, now).await;
        }
        let Some(due) = &outlook.due else { return Ok(Outcome::Nothing(Box::new(secret))) };
        if let (Due::Promote(_), Some(staged)) = (due, &outlook.stage)
            && !self.is_group_ready(key, &secret, staged, now).await?
        {
            return Ok(Outcome::Waiting(Box::new(secret)));
        }
        if !self.leadership.may_act() {
            return Ok(Outcome::NotLeading);
        }
        let (kind, ask) = match due {
            Due::Retire(_) => (AskKind::Retire, Some(Ask::Retire)),
            Due::Promote(pending) => (AskKind::Promote, Some(Ask::Promote(*pending))),
            Due::Withdraw => (AskKind::Withdraw, None),
        };
        let value = ask.map(|ask| ask.to_annotation(nonce(secret.annotation(names::ASK))));
        let change = Change { annotations: vec![(names::ASK, value.as_deref())], mode: None };
        let after = match self.secrets.change(key, &secret, change).await {
            Ok(after) => after,
            Err(error) => return ask_failed(kind, error),
        };
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
    ) -> Result<Outcome, CallError> {
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
        if !self.leadership.may_act() {
            return Ok(Outcome::NotLeading);
        }
        let ask = (!plan.certificates.is_empty()).then_some(Ask::Repair(plan.certificates));
        let ask = ask.map(|ask| ask.to_annotation(nonce(secret.annotation(names::ASK))));
        let restored = plan.annotations.iter().map(|(key, value)| (*key, Some(value.as_str())));
        let asked = ask.as_deref().map(|ask| (names::ASK, Some(ask)));
        let change =
            Change { annotations: restored.chain(asked).collect(), mode: plan.mode.as_deref() };
        let before = due::outlook(&secret.view(), &self.rules, Timestamp::now());
        let after = match self.secrets.change(key, &secret, change).await {
            Ok(after) => after,
            Err(error) => return ask_failed(AskKind::Repair, error),
        };
        let mut asked = self.judge(AskKind::Repair, &before, after);
        if ask.is_none() {
            asked.result = AskResult::Done;
        }
        Ok(Outcome::Asked(Box::new(asked)))
    }

    /// Goes on with a restart by one step: at most one workload is changed.
    async fn restart(
        &self,
        key: &Key,
        secret: SecretView,
        wanted: Wanted,
        now: Timestamp,
    ) -> Result<Outcome, CallError> {
        if !self.leadership.may_act() {
            return Ok(Outcome::NotLeading);
        }
        let mut steps = Vec::new();
        let mut next = 0;
        if let Some((done, since)) = wanted.done
            && let Some(last) = done.checked_sub(1).and_then(|last| wanted.workloads.get(last))
        {
            match self.restarter.follow(key, &wanted, last, since, now).await? {
                Step::Waiting => return Ok(Outcome::Waiting(Box::new(secret))),
                step => steps.push((last.to_string(), step)),
            }
            next = done;
        }
        let mut progress = wanted.trust.clone();
        let members = self.members(key, &secret).await?;
        while let Some(workload) = wanted.workloads.get(next).filter(|_| !wanted.is_first_sight) {
            next += 1;
            match self.restarter.start(key, &wanted, workload, &members).await? {
                // The order matters: the next one waits, too.
                Step::Waiting => return Ok(Outcome::Waiting(Box::new(secret))),
                Step::Started => {
                    steps.push((workload.to_string(), Step::Started));
                    progress = format!("{} {next} {now:.0}", wanted.trust);
                    break;
                }
                step => steps.push((workload.to_string(), step)),
            }
        }
        let annotations = vec![(names::RESTARTED, Some(progress.as_str()))];
        let after = self.secrets.change(key, &secret, Change { annotations, mode: None }).await?;
        Ok(Outcome::Restarting(Box::new(Restarting { steps, after })))
    }

    /// The names of the Secrets of its group, itself included.
    async fn members(&self, key: &Key, secret: &SecretView) -> Result<Vec<String>, CallError> {
        let mut names = vec![key.name().to_owned()];
        if let Some(group) = secret.annotation(names::GROUP).filter(|name| !name.is_empty()) {
            let members = self.secrets.group(key.namespace(), group).await?;
            names.extend(members.into_iter().filter_map(|member| member.meta().name.clone()));
        }
        Ok(names)
    }

    /// What the webhook made of an ask.
    fn judge(&self, kind: AskKind, before: &Outlook, after: SecretView) -> Asked {
        let outlook = due::outlook(&after.view(), &self.rules, Timestamp::now());
        let left = |fingerprint: &Fingerprint| {
            outlook.certificates.iter().any(|k| k.certificate.fingerprint() == *fingerprint)
        };
        let all = before.certificates.iter().map(|known| known.certificate.fingerprint());
        let gone: Vec<Fingerprint> = all.filter(|fingerprint| !left(fingerprint)).collect();
        let is_done = match kind {
            AskKind::Retire => !gone.is_empty(),
            AskKind::Promote => outlook.stage.is_none(),
            AskKind::Repair => carried(&outlook).any(|now| carried(before).all(|was| was != now)),
            AskKind::Withdraw => true,
        };
        let result = if after.annotation(names::ASK).is_some() {
            AskResult::NotSeen
        } else if is_done {
            AskResult::Done
        } else {
            AskResult::Refused
        };
        Asked { kind, result, gone, lateness: None, after }
    }

    /// Whether all Secrets of the group that hold a `ca.crt` trust the new CA, and have done so for
    /// long enough; or whether it cannot wait any longer.
    async fn is_group_ready(
        &self,
        key: &Key,
        secret: &SecretView,
        staged: &Staged,
        now: Timestamp,
    ) -> Result<bool, CallError> {
        let group = secret.annotation(names::GROUP).filter(|name| !name.is_empty());
        let Some(group) = group.filter(|_| staged.latest > now) else { return Ok(true) };
        for member in self.secrets.group(key.namespace(), group).await? {
            if member.meta().name == secret.meta().name || member.view().ca_crt.is_none() {
                continue;
            }
            let outlook = due::outlook(&member.view(), &self.rules, now);
            let trusts = |anchor: &Fingerprint| {
                outlook.certificates.iter().any(|k| k.certificate.fingerprint() == *anchor)
            };
            let written = member.written().unwrap_or(staged.stage.since);
            let is_ready = staged.anchors.iter().all(trusts)
                && staged.ready_after(written, &self.rules) <= now;
            if !is_ready {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// One that is gone meanwhile is no failure.
fn ask_failed(kind: AskKind, error: CallError) -> Result<Outcome, CallError> {
    if error == CallError::Gone { Err(error) } else { Ok(Outcome::AskFailed(kind, error)) }
}

/// What is carried.
fn carried(outlook: &Outlook) -> impl Iterator<Item = Fingerprint> {
    let carried = outlook.certificates.iter().filter(|known| known.carried.is_some());
    carried.map(|known| known.certificate.fingerprint())
}

/// Since when it has been due, if the clock alone made it due.
fn due_since(outlook: &Outlook, now: Timestamp) -> Option<Timestamp> {
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

/// A number that makes an ask differ from the one that stands there.
pub fn nonce(standing: Option<&str>) -> u64 {
    let last = standing.and_then(|text| text.rsplit_once('#')?.1.parse::<u64>().ok());
    last.map_or(1, |last| last.wrapping_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ask_that_cannot_be_written_is_counted_unless_its_secret_is_gone() {
        let failed = |error| ask_failed(AskKind::Retire, error);
        assert!(matches!(failed(CallError::Gone), Err(CallError::Gone)));
        for error in [CallError::Conflict, CallError::Failed("status 403".into())] {
            let outcome = failed(error.clone()).unwrap();
            assert!(matches!(outcome, Outcome::AskFailed(AskKind::Retire, e) if e == error));
        }
    }

    #[test]
    fn an_ask_that_is_repeated_differs() {
        assert_eq!(nonce(None), 1);
        assert_eq!(nonce(Some("retire #1")), 2);
        assert_eq!(nonce(Some("retire")), 1);
        assert_eq!(nonce(Some("retire #x")), 1);
        assert_eq!(nonce(Some(&format!("retire #{}", u64::MAX))), 0);
    }
}
