//! One strategy from begin to end: events in virtual time, one after another.

mod keeper_loop;

use std::collections::BTreeMap;

use serde_json::Value;

use self::keeper_loop::KeeperState;
use super::api_server::{ApiServer, EPOCH};
use super::handshake::{FilesId, Tls};
use super::mesh::{CLASSES, Mesh, NEVER, OutageSample, PairClass};
use super::schedule::{Millis, Schedule};
use super::{Strategy, ToolError};
use crate::overlap::outlook::Rules;
use crate::overlap::settings::Defaults;

/// What came of a strategy.
#[derive(Clone, Debug)]
pub(super) struct StrategyResult {
    pub(super) strategy: Strategy,
    pub(super) classes: [PairClass; CLASSES],
    /// How many pairs could not talk, over time.
    pub(super) samples: Vec<OutageSample>,
    /// When a waiting leaf went into service.
    pub(super) promotions: Vec<Millis>,
    /// When a peer was restarted.
    pub(super) restarts: Vec<Millis>,
}

impl StrategyResult {
    /// All pairs.
    pub(super) fn all(&self) -> PairClass {
        PairClass::of_all(&self.classes)
    }

    /// The pairs that both re-read their files.
    pub(super) fn reloading(&self) -> PairClass {
        PairClass::of_all(&self.classes[..NEVER])
    }
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// The generator writes a Secret.
    Write { rotation: usize, secret: usize },
    /// A kubelet writes a peer's files, as the Secret was at a time.
    Sync { peer: usize, as_of: Millis },
    /// The keeper looks at a Secret.
    Look { secret: usize },
    /// A pod starts, and reads its Secret as it is.
    Start { peer: usize },
    /// Some peers meet.
    Tick(u64),
}

/// Everything under one strategy.
pub(super) struct Simulation<'a> {
    pub(super) schedule: &'a Schedule,
    generations: &'a [Vec<Value>],
    tls: &'a mut Tls,
    pub(super) api: ApiServer,
    mesh: Mesh<'a>,
    /// What each Secret was, from a time on.
    versions: Vec<Vec<(Millis, FilesId)>>,
    /// The version of its Secret that a peer has.
    at_version: Vec<usize>,
    pub(super) rules: Rules,
    keeper: Option<Vec<KeeperState>>,
    queue: BTreeMap<(Millis, u64), Event>,
    events: u64,
    pub(super) now: Millis,
    result: StrategyResult,
}

impl<'a> Simulation<'a> {
    pub(super) fn new(
        strategy: Strategy,
        schedule: &'a Schedule,
        generations: &'a [Vec<Value>],
        tls: &'a mut Tls,
    ) -> Result<Self, ToolError> {
        let scenario = &schedule.scenario;
        let defaults =
            Defaults { keep: scenario.keep, window: scenario.window, ..Defaults::default() };
        let api = ApiServer::new(strategy, defaults, scenario.settle, &generations[0]);
        let versions = (0..api.len())
            .map(|secret| Ok(vec![(0, tls.read(api.files(secret))?)]))
            .collect::<Result<Vec<_>, ToolError>>()?;
        let holds = schedule.peers.iter().map(|peer| versions[peer.secret][0].1).collect();
        let mut simulation = Self {
            schedule,
            generations,
            tls,
            mesh: Mesh::new(schedule, holds),
            at_version: vec![0; schedule.peers.len()],
            rules: Rules { defaults, settle: scenario.settle },
            keeper: strategy.is_staged().then(|| vec![KeeperState::default(); api.len()]),
            api,
            versions,
            queue: BTreeMap::new(),
            events: 0,
            now: 0,
            result: StrategyResult {
                strategy,
                classes: Default::default(),
                samples: Vec::new(),
                promotions: Vec::new(),
                restarts: Vec::new(),
            },
        };
        simulation.begin();
        Ok(simulation)
    }

    fn begin(&mut self) {
        let schedule = self.schedule;
        for (rotation, writes) in schedule.writes.iter().enumerate() {
            for (secret, at) in writes.iter().enumerate() {
                self.at(*at, Event::Write { rotation, secret });
            }
        }
        for secret in 0..self.api.len() {
            self.look_at(secret, 0);
        }
        self.at(schedule.scenario.tick, Event::Tick(1));
    }

    /// Runs to the end. `seen` is told how far it is.
    pub(super) fn run(mut self, seen: &dyn Fn(Millis)) -> Result<StrategyResult, ToolError> {
        let end = self.schedule.scenario.end();
        while let Some(((at, _), event)) = self.queue.pop_first().filter(|((at, _), _)| *at <= end)
        {
            self.now = at;
            self.tls.set_time(EPOCH + at / 1000);
            seen(at);
            self.happens(event)?;
        }
        let (classes, samples) = self.mesh.end(end);
        Ok(StrategyResult { classes, samples, ..self.result })
    }

    pub(super) fn at(&mut self, at: Millis, event: Event) {
        self.events += 1;
        self.queue.insert((at, self.events), event);
    }

    fn happens(&mut self, event: Event) -> Result<(), ToolError> {
        match event {
            Event::Write { rotation, secret } => {
                let data = &self.generations[rotation + 1][secret];
                let is_changed = self.api.generate(secret, data, self.now)?;
                self.written(secret, is_changed)
            }
            Event::Sync { peer, as_of } => {
                let versions = &self.versions[self.schedule.peers[peer].secret];
                let newer = versions.iter().rposition(|(at, _)| *at <= as_of).unwrap_or_default();
                self.reads(peer, newer)
            }
            Event::Look { secret } => self.look(secret),
            Event::Start { peer } => {
                self.result.restarts.push(self.now);
                self.reads(peer, self.versions[self.schedule.peers[peer].secret].len() - 1)
            }
            Event::Tick(number) => {
                let schedule = self.schedule;
                for pair in schedule.meetings(number) {
                    self.mesh.meet(pair, self.now, self.tls)?;
                }
                self.at(schedule.scenario.tick * (number + 1), Event::Tick(number + 1));
                Ok(())
            }
        }
    }

    /// A Secret was written: its files are on their way to whoever reloads.
    pub(super) fn written(&mut self, secret: usize, is_changed: bool) -> Result<(), ToolError> {
        if !is_changed {
            return Ok(());
        }
        self.look_soon(secret);
        let files = self.tls.read(self.api.files(secret))?;
        if self.versions[secret].last().is_some_and(|(_, last)| *last == files) {
            return Ok(());
        }
        self.versions[secret].push((self.now, files));
        let schedule = self.schedule;
        let mounts = |(_, peer): &(usize, &super::schedule::Peer)| peer.secret == secret;
        for (index, _) in
            schedule.peers.iter().enumerate().filter(mounts).filter(|(_, p)| p.reloads)
        {
            let sync = schedule.arrival(index, self.now);
            self.at(sync.at, Event::Sync { peer: index, as_of: sync.as_of });
        }
        Ok(())
    }

    pub(super) fn promoted(&mut self) {
        self.result.promotions.push(self.now);
    }

    /// A peer has a version of its files in memory. It never goes back.
    fn reads(&mut self, peer: usize, version: usize) -> Result<(), ToolError> {
        let version = version.max(self.at_version[peer]);
        self.at_version[peer] = version;
        let (_, files) = self.versions[self.schedule.peers[peer].secret][version];
        self.mesh.read(peer, files, self.now, self.tls)
    }
}
