//! What happens whichever strategy is in force: who mounts what, when the generator writes, and when
//! each kubelet looks. All of it follows from the seed.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use super::handshake::Authentication;
use super::random::Random;
use crate::overlap::settings::{Keep, Window};

/// Virtual time: milliseconds since the begin.
pub(super) type Millis = u64;

/// What is simulated.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) peers: usize,
    pub(super) secrets: usize,
    pub(super) rotations: usize,
    /// From one rotation to the next.
    pub(super) interval: Millis,
    /// How long the keeper waits.
    pub(super) settle: Duration,
    pub(super) delay: Delay,
    pub(super) sync_period: Millis,
    pub(super) cache_ttl: Millis,
    /// How many of 100 pairs both show certificates.
    pub(super) mutual: u64,
    /// How many peers read their files at their start only.
    pub(super) never_reload: usize,
    /// The longest that a pod takes to start.
    pub(super) startup: Millis,
    pub(super) keep: Keep,
    pub(super) window: Window,
    /// Handshakes begin so often,
    pub(super) tick: Millis,
    /// and so many at once.
    pub(super) meetings: usize,
    pub(super) seed: u64,
}

/// How long a written Secret takes to the files of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Delay {
    /// Each pod is synced every 1 to 1.5 sync periods, and reads a cache up to its TTL old
    Kubelet,
    /// Anything up to the longest that a kubelet takes, all equally likely
    Uniform,
    /// Always the longest that a kubelet takes
    Slowest,
}

/// Everything is calm for so long, so that a picture has a before.
const LEAD: Millis = 2 * 60_000;
/// A generator writes its Secrets one after another, each after a pause of up to so long.
const WRITE_PAUSE: Millis = 2_000;

impl Scenario {
    /// The longest that a written Secret takes to a peer's files: kubelets sync a pod again after
    /// one to one and a half periods.
    pub(super) fn longest_delay(&self) -> Millis {
        self.sync_period + self.sync_period / 2 + self.cache_ttl
    }

    /// When everything is over.
    pub(super) fn end(&self) -> Millis {
        LEAD + self.rotations as u64 * self.interval
    }

    /// When the rotations begin.
    pub(super) fn starts(&self) -> impl Iterator<Item = Millis> {
        (0..self.rotations as u64).map(|rotation| LEAD + rotation * self.interval)
    }
}

/// A peer.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The Secret that it mounts.
    pub(super) secret: usize,
    /// Whether it re-reads its files when they change.
    pub(super) reloads: bool,
    /// When its kubelet writes its files anew.
    syncs: Vec<Sync>,
}

/// Two peers that talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerPair {
    pub(super) client: usize,
    pub(super) server: usize,
    pub(super) authentication: Authentication,
}

/// Files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sync {
    pub(super) at: Millis,
    /// They hold what the Secret was at this time: kubelets read a cache.
    pub(super) as_of: Millis,
}

/// What follows from the seed.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub(super) scenario: Scenario,
    pub(super) peers: Vec<Peer>,
    /// Any two peers.
    pub(super) pairs: Vec<PeerPair>,
    /// For each rotation when each Secret is written.
    pub(super) writes: Vec<Vec<Millis>>,
}

impl Schedule {
    pub(super) fn of(scenario: Scenario) -> Self {
        let stubborn = stubborn(&scenario);
        let peer = |(index, stubborn): (usize, bool)| Peer {
            secret: index % scenario.secrets,
            reloads: !stubborn,
            syncs: syncs(&scenario, index),
        };
        let peers = stubborn.into_iter().enumerate().map(peer).collect();
        let writes = scenario.starts().enumerate().map(|(rotation, start)| {
            let mut random = Random::of(scenario.seed, "writes", rotation as u64);
            let pauses = (0..scenario.secrets).map(|_| random.below(WRITE_PAUSE));
            pauses.scan(start, |at, pause| Some(std::mem::replace(at, *at + pause))).collect()
        });
        Self { writes: writes.collect(), pairs: pairs(&scenario), peers, scenario }
    }

    /// The indexes of the pairs of one peer: they stand in the order of the higher peer, then of
    /// the lower one.
    pub(super) fn pairs_of(&self, peer: usize) -> impl Iterator<Item = usize> + use<> {
        let others = (0..self.peers.len()).filter(move |other| *other != peer);
        others.map(move |other| {
            let (lower, higher) = (peer.min(other), peer.max(other));
            higher * (higher - 1) / 2 + lower
        })
    }

    /// When a peer's files show what was written at `written`.
    pub(super) fn arrival(&self, peer: usize, written: Millis) -> Sync {
        let Scenario { seed, .. } = self.scenario;
        let longest = self.scenario.longest_delay();
        let after = |delay| Sync { at: written + delay, as_of: written + delay };
        match self.scenario.delay {
            Delay::Kubelet => {
                let syncs = &self.peers[peer].syncs;
                let first = syncs.iter().find(|sync| sync.as_of >= written);
                // After the last one everything is over.
                first.copied().unwrap_or_else(|| after(longest))
            }
            Delay::Uniform => {
                let mut random = Random::of(seed, "delay", written).of_peer(peer);
                after(random.below(longest + 1))
            }
            Delay::Slowest => after(longest),
        }
    }

    /// How long a pod of a peer takes to start the next time.
    pub(super) fn startup(&self, peer: usize, rollout: usize) -> Millis {
        let mut random = Random::of(self.scenario.seed, "startup", rollout as u64).of_peer(peer);
        let longest = self.scenario.startup;
        longest / 4 + random.below(longest - longest / 4 + 1)
    }

    /// The pairs, by index, that meet at a tick.
    pub(super) fn meetings(&self, tick: u64) -> impl Iterator<Item = usize> {
        let mut random = Random::of(self.scenario.seed, "meetings", tick);
        (0..self.scenario.meetings).map(move |_| random.index(self.pairs.len()))
    }
}

/// Who never reloads: as many as wanted, drawn at random.
fn stubborn(scenario: &Scenario) -> Vec<bool> {
    let mut stubborn: Vec<bool> =
        (0..scenario.peers).map(|index| index < scenario.never_reload).collect();
    let mut random = Random::of(scenario.seed, "stubborn", 0);
    for last in (1..stubborn.len()).rev() {
        stubborn.swap(last, random.index(last + 1));
    }
    stubborn
}

/// Any two peers; which of them is the client is drawn, and whether it shows a certificate.
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

/// A kubelet's turns for one pod, until everything is over.
fn syncs(scenario: &Scenario, peer: usize) -> Vec<Sync> {
    let Scenario { sync_period, cache_ttl, seed, .. } = *scenario;
    let mut random = Random::of(seed, "syncs", peer as u64);
    let mut at = random.below(sync_period + 1);
    let mut syncs: Vec<Sync> = Vec::new();
    while at <= scenario.end() {
        // A cache does not go back in time.
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
    fn no_file_is_later_than_the_longest_delay_and_some_nearly_are() {
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
    fn the_other_delays_are_what_they_are_called() {
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
    fn a_plan_follows_from_the_seed() {
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
