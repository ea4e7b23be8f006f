//! The laws, and faults that must break them.

use std::time::Duration;

use ca_overlap::names;
use ca_overlap::overlap::staged::KeeperHealth;
use jiff::{SignedDuration, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseResult, TestRunner};
use serde_json::{Value, json};

use super::system::{
    CAS, Carried, Fault, GROUP_WAIT, LEAFS_OF_EACH, SETTLE, System, announcement, fresh, issuer,
    set_ca, set_pair,
};
use crate::support::property::config;

/// An event of a history.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The generator writes a CA and a leaf of it.
    Rotate {
        leaf: usize,
        how: How,
    },
    /// The generator writes another leaf of the same CA.
    Leaf(usize),
    /// The generator writes a CA without a leaf of it.
    Ca(usize),
    /// The generator repeats its last write.
    Again,
    /// A person distrusts one more CA.
    Distrust(usize),
    /// A person announces a CA, perhaps for so many hours, or takes back what he announced.
    Announce(Option<(usize, Option<u8>)>),
    /// The keeper announces a CA, or none.
    AskAnnounce(Option<usize>),
    Window(Option<u8>),
    Keep(u8),
    Mode(&'static str),
    /// The clock moves by so many seconds, also back.
    Clock(i64),
    Webhook(bool),
    Keeper(bool),
    /// The namespace is opted out, or is not any more.
    OptOut(bool),
    /// A writer replaces all labels and annotations, and the webhook is not called.
    Wipe,
    /// A replica of the first edition writes the record and the stage again, without the uid.
    FirstEdition,
}

/// How a Secret leaves staged mode at the end of a history.
#[derive(Clone, Copy, Debug)]
enum Exit {
    /// The registration is removed.
    Registration,
    /// The namespace is opted out.
    OptOut,
    /// The Secret becomes immutable.
    Immutable,
    /// `drain` asks for it.
    Drain,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    /// A fresh object by PUT.
    Put,
    /// An apply or a PATCH of all values.
    Patch,
    /// DELETE and CREATE.
    Again,
}

fn event() -> impl Strategy<Value = Event> {
    let leaf = || 0..CAS.len() * LEAFS_OF_EACH;
    let how = prop_oneof![4 => Just(How::Put), 3 => Just(How::Patch), 1 => Just(How::Again)];
    let time = prop_oneof![
        3 => 0..300_i64,
        3 => 0..40 * 3600_i64,
        1 => -3 * 3600..0_i64,
    ];
    prop_oneof![
        8 => (leaf(), how).prop_map(|(leaf, how)| Event::Rotate { leaf, how }),
        2 => (0..LEAFS_OF_EACH).prop_map(Event::Leaf),
        2 => (0..CAS.len()).prop_map(Event::Ca),
        2 => Just(Event::Again),
        1 => (0..CAS.len()).prop_map(Event::Distrust),
        2 => proptest::option::weighted(0.7, (0..CAS.len(), proptest::option::of(1..48_u8)))
            .prop_map(Event::Announce),
        1 => proptest::option::weighted(0.7, 0..CAS.len()).prop_map(Event::AskAnnounce),
        2 => proptest::option::weighted(0.8, 1..48_u8).prop_map(Event::Window),
        1 => (1..4_u8).prop_map(Event::Keep),
        1 => prop_oneof![Just("staged"), Just("bundle")].prop_map(Event::Mode),
        6 => time.prop_map(Event::Clock),
        2 => prop_oneof![1 => Just(false), 2 => Just(true)].prop_map(Event::Webhook),
        2 => prop_oneof![1 => Just(false), 2 => Just(true)].prop_map(Event::Keeper),
        1 => prop_oneof![1 => Just(true), 3 => Just(false)].prop_map(Event::OptOut),
        1 => Just(Event::Wipe),
        1 => Just(Event::FirstEdition),
    ]
}

/// The system, and what its generator and its users intend.
struct History {
    system: System,
    /// The last CA and leaf of the generator.
    ca: usize,
    leaf: usize,
    /// The pairs that it may intend: more than one where a write is ambiguous.
    intended: Vec<usize>,
    /// The CA that a person announces, and until when.
    announced: Option<(usize, Option<Timestamp>)>,
    /// All CAs that were ever distrusted.
    distrusted: Vec<usize>,
    /// Whether the generator wrote a CA without a leaf of it while the webhook could not carry the
    /// leaf's CA: it was down, or that CA was not stored.
    is_missed: bool,
}

impl History {
    fn new(fault: Fault) -> Self {
        let system = System::new(fault);
        Self {
            system,
            ca: 0,
            leaf: 0,
            intended: vec![0],
            announced: None,
            distrusted: Vec::new(),
            is_missed: false,
        }
    }

    fn happens(&mut self, event: Event) -> TestCaseResult {
        let pairs = self.pairs()?;
        let system = &mut self.system;
        match event {
            Event::Rotate { leaf, how } => self.rotate(leaf, how, pairs),
            Event::Leaf(which) => {
                let leaf = self.ca * LEAFS_OF_EACH + which;
                self.intend(leaf, pairs, false);
                self.system.edit(|object| set_pair(object, leaf));
            }
            Event::Ca(ca) => {
                // The write leaves the leaf alone, so the held and the waiting pair may be intended.
                self.ca = ca;
                self.is_missed |= !system.is_called();
                self.intended.extend(pairs.0.into_iter().chain(pairs.1));
                system.edit(|object| set_ca(object, ca));
            }
            Event::Again => {
                let (ca, leaf) = (self.ca, self.leaf);
                self.intend(leaf, pairs, true);
                // The CA of its leaf may be gone by now.
                let is_there = self.system.cas().contains(&issuer(leaf));
                let is_carried = self.system.is_called() && is_there;
                self.is_missed |= issuer(leaf) != ca && !is_carried;
                let mut object = fresh(leaf);
                set_ca(&mut object, ca);
                self.system.write(object);
            }
            Event::Distrust(ca) => {
                self.distrusted.push(ca);
                let all: Vec<String> = self.distrusted.iter().map(|ca| CAS[*ca].sha256()).collect();
                annotate(system, names::DISTRUST, &json!(all.join(",")));
            }
            Event::Announce(announced) => {
                let text = announced.map(|(ca, hours)| {
                    let length = hours.map(|hours| SignedDuration::from_hours(hours.into()));
                    announcement(ca, length.map(|length| system.now + length)).to_string()
                });
                self.announced = announced.map(|(ca, hours)| {
                    (ca, hours.map(|hours| system.now + SignedDuration::from_hours(hours.into())))
                });
                annotate(system, names::ANNOUNCE, &json!(text));
            }
            Event::AskAnnounce(_) if !system.is_keeper_up => {}
            Event::AskAnnounce(ca) => system.ask_announce(ca),
            Event::Window(hours) => {
                let window = hours.map(|hours| format!("{hours}h"));
                annotate(system, names::WINDOW, &json!(window));
            }
            Event::Keep(count) => annotate(system, names::KEEP, &json!(count.to_string())),
            Event::Mode(mode) => {
                system.edit(|object| object["metadata"]["labels"][names::MODE] = mode.into());
            }
            Event::Clock(seconds) => {
                system.now += SignedDuration::from_secs(seconds);
                system.reconcile();
            }
            Event::Webhook(is_up) => {
                system.is_webhook_up = is_up;
                system.reconcile();
            }
            Event::OptOut(is_off) => {
                system.is_opted_out = is_off;
                system.reconcile();
            }
            Event::Wipe if system.is_called() => {}
            Event::Wipe => {
                // Nothing tells any more which pair is newer: the leaves have the same dates.
                self.intended.extend(pairs.1);
                system.edit(|object| {
                    for map in ["labels", "annotations"] {
                        object["metadata"][map] = json!({});
                    }
                });
            }
            Event::FirstEdition => {
                system.forget_uids();
                system.reconcile();
            }
            Event::Keeper(true) if !system.is_keeper_up => system.start_keeper(),
            Event::Keeper(is_up) => {
                system.is_keeper_up = is_up;
                system.health = if is_up { KeeperHealth::Alive } else { KeeperHealth::Lost };
            }
        }
        Ok(())
    }

    fn rotate(&mut self, leaf: usize, how: How, pairs: (Option<usize>, Option<usize>)) {
        self.ca = issuer(leaf);
        self.intend(leaf, pairs, how == How::Put);
        let ca = self.ca;
        match how {
            How::Put => self.system.write(fresh(leaf)),
            How::Patch => self.system.edit(|object| {
                set_ca(object, ca);
                set_pair(object, leaf);
            }),
            How::Again => {
                self.system.create(fresh(leaf));
                self.system.reconcile();
            }
        }
    }

    /// Notes which pair a write intends. Writing the pair in service may mean to leave it alone.
    fn intend(
        &mut self,
        leaf: usize,
        (served, waiting): (Option<usize>, Option<usize>),
        fresh: bool,
    ) {
        self.leaf = leaf;
        self.is_missed &= issuer(leaf) != self.ca;
        self.intended = vec![leaf];
        // A write of just the stored values may be a copy of them, whose writer never saw the
        // waiting pair.
        let is_copy = served == Some(leaf) && (!fresh || self.system.cas() == [issuer(leaf)]);
        // A missed write may have brought the held pair back, which then looks untouched.
        if is_copy || (!fresh && !self.system.is_called()) {
            self.intended.extend(waiting);
        }
    }

    /// What a person announces is trusted after each write that the webhook sees.
    fn is_told(&self, event: Event) -> TestCaseResult {
        let is_write = match event {
            Event::Rotate { how, .. } => how != How::Again,
            Event::Leaf(_) | Event::Ca(_) | Event::Again | Event::Announce(_) => true,
            _ => false,
        };
        let system = &self.system;
        let Some((ca, until)) = self.announced.filter(|_| is_write && system.is_called()) else {
            return Ok(());
        };
        let has_ended = until.is_some_and(|until| until <= system.now);
        // A write that the webhook missed can take the annotation away, and a repair bring an older
        // one back.
        let listed = system.annotation(names::ANNOUNCE);
        let is_listed = listed == Some(announcement(ca, until).to_string().as_str());
        if !has_ended && is_listed && !self.distrusted.contains(&ca) {
            prop_assert!(system.cas().contains(&ca), "CA {ca} is announced, and not trusted");
        }
        Ok(())
    }

    fn pairs(&self) -> Result<(Option<usize>, Option<usize>), TestCaseError> {
        let fail = TestCaseError::fail;
        Ok((self.system.served().map_err(fail)?, self.system.waiting().map_err(fail)?))
    }

    fn is_lawful(&self) -> TestCaseResult {
        let system = &self.system;
        let (served, waiting) = self.pairs()?;
        let served = served.ok_or_else(|| TestCaseError::fail("no leaf"))?;
        let cas = system.cas();
        // A pair that waits for a CA which is distrusted meanwhile is no valid pair any more.
        let is_void =
            |leaf| self.distrusted.contains(&issuer(leaf)) && !cas.contains(&issuer(leaf));
        prop_assert!(
            self.intended
                .iter()
                .any(|leaf| served == *leaf || waiting == Some(*leaf) || is_void(*leaf)),
            "a pair is lost: {served} serves, {waiting:?} waits, one of {:?} is intended",
            self.intended
        );
        let issued = issuer(served);
        prop_assert!(
            cas.contains(&issued) || self.distrusted.contains(&issued) || self.is_missed,
            "the leaf {served} does not verify against {cas:?}"
        );
        prop_assert!(cas.contains(&self.ca), "the generator's own CA stays");
        if system.is_called() && system.is_keeper_up {
            self.keeper_has_run(issued, &cas, waiting)?;
        }
        Ok(())
    }

    fn keeper_has_run(
        &self,
        issued: usize,
        cas: &[usize],
        waiting: Option<usize>,
    ) -> TestCaseResult {
        let system = &self.system;
        prop_assert_eq!(system.annotation(names::ASK), None, "no ask stays");
        let distrust = system.annotation(names::DISTRUST).unwrap_or_default();
        let hours = system.annotation(names::WINDOW).and_then(|text| text.strip_suffix('h'));
        let window: Option<i64> = hours.map(|hours| hours.parse().unwrap());
        let listed = system.annotation(names::ANNOUNCE).unwrap_or_default();
        for Carried { ca, since, until, is_announced, by_person } in system.carried() {
            let print = CAS[ca].sha256();
            let is_listed = listed.contains(&announcement(ca, None).to_string());
            prop_assert!(!by_person || is_listed, "CA {ca} is taken back, and announced");
            prop_assert!(!distrust.contains(&print), "CA {ca} is distrusted, and carried");
            let window = window.filter(|_| !is_announced);
            let by_window = window.map(|hours| since + SignedDuration::from_hours(hours));
            let ends = by_window.into_iter().chain(until).min();
            let is_over = ends.is_some_and(|ends| ends <= system.now);
            let is_staged = waiting.is_some();
            prop_assert!(
                !is_over || issued == ca || is_staged,
                "CA {ca} of {cas:?} has ended at {ends:?}, and it is {}",
                system.now
            );
        }
        if waiting.is_some() {
            let stage: Value = serde_json::from_str(system.annotation(names::STAGED).unwrap())
                .map_err(|_| TestCaseError::fail("no stage"))?;
            let since: Timestamp = stage["since"].as_str().unwrap().parse().unwrap();
            let settled = since + SignedDuration::try_from(SETTLE).unwrap();
            prop_assert!(
                settled > system.now,
                "a leaf waits since {since}, and it is {}",
                system.now
            );
        }
        Ok(())
    }

    /// The generator repeats its write, which the API server must drop as a no-op.
    fn again_is_no_change(&mut self) -> TestCaseResult {
        let system = &mut self.system;
        let is_at_work = system.is_called() && system.is_keeper_up;
        if !is_at_work || issuer(self.leaf) != self.ca {
            return Ok(());
        }
        let before = system.stored.clone();
        self.happens(Event::Again)?;
        // The first repetition may cut what has ended by now, or stage again what was cancelled.
        let once = self.system.stored.clone();
        self.happens(Event::Again)?;
        prop_assert_eq!(&self.system.stored, &once, "from {}", before);
        Ok(())
    }
}

impl History {
    /// Leaves staged mode. The newest valid pair serves, and no key waits.
    fn leaves(&mut self, exit: Exit) -> TestCaseResult {
        let system = &mut self.system;
        match exit {
            Exit::Registration => system.is_webhook_up = false,
            Exit::OptOut => system.is_opted_out = true,
            Exit::Immutable | Exit::Drain => {
                (system.is_webhook_up, system.is_opted_out) = (true, false);
                system.reconcile();
            }
        }
        match exit {
            Exit::Registration | Exit::OptOut => {
                system.start_keeper();
                // The clock may have been set back by hours since the leaf began to wait.
                for wait in [Duration::from_secs(100 * 3600), GROUP_WAIT] {
                    system.now += SignedDuration::try_from(wait).unwrap();
                    system.reconcile();
                }
            }
            Exit::Immutable => system.edit(|object| object["immutable"] = true.into()),
            Exit::Drain => {
                let mut object = system.stored.clone();
                object["metadata"]["annotations"][names::ASK] = "unstage #drain".into();
                system.write_as(object, "kubernetes-admin");
            }
        }
        self.is_lawful()?;
        let (served, waiting) = self.pairs()?;
        let cas = self.system.cas();
        let verifies = |leaf: Option<usize>| leaf.is_some_and(|leaf| cas.contains(&issuer(leaf)));
        prop_assert!(
            waiting.is_none() || (!verifies(served) && !verifies(waiting)),
            "{waiting:?} is left beside {served:?} after {exit:?}"
        );
        Ok(())
    }
}

fn annotate(system: &mut System, key: &str, value: &Value) {
    let change = json!({"metadata": {"annotations": {key: value}}});
    system.edit(|object| json_patch::merge(object, &change));
}

fn check(fault: Fault, events: &[Event], exit: Exit) -> TestCaseResult {
    let mut history = History::new(fault);
    for event in events {
        history.happens(*event)?;
        history.is_told(*event)?;
        history.is_lawful()?;
    }
    history.again_is_no_change()?;
    history.leaves(exit)
}

fn exit() -> impl Strategy<Value = Exit> {
    prop_oneof![
        Just(Exit::Registration),
        Just(Exit::OptOut),
        Just(Exit::Immutable),
        Just(Exit::Drain)
    ]
}

proptest! {
    #![proptest_config(config(1_000))]

    #[test]
    fn the_laws_of_webhook_and_keeper_hold_in_every_history(
        events in vec(event(), 1..24),
        exit in exit(),
    ) {
        check(Fault::None, &events, exit)?;
    }
}

#[test]
fn a_record_may_still_name_the_ca_that_its_generator_went_back_to_unseen() {
    let events = [
        Event::Ca(1),
        Event::OptOut(true),
        Event::Distrust(0),
        Event::Rotate { leaf: 0, how: How::Patch },
        Event::Keeper(false),
        Event::Keeper(true),
    ];
    check(Fault::None, &events, Exit::Immutable).unwrap();
}

#[test]
fn a_waiting_pair_whose_ca_is_distrusted_may_go() {
    let events = [
        Event::Keep(2),
        Event::Rotate { leaf: 9, how: How::Put },
        Event::Ca(1),
        Event::Again,
        Event::Distrust(3),
    ];
    check(Fault::None, &events, Exit::Registration).unwrap();
}

#[test]
fn an_announcement_that_ends_but_was_prolonged_unseen_gets_its_new_end() {
    let events = [
        Event::Announce(Some((3, Some(1)))),
        Event::Webhook(false),
        Event::Announce(Some((3, None))),
        Event::Clock(3600),
        Event::Webhook(true),
    ];
    check(Fault::None, &events, Exit::Registration).unwrap();
}

#[test]
fn each_broken_rule_is_detected() {
    for (fault, message) in [
        (Fault::NeverRetires, "has ended at"),
        (Fault::NeverPromotes, "a leaf waits since"),
        (Fault::CarriesNothing, "does not verify"),
        (Fault::TrustsAll, "is distrusted, and carried"),
        (Fault::AnnouncesNothing, "is announced, and not trusted"),
        (Fault::MixesKeys, "stands beside"),
        (Fault::ForgetsPairs, "a pair is lost"),
        (Fault::LeavesAsks, "no ask stays"),
        (Fault::WaitsForEver, "is left beside"),
        (Fault::DropsPairs, "a pair is lost"),
    ] {
        let config = ProptestConfig {
            cases: 4_000,
            failure_persistence: None,
            max_shrink_iters: 0,
            ..ProptestConfig::default()
        };
        let rng = proptest::test_runner::TestRng::deterministic_rng(config.rng_algorithm);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let found = std::cell::Cell::new(false);
        // Another law may fail first, so the run continues until the expected one fails.
        let history = (vec(event(), 1..24), exit());
        let outcome = runner.run(&history, |(events, exit)| match check(fault, &events, exit) {
            Err(TestCaseError::Fail(why)) if why.message().contains(message) => {
                found.set(true);
                Err(TestCaseError::fail(why.message().to_owned()))
            }
            _ => Ok(()),
        });
        assert!(outcome.is_err() && found.get(), "{fault:?} is not detected as {message:?}");
    }
}
