//! The keeper: what its own code finds due, at the pace of its controller, by asks.

use std::time::Duration;

use jiff::Timestamp;

use super::super::Error;
use super::super::cluster::{EPOCH, timestamp};
use super::super::plan::Millis;
use super::{Event, World};
use crate::keeper::act::nonce;
use crate::keeper::choice::{Choice, choose, is_group_ready};
use crate::keeper::restart::{self, Wanted};
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::ask::Ask;
use crate::overlap::outlook::{self, Due};

/// A watch tells of a write so soon, and a look follows a deadline so late.
const SOON: Millis = 1_000;
/// What waits for others is looked at so often at first, and later as seldom as that.
const POLLS: [Millis; 2] = [3_000, 30_000];
/// A rollout starts a quarter of its pods at a time.
const BATCHES: usize = 4;

/// What is known of one Secret beside what stands on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    /// When it is looked at next.
    next: Option<Millis>,
    /// Since when it waits for others.
    waits: Option<Millis>,
    /// The last rollout of its workload.
    rollout: Option<Rollout>,
    /// How many there were.
    rollouts: usize,
}

/// A restart of a workload.
#[derive(Clone, Debug)]
struct Rollout {
    /// The trust that it is for.
    trust: String,
    begun: Millis,
    complete: Millis,
}

impl World<'_> {
    /// Something has changed.
    pub(super) fn look_soon(&mut self, secret: usize) {
        self.look_at(secret, self.now + SOON);
    }

    /// Looks at a Secret at this time, unless that happens earlier.
    pub(super) fn look_at(&mut self, secret: usize, at: Millis) {
        let Some(kept) = self.keeper.as_mut().map(|all| &mut all[secret]) else { return };
        if kept.next.is_none_or(|next| at < next) {
            kept.next = Some(at);
            self.at(at, Event::Look { secret });
        }
    }

    fn kept(&mut self, secret: usize) -> Option<&mut Kept> {
        self.keeper.as_mut().map(|all| &mut all[secret])
    }

    /// One look of the keeper.
    pub(super) fn look(&mut self, secret: usize) -> Result<(), Error> {
        let now = self.now;
        let Some(kept) = self.kept(secret) else { return Ok(()) };
        if kept.next != Some(now) {
            return Ok(());
        }
        kept.next = None;
        let view = self.cluster.view(secret)?;
        let time = timestamp(now);
        let outlook = outlook::outlook(&view.view(), &self.rules, time);
        match choose(&view, &outlook, time) {
            Choice::Restart(wanted) => return self.restart(secret, &wanted),
            Choice::Ask(Due::Promote(pending)) => {
                let Some(staged) = &outlook.stage else { return Ok(()) };
                if !is_group_ready(&view, staged, &self.views()?, &self.rules, time) {
                    self.wait(secret);
                    return Ok(());
                }
                if self.ask(secret, &view, Some(Ask::Promote(pending)))? {
                    self.promoted();
                }
            }
            Choice::Ask(Due::Retire(_)) => drop(self.ask(secret, &view, Some(Ask::Retire))?),
            Choice::Ask(Due::Withdraw) => drop(self.ask(secret, &view, None)?),
            Choice::Nothing => {
                if let Some(next) = outlook.next {
                    self.look_at(secret, millis(next.at) + SOON);
                }
            }
        }
        if let Some(kept) = self.kept(secret) {
            kept.waits = None;
        }
        Ok(())
    }

    fn views(&self) -> Result<Vec<SecretView>, Error> {
        (0..self.cluster.len()).map(|secret| self.cluster.view(secret)).collect()
    }

    /// Later, and the longer it has waited the later.
    fn wait(&mut self, secret: usize) {
        let now = self.now;
        let Some(kept) = self.kept(secret) else { return };
        let since = *kept.waits.get_or_insert(now);
        let [often, seldom] = POLLS;
        self.look_at(secret, now + ((now - since) / 10).clamp(often, seldom));
    }

    /// False if the webhook has not done it.
    fn ask(&mut self, secret: usize, view: &SecretView, ask: Option<Ask>) -> Result<bool, Error> {
        let standing = view.annotation(names::ASK);
        let value = ask.map(|ask| ask.to_annotation(nonce(standing)));
        let is_changed = self.cluster.annotate(secret, &[(names::ASK, value)], self.now)?;
        self.written(secret, is_changed)?;
        Ok(is_changed)
    }

    /// One step of a restart: begins a rollout, waits for it, or notes that it is complete.
    fn restart(&mut self, secret: usize, wanted: &Wanted) -> Result<(), Error> {
        let now = self.now;
        let Some(kept) = self.kept(secret) else { return Ok(()) };
        let last = kept.rollout.as_ref();
        let current = last.filter(|rollout| rollout.trust == wanted.trust);
        let is_done = wanted.is_first_sight
            || current.is_some_and(|rollout| {
                rollout.complete <= now
                    || restart::is_too_long(timestamp(rollout.begun), timestamp(now))
            });
        if is_done {
            kept.waits = None;
            let note = (names::RESTARTED, Some(wanted.trust.clone()));
            let is_changed = self.cluster.annotate(secret, &[note], now)?;
            return self.written(secret, is_changed);
        }
        let rests = |rollout: &Rollout| Duration::from_millis(now - rollout.begun);
        let may_begin =
            current.is_none() && last.is_none_or(|last| rests(last) >= restart::INTERVAL);
        let waits = kept.waits.map(timestamp);
        if may_begin && !restart::is_on_its_way(&self.views()?, &self.rules, waits, timestamp(now))
        {
            self.roll_out(secret, &wanted.trust);
        }
        self.wait(secret);
        Ok(())
    }

    /// Restarts all pods of a Secret that do not reload, some at a time.
    fn roll_out(&mut self, secret: usize, trust: &str) {
        let (plan, now) = (self.plan, self.now);
        let Some(kept) = self.kept(secret) else { return };
        kept.rollouts += 1;
        let number = kept.rollouts;
        let of_secret = plan.peers.iter().enumerate().filter(|(_, peer)| peer.secret == secret);
        let pods: Vec<usize> = of_secret.filter(|(_, p)| !p.reloads).map(|(i, _)| i).collect();
        let mut complete = now;
        let mut starts = Vec::new();
        for batch in pods.chunks(pods.len().div_ceil(BATCHES).max(1)) {
            let begun = complete;
            for peer in batch {
                let at = begun + plan.startup(*peer, number);
                complete = complete.max(at);
                starts.push((at, *peer));
            }
        }
        kept.rollout = Some(Rollout { trust: trust.to_owned(), begun: now, complete });
        for (at, peer) in starts {
            self.at(at, Event::Start { peer });
        }
    }
}

/// The virtual time of a date.
fn millis(date: Timestamp) -> Millis {
    let since = date.as_millisecond().saturating_sub_unsigned(EPOCH * 1000);
    Millis::try_from(since).unwrap_or_default()
}
