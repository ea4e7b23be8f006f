//! Tests the rotation with a model of a whole cluster over years: replicas crash, clocks are set,
//! the copies of the caBundle lag, the caBundle is wiped, and rotations are forced.

use proptest::prelude::*;

use super::tests::{TIMING, at, life};
use super::*;

proptest! {
    // Failed cases become tests of their own; there is no file of seeds.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Every copy of the caBundle that an API server may use trusts each served leaf. The number of
    /// CAs stays bounded, and in the end one CA is left.
    #[test]
    fn a_served_leaf_is_always_trusted(
        replicas in 1_usize..4,
        events in prop::collection::vec((0_u8..32, any::<u8>(), -60_i64..=60), 300),
        lag in 0_i64..59,
        leaf_minutes in 30_i64..200,
    ) {
        let mut cluster = ClusterModel::new(replicas, lag, leaf_minutes * 60);
        for (n, event) in events.into_iter().enumerate() {
            cluster.happen(event);
            cluster.pass(1 + event.2.abs() / 4, usize::from(event.1))?;
            // Hours between bursts, so that one case sees several rotations.
            if n % 30 == 29 {
                cluster.calm(leaf_minutes * 90)?;
            }
        }
        prop_assert!(cluster.made > 2, "no rotation was seen: {}", cluster.made);

        cluster.replicas.iter_mut().for_each(|replica| replica.offset = 0);
        let before = cluster.settled()?;
        let made = cluster.made;
        cluster.replicas.iter_mut().for_each(|replica| replica.forced = Some(at(cluster.now)));
        prop_assert!(cluster.settled()? != before, "nothing was rotated");
        prop_assert_eq!(cluster.made, made + 1);
    }
}

/// Replicas, one Secret, and one caBundle with its history.
struct ClusterModel {
    /// Seconds on the monotonic clock, which is also the true time.
    now: i64,
    lag: i64,
    timing: RotationTiming,
    made: u8,
    secret: Vec<CaFacts>,
    /// Every version of the caBundle with the time of its write. `None` is a wiped one.
    bundles: Vec<(i64, Option<Vec<Fingerprint>>)>,
    replicas: Vec<ReplicaModel>,
}

#[derive(Clone, Default)]
struct ReplicaModel {
    /// The error of its wall clock, in seconds.
    offset: i64,
    next_round: i64,
    stalled_until: i64,
    phase: RoundPhase,
    seen: Vec<(Fingerprint, i64)>,
    active: Vec<(Fingerprint, i64)>,
    remembered: Vec<CaFacts>,
    leaf: Option<(Fingerprint, i64)>,
    forced: Option<Timestamp>,
}

/// The progress of a replica in its round. Events may happen between two phases.
#[derive(Clone, Copy, Default)]
enum RoundPhase {
    #[default]
    Idle,
    ReadBundle {
        version: usize,
    },
    Settled {
        version: usize,
        serve: Fingerprint,
    },
}

impl ClusterModel {
    fn new(replicas: usize, lag: i64, leaf: i64) -> Self {
        Self {
            now: 0,
            lag,
            timing: RotationTiming {
                leaf_lifetime: Duration::from_secs(leaf.unsigned_abs()),
                ..TIMING
            },
            made: 0,
            secret: vec![],
            bundles: vec![(i64::MIN, Some(vec![]))],
            replicas: vec![ReplicaModel::default(); replicas],
        }
    }

    fn happen(&mut self, (what, who, amount): (u8, u8, i64)) {
        let who = usize::from(who) % self.replicas.len();
        let leaf = self.timing.leaf_lifetime.as_secs().cast_signed();
        let wall = at(self.now + self.replicas[who].offset);
        let replica = &mut self.replicas[who];
        match what {
            // Slow calls to the API server stall the replica in the middle of a round.
            16..22 => {
                replica.stalled_until = self.now + amount.abs() / 3;
                self.advance(who);
                if amount > 0 && !matches!(self.replicas[who].phase, RoundPhase::Idle) {
                    self.advance(who);
                }
            }
            // A crash loses its memory, but not the wall clock of the node.
            22..26 => {
                *replica = ReplicaModel {
                    offset: replica.offset,
                    next_round: self.now + amount.abs(),
                    ..ReplicaModel::default()
                }
            }
            26..28 => replica.offset = leaf * amount / 240,
            28..30 => replica.forced = Some(wall),
            30 => self.replicas.iter_mut().for_each(|r| r.forced = Some(wall)),
            31 if self.now > 0 => self.bundles.push((self.now, None)),
            _ => {}
        }
    }

    /// Lets time pass, then runs all busy replicas, one phase at a time, in the given `order`.
    fn pass(&mut self, seconds: i64, order: usize) -> Result<(), TestCaseError> {
        self.now += seconds;
        for turn in 0.. {
            let busy: Vec<usize> = (0..self.replicas.len()).filter(|r| self.is_busy(*r)).collect();
            let Some(who) = busy.get((turn * order + order) % busy.len().max(1)) else { break };
            prop_assert!(turn < 1000, "the replicas never become idle");
            self.advance(*who);
            self.check()?;
        }
        Ok(())
    }

    fn is_busy(&self, who: usize) -> bool {
        let replica = &self.replicas[who];
        let due =
            replica.next_round <= self.now || (replica.forced.is_some() && replica.leaf.is_some());
        self.now >= replica.stalled_until && (due || !matches!(replica.phase, RoundPhase::Idle))
    }

    fn advance(&mut self, who: usize) {
        match self.replicas[who].phase {
            RoundPhase::Idle => {
                self.look(who);
                self.replicas[who].phase = RoundPhase::ReadBundle { version: self.bundles.len() };
            }
            RoundPhase::ReadBundle { version } => {
                let serve = self.settle_secret(who);
                self.replicas[who].phase = RoundPhase::Settled { version, serve };
            }
            RoundPhase::Settled { version, serve } => {
                self.replicas[who].phase = RoundPhase::Idle;
                self.replicas[who].next_round = self.now;
                let all: Vec<Fingerprint> =
                    self.replicas[who].remembered.iter().map(|ca| ca.id).collect();
                let differs = self.bundle() != all;
                if !differs || version == self.bundles.len() {
                    if differs {
                        self.bundles.push((self.now, Some(all)));
                        self.look(who);
                        if self.next(who, &self.replicas[who].remembered)
                            != RotationStep::Serve(serve)
                        {
                            return;
                        }
                    }
                    self.replicas[who].next_round =
                        self.now + self.timing.reconcile_interval.as_secs().cast_signed();
                }
                self.serve(who, serve);
            }
        }
    }

    /// Reads and writes in one step: the API server would reject a write that another one overtook.
    fn settle_secret(&mut self, who: usize) -> Fingerprint {
        let mut secret = self.secret.clone();
        let wall = self.wall(who);
        let replica = &self.replicas[who];
        let served = replica.leaf.map(|(id, _)| id);
        let back = lost_cas(&secret, false, &replica.remembered, served, wall);
        secret.extend(replica.remembered.iter().filter(|ca| back.contains(&ca.id)).cloned());
        secret.sort_by_key(|ca| (ca.added, ca.id));
        let serve = loop {
            match self.next(who, &secret) {
                RotationStep::Add => self.add(&mut secret, wall),
                RotationStep::Activate(id) => {
                    secret
                        .iter_mut()
                        .filter(|ca| ca.id == id)
                        .for_each(|ca| ca.active = Some(wall));
                }
                RotationStep::Drop(id) => secret.retain(|ca| ca.id != id),
                RotationStep::Serve(id) => {
                    let Some(requested) = self.replicas[who].forced.take() else { break id };
                    let view = self.view(who, &secret);
                    if decide_forced(&view, requested, wall, &self.timing) == ForcedRotation::Begin
                    {
                        self.add(&mut secret, wall);
                    }
                }
            }
        };
        self.secret.clone_from(&secret);
        let before = std::mem::take(&mut self.replicas[who].active);
        for ca in secret.iter().filter(|ca| ca.active.is_some()) {
            let since = before.iter().find(|(of, _)| *of == ca.id).map_or(self.now, |(_, at)| *at);
            self.replicas[who].active.push((ca.id, since));
        }
        self.replicas[who].remembered = secret;
        serve
    }

    fn add(&mut self, secret: &mut Vec<CaFacts>, wall: Timestamp) {
        self.made += 1;
        let wall = wall.as_second() - at(0).as_second();
        let active = secret.is_empty().then_some(wall);
        let mut new =
            life(self.made, wall, active, self.timing.leaf_lifetime.as_secs().cast_signed() * 9);
        if let Some(last) = secret.last() {
            new.added = new.added.max(last.added + Duration::from_millis(1));
        }
        secret.push(new);
    }

    fn serve(&mut self, who: usize, issuer: Fingerprint) {
        let life = self.timing.leaf_lifetime.as_secs().cast_signed();
        let wall = self.now + self.replicas[who].offset;
        let leaf = &mut self.replicas[who].leaf;
        if leaf.is_none_or(|(of, until)| of != issuer || (until - wall) * 3 <= life) {
            *leaf = Some((issuer, wall + life));
        }
    }

    fn next(&self, who: usize, secret: &[CaFacts]) -> RotationStep {
        next_step(&self.view(who, secret), self.wall(who), &self.timing)
    }

    fn view(&self, who: usize, secret: &[CaFacts]) -> Vec<CaFacts> {
        let replica = &self.replicas[who];
        let since = |times: &[(Fingerprint, i64)], id| {
            let found = times.iter().find(|(of, _)| *of == id);
            found.map(|(_, since)| Duration::from_secs((self.now - since).unsigned_abs()))
        };
        let observed =
            |id| Observed { trusted: since(&replica.seen, id), active: since(&replica.active, id) };
        secret.iter().map(|ca| CaFacts { observed: observed(ca.id), ..ca.clone() }).collect()
    }

    fn look(&mut self, who: usize) {
        let bundle = self.bundle();
        let seen = &mut self.replicas[who].seen;
        seen.retain(|(id, _)| bundle.contains(id));
        for id in bundle {
            if !seen.iter().any(|(of, _)| *of == id) {
                seen.push((id, self.now));
            }
        }
    }

    fn bundle(&self) -> Vec<Fingerprint> {
        self.bundles.last().and_then(|(_, bundle)| bundle.clone()).unwrap_or_default()
    }

    fn wall(&self, who: usize) -> Timestamp {
        at(self.now + self.replicas[who].offset)
    }

    fn calm(&mut self, seconds: i64) -> Result<(), TestCaseError> {
        for minute in 0..seconds / 60 {
            self.pass(60, usize::try_from(minute).unwrap())?;
        }
        Ok(())
    }

    /// Waits until the rotations are complete. Returns the one CA that is left, which all replicas
    /// serve.
    fn settled(&mut self) -> Result<Fingerprint, TestCaseError> {
        // A minute more than a replica needs to notice a request.
        self.calm(120)?;
        for _ in 0..40 {
            if self.secret.len() > 1 {
                self.calm(self.timing.leaf_lifetime.as_secs().cast_signed() / 4)?;
            }
        }
        prop_assert_eq!(self.secret.len(), 1, "old CAs are dropped");
        let only = self.secret[0].id;
        prop_assert_eq!(self.bundle(), vec![only]);
        prop_assert!(self.replicas.iter().all(|r| r.leaf.is_some_and(|(of, _)| of == only)));
        Ok(only)
    }

    fn check(&self) -> Result<(), TestCaseError> {
        prop_assert!(self.secret.len() <= FORCED_LIMIT + 1, "{} CAs", self.secret.len());
        let begun = self.bundles.get(1).is_some_and(|(at, _)| at + self.lag <= self.now);
        for leaf in self.replicas.iter().filter_map(|r| r.leaf).filter(|_| begun) {
            prop_assert!(self.now < leaf.1, "an expired leaf is served");
            // Every version that an API server may still use.
            for (n, (_, bundle)) in self.bundles.iter().enumerate() {
                let replaced = self.bundles.get(n + 1).map_or(i64::MAX, |(at, _)| *at);
                let held = replaced.saturating_add(self.lag) > self.now;
                let Some(bundle) = bundle.as_ref().filter(|_| held) else { continue };
                prop_assert!(bundle.contains(&leaf.0), "an API server does not trust the leaf");
            }
        }
        Ok(())
    }
}
