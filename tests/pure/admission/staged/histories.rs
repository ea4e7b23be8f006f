//! The laws of staged mode, over random histories: writes seen and unseen, asks, clocks that are
//! set, a Lease that comes and goes.

use ca_overlap::overlap::settings::Mode;
use ca_overlap::overlap::staged::KeeperHealth;
use jiff::SignedDuration;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{CAS, World, annotate, issuer, leaf, set, set_pair};

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The generator writes a CA and a leaf of it.
    Write {
        leaf: usize,
        how: How,
        is_seen: bool,
    },
    /// The keeper asks, and the webhook hears it or not.
    Promote {
        is_seen: bool,
    },
    Retire,
    /// A write that has nothing to do with us.
    Touch,
    Distrust(usize),
    Clock(i64),
    Keeper(KeeperHealth),
    Mode(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    /// A fresh object.
    Put,
    /// Read, modified and written; or a PATCH of all values.
    Patch,
    /// A PATCH of the leaf alone, of the CA that was written last.
    LeafAlone,
}

fn event() -> impl Strategy<Value = Event> {
    let how = prop_oneof![3 => Just(How::Put), 2 => Just(How::Patch), 1 => Just(How::LeafAlone)];
    let seen = || prop_oneof![4 => Just(true), 1 => Just(false)];
    let keeper = prop_oneof![
        6 => Just(KeeperHealth::Alive),
        1 => Just(KeeperHealth::Lost),
        1 => Just(KeeperHealth::Unknown),
        1 => Just(KeeperHealth::Absent)
    ];
    prop_oneof![
        8 => (0..12_usize, how, seen())
            .prop_map(|(leaf, how, is_seen)| Event::Write { leaf, how, is_seen }),
        4 => seen().prop_map(|is_seen| Event::Promote { is_seen }),
        1 => Just(Event::Retire),
        1 => Just(Event::Touch),
        1 => (0..CAS.len()).prop_map(Event::Distrust),
        2 => (-5..40_i64).prop_map(Event::Clock),
        2 => keeper.prop_map(Event::Keeper),
        1 => prop_oneof![Just("staged"), Just("bundle")].prop_map(Event::Mode),
    ]
}

/// A world, and what its generator and its people want.
struct History {
    world: World,
    /// The CA that the generator wrote last.
    ca: usize,
    /// The leaf that it means; two where nobody could tell.
    meant: Vec<usize>,
    distrusted: Vec<usize>,
    begun: usize,
}

impl History {
    fn new() -> Self {
        let mut world = World::new(leaf(0));
        world.installation.defaults.mode = Mode::Staged;
        world.stored["metadata"]["labels"] = json!({});
        Self { world, ca: 0, meant: vec![leaf(0)], distrusted: Vec::new(), begun: 0 }
    }

    /// Whether the webhook has seen it.
    fn happens(&mut self, event: Event) -> bool {
        let world = &mut self.world;
        let asked = world.stage().map(|stage| format!("promote {} #9", stage.pending));
        match event {
            Event::Write { leaf, how, is_seen } => return self.write(leaf, how, is_seen),
            Event::Promote { is_seen: true } => drop(world.promote()),
            Event::Promote { is_seen: false } => {
                annotate(&mut world.stored, "ask", asked.as_deref().unwrap_or("promote"));
                return false;
            }
            Event::Retire => drop(world.ask("retire")),
            Event::Touch => drop(world.patch(|o| o["metadata"]["labels"]["app"] = "x".into())),
            Event::Distrust(ca) => {
                self.distrusted.push(ca);
                self.distrust();
            }
            Event::Clock(hours) => {
                world.now += SignedDuration::from_hours(hours);
                return false;
            }
            Event::Keeper(keeper) => {
                world.keeper = keeper;
                return false;
            }
            Event::Mode(mode) => {
                let set =
                    |o: &mut Value| o["metadata"]["labels"]["ca-overlap.dev/mode"] = mode.into();
                drop(world.patch(set));
            }
        }
        true
    }

    /// An annotation that an unseen PUT has wiped is set again.
    fn distrust(&mut self) {
        let prints: Vec<_> = self.distrusted.iter().map(|ca| CAS[*ca].sha256()).collect();
        self.world.patch(|object| annotate(object, "distrust", &prints.join(",")));
    }

    fn write(&mut self, leaf: usize, how: How, is_seen: bool) -> bool {
        let leaf = if how == How::LeafAlone { self.ca * 3 + leaf % 3 } else { leaf };
        self.ca = issuer(leaf);
        let (ca, world) = (self.ca, &mut self.world);
        let (held, waiting) = (world.served(), world.waiting());
        self.meant = vec![leaf];
        let is_reapply = world.shows().2 == [ca];
        if (how != How::Put || is_reapply) && held == Some(leaf) {
            // The same as a PATCH that leaves the leaf alone, or all that is there written again.
            self.meant.extend(waiting);
        }
        let edit = |object: &mut Value| match how {
            How::LeafAlone => set_pair(object, leaf),
            _ => set(object, &[ca], leaf),
        };
        match (how, is_seen) {
            (How::Put, true) => {
                let answer = world.put(&[ca], leaf);
                self.begun += usize::from(answer.staged == Some("begun"));
            }
            (How::Put, false) => world.unseen_put(&[ca], leaf),
            (_, true) => drop(world.patch(edit)),
            (_, false) => edit(&mut world.stored),
        }
        is_seen
    }

    fn is_lawful(&self) -> Result<(), TestCaseError> {
        let world = &self.world;
        let (served, waiting, cas, carried) = world.shows();
        let served = served.expect("a leaf");
        prop_assert!(
            self.meant.iter().any(|leaf| served == *leaf || waiting == Some(*leaf)),
            "the pair that is meant is never lost: {:?} of {:?}",
            (served, waiting),
            self.meant
        );
        for leaf in [Some(served), waiting].into_iter().flatten() {
            let ca = issuer(leaf);
            prop_assert!(cas.contains(&ca) || self.distrusted.contains(&ca), "it verifies");
        }
        prop_assert!(cas.contains(&self.ca), "the generator's own stays");
        let distrust = world.annotation("distrust").unwrap_or_default();
        for ca in carried {
            let print = CAS[ca].sha256();
            prop_assert!(!distrust.contains(&print), "nothing distrusted is carried");
        }
        prop_assert_eq!(world.annotation("ask"), None, "no ask stays");
        let Some(stage) = world.stage() else { return Ok(()) };
        prop_assert!(stage.moved <= 2);
        prop_assert!(
            matches!(world.keeper, KeeperHealth::Alive | KeeperHealth::Unknown),
            "a keeper"
        );
        let mode = world.stored["metadata"]["labels"]["ca-overlap.dev/mode"].as_str();
        prop_assert!(mode != Some("bundle"), "the mode");
        Ok(())
    }
}

fn config() -> ProptestConfig {
    let default = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return default;
    }
    ProptestConfig { cases: 1_000, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_laws_of_staged_mode_hold_in_every_history(events in vec(event(), 1..14)) {
        let mut history = History::new();
        for event in events {
            if !history.happens(event) {
                continue;
            }
            history.is_lawful()?;
            if let Event::Write { leaf, how: How::Put, .. } = event {
                let before = history.world.stored.clone();
                history.world.put(&[issuer(leaf)], leaf);
                prop_assert_eq!(&history.world.stored, &before, "again is no change");
            }
        }
        // Whatever has happened, a mode without stages leaves no key aside.
        history.happens(Event::Mode("bundle"));
        history.is_lawful()?;
        prop_assert_eq!(history.world.waiting(), None);
    }
}

#[test]
fn histories_do_stage() {
    // The negative control: the laws above are about something.
    let mut history = History::new();
    for leaf in [3, 6, 9] {
        history.happens(Event::Write { leaf, how: How::Put, is_seen: true });
        history.happens(Event::Promote { is_seen: true });
    }
    assert_eq!(history.begun, 3);
}
