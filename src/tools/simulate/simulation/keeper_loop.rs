//! The simulated keeper: its own code finds what is due and asks the webhook.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::super::ToolError;
use super::super::api_server::{EPOCH, timestamp};
use super::super::generator::secret_name;
use super::super::schedule::Millis;
use super::{Event, Simulation};
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::Contents;
use crate::overlap::action::{Action, awaited, next_action, pause};
use crate::overlap::announcement::Announcement;
use crate::overlap::ask::{Ask, nonce};
use crate::overlap::outlook::{self, Due, PublicSecret};
use crate::overlap::restart::{
    NextCall, PendingRestart, RestartOutcome, RestartPass, WorkloadState,
};
use crate::overlap::source;

/// How long after a write or a deadline the keeper reconciles.
pub(super) const SOON: Millis = 1_000;
/// In how many batches a rollout restarts its pods.
const BATCHES: usize = 4;

/// The keeper's state for one Secret.
#[derive(Clone, Debug, Default)]
pub(super) struct KeeperState {
    /// When it is reconciled next.
    next: Option<Millis>,
    /// The workload whose pods do not reload.
    workload: WorkloadState,
    /// When the last rollout of the workload is complete.
    complete: Millis,
    /// How many rollouts there were.
    rollouts: usize,
}

impl Simulation<'_> {
    /// Reconciles all Secrets that peers mount.
    pub(super) fn reconcile_all_at(&mut self, at: Millis) {
        (0..self.issuer()).for_each(|secret| self.reconcile_at(secret, at));
    }

    /// Reconciles a Secret at this time, unless an earlier time is set.
    pub(super) fn reconcile_at(&mut self, secret: usize, at: Millis) {
        let Some(state) = self.keeper.as_mut().map(|all| &mut all[secret]) else { return };
        if state.next.is_none_or(|next| at < next) {
            state.next = Some(at);
            self.schedule_event(at, Event::Reconcile { secret });
        }
    }

    fn state(&mut self, secret: usize) -> Option<&mut KeeperState> {
        self.keeper.as_mut().map(|all| &mut all[secret])
    }

    /// Reconciles a Secret.
    pub(super) fn reconcile(&mut self, secret: usize) -> Result<(), ToolError> {
        let now = self.now;
        let Some(state) = self.state(secret) else { return Ok(()) };
        if state.next != Some(now) {
            return Ok(());
        }
        state.next = None;
        let view = self.api.view(secret)?;
        let time = timestamp(now);
        if let Some(ask) = self.announcement(&view, time)? {
            return self.ask(secret, &view, Some(ask)).map(drop);
        }
        let outlook = outlook::outlook(&view.view(), &self.rules, time);
        match next_action(&view.view(), &outlook, time) {
            Action::Restart(wanted) => return self.restart(secret, &view, wanted),
            Action::Ask(Due::Promote(pending)) => {
                let Some(staged) = &outlook.stage else { return Ok(()) };
                let group = self.group(&view)?;
                let group: Vec<PublicSecret<'_>> = group.iter().map(SecretView::view).collect();
                let is_over = staged.is_wait_over(self.rules.settle * 3, time);
                if !is_over && !awaited(&view.view(), staged, &group, &self.rules, time).is_empty()
                {
                    self.wait(secret, staged.ready.min(time));
                    return Ok(());
                }
                if self.ask(secret, &view, Some(Ask::Promote(pending)))? {
                    self.promoted();
                }
            }
            Action::Ask(Due::Retire(_)) => drop(self.ask(secret, &view, Some(Ask::Retire))?),
            Action::Ask(Due::Unstage) => drop(self.ask(secret, &view, Some(Ask::Unstage))?),
            Action::Ask(Due::Withdraw) => drop(self.ask(secret, &view, None)?),
            Action::Nothing => {
                if let Some(next) = outlook.next {
                    self.reconcile_at(secret, millis(next.at) + SOON);
                }
            }
        }
        Ok(())
    }

    /// What is to be announced to a Secret and is not yet: the CA that the issuer's Secret holds.
    fn announcement(&self, to: &SecretView, now: Timestamp) -> Result<Option<Ask>, ToolError> {
        if !self.result.strategy.is_cert_manager() {
            return Ok(None);
        }
        let issuer = self.api.view(self.issuer())?;
        let PublicSecret { ca_crt, tls_crt, .. } = issuer.view();
        let announced = source::held(Contents { ca_crt, tls_crt }, None).into_iter();
        let announced = announced.map(|ca| Announcement { der: ca.into_der(), until: None });
        let ask = Ask::announcing(announced.collect());
        let is_due = outlook::announces(&to.view(), &self.rules, ask.announced(), now);
        Ok(is_due.then_some(ask))
    }

    /// All Secrets of a group, with this one; none if it has no group.
    fn group(&self, of: &SecretView) -> Result<Vec<SecretView>, ToolError> {
        let secrets = if of.view().group().is_some() { self.issuer() } else { 0 };
        (0..secrets).map(|secret| self.api.view(secret)).collect()
    }

    /// Reconciles again after a pause that grows with the time waited.
    fn wait(&mut self, secret: usize, since: Timestamp) {
        let pause = pause(since, timestamp(self.now)).as_millis();
        self.reconcile_at(secret, self.now + Millis::try_from(pause).unwrap_or(Millis::MAX));
    }

    /// Asks the webhook. Returns whether the stored Secret changed.
    fn ask(
        &mut self,
        secret: usize,
        view: &SecretView,
        ask: Option<Ask>,
    ) -> Result<bool, ToolError> {
        let standing = view.annotation(names::ASK);
        let value = ask.map(|ask| ask.to_annotation(nonce(standing)));
        let is_changed = self.api.annotate(secret, &[(names::ASK, value)], self.now)?;
        self.written(secret, is_changed)?;
        Ok(is_changed)
    }

    /// Continues a restart: makes the calls that the pass returns.
    fn restart(
        &mut self,
        secret: usize,
        view: &SecretView,
        wanted: PendingRestart,
    ) -> Result<(), ToolError> {
        let (now, rules) = (self.now, self.rules.clone());
        let (mut pass, mut next) = RestartPass::begin(wanted, &rules, timestamp(now));
        loop {
            next = match next {
                NextCall::Read(_) => pass.found(self.workload(secret)),
                NextCall::List => {
                    let group = self.group(view)?;
                    pass.listed(
                        &group.iter().map(SecretView::view).collect::<Vec<PublicSecret<'_>>>(),
                    )
                }
                NextCall::Change(_, _, annotations) => {
                    self.roll_out(secret, annotations);
                    pass.done(RestartOutcome::Started)
                }
                NextCall::Wait(since) => {
                    self.wait(secret, since);
                    return Ok(());
                }
                NextCall::Note(note) => {
                    let note = (names::RESTARTED, Some(note));
                    let is_changed = self.api.annotate(secret, &[note], now)?;
                    return self.written(secret, is_changed);
                }
            };
        }
    }

    fn workload(&mut self, secret: usize) -> Result<WorkloadState, RestartOutcome> {
        let now = self.now;
        let state = self.state(secret).ok_or(RestartOutcome::Denied)?;
        Ok(WorkloadState {
            secrets: [secret_name(secret)].into(),
            is_complete: state.complete <= now,
            ..state.workload.clone()
        })
    }

    /// Restarts the pods of a Secret that do not reload, in batches.
    fn roll_out(&mut self, secret: usize, annotations: BTreeMap<String, Option<String>>) {
        let (schedule, now) = (self.schedule, self.now);
        let Some(state) = self.state(secret) else { return };
        state.workload.annotate(annotations, timestamp(now));
        state.rollouts += 1;
        let number = state.rollouts;
        let of_secret = schedule.peers.iter().enumerate().filter(|(_, peer)| peer.secret == secret);
        let pods: Vec<usize> = of_secret.filter(|(_, p)| !p.reloads).map(|(i, _)| i).collect();
        let mut complete = now;
        let mut starts = Vec::new();
        for batch in pods.chunks(pods.len().div_ceil(BATCHES).max(1)) {
            let begun = complete;
            for peer in batch {
                let at = begun + schedule.startup(*peer, number);
                complete = complete.max(at);
                starts.push((at, *peer));
            }
        }
        state.complete = complete;
        for (at, peer) in starts {
            self.schedule_event(at, Event::Start { peer });
        }
    }
}

/// The virtual time of a timestamp.
fn millis(date: Timestamp) -> Millis {
    let since = date.as_millisecond().saturating_sub_unsigned(EPOCH * 1000);
    Millis::try_from(since).unwrap_or_default()
}
