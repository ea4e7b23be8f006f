//! Simulates one strategy: handles events in the order of their virtual time.

mod keeper_loop;

use std::collections::BTreeMap;

use serde_json::Value;

use self::keeper_loop::{KeeperState, SOON};
use super::api_server::{ApiServer, EPOCH};
use super::handshake::{FilesId, Tls};
use super::mesh::{CLASSES, Mesh, NEVER, OutageSample, PairClass};
use super::schedule::{Millis, Schedule};
use super::{Strategy, ToolError};
use crate::overlap::outlook::Rules;
use crate::overlap::settings::Defaults;

/// The result of one strategy.
#[derive(Clone, Debug)]
pub(super) struct StrategyResult {
    pub(super) strategy: Strategy,
    pub(super) classes: [PairClass; CLASSES],
    /// How many pairs could not connect, over time.
    pub(super) samples: Vec<OutageSample>,
    /// When a waiting leaf went into service.
    pub(super) promotions: Vec<Millis>,
    /// When a peer was restarted.
    pub(super) restarts: Vec<Millis>,
}

impl StrategyResult {
    /// The results of all pairs.
    pub(super) fn all(&self) -> PairClass {
        PairClass::of_all(&self.classes)
    }

    /// The results of the pairs in which both peers reload their files.
    pub(super) fn reloading(&self) -> PairClass {
        PairClass::of_all(&self.classes[..NEVER])
    }
}

/// An event in virtual time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// The generator writes a Secret, or cert-manager does.
    Write { rotation: usize, secret: usize },
    /// A kubelet writes a peer's files with the Secret as of a time.
    Sync { peer: usize, as_of: Millis },
    /// The keeper reconciles a Secret.
    Reconcile { secret: usize },
    /// A pod starts and reads its Secret.
    Start { peer: usize },
    /// Some pairs do a handshake.
    Tick(u64),
}

/// The state of a simulation.
pub(super) struct Simulation<'a> {
    pub(super) schedule: &'a Schedule,
    generations: &'a [Vec<Value>],
    tls: &'a mut Tls,
    pub(super) api: ApiServer,
    mesh: Mesh<'a>,
    /// The versions of each Secret, with the time from which each is stored.
    versions: Vec<Vec<(Millis, FilesId)>>,
    /// For each peer, the version of its Secret that it has read.
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
        let api = ApiServer::new(strategy, defaults.clone(), scenario.settle, &generations[0]);
        let versions = (0..scenario.secrets)
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
            keeper: strategy.has_keeper().then(|| vec![KeeperState::default(); scenario.secrets]),
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
        let is_cert_manager = self.result.strategy.is_cert_manager();
        let writes = if is_cert_manager { &schedule.renewals } else { &schedule.writes };
        for (rotation, writes) in writes.iter().enumerate() {
            for (secret, at) in writes.iter().enumerate() {
                self.schedule_event(*at, Event::Write { rotation, secret });
            }
        }
        self.reconcile_all_at(0);
        self.schedule_event(schedule.scenario.tick, Event::Tick(1));
    }

    /// Runs to the end. Calls `progress` with the virtual time of each event.
    pub(super) fn run(mut self, progress: &dyn Fn(Millis)) -> Result<StrategyResult, ToolError> {
        let end = self.schedule.scenario.end();
        while let Some(((at, _), event)) = self.queue.pop_first().filter(|((at, _), _)| *at <= end)
        {
            self.now = at;
            self.tls.set_time(EPOCH + at / 1000);
            progress(at);
            self.handle(event)?;
        }
        let (classes, samples) = self.mesh.end(end);
        Ok(StrategyResult { classes, samples, ..self.result })
    }

    pub(super) fn schedule_event(&mut self, at: Millis, event: Event) {
        self.events += 1;
        self.queue.insert((at, self.events), event);
    }

    fn handle(&mut self, event: Event) -> Result<(), ToolError> {
        match event {
            Event::Write { rotation, secret } => {
                let data = &self.generations[rotation + 1][secret];
                let is_changed = self.api.generate(secret, data, self.now)?;
                self.written(secret, is_changed)
            }
            Event::Sync { peer, as_of } => {
                let versions = &self.versions[self.schedule.peers[peer].secret];
                let newer = versions.iter().rposition(|(at, _)| *at <= as_of).unwrap_or_default();
                self.read_files(peer, newer)
            }
            Event::Reconcile { secret } => self.reconcile(secret),
            Event::Start { peer } => {
                self.result.restarts.push(self.now);
                self.read_files(peer, self.versions[self.schedule.peers[peer].secret].len() - 1)
            }
            Event::Tick(number) => {
                let schedule = self.schedule;
                for pair in schedule.meetings(number) {
                    self.mesh.meet(pair, self.now, self.tls)?;
                }
                self.schedule_event(schedule.scenario.tick * (number + 1), Event::Tick(number + 1));
                Ok(())
            }
        }
    }

    /// A Secret was written: schedules the syncs of the peers that reload. No peer mounts the
    /// issuer's.
    pub(super) fn written(&mut self, secret: usize, is_changed: bool) -> Result<(), ToolError> {
        if !is_changed {
            return Ok(());
        }
        if secret == self.issuer() {
            self.reconcile_all_at(self.now + SOON);
            return Ok(());
        }
        self.reconcile_at(secret, self.now + SOON);
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
            self.schedule_event(sync.at, Event::Sync { peer: index, as_of: sync.as_of });
        }
        Ok(())
    }

    /// The index of the issuer's Secret.
    pub(super) fn issuer(&self) -> usize {
        self.schedule.scenario.secrets
    }

    pub(super) fn promoted(&mut self) {
        self.result.promotions.push(self.now);
    }

    /// A peer reads a version of its files. It never returns to an older one.
    fn read_files(&mut self, peer: usize, version: usize) -> Result<(), ToolError> {
        let version = version.max(self.at_version[peer]);
        self.at_version[peer] = version;
        let (_, files) = self.versions[self.schedule.peers[peer].secret][version];
        self.mesh.read(peer, files, self.now, self.tls)
    }
}
