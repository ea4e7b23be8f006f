//! What the keeper asks for: `repair`, and `retire`, which needs no more than a write.

use std::sync::{Arc, LazyLock};

use ca_overlap::overlap::ask::Repaired;
use ca_overlap::overlap::record::{Entry, Record};
use ca_overlap::overlap::{MAX_OWN, RecordAfter, Warning};
use ca_overlap::x509::certs::{Bundle, Fingerprint};
use jiff::{SignedDuration, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

use super::scene::Scene;
use devtools::certs::{self, CA, Identity, Spec};

fn scene(stored: &str) -> Scene {
    Scene::new().stored(stored)
}

/// Asks, and says what is stored then.
fn repaired(scene: Scene, asked: &str, expected: &str, warnings: &[Warning]) -> Scene {
    let mut scene = scene;
    let before = scene.ca_crt.clone().unwrap();
    let decision = scene.repair(asked);
    assert_eq!(scene.shows(), expected, "asked for {asked}");
    assert_eq!(decision.warnings, warnings, "asked for {asked}");
    if decision.cut == 0 {
        assert!(scene.ca_crt.as_ref().unwrap().starts_with(&before), "no byte is touched");
    }
    scene
}

fn until(scene: &Scene, name: &str) -> Option<Timestamp> {
    scene.record.as_ref()?.entry(Fingerprint::of(&scene.get(name).der))?.until
}

#[test]
fn a_missed_rotation_is_repaired_for_a_day_or_for_the_window() {
    // A fresh object has wiped the record.
    let done = repaired(scene("CA2"), "CA1", "CA2 CA1*", &[]);
    assert_eq!(until(&done, "CA1"), Some(done.now + SignedDuration::from_hours(24)));
    // A PATCH has not.
    let mut with_record = scene("CA3").recorded();
    with_record.window = "90m";
    let done = repaired(with_record, "CA2", "CA3 CA2*", &[]);
    assert_eq!(until(&done, "CA2"), Some(done.now + SignedDuration::from_mins(90)));
}

#[test]
fn to_repair_again_changes_nothing() {
    let mut scene = repaired(scene("CA2"), "CA1", "CA2 CA1*", &[]);
    let (bytes, record) = (scene.ca_crt.clone(), scene.record.clone());
    scene.now += SignedDuration::from_hours(1);
    let decision = scene.repair("CA1");
    assert_eq!((decision.ca_crt, decision.appended, decision.warnings), (None, 0, vec![]));
    assert_eq!((scene.ca_crt, scene.record), (bytes, record));
}

#[test]
fn what_is_not_usable_is_not_carried_and_the_keeper_is_told() {
    let incomplete = [Warning::RepairIncomplete];
    repaired(scene("CA2"), "Expired", "CA2", &incomplete);
    repaired(scene("CA2"), "CA2", "CA2", &[]);
    repaired(scene("CA2"), "CA1 CA1", "CA2 CA1*", &[]);
    let mut distrusting = scene("CA2");
    distrusting.distrust = vec!["CA1"];
    repaired(distrusting, "CA1", "CA2", &incomplete);
    let mut left_alone = scene("CA2");
    left_alone.may_change_data = false;
    repaired(left_alone, "CA1", "CA2", &incomplete);
    let mut scene = scene("CA2");
    scene.repair = vec![b"no certificate".to_vec().into(), scene.get("CA1").der.to_vec().into()];
    let (stored, leaf) = (scene.ca_crt.clone().unwrap(), None);
    assert_eq!(scene.write_bytes(&stored, leaf).warnings, incomplete);
    assert_eq!(scene.shows(), "CA2 CA1*");
}

#[test]
fn a_certificate_that_reads_only_in_part_is_not_repaired() {
    let mut scene = scene("CA2");
    let mut der = scene.get("X").der.to_vec();
    // When it begins to be valid: nothing that the decision itself looks at.
    let not_before = der.windows(2).position(|head| head == [0x17, 0x0d]).unwrap() + 2;
    der[not_before] = b'x';
    assert!(
        Bundle::parse(certs::pem_of(&der, 64, "\n").as_bytes(), 8).unwrap().certificates().len()
            == 1
    );
    scene.repair = vec![der.into()];
    let stored = scene.ca_crt.clone().unwrap();
    let decision = scene.write_bytes(&stored, None);
    assert_eq!((decision.appended, decision.warnings), (0, vec![Warning::RepairIncomplete]));
}

#[test]
fn what_is_carried_already_counts_toward_keep() {
    let incomplete = [Warning::RepairIncomplete];
    repaired(scene("CA3 CA2*"), "CA1", "CA3 CA2*", &incomplete);
    repaired(scene("CA3"), "CA2 CA1", "CA3 CA2*", &incomplete);
    let mut two = scene("CA3 CA2*");
    two.keep = "2";
    repaired(two, "CA1 CA4", "CA3 CA2* CA1*", &incomplete);
    let mut none = scene("CA3");
    none.keep = "0";
    repaired(none, "CA2", "CA3", &incomplete);
    repaired(scene("CA3"), "Int1 Root1", "CA3 Int1* Root1*", &[]);
    repaired(scene("CA3 Int1*"), "Root1", "CA3 Int1* Root1*", &[]);
    // What is over makes room.
    let mut over = scene("CA3 CA2*");
    over.window = "23h";
    repaired(over, "CA1", "CA3 CA1*", &[]);
}

#[test]
fn what_is_over_by_the_record_is_not_repaired_and_dates_go_on() {
    // The record is left, the certificate is gone: a PATCH of ca.crt while we were away.
    let lost = || {
        let mut scene = scene("CA2 CA1*");
        scene.ca_crt = Some(scene.pem("CA2").into_bytes());
        scene
    };
    let mut over = lost();
    over.window = "23h";
    repaired(over, "CA1", "CA2", &[Warning::RepairIncomplete]);
    let done = repaired(lost(), "CA1", "CA2 CA1*", &[]);
    let entry =
        *done.record.as_ref().unwrap().entry(Fingerprint::of(&done.get("CA1").der)).unwrap();
    assert_eq!(entry.since, done.now - SignedDuration::from_hours(24));
    assert_eq!(entry.until, Some(done.now + SignedDuration::from_hours(24)));
    // An earlier end that was set before stands.
    let mut short = lost();
    let mut entries = short.record.take().unwrap().entries().to_vec();
    entries[0].until = Some(short.now + SignedDuration::from_mins(5));
    short.record = Some(Record::new(entries));
    let done = repaired(short, "CA1", "CA2 CA1*", &[]);
    assert_eq!(until(&done, "CA1"), Some(done.now + SignedDuration::from_mins(5)));
}

/// With what the record said of them a day ago.
fn dated(scene: &Scene, names: &str, until: Option<Timestamp>) -> Vec<Repaired> {
    let entries = scene.entries(names).into_iter();
    let certificates = names.split_whitespace().map(|name| name.trim_end_matches('*'));
    let dated = |(name, entry)| Repaired {
        der: scene.get(name).der.to_vec(),
        entry: Some(Entry { until, ..entry }),
    };
    certificates.zip(entries).map(dated).collect()
}

#[test]
fn without_a_record_the_remembered_dates_go_on() {
    let mut lost = scene("CA2");
    let end = lost.now + SignedDuration::from_mins(5);
    let decision = lost.ask(dated(&lost, "CA1*", Some(end)));
    assert_eq!((lost.shows().as_str(), decision.appended), ("CA2 CA1*", 1));
    assert_eq!(until(&lost, "CA1"), Some(end), "a new object is no new window");

    let mut open = scene("CA2");
    open.ask(dated(&open, "CA1*", None));
    assert_eq!(until(&open, "CA1"), Some(open.now + SignedDuration::from_hours(24)));

    for (until, window) in [(Some(end - SignedDuration::from_mins(6)), "none"), (None, "23h")] {
        let mut over = scene("CA2");
        over.window = window;
        let decision = over.ask(dated(&over, "CA1*", until));
        assert_eq!((over.shows().as_str(), decision.appended), ("CA2", 0));
        assert_eq!(decision.warnings, [Warning::RepairIncomplete]);
    }

    // What the record says counts before what the keeper remembers.
    let mut listed = scene("CA2 CA1*");
    listed.ca_crt = Some(listed.pem("CA2").into_bytes());
    listed.ask(dated(&listed, "CA1*", Some(end)));
    assert_ne!(until(&listed, "CA1"), Some(end));
}

#[test]
fn what_is_there_without_a_record_is_carried_again_and_ends() {
    let mut wiped = scene("CA2 CA1");
    let end = wiped.now + SignedDuration::from_mins(5);
    let decision = wiped.ask(dated(&wiped, "CA1*", Some(end)));
    assert_eq!((decision.ca_crt, decision.appended, decision.warnings), (None, 0, vec![]));
    assert_eq!(wiped.shows(), "CA2 CA1*");
    assert_eq!(until(&wiped, "CA1"), Some(end));
    wiped.now = end;
    wiped.repair("");
    assert_eq!(wiped.shows(), "CA2");

    // The first one is the generator's own, whatever is remembered; so is one without dates.
    let mut own = scene("CA1 CA2");
    own.ask(dated(&own, "CA1*", None));
    own.repair("CA2");
    assert_eq!(own.shows(), "CA1 CA2");
    let mut left_alone = scene("CA2 CA1");
    left_alone.may_change_data = false;
    left_alone.ask(dated(&left_alone, "CA1*", None));
    assert_eq!(left_alone.shows(), "CA2 CA1");
    // What this very write cuts out does not come back by it.
    let mut over = scene("CA2 CA1*");
    over.window = "23h";
    over.ask(dated(&over, "CA1*", None));
    assert_eq!(over.shows(), "CA2");
}

#[test]
fn a_repair_stays_within_the_room() {
    let size = scene("CA1").ca_crt.unwrap().len();
    for (room, expected) in [(size / 2, "CA3"), (size + size / 2, "CA3 CA2*")] {
        let mut tight = scene("CA3");
        (tight.keep, tight.room) = ("2", room);
        let decision = tight.repair("CA2 CA1");
        assert_eq!(tight.shows(), expected);
        assert!(decision.warnings.contains(&Warning::RepairIncomplete));
        assert!(decision.ca_crt.is_none_or(|bytes| bytes.len() <= size + room));
    }
    // Two are carried while keep says one: an issuer of the first may still come, if it has room.
    let mut lowered = scene("CA3 Int1* CA1*");
    lowered.room = size / 2;
    let decision = lowered.repair("Root1");
    assert_eq!((lowered.shows().as_str(), decision.appended), ("CA3 Int1* CA1*", 0));
}

#[test]
fn what_is_cut_in_the_same_write_is_room_for_what_is_repaired() {
    let mut full = scene("CA3 CA2*");
    (full.window, full.keep, full.room) = ("23h", "2", 64);
    let decision = full.repair("CA1 CA4");
    assert_eq!((full.shows().as_str(), decision.appended), ("CA3 CA1*", 1), "room for one");
    assert!(decision.warnings.contains(&Warning::RepairIncomplete));
}

#[test]
fn a_repair_may_take_the_last_byte() {
    // One is left for a line end that may be missing.
    for (more, expected) in [(0, "CA2"), (1, "CA2 CA1*")] {
        let mut tight = scene("CA2");
        tight.room = tight.pem("CA1").len() + more;
        tight.repair("CA1");
        assert_eq!(tight.shows(), expected, "{more}");
    }
}

#[test]
fn chains_lead_through_what_is_there_and_not_through_what_is_over() {
    let incomplete = [Warning::RepairIncomplete];
    let sub = |scene: &Scene| Spec { subject: "Sub", ..CA }.signed_by(scene.get("Int1"));
    // The generator's own intermediate makes one chain of the two: `keep` is 1.
    let mut own = scene("CA2 Int1");
    own.add("Sub", sub(&own));
    repaired(own, "Sub Root1", "CA2 Int1 Sub* Root1*", &[]);
    let mut over = scene("CA2");
    over.add("Sub", sub(&over));
    over.distrust = vec!["Int1"];
    repaired(over, "Int1 Sub Root1", "CA2 Sub*", &incomplete);
}

#[test]
fn nothing_is_carried_since_a_time_to_come() {
    let mut lost = scene("CA2");
    let mut repair = dated(&lost, "CA1*", None);
    repair[0].entry.as_mut().unwrap().since = lost.now + SignedDuration::from_hours(1);
    lost.ask(repair);
    let record = lost.record.clone().unwrap();
    let entry = record.entry(Fingerprint::of(&lost.get("CA1").der)).unwrap();
    assert_eq!(entry.since, lost.now);
}

#[test]
fn what_is_carried_makes_no_trust_store() {
    for (own, expected) in [(MAX_OWN, 1), (MAX_OWN + 1, 0)] {
        let mut scene = scene("CA2 CA1*");
        scene.keep = "2";
        let own: String = (0..own).map(|_| certs::ca().pem).collect();
        scene.ca_crt = Some((own + &scene.pem("CA1")).into_bytes());
        assert_eq!(scene.repair("CA3").appended, expected);
    }
}

#[test]
fn nothing_is_repaired_in_what_cannot_be_read_or_is_a_trust_store() {
    let many: String = (0..65).map(|_| certs::ca().pem).collect();
    for text in ["garbage".to_owned(), String::new(), many] {
        let mut scene = scene("CA2");
        scene.ca_crt = Some(text.clone().into_bytes());
        let decision = scene.repair("CA1");
        assert_eq!((decision.ca_crt, decision.warnings), (None, vec![Warning::RepairIncomplete]));
        assert_eq!(decision.record, RecordAfter::Gone);
    }
}

#[test]
fn a_repair_without_a_final_newline_does_not_glue_blocks_together() {
    let mut scene = scene("CA2");
    scene.ca_crt = Some(scene.pem("CA2").trim_end().into());
    scene.repair("CA1");
    assert_eq!(scene.ca_crt.clone().unwrap(), scene.pem("CA2 CA1").into_bytes());
}

/// Six roots of one subject; one is expired at some time of a history.
static POOL: LazyLock<Vec<Arc<Identity>>> = LazyLock::new(|| {
    let mut pool: Vec<_> = (0..5).map(|_| Arc::new(certs::ca())).collect();
    pool.push(Arc::new(Spec { not_after: (2026, 3, 2), ..CA }.self_signed()));
    pool
});

const NAMES: [&str; 6] = ["P0", "P1", "P2", "P3", "P4", "P5"];

/// What happens to the Secret.
#[derive(Clone, Debug)]
enum Event {
    /// The generator writes a CA and a leaf of it.
    Rotate(usize),
    /// The same while the webhook is away, by a fresh object or by a PATCH of the data.
    RotateUnseen { ca: usize, wipes: bool },
    /// The keeper asks for these.
    Repair(Vec<usize>),
    /// The keeper asks to retire.
    Retire,
    /// A person distrusts one from now on.
    Distrust(usize),
    /// The clock is set, also back.
    Clock(i64),
}

fn event() -> impl Strategy<Value = Event> {
    let ca = 0..POOL.len();
    prop_oneof![
        3 => ca.clone().prop_map(Event::Rotate),
        2 => (ca.clone(), any::<bool>())
            .prop_map(|(ca, wipes)| Event::RotateUnseen { ca, wipes }),
        4 => vec(ca.clone(), 1..4).prop_map(Event::Repair),
        2 => Just(Event::Retire),
        1 => ca.prop_map(Event::Distrust),
        2 => (-5..40_i64).prop_map(Event::Clock),
    ]
}

proptest! {
    #![proptest_config(super::laws::config())]

    #[test]
    fn asks_keep_the_laws_in_every_history(
        events in vec(event(), 1..12),
        keep in 0..3_usize,
        window in prop_oneof![Just("none"), Just("10h")],
    ) {
        static LEAFS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
            POOL.iter().map(|ca| certs::leaf(ca, true).pem.clone().into_bytes()).collect()
        });
        let mut scene = Scene::with(NAMES.into_iter().zip(POOL.iter().cloned()));
        (scene.keep, scene.window) = (["0", "1", "2"][keep], window);
        scene.ca_crt = Some(POOL[0].pem.clone().into_bytes());
        scene.tls_crt = Some(LEAFS[0].clone());
        for event in events {
            match event {
                Event::Rotate(ca) => {
                    let leaf = LEAFS[ca].clone();
                    scene.write_bytes(POOL[ca].pem.as_bytes(), Some(&leaf));
                }
                Event::RotateUnseen { ca, wipes } => {
                    scene.ca_crt = Some(POOL[ca].pem.clone().into_bytes());
                    scene.tls_crt = Some(LEAFS[ca].clone());
                    if wipes {
                        scene.record = None;
                    }
                }
                Event::Distrust(ca) => scene.distrust.push(NAMES[ca]),
                Event::Clock(hours) => scene.now += SignedDuration::from_hours(hours),
                Event::Retire => drop(scene.repair("")),
                Event::Repair(ref cas) => {
                    let names: Vec<_> = cas.iter().map(|ca| NAMES[*ca]).collect();
                    repair_is_lawful(&mut scene, &names.join(" "), keep)?;
                }
            }
            carried_is_bounded(&scene)?;
            if matches!(event, Event::Repair(_) | Event::Retire) {
                nothing_over_stays(&scene)?;
            }
        }
    }
}

fn repair_is_lawful(scene: &mut Scene, names: &str, keep: usize) -> Result<(), TestCaseError> {
    let carried = |scene: &Scene| scene.record.as_ref().map_or(0, |r| r.entries().len());
    scene.repair("");
    let (before, already) = (scene.ca_crt.clone().unwrap(), carried(scene));
    let decision = scene.repair(names);
    let after = scene.ca_crt.clone().unwrap();
    prop_assert!(after.starts_with(&before), "what is there stays, to the byte");
    prop_assert!(decision.appended == 0 || carried(scene) <= keep, "no more than keep");
    prop_assert_eq!(carried(scene), already + decision.appended);
    let settings = scene.settings();
    for certificate in Bundle::parse(&after[before.len()..], 100).unwrap().certificates() {
        prop_assert!(!certificate.is_expired(scene.now));
        prop_assert!(!settings.distrust.contains(&certificate.fingerprint()));
        let entry = scene.record.as_ref().unwrap().entry(certificate.fingerprint()).copied();
        let until = entry.and_then(|entry| entry.until);
        prop_assert!(until.is_some_and(|until| until > scene.now), "always with an end");
    }
    let record = scene.record.clone();
    scene.repair(names);
    prop_assert_eq!((&scene.ca_crt, &scene.record), (&Some(after), &record), "once is enough");
    Ok(())
}

/// Each entry of the record, where one is true, is for a certificate after the first.
fn carried_is_bounded(scene: &Scene) -> Result<(), TestCaseError> {
    let stored = Bundle::parse(scene.ca_crt.as_ref().unwrap(), 100).unwrap();
    let first = stored.certificates()[0].fingerprint();
    let carried = stored.certificates().iter().skip(1);
    for certificate in carried {
        let entry = scene.record.as_ref().and_then(|r| r.entry(certificate.fingerprint()));
        prop_assert!(entry.is_some(), "what the generator did not write is in the record");
        prop_assert!(certificate.fingerprint() != first);
    }
    Ok(())
}

/// After an ask nothing is left that is over, save what the Secret's own leaf needs.
fn nothing_over_stays(scene: &Scene) -> Result<(), TestCaseError> {
    let settings = scene.settings();
    let leaf = Bundle::parse(scene.tls_crt.as_ref().unwrap(), 10).unwrap();
    let stored = Bundle::parse(scene.ca_crt.as_ref().unwrap(), 100).unwrap();
    for entry in scene.record.iter().flat_map(Record::entries) {
        let certificate =
            stored.certificates().iter().find(|c| c.fingerprint() == entry.sha256).unwrap();
        prop_assert!(!settings.distrust.contains(&entry.sha256), "nothing distrusted is carried");
        let issued = certificate.subject_key_id() == leaf.certificates()[0].authority_key_id();
        let over = certificate.is_expired(scene.now)
            || entry.is_past_deadline(scene.now, settings.window.length());
        prop_assert!(issued || !over, "nothing stays that is over");
    }
    Ok(())
}
