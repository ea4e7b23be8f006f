//! The plan as a whole cluster over years: replicas that crash, clocks that are set, a caBundle
//! whose copies lag and that is wiped, rotations that are forced.

use proptest::prelude::*;

use super::tests::{SETTINGS, at, life};
use super::*;

proptest! {
    // Cases that failed are kept as tests of their own, not in a file of seeds.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, a served leaf is trusted by every copy of the caBundle that an API server
    /// may go by; CAs do not pile up; and in the end all is as it should be.
    #[test]
    fn a_served_leaf_is_always_trusted(
        replicas in 1_usize..4,
        events in prop::collection::vec((0_u8..32, any::<u8>(), -60_i64..=60), 300),
        lag in 0_i64..59,
        leaf_minutes in 30_i64..200,
    ) {
        let mut world = World::new(replicas, lag, leaf_minutes * 60);
        for (n, event) in events.into_iter().enumerate() {
            world.happen(event);
            world.pass(1 + event.2.abs() / 4, usize::from(event.1))?;
            // Hours between bursts, so that one case sees several rotations.
            if n % 30 == 29 {
                world.calm(leaf_minutes * 90)?;
            }
        }
        prop_assert!(world.made > 2, "no rotation was seen: {}", world.made);

        world.replicas.iter_mut().for_each(|replica| replica.offset = 0);
        let before = world.settled()?;
        let made = world.made;
        world.replicas.iter_mut().for_each(|replica| replica.forced = Some(at(world.now)));
        prop_assert!(world.settled()? != before, "nothing was rotated");
        prop_assert_eq!(world.made, made + 1);
    }
}

/// Replicas, one Secret, one caBundle with its history.
struct World {
    /// Seconds, also on the clock that nobody sets.
    now: i64,
    lag: i64,
    settings: Settings,
    made: u8,
    secret: Vec<Generation>,
    /// Every version of the caBundle, with when it was written; `None`: wiped by somebody.
    bundles: Vec<(i64, Option<Vec<Fingerprint>>)>,
    replicas: Vec<Replica>,
}

#[derive(Clone, Default)]
struct Replica {
    /// Of its wall clock.
    offset: i64,
    next_round: i64,
    stalled_until: i64,
    phase: Phase,
    seen: Vec<(Fingerprint, i64)>,
    active: Vec<(Fingerprint, i64)>,
    remembered: Vec<Generation>,
    leaf: Option<(Fingerprint, i64)>,
    forced: Option<Timestamp>,
}

/// Where in its round a replica is: between two of them anything may happen.
#[derive(Clone, Copy, Default)]
enum Phase {
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

impl World {
    fn new(replicas: usize, lag: i64, leaf: i64) -> Self {
        Self {
            now: 0,
            lag,
            settings: Settings {
                leaf_lifetime: Duration::from_secs(leaf.unsigned_abs()),
                ..SETTINGS
            },
            made: 0,
            secret: vec![],
            bundles: vec![(i64::MIN, Some(vec![]))],
            replicas: vec![Replica::default(); replicas],
        }
    }

    fn happen(&mut self, (what, who, amount): (u8, u8, i64)) {
        let who = usize::from(who) % self.replicas.len();
        let leaf = self.settings.leaf_lifetime.as_secs().cast_signed();
        let wall = at(self.now + self.replicas[who].offset);
        let replica = &mut self.replicas[who];
        match what {
            // Its memory is gone, the wall clock of the node is not.
            // Slow in the middle of a round, as calls to the API server may be.
            16..22 => {
                replica.stalled_until = self.now + amount.abs() / 3;
                self.advance(who);
                if amount > 0 && !matches!(self.replicas[who].phase, Phase::Idle) {
                    self.advance(who);
                }
            }
            22..26 => {
                *replica = Replica {
                    offset: replica.offset,
                    next_round: self.now + amount.abs(),
                    ..Replica::default()
                }
            }
            26..28 => replica.offset = leaf * amount / 240,
            28..30 => replica.forced = Some(wall),
            30 => self.replicas.iter_mut().for_each(|r| r.forced = Some(wall)),
            31 if self.now > 0 => self.bundles.push((self.now, None)),
            _ => {}
        }
    }

    /// Time passes; then whoever has something to do does it, taking turns in an odd order.
    fn pass(&mut self, seconds: i64, order: usize) -> Result<(), TestCaseError> {
        self.now += seconds;
        for turn in 0.. {
            let busy: Vec<usize> = (0..self.replicas.len()).filter(|r| self.is_busy(*r)).collect();
            let Some(who) = busy.get((turn * order + order) % busy.len().max(1)) else { break };
            prop_assert!(turn < 1000, "the replicas do not come to rest");
            self.advance(*who);
            self.check()?;
        }
        Ok(())
    }

    fn is_busy(&self, who: usize) -> bool {
        let replica = &self.replicas[who];
        let due =
            replica.next_round <= self.now || (replica.forced.is_some() && replica.leaf.is_some());
        self.now >= replica.stalled_until && (due || !matches!(replica.phase, Phase::Idle))
    }

    fn advance(&mut self, who: usize) {
        match self.replicas[who].phase {
            Phase::Idle => {
                self.look(who);
                self.replicas[who].phase = Phase::ReadBundle { version: self.bundles.len() };
            }
            Phase::ReadBundle { version } => {
                let serve = self.settle_secret(who);
                self.replicas[who].phase = Phase::Settled { version, serve };
            }
            Phase::Settled { version, serve } => {
                self.replicas[who].phase = Phase::Idle;
                self.replicas[who].next_round = self.now;
                let all: Vec<Fingerprint> =
                    self.replicas[who].remembered.iter().map(|g| g.id).collect();
                let differs = self.bundle() != all;
                if !differs || version == self.bundles.len() {
                    if differs {
                        self.bundles.push((self.now, Some(all)));
                        self.look(who);
                        if self.next(who, &self.replicas[who].remembered) != Step::Serve(serve) {
                            return;
                        }
                    }
                    self.replicas[who].next_round =
                        self.now + self.settings.reconcile_interval.as_secs().cast_signed();
                }
                self.serve(who, serve);
            }
        }
    }

    /// Reading and writing in one: a write that another one has overtaken is refused.
    fn settle_secret(&mut self, who: usize) -> Fingerprint {
        let mut secret = self.secret.clone();
        let wall = self.wall(who);
        let replica = &self.replicas[who];
        let served = replica.leaf.map(|(id, _)| id);
        let back = lost(&secret, false, &replica.remembered, served, wall);
        secret.extend(replica.remembered.iter().filter(|g| back.contains(&g.id)).cloned());
        secret.sort_by_key(|g| (g.added, g.id));
        let serve = loop {
            match self.next(who, &secret) {
                Step::Add => self.add(&mut secret, wall),
                Step::Activate(id) => {
                    secret.iter_mut().filter(|g| g.id == id).for_each(|g| g.active = Some(wall));
                }
                Step::Drop(id) => secret.retain(|g| g.id != id),
                Step::Serve(id) => {
                    let Some(requested) = self.replicas[who].forced.take() else { break id };
                    let view = self.view(who, &secret);
                    if forced(&view, requested, wall, &self.settings) == Forced::Begin {
                        self.add(&mut secret, wall);
                    }
                }
            }
        };
        self.secret.clone_from(&secret);
        let before = std::mem::take(&mut self.replicas[who].active);
        for g in secret.iter().filter(|g| g.active.is_some()) {
            let since = before.iter().find(|(of, _)| *of == g.id).map_or(self.now, |(_, at)| *at);
            self.replicas[who].active.push((g.id, since));
        }
        self.replicas[who].remembered = secret;
        serve
    }

    fn add(&mut self, secret: &mut Vec<Generation>, wall: Timestamp) {
        self.made += 1;
        let wall = wall.as_second() - at(0).as_second();
        let active = secret.is_empty().then_some(wall);
        let mut new =
            life(self.made, wall, active, self.settings.leaf_lifetime.as_secs().cast_signed() * 9);
        if let Some(last) = secret.last() {
            new.added = new.added.max(last.added + Duration::from_millis(1));
        }
        secret.push(new);
    }

    fn serve(&mut self, who: usize, issuer: Fingerprint) {
        let life = self.settings.leaf_lifetime.as_secs().cast_signed();
        let wall = self.now + self.replicas[who].offset;
        let leaf = &mut self.replicas[who].leaf;
        if leaf.is_none_or(|(of, until)| of != issuer || (until - wall) * 3 <= life) {
            *leaf = Some((issuer, wall + life));
        }
    }

    fn next(&self, who: usize, secret: &[Generation]) -> Step {
        plan(&self.view(who, secret), self.wall(who), &self.settings)
    }

    fn view(&self, who: usize, secret: &[Generation]) -> Vec<Generation> {
        let replica = &self.replicas[who];
        let since = |times: &[(Fingerprint, i64)], id| {
            let found = times.iter().find(|(of, _)| *of == id);
            found.map(|(_, since)| Duration::from_secs((self.now - since).unsigned_abs()))
        };
        let observed =
            |id| Observed { trusted: since(&replica.seen, id), active: since(&replica.active, id) };
        secret.iter().map(|g| Generation { observed: observed(g.id), ..g.clone() }).collect()
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

    /// The one CA that is left when rotations are over, which everybody serves.
    fn settled(&mut self) -> Result<Fingerprint, TestCaseError> {
        // A minute more than it takes to notice what was asked for.
        self.calm(120)?;
        for _ in 0..40 {
            if self.secret.len() > 1 {
                self.calm(self.settings.leaf_lifetime.as_secs().cast_signed() / 4)?;
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
            // What any copy of the API server may still go by.
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
