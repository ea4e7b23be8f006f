//! What peers share: places for connections, and memory for bodies.
//!
//! A claim is granted while there is room. Where there is none, the peer that holds the most gives
//! way to one that holds less: one of its claims is asked to end. So no peer keeps another one out,
//! neither by many claims nor by slow ones. Among the claims of one peer, older ones give way to
//! new ones after a while.
//!
//! `keeper::fair` is another module, because it drops an entry at once: nothing there waits, grows
//! old or has to end by itself.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The peer behind an address: an IPv4 address, or the /64 network of an IPv6 address, because one
/// host has the whole of it.
pub(super) fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

/// What is shared, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// What all peers together may hold.
    pub(super) capacity: usize,
    /// What one peer may hold.
    pub(super) share: usize,
    /// What a peer keeps of its used claims ([`Standing::Used`]) when others need room, at most its
    /// part of the capacity.
    pub(super) kept: usize,
    /// How many claims may wait. Beyond it, the last one of the peer that waits the most is refused.
    pub(super) waiting: usize,
    /// How long a claim waits.
    pub(super) patience: Duration,
    /// The age from which a claim gives way to another peer. To a peer that was of use, a claim of one
    /// that never was gives way at once.
    pub(super) age: Duration,
    /// The age from which a claim gives way to a new one of the same peer.
    pub(super) own_age: Duration,
}

/// Whether a claim can give way. The age counts from the moment at which it took this standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It cannot.
    Busy,
    /// It was of no use yet, so it gives way before a used one.
    Unused,
    /// It was of use, and may be again.
    Used,
}

/// How often a waiting claim looks for one that gives way, because ages and standings change.
const AGAIN: Duration = Duration::from_millis(250);

/// The claims of all peers.
#[derive(Debug)]
pub(super) struct Shares {
    rules: Rules,
    /// Shows what is held.
    gauge: Gauge,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    held: usize,
    claims: BTreeMap<u64, Entry>,
    /// The claims that wait, the first one first.
    waiting: BTreeSet<u64>,
    peers: HashMap<IpAddr, Peer>,
}

#[derive(Debug)]
struct Entry {
    peer: IpAddr,
    amount: usize,
    stage: Stage,
    wake: Arc<Notify>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Another claim may have been told to end for it.
    Waiting {
        for_end_of: Option<u64>,
    },
    /// The standing, and since when.
    Held(Standing, Instant),
    /// It was told to end.
    Leaving,
    Refused,
}

#[derive(Debug, Default)]
struct Peer {
    claims: usize,
    held: usize,
    /// The part of `held` that was told to end.
    leaving: usize,
    /// Whether one of its claims was of use.
    was_of_use: bool,
    unused: BTreeSet<(Instant, u64)>,
    used: BTreeSet<(Instant, u64)>,
}

impl Peer {
    fn stays(&self) -> usize {
        self.held - self.leaving
    }

    fn set(&mut self, standing: Standing) -> Option<&mut BTreeSet<(Instant, u64)>> {
        match standing {
            Standing::Busy => None,
            Standing::Unused => Some(&mut self.unused),
            Standing::Used => Some(&mut self.used),
        }
    }
}

impl Shares {
    /// Nothing is held yet. `gauge` shows what is.
    pub(super) fn new(rules: Rules, gauge: Gauge) -> Arc<Self> {
        Arc::new(Self { rules, gauge, state: Mutex::default() })
    }

    /// Claims so much for this peer, at most what one peer may hold. See [`Claim::granted`].
    pub(super) fn claim(self: &Arc<Self>, peer: IpAddr, amount: usize) -> Claim {
        let (amount, wake) = (amount.min(self.rules.share), Arc::new(Notify::new()));
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        let entry =
            Entry { peer, amount, stage: Stage::Waiting { for_end_of: None }, wake: wake.clone() };
        state.claims.insert(id, entry);
        state.waiting.insert(id);
        state.peers.entry(peer).or_default().claims += 1;
        self.grant(&mut state);
        self.displace_for(&mut state, id);
        if state.waiting.len() > self.rules.waiting {
            state.refuse_one();
        }
        drop(state);
        Claim { shares: self.clone(), id, wake }
    }

    /// Grants what fits, to the peer that holds the least first.
    fn grant(&self, state: &mut State) {
        while state.held < self.rules.capacity {
            let fits = state.waiting.iter().filter_map(|id| {
                let entry = state.claims.get(id)?;
                let held = state.peers.get(&entry.peer)?.held;
                let fits = state.held + entry.amount <= self.rules.capacity
                    && held + entry.amount <= self.rules.share;
                fits.then_some((held, *id))
            });
            let Some((_, id)) = fits.min() else { return };
            state.waiting.remove(&id);
            let Some(entry) = state.claims.get_mut(&id) else { return };
            entry.wake.notify_one();
            state.held += entry.amount;
            self.gauge.inc_by(i64::try_from(entry.amount).unwrap_or(i64::MAX));
            entry.stage = Stage::Held(Standing::Busy, Instant::now());
            if let Some(peer) = state.peers.get_mut(&entry.peer) {
                peer.held += entry.amount;
            }
            state.stand(id, Standing::Unused);
        }
    }

    /// Tells a claim to end if `id` waits and none was told to end for it.
    fn displace_for(&self, state: &mut State, id: u64) {
        let Some(entry) = state.claims.get(&id) else { return };
        let Stage::Waiting { for_end_of } = entry.stage else { return };
        let leaves =
            |id| matches!(state.claims.get(&id), Some(Entry { stage: Stage::Leaving, .. }));
        if for_end_of.is_some_and(leaves) {
            return;
        }
        let own = entry.peer;
        let Some(of_own) = state.peers.get(&own) else { return };
        let (was_of_use, wanted) = (of_own.was_of_use, of_own.stays() + entry.amount);
        // The more peers there are, the less each of them keeps, or they could hold everything forever.
        let kept = self.rules.kept.min(self.rules.capacity / state.peers.len().max(1));
        let now = Instant::now();
        let of_peer = |(address, peer): (&IpAddr, &Peer)| {
            let age = if *address == own {
                self.rules.own_age
            } else if was_of_use && !peer.was_of_use {
                Duration::ZERO
            } else {
                self.rules.age
            };
            if *address != own && (wanted > self.rules.share || peer.stays() <= wanted) {
                return None;
            }
            let old = |set: &BTreeSet<(Instant, u64)>| {
                set.first().filter(|(since, _)| *since + age <= now).map(|(_, id)| *id)
            };
            let used = || old(&peer.used).filter(|_| peer.used.len() > kept);
            Some((peer.stays(), Reverse(old(&peer.unused).or_else(used)?)))
        };
        let Some((_, Reverse(leaving))) = state.peers.iter().filter_map(of_peer).max() else {
            return;
        };
        state.tell_to_end(leaving);
        if let Some(entry) = state.claims.get_mut(&id) {
            entry.stage = Stage::Waiting { for_end_of: Some(leaving) };
        }
    }

    fn release(&self, id: u64) {
        let mut state = self.lock();
        state.stand(id, Standing::Busy);
        let Some(Entry { peer, amount, stage, .. }) = state.claims.remove(&id) else { return };
        state.waiting.remove(&id);
        let is_held = matches!(stage, Stage::Held(..));
        if is_held {
            state.held -= amount;
            self.gauge.dec_by(i64::try_from(amount).unwrap_or(i64::MAX));
        }
        if let Some(of_peer) = state.peers.get_mut(&peer) {
            of_peer.claims -= 1;
            of_peer.held -= if is_held { amount } else { 0 };
            if of_peer.claims == 0 {
                state.peers.remove(&peer);
            }
        }
        self.grant(&mut state);
        // Where this made too little room, another one has to follow.
        let still_waits = state.waiting.iter().copied().find(|waiting| {
            state.claims.get(waiting).is_some_and(|entry| {
                matches!(entry.stage, Stage::Waiting { for_end_of } if for_end_of == Some(id))
            })
        });
        if let Some(waiting) = still_waits {
            self.displace_for(&mut state, waiting);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives a claim that is held, or was told to end, this standing.
    fn stand(&mut self, id: u64, standing: Standing) {
        let Some(entry) = self.claims.get_mut(&id) else { return };
        let Some(peer) = self.peers.get_mut(&entry.peer) else { return };
        match entry.stage {
            Stage::Held(before, since) => {
                if let Some(set) = peer.set(before) {
                    set.remove(&(since, id));
                }
            }
            Stage::Leaving => peer.leaving -= entry.amount,
            Stage::Waiting { .. } | Stage::Refused => return,
        }
        peer.was_of_use |= standing == Standing::Used;
        let now = Instant::now();
        if let Some(set) = peer.set(standing) {
            set.insert((now, id));
        }
        entry.stage = Stage::Held(standing, now);
    }

    fn tell_to_end(&mut self, id: u64) {
        self.stand(id, Standing::Busy);
        let Some(entry) = self.claims.get_mut(&id) else { return };
        entry.stage = Stage::Leaving;
        entry.wake.notify_one();
        if let Some(peer) = self.peers.get_mut(&entry.peer) {
            peer.leaving += entry.amount;
        }
    }

    /// Refuses the last claim of the peer that waits the most.
    fn refuse_one(&mut self) {
        let mut waits: HashMap<IpAddr, (usize, u64)> = HashMap::new();
        for id in &self.waiting {
            if let Some(entry) = self.claims.get(id) {
                let (count, last) = waits.entry(entry.peer).or_default();
                (*count, *last) = (*count + 1, *id);
            }
        }
        let Some((_, id)) = waits.into_values().max() else { return };
        self.waiting.remove(&id);
        if let Some(entry) = self.claims.get_mut(&id) {
            entry.stage = Stage::Refused;
            entry.wake.notify_one();
        }
    }
}

/// What one connection or body claims. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    shares: Arc<Shares>,
    id: u64,
    wake: Arc<Notify>,
}

impl Claim {
    /// Waits until it is granted. Returns false if that takes too long, or too many wait.
    pub(super) async fn granted(&self) -> bool {
        let end = Instant::now() + self.shares.rules.patience;
        loop {
            match self.stage() {
                Some(Stage::Waiting { .. }) if Instant::now() < end => {}
                Some(Stage::Held(..) | Stage::Leaving) => return true,
                _ => return false,
            }
            let again = (Instant::now() + AGAIN).min(end);
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep_until(again) => {
                    self.shares.displace_for(&mut self.shares.lock(), self.id);
                }
            }
        }
    }

    /// Completes when the claim has to end, because another one needs its room.
    pub(super) async fn displaced(&self) {
        while !self.is_displaced() {
            self.wake.notified().await;
        }
    }

    /// Whether the claim has to end.
    pub(super) fn is_displaced(&self) -> bool {
        matches!(self.stage(), Some(Stage::Leaving))
    }

    /// Changes the standing. A claim that was told to end and is needed again stays.
    pub(super) fn stand(&self, standing: Standing) {
        self.shares.lock().stand(self.id, standing);
    }

    fn stage(&self) -> Option<Stage> {
        self.shares.lock().claims.get(&self.id).map(|entry| entry.stage)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shares.release(self.id);
    }
}

#[cfg(test)]
mod tests;
