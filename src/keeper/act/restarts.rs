//! One step of a restart.

use jiff::Timestamp;
use kube::Resource;

use super::super::api::Change;
use super::super::restart::{self, Progress, Step, Wanted, Workload};
use super::{Actor, Outcome, Restarting};
use crate::kubernetes::call::CallError;
use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::names;

impl Actor {
    /// Goes on with a restart by one step: at most one workload is changed.
    pub(super) async fn restart(
        &self,
        key: &Key,
        secret: SecretView,
        wanted: Wanted,
        now: Timestamp,
    ) -> Result<Outcome, CallError> {
        let mut steps = Vec::new();
        let mut next = 0;
        // Since when the next one is waited for.
        let mut waits = None;
        if let Some((last, progress)) = wanted.position() {
            next = last;
            let since = progress.since;
            if progress.is_waiting {
                waits = Some(since);
            } else {
                let workload = &wanted.workloads[last];
                match self.restarter.follow(key, &wanted, workload, since, now).await? {
                    Step::Waiting => return Ok(Outcome::waiting(secret, since)),
                    step => steps.push((workload.to_string(), step)),
                }
                next += 1;
            }
        }
        let mut note = wanted.trust.clone();
        while let Some(workload) = wanted.workloads.get(next).filter(|_| !wanted.is_first_sight) {
            next += 1;
            let step = self.begin(key, &secret, &wanted, workload, waits, now).await?;
            let is_waiting = step == Step::Waiting;
            if let (true, Some(since)) = (is_waiting, waits.take()) {
                // The order matters: the next one waits, too, but not for ever.
                if !restart::is_too_long(since, now) {
                    return Ok(Outcome::waiting(secret, since));
                }
                steps.push((workload.to_string(), Step::Paused));
                continue;
            }
            let is_started = step == Step::Started;
            if !is_waiting {
                steps.push((workload.to_string(), step));
            }
            if is_started || is_waiting {
                let workload = workload.to_string();
                let is_for_leaf = wanted.is_for_leaf;
                let progress = Progress { workload, since: now, is_waiting, is_for_leaf };
                note = progress.to_annotation(&wanted.trust);
                break;
            }
        }
        let value = Some(note.as_str());
        let change = Change { annotation: names::RESTARTED, value, is_trial: false };
        let after = self.secrets.change(key, &secret, change).await?;
        Ok(Outcome::Restarting(Box::new(Restarting { steps, after })))
    }

    /// Restarts one workload, if it may be. It has been waited for since `waits`, if it has been.
    async fn begin(
        &self,
        key: &Key,
        secret: &SecretView,
        wanted: &Wanted,
        workload: &Workload,
        waits: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Step, CallError> {
        let state = match self.restarter.find(key, workload).await? {
            Ok(state) => state,
            Err(step) => return Ok(step),
        };
        let mut group = None;
        if !state.may_restart_for(key.name()) {
            let members = self.group(key, secret).await?;
            let names = || members.iter().filter_map(|member| member.meta().name.as_deref());
            if !names().any(|name| state.may_restart_for(name)) {
                return Ok(Step::Stranger);
            }
            group = Some(members);
        }
        if let Some(step) = wanted.before(&state, now) {
            return Ok(step);
        }
        // What the pods that are about to start will find in all of the group's Secrets.
        let group = match group {
            Some(group) => group,
            None => self.group(key, secret).await?,
        };
        if restart::is_on_its_way(&group, &self.rules, waits, now) {
            return Ok(Step::Waiting);
        }
        let marks = wanted.marks(workload, &group, &self.rules, &state, now);
        self.restarter.start(key, workload, &state, marks).await
    }

    /// The Secrets of its group, itself too; none if it is in no group.
    async fn group(&self, key: &Key, secret: &SecretView) -> Result<Vec<SecretView>, CallError> {
        match secret.annotation(names::GROUP).filter(|name| !name.is_empty()) {
            Some(group) => self.secrets.group(key.namespace(), group).await,
            None => Ok(Vec::new()),
        }
    }
}
