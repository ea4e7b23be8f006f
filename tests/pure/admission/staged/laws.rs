//! The laws of staged mode over random histories: writes that the webhook sees or misses, asks,
//! clock changes, a Lease that comes and goes.

use ca_overlap::overlap::settings::Mode;
use ca_overlap::overlap::staged::{KeeperHealth, Stage};
use jiff::SignedDuration;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::secret::{CAS, TlsSecret, annotate, issuer, leaf, set, set_pair};
use crate::support::property::config;

/// An event of a history.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The generator writes a CA and a leaf of it.
    Write {
        leaf: usize,
        how: How,
        is_seen: bool,
    },
    /// The keeper asks to promote, and the webhook sees it or not.
    Promote {
        is_seen: bool,
    },
    Retire,
    /// A write that changes none of our keys.
    Touch,
    Distrust(usize),
    Clock(i64),
    Keeper(KeeperHealth),
    Mode(&'static str),
    /// A writer replaces labels and annotations while the webhook is away.
    Wipe,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    /// A fresh object.
    Put,
    /// A read-modify-write, or a PATCH of all values.
    Patch,
    /// A PATCH of the leaf alone, by the CA that was written last.
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
        1 => Just(Event::Wipe),
    ]
}

/// A Secret, and what its generator and its users intend.
struct History {
    secret: TlsSecret,
    /// The CA that the generator wrote last.
    ca: usize,
    /// The leaves that it may intend: two where a write is ambiguous.
    intended: Vec<usize>,
    distrusted: Vec<usize>,
    begun: usize,
}

impl History {
    fn new() -> Self {
        let mut secret = TlsSecret::new(leaf(0));
        secret.installation.defaults.mode = Mode::Staged;
        secret.stored["metadata"]["labels"] = json!({});
        Self { secret, ca: 0, intended: vec![leaf(0)], distrusted: Vec::new(), begun: 0 }
    }

    /// Applies an event; says whether the webhook has seen it.
    fn apply(&mut self, event: Event) -> bool {
        let secret = &mut self.secret;
        let stage = secret.annotation("staged").and_then(|text| Stage::parse(text).ok());
        let asked = stage.map(|stage| format!("promote {} #9", stage.pending));
        match event {
            Event::Write { leaf, how, is_seen } => return self.write(leaf, how, is_seen),
            Event::Promote { is_seen: true } => drop(secret.promote()),
            Event::Promote { is_seen: false } => {
                annotate(&mut secret.stored, "ask", asked.as_deref().unwrap_or("promote"));
                return false;
            }
            Event::Retire => drop(secret.ask("retire")),
            Event::Touch => drop(secret.patch(|o| o["metadata"]["labels"]["app"] = "x".into())),
            Event::Distrust(ca) => {
                self.distrusted.push(ca);
                self.distrust();
            }
            Event::Clock(hours) => {
                secret.now += SignedDuration::from_hours(hours);
                return false;
            }
            Event::Keeper(keeper) => {
                secret.keeper = keeper;
                return false;
            }
            Event::Mode(mode) => {
                let set =
                    |o: &mut Value| o["metadata"]["labels"]["ca-overlap.dev/mode"] = mode.into();
                drop(secret.patch(set));
            }
            Event::Wipe => {
                // Nothing tells any more which pair is newer: the leaves have the same dates.
                self.intended.extend(secret.waiting());
                secret.stored["metadata"]["labels"] = json!({});
                secret.stored["metadata"]["annotations"] = json!({});
                return false;
            }
        }
        true
    }

    /// Sets the annotation again, which a missed PUT may have wiped.
    fn distrust(&mut self) {
        let prints: Vec<_> = self.distrusted.iter().map(|ca| CAS[*ca].sha256()).collect();
        self.secret.patch(|object| annotate(object, "distrust", &prints.join(",")));
    }

    fn write(&mut self, leaf: usize, how: How, is_seen: bool) -> bool {
        let leaf = if how == How::LeafAlone { self.ca * 3 + leaf % 3 } else { leaf };
        self.ca = issuer(leaf);
        let (ca, secret) = (self.ca, &mut self.secret);
        let (held, waiting) = (secret.served(), secret.waiting());
        self.intended = vec![leaf];
        let is_reapply = secret.cas().0 == [ca];
        let is_wiped = waiting.is_some() && secret.annotation("staged").is_none();
        if (how != How::Put || is_reapply) && held == Some(leaf) {
            // This looks like a PATCH that leaves the leaf alone, or like a re-apply.
            self.intended.extend(waiting);
        }
        if is_wiped && !is_seen && how != How::Put {
            self.intended.extend(waiting);
        }
        let edit = |object: &mut Value| match how {
            How::LeafAlone => set_pair(object, leaf),
            _ => set(object, &[ca], leaf),
        };
        match (how, is_seen) {
            (How::Put, true) => {
                let answer = secret.put(&[ca], leaf);
                self.begun += usize::from(answer.staged == Some("begun"));
            }
            (How::Put, false) => secret.missed_put(&[ca], leaf),
            (_, true) => drop(secret.patch(edit)),
            (_, false) => edit(&mut secret.stored),
        }
        is_seen
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let secret = &self.secret;
        let (served, waiting, cas, carried) = secret.shows();
        let served = served.expect("a leaf");
        prop_assert!(
            self.intended.iter().any(|leaf| served == *leaf || waiting == Some(*leaf)),
            "the pair that is intended is never lost: {:?} of {:?}",
            (served, waiting),
            self.intended
        );
        for leaf in [Some(served), waiting].into_iter().flatten() {
            let ca = issuer(leaf);
            prop_assert!(cas.contains(&ca) || self.distrusted.contains(&ca), "it verifies");
        }
        prop_assert!(cas.contains(&self.ca), "the generator's own stays");
        let distrust = secret.annotation("distrust").unwrap_or_default();
        for ca in carried {
            let print = CAS[ca].sha256();
            prop_assert!(!distrust.contains(&print), "nothing distrusted is carried");
        }
        prop_assert_eq!(secret.annotation("ask"), None, "no ask stays");
        let Some(stage) = secret.stage() else { return Ok(()) };
        prop_assert!(stage.moved <= 2);
        prop_assert!(
            matches!(secret.keeper, KeeperHealth::Alive | KeeperHealth::Unknown),
            "a keeper"
        );
        let mode = secret.stored["metadata"]["labels"]["ca-overlap.dev/mode"].as_str();
        prop_assert!(mode != Some("bundle"), "the mode");
        Ok(())
    }
}

proptest! {
    #![proptest_config(config(1_000))]

    #[test]
    fn the_laws_of_staged_mode_hold_in_every_history(events in vec(event(), 1..14)) {
        let mut history = History::new();
        for event in events {
            if !history.apply(event) {
                continue;
            }
            history.check()?;
            if let Event::Write { leaf, how: How::Put, .. } = event {
                let before = history.secret.stored.clone();
                history.secret.put(&[issuer(leaf)], leaf);
                prop_assert_eq!(&history.secret.stored, &before, "again is no change");
            }
        }
        // After any history, mode bundle leaves no waiting key.
        history.apply(Event::Mode("bundle"));
        history.check()?;
        prop_assert_eq!(history.secret.waiting(), None);
    }
}

#[test]
fn random_histories_do_stage() {
    // The negative control: without stages the laws above would prove nothing.
    let mut history = History::new();
    for leaf in [3, 6, 9] {
        history.apply(Event::Write { leaf, how: How::Put, is_seen: true });
        history.apply(Event::Promote { is_seen: true });
    }
    assert_eq!(history.begun, 3);
}
