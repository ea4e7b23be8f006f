//! The events that are the same for every strategy: which peer mounts which Secret, when the
//! generator writes, and when each kubelet syncs. All follow from the seed.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use super::handshake::Authentication;
use super::random::Random;
use crate::overlap::settings::{Keep, Window};

/// Virtual time, in milliseconds since the start.
pub(super) type Millis = u64;

pub(super) fn millis(time: Duration) -> Millis {
    Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX)
}

/// The parameters of a simulation.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) peers: usize,
    pub(super) secrets: usize,
    pub(super) rotations: usize,
    /// The time from one rotation to the next.
    pub(super) interval: Millis,
    /// The keeper's `--settle`.
    pub(super) settle: Duration,
    pub(super) delay: Delay,
    pub(super) sync_period: Millis,
    pub(super) cache_ttl: Millis,
    /// The percentage of pairs with mutual TLS.
    pub(super) mutual: u64,
    /// How many peers read their files only when they start.
    pub(super) never_reload: usize,
    /// The longest time that a pod takes to start.
    pub(super) startup: Millis,
    pub(super) keep: Keep,
    pub(super) window: Window,
    /// The time between two rounds of handshakes.
    pub(super) tick: Millis,
    /// The number of handshakes in each round.
    pub(super) meetings: usize,
    pub(super) seed: u64,
}

/// How long it takes until the files of a peer follow its Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Delay {
    /// The kubelet syncs each pod every 1 to 1.5 sync periods, from a cache that is up to its TTL
    /// old
    Kubelet,
    /// Between 0 and the longest delay of a kubelet, all values equally likely
    Uniform,
    /// Always the longest delay of a kubelet
    Slowest,
}

/// The time before the first rotation, so that a picture shows the state before it.
const LEAD: Millis = 2 * 60_000;
/// The longest pause of a generator between the writes of two Secrets.
const WRITE_PAUSE: Millis = 2_000;

impl Scenario {
    /// The longest time until a peer's files follow a written Secret. A kubelet syncs a pod again
    /// after 1 to 1.5 periods.
    pub(super) fn longest_delay(&self) -> Millis {
        self.sync_period + self.sync_period / 2 + self.cache_ttl
    }

    /// When the simulation ends.
    pub(super) fn end(&self) -> Millis {
        LEAD + self.rotations as u64 * self.interval
    }

    /// When each rotation starts.
    pub(super) fn starts(&self) -> impl Iterator<Item = Millis> {
        (0..self.rotations as u64).map(|rotation| LEAD + rotation * self.interval)
    }
}

/// A peer.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The Secret that it mounts.
    pub(super) secret: usize,
    /// Whether it reloads its files when they change.
    pub(super) reloads: bool,
    /// When its kubelet syncs its files.
    syncs: Vec<Sync>,
}

/// Two peers that connect to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerPair {
    pub(super) client: usize,
    pub(super) server: usize,
    pub(super) authentication: Authentication,
}

/// A kubelet writes the files of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sync {
    pub(super) at: Millis,
    /// The files hold the Secret as of this time, because kubelets read a cache.
    pub(super) as_of: Millis,
}

/// The events that follow from the seed.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub(super) scenario: Scenario,
    pub(super) peers: Vec<Peer>,
    /// All pairs of peers.
    pub(super) pairs: Vec<PeerPair>,
    /// For each rotation, when a legacy generator writes each Secret.
    pub(super) writes: Vec<Vec<Millis>>,
    /// For each rotation, when cert-manager renews each Secret, and last the issuer's.
    pub(super) renewals: Vec<Vec<Millis>>,
}

impl Schedule {
    pub(super) fn of(scenario: Scenario) -> Self {
        let never_reloads = never_reloads(&scenario);
        let peer = |(index, never_reloads): (usize, bool)| Peer {
            secret: index % scenario.secrets,
            reloads: !never_reloads,
            syncs: syncs(&scenario, index),
        };
        let peers = never_reloads.into_iter().enumerate().map(peer).collect();
        let writes = scenario.starts().enumerate().map(|(rotation, start)| {
            let mut random = Random::of(scenario.seed, "writes", rotation as u64);
            let pauses = (0..scenario.secrets).map(|_| random.below(WRITE_PAUSE));
            pauses.scan(start, |at, pause| Some(std::mem::replace(at, *at + pause))).collect()
        });
        Self {
            writes: writes.collect(),
            renewals: renewals(&scenario),
            pairs: pairs(&scenario),
            peers,
            scenario,
        }
    }

    /// The indexes of the pairs of one peer. Pairs are sorted by the higher peer, then by the lower
    /// one.
    pub(super) fn pairs_of(&self, peer: usize) -> impl Iterator<Item = usize> + use<> {
        let others = (0..self.peers.len()).filter(move |other| *other != peer);
        others.map(move |other| {
            let (lower, higher) = (peer.min(other), peer.max(other));
            higher * (higher - 1) / 2 + lower
        })
    }

    /// The sync that brings a write at `written` to a peer's files.
    pub(super) fn arrival(&self, peer: usize, written: Millis) -> Sync {
        let Scenario { seed, .. } = self.scenario;
        let longest = self.scenario.longest_delay();
        let after = |delay| Sync { at: written + delay, as_of: written + delay };
        match self.scenario.delay {
            Delay::Kubelet => {
                let syncs = &self.peers[peer].syncs;
                let first = syncs.iter().find(|sync| sync.as_of >= written);
                // The simulation ends before the fallback.
                first.copied().unwrap_or_else(|| after(longest))
            }
            Delay::Uniform => {
                let mut random = Random::of(seed, "delay", written).of_peer(peer);
                after(random.below(longest + 1))
            }
            Delay::Slowest => after(longest),
        }
    }

    /// How long the pod of a peer takes to start in a rollout.
    pub(super) fn startup(&self, peer: usize, rollout: usize) -> Millis {
        let mut random = Random::of(self.scenario.seed, "startup", rollout as u64).of_peer(peer);
        let longest = self.scenario.startup;
        longest / 4 + random.below(longest - longest / 4 + 1)
    }

    /// The indexes of the pairs that do a handshake in a round.
    pub(super) fn meetings(&self, tick: u64) -> impl Iterator<Item = usize> {
        let mut random = Random::of(self.scenario.seed, "meetings", tick);
        (0..self.scenario.meetings).map(move |_| random.index(self.pairs.len()))
    }
}

/// The CA is renewed when a rotation starts. Each leaf is renewed by itself, one to two settle times
/// later, and before the next rotation.
fn renewals(scenario: &Scenario) -> Vec<Vec<Millis>> {
    let Scenario { interval, secrets, seed, .. } = *scenario;
    let settle = millis(scenario.settle);
    let earliest = settle.min(interval - 1);
    let range = settle.min(interval - earliest);
    let of_rotation = |(rotation, start): (usize, Millis)| {
        let mut random = Random::of(seed, "renewals", rotation as u64);
        let leaves = (0..secrets).map(|_| start + earliest + random.below(range));
        leaves.chain([start]).collect()
    };
    scenario.starts().enumerate().map(of_rotation).collect()
}

/// For each peer, whether it never reloads. Draws as many as the scenario says.
fn never_reloads(scenario: &Scenario) -> Vec<bool> {
    let mut never_reloads: Vec<bool> =
        (0..scenario.peers).map(|index| index < scenario.never_reload).collect();
    let mut random = Random::of(scenario.seed, "stubborn", 0);
    for last in (1..never_reloads.len()).rev() {
        never_reloads.swap(last, random.index(last + 1));
    }
    never_reloads
}

/// All pairs of peers. Draws which of the two is the client and whether it shows a certificate.
fn pairs(scenario: &Scenario) -> Vec<PeerPair> {
    let mut random = Random::of(scenario.seed, "pairs", 0);
    let two = (0..scenario.peers).flat_map(|higher| (0..higher).map(move |lower| (lower, higher)));
    two.map(|(lower, higher)| {
        let is_swapped = random.below(2) == 1;
        let (client, server) = if is_swapped { (higher, lower) } else { (lower, higher) };
        let is_mutual = random.below(100) < scenario.mutual;
        PeerPair {
            client,
            server,
            authentication: if is_mutual { Authentication::Mutual } else { Authentication::OneWay },
        }
    })
    .collect()
}

/// The syncs of one pod, until the end of the simulation.
fn syncs(scenario: &Scenario, peer: usize) -> Vec<Sync> {
    let Scenario { sync_period, cache_ttl, seed, .. } = *scenario;
    let mut random = Random::of(seed, "syncs", peer as u64);
    let mut at = random.below(sync_period + 1);
    let mut syncs: Vec<Sync> = Vec::new();
    while at <= scenario.end() {
        // A cache never returns an older state than before.
        let before = syncs.last().map_or(0, |sync| sync.as_of);
        let as_of = at.saturating_sub(random.below(cache_ttl + 1)).max(before);
        syncs.push(Sync { at, as_of });
        at += sync_period + random.below(sync_period / 2 + 1);
    }
    syncs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(delay: Delay, seed: u64) -> Scenario {
        Scenario {
            peers: 9,
            secrets: 3,
            rotations: 3,
            interval: 1_200_000,
            settle: Duration::from_secs(120),
            delay,
            sync_period: 60_000,
            cache_ttl: 15_000,
            mutual: 50,
            never_reload: 4,
            startup: 30_000,
            keep: "1".parse().unwrap(),
            window: Window::NONE,
            tick: 5_000,
            meetings: 4,
            seed,
        }
    }

    #[test]
    fn files_follow_within_the_longest_delay_and_some_take_nearly_as_long() {
        let mut worst = 0;
        for seed in 0..200 {
            let schedule = Schedule::of(scenario(Delay::Kubelet, seed));
            for peer in 0..schedule.peers.len() {
                for written in (0..2_000_000).step_by(77_777) {
                    let Sync { at, as_of } = schedule.arrival(peer, written);
                    assert!(written <= as_of && as_of <= at);
                    worst = worst.max(at - written);
                }
            }
        }
        let longest = scenario(Delay::Kubelet, 0).longest_delay();
        assert_eq!(longest, 105_000);
        assert!((95_000..=longest).contains(&worst), "{worst}");
    }

    #[test]
    fn uniform_delays_cover_the_range_and_slowest_is_the_longest() {
        let schedule = Schedule::of(scenario(Delay::Slowest, 1));
        assert_eq!(schedule.arrival(0, 1_000), Sync { at: 106_000, as_of: 106_000 });
        let schedule = Schedule::of(scenario(Delay::Uniform, 1));
        let delays: Vec<_> = (0..1000).map(|at| schedule.arrival(0, at).at - at).collect();
        assert!(delays.iter().all(|delay| *delay <= 105_000));
        assert!(delays.iter().any(|delay| *delay < 5_000));
        assert!(delays.iter().any(|delay| *delay > 100_000));
        assert_ne!(schedule.arrival(0, 7).at, schedule.arrival(1, 7).at);
    }

    #[test]
    fn a_schedule_follows_from_the_seed() {
        let [first, again, other] = [1, 1, 2]
            .map(|seed| format!("{:?}", Schedule::of(scenario(Delay::Kubelet, seed)).peers));
        assert_eq!(first, again);
        assert_ne!(first, other);
        for seed in 0..20 {
            let schedule = Schedule::of(scenario(Delay::Kubelet, seed));
            assert_eq!(schedule.peers.iter().filter(|peer| !peer.reloads).count(), 4);
            for (writes, start) in schedule.writes.iter().zip([120_000, 1_320_000, 2_520_000]) {
                assert_eq!(writes[0], start);
                assert!(writes.is_sorted() && writes[2] < start + 2 * WRITE_PAUSE);
            }
            let [mutual, one_way] =
                [Authentication::Mutual, Authentication::OneWay].map(|authentication| {
                    schedule
                        .pairs
                        .iter()
                        .filter(|pair| pair.authentication == authentication)
                        .count()
                });
            assert!(mutual + one_way == 36 && mutual > 5 && one_way > 5, "{mutual} {one_way}");
            assert!(schedule.pairs.iter().all(|pair| pair.client != pair.server));
            for peer in 0..9 {
                let of_peer: Vec<_> = schedule.pairs_of(peer).collect();
                let is_of_peer = |pair: &PeerPair| pair.client == peer || pair.server == peer;
                let found = schedule.pairs.iter().enumerate().filter(|(_, pair)| is_of_peer(pair));
                assert_eq!(of_peer, found.map(|(index, _)| index).collect::<Vec<_>>());
            }
            assert!((0..100).flat_map(|tick| schedule.meetings(tick)).all(|pair| pair < 36));
        }
    }
}
