//! The plan by explicit times, and as a whole cluster over years.

use proptest::prelude::*;

use super::*;

const DAY: i64 = 86_400;
const SETTINGS: Settings = Settings {
    leaf_lifetime: SignedDuration::from_hours(7 * 24),
    trust_settle: SignedDuration::from_secs(60),
    reconcile_interval: SignedDuration::from_secs(60),
};

#[test]
fn an_empty_secret_gets_a_ca() {
    assert_eq!(plan(&[], at(0), &SETTINGS), Step::Add);
}

#[test]
fn the_first_ca_is_served_at_once_though_no_bundle_holds_it_yet() {
    let first = Generation { seen: None, ..ca(1, 0, Some(0)) };
    assert_eq!(plan(&[first], at(0), &SETTINGS), Step::Serve(id(1)));
}

#[test]
fn the_next_ca_comes_at_two_thirds_of_life() {
    let one = ca(1, 0, Some(0));
    let due = 365 * DAY * 2 / 3;
    assert_eq!(plan(std::slice::from_ref(&one), at(due - 1), &SETTINGS), Step::Serve(id(1)));
    assert_eq!(plan(&[one], at(due), &SETTINGS), Step::Add);
}

#[test]
fn a_next_ca_waits_until_it_was_seen_and_has_settled() {
    let one = ca(1, 0, Some(0));
    let next = |seen: Option<i64>| Generation { seen: seen.map(at), ..ca(2, 250 * DAY, None) };
    let added = 250 * DAY;
    for (seen, now, expected) in [
        (None, added + 1000, Step::Serve(id(1))),
        (Some(added), added + 59, Step::Serve(id(1))),
        (Some(added), added + 60, Step::Activate(id(2))),
        // Seen late, because the caBundle could not be written: it settles from then on.
        (Some(added + 500), added + 559, Step::Serve(id(1))),
        (Some(added + 500), added + 560, Step::Activate(id(2))),
    ] {
        assert_eq!(plan(&[one.clone(), next(seen)], at(now), &SETTINGS), expected, "{now}");
    }
}

#[test]
fn a_replica_that_starts_late_follows_what_is_active() {
    let added = 250 * DAY;
    let now = added + 100;
    let one = Generation { seen: Some(at(now)), ..ca(1, 0, Some(0)) };
    let two = Generation { seen: Some(at(now)), ..ca(2, added, Some(added + 60)) };
    assert_eq!(plan(&[one, two], at(now), &SETTINGS), Step::Serve(id(2)));
}

#[test]
fn the_old_ca_goes_when_no_leaf_of_it_can_be_alive() {
    let (added, active) = (250 * DAY, 250 * DAY + 60);
    let both = [ca(1, 0, Some(0)), ca(2, added, Some(active))];
    let dead = active + 7 * DAY + 120 + 600;
    assert_eq!(plan(&both, at(dead - 1), &SETTINGS), Step::Serve(id(2)));
    assert_eq!(plan(&both, at(dead), &SETTINGS), Step::Drop(id(1)));
    // But not while the API server does not trust its successor.
    let unseen = [both[0].clone(), Generation { seen: None, ..both[1].clone() }];
    assert_eq!(plan(&unseen, at(dead), &SETTINGS), Step::Serve(id(1)));
}

#[test]
fn a_bundle_with_none_of_ours_means_the_newest_at_once() {
    let one = Generation { seen: None, ..ca(1, 0, Some(0)) };
    let two = Generation { seen: None, ..ca(2, 250 * DAY, None) };
    assert_eq!(plan(&[one, two], at(250 * DAY), &SETTINGS), Step::Activate(id(2)));
}

#[test]
fn what_is_expired_goes_and_is_replaced() {
    let one = ca(1, 0, Some(0));
    assert_eq!(plan(&[one], at(365 * DAY), &SETTINGS), Step::Drop(id(1)));
    assert_eq!(plan(&[], at(365 * DAY), &SETTINGS), Step::Add);
}

#[test]
fn a_ca_of_the_future_is_not_served() {
    let future = ca(1, 10 * DAY, Some(10 * DAY));
    assert_eq!(plan(std::slice::from_ref(&future), at(0), &SETTINGS), Step::Add);
    let now = Generation { seen: None, ..ca(2, 0, Some(0)) };
    assert_eq!(plan(&[now, future], at(0), &SETTINGS), Step::Serve(id(2)));
}

#[test]
fn there_are_never_more_than_the_limit() {
    let many: Vec<_> = (0..=8).map(|n| ca(n, i64::from(n), None)).collect();
    assert_eq!(plan(&many, at(10), &SETTINGS), Step::Drop(id(0)));
}

proptest! {
    // Cases that failed are kept as tests of their own, not in a file of seeds.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Replicas that look whenever they like, an API server whose copies of the caBundle lag, and
    /// years of rotations: a served leaf is always trusted by all copies, and nothing grows.
    #[test]
    fn a_served_leaf_is_always_trusted(
        replicas in 1_usize..4,
        pauses in prop::collection::vec(1_i64..60, 200),
        lag in 0_i64..59,
        leaf_minutes in 20_i64..200,
    ) {
        let settings = Settings { leaf_lifetime: SignedDuration::from_mins(leaf_minutes), ..SETTINGS };
        let mut world = World::new(replicas, lag, leaf_minutes * 60 * 9);
        // Jumps of hours between bursts, so that one case sees several rotations.
        for (n, pause) in pauses.iter().enumerate() {
            for replica in 0..replicas {
                world.now += pause / i64::try_from(replicas).unwrap() + 1;
                world.reconcile(replica, &settings);
                world.check()?;
            }
            if n % 10 == 9 {
                world.calm(leaf_minutes * 60, &settings)?;
            }
        }
        prop_assert!(world.made > 2, "no rotation was seen: {}", world.made);
    }
}

/// Replicas, one Secret, one caBundle with its history.
struct World {
    now: i64,
    lag: i64,
    life: i64,
    made: u8,
    secret: Vec<Generation>,
    /// Every version of the caBundle, with when it was written.
    bundles: Vec<(i64, Vec<Id>)>,
    replicas: Vec<Replica>,
}

#[derive(Clone, Default)]
struct Replica {
    seen: Vec<(Id, i64)>,
    leaf: Option<(Id, i64)>,
}

impl World {
    fn new(replicas: usize, lag: i64, life: i64) -> Self {
        let replicas = vec![Replica::default(); replicas];
        Self { now: 0, lag, life, made: 0, secret: vec![], bundles: vec![], replicas }
    }

    fn reconcile(&mut self, replica: usize, settings: &Settings) {
        for _ in 0..2 {
            while let Some(next) = self.step(replica, settings) {
                let now = at(self.now);
                match next {
                    Step::Add => {
                        self.made += 1;
                        let active = self.secret.is_empty().then_some(self.now);
                        self.secret.push(life(self.made, self.now, active, self.life));
                    }
                    Step::Activate(id) => {
                        for g in self.secret.iter_mut().filter(|g| g.id == id) {
                            g.active = Some(now);
                        }
                    }
                    Step::Drop(id) => self.secret.retain(|g| g.id != id),
                    Step::Serve(_) => unreachable!("not a change"),
                }
            }
            let all: Vec<Id> = self.secret.iter().map(|g| g.id).collect();
            if self.bundles.last().is_none_or(|(_, last)| *last != all) {
                self.bundles.push((self.now, all));
            }
            self.look(replica);
        }
        if let Step::Serve(id) = plan(&self.view(replica), at(self.now), settings) {
            let expires = self.now + settings.leaf_lifetime.as_secs();
            let leaf = &mut self.replicas[replica].leaf;
            let due = leaf.is_none_or(|(of, until)| {
                of != id || (until - self.now) * 3 <= settings.leaf_lifetime.as_secs()
            });
            if due {
                *leaf = Some((id, expires));
            }
        }
    }

    fn step(&self, replica: usize, settings: &Settings) -> Option<Step> {
        match plan(&self.view(replica), at(self.now), settings) {
            Step::Serve(_) => None,
            change => Some(change),
        }
    }

    fn view(&self, replica: usize) -> Vec<Generation> {
        let seen = &self.replicas[replica].seen;
        let since = |id| seen.iter().find(|(of, _)| *of == id).map(|(_, since)| at(*since));
        self.secret.iter().map(|g| Generation { seen: since(g.id), ..g.clone() }).collect()
    }

    fn look(&mut self, replica: usize) {
        let (_, bundle) = self.bundles.last().unwrap();
        let seen = &mut self.replicas[replica].seen;
        seen.retain(|(id, _)| bundle.contains(id));
        for id in bundle {
            if !seen.iter().any(|(of, _)| of == id) {
                seen.push((*id, self.now));
            }
        }
    }

    /// Time passes in steps of a minute, in which every replica looks.
    fn calm(&mut self, seconds: i64, settings: &Settings) -> Result<(), TestCaseError> {
        for _ in 0..seconds / 60 {
            self.now += 60;
            for replica in 0..self.replicas.len() {
                self.reconcile(replica, settings);
                self.check()?;
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        prop_assert!(self.secret.len() <= 3, "{} generations", self.secret.len());
        let first = self.bundles.first().map_or(0, |(at, _)| *at);
        for leaf in self.replicas.iter().filter_map(|r| r.leaf) {
            prop_assert!(self.now < leaf.1, "an expired leaf is served");
            // What any copy of the API server may still go by.
            for (n, (_, bundle)) in self.bundles.iter().enumerate() {
                let replaced = self.bundles.get(n + 1).map_or(i64::MAX, |(at, _)| *at);
                if replaced.saturating_add(self.lag) > self.now && self.now >= first + self.lag {
                    prop_assert!(bundle.contains(&leaf.0), "an API server does not trust the leaf");
                }
            }
        }
        Ok(())
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn id(n: u8) -> Id {
    Id([n; 32])
}

/// A CA of one year, seen in the caBundle since it was added.
fn ca(n: u8, added: i64, active: Option<i64>) -> Generation {
    life(n, added, active, 365 * DAY)
}

fn life(n: u8, added: i64, active: Option<i64>, life: i64) -> Generation {
    Generation {
        id: id(n),
        not_before: at(added - 300),
        not_after: at(added + life),
        added: at(added),
        active: active.map(at),
        seen: Some(at(added)),
    }
}
