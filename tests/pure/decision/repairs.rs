//! The asks of the keeper: `repair`, and `retire`, for which any write is enough.

use std::sync::{Arc, LazyLock};

use ca_overlap::overlap::ask::Repaired;
use ca_overlap::overlap::record::{Entry, Record};
use ca_overlap::overlap::{MAX_OWN, RecordAfter, Warning};
use ca_overlap::x509::certs::{Bundle, Fingerprint};
use jiff::{SignedDuration, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

use super::secret::{TestSecret, secret};
use crate::readers::odd;
use crate::support::property::config;
use devtools::certs::{self, CA, Identity, Spec};

/// Repairs, and compares what is stored then.
fn repaired(secret: TestSecret, asked: &str, expected: &str, warnings: &[Warning]) -> TestSecret {
    let mut secret = secret;
    let before = secret.ca_crt.clone().unwrap();
    let decision = secret.repair(asked);
    assert_eq!(secret.shows(), expected, "asked for {asked}");
    assert_eq!(decision.warnings, warnings, "asked for {asked}");
    if decision.cut == 0 {
        assert!(secret.ca_crt.as_ref().unwrap().starts_with(&before), "no byte is touched");
    }
    secret
}

fn until(secret: &TestSecret, name: &str) -> Option<Timestamp> {
    secret.record.as_ref()?.entry(Fingerprint::of(&secret.get(name).der))?.until
}

#[test]
fn a_missed_rotation_is_repaired_for_a_day_or_for_the_window() {
    // A PUT of a fresh object has wiped the record.
    let done = repaired(secret("CA2"), "CA1", "CA2 CA1*", &[]);
    assert_eq!(until(&done, "CA1"), Some(done.now + SignedDuration::from_hours(24)));
    // A PATCH has kept it.
    let mut with_record = secret("CA3").recorded();
    with_record.window = "90m";
    let done = repaired(with_record, "CA2", "CA3 CA2*", &[]);
    assert_eq!(until(&done, "CA2"), Some(done.now + SignedDuration::from_mins(90)));
}

#[test]
fn a_repeated_repair_changes_nothing() {
    let mut secret = repaired(secret("CA2"), "CA1", "CA2 CA1*", &[]);
    let (bytes, record) = (secret.ca_crt.clone(), secret.record.clone());
    secret.now += SignedDuration::from_hours(1);
    let decision = secret.repair("CA1");
    assert_eq!((decision.ca_crt, decision.appended, decision.warnings), (None, 0, vec![]));
    assert_eq!((secret.ca_crt, secret.record), (bytes, record));
}

#[test]
fn an_unusable_certificate_is_not_repaired_and_the_keeper_is_told() {
    let incomplete = [Warning::RepairIncomplete];
    repaired(secret("CA2"), "Expired", "CA2", &incomplete);
    let refused = odd::all().into_iter().find(|case| case.flaw.is_some()).unwrap();
    let mut asked = secret("CA2");
    let decision = asked.ask(vec![refused.der.into()]);
    assert_eq!((asked.shows().as_str(), decision.warnings), ("CA2", incomplete.to_vec()));
    repaired(secret("CA2"), "CA2", "CA2", &[]);
    repaired(secret("CA2"), "CA1 CA1", "CA2 CA1*", &[]);
    let mut distrusting = secret("CA2");
    distrusting.distrust = vec!["CA1"];
    repaired(distrusting, "CA1", "CA2", &incomplete);
    let mut left_alone = secret("CA2");
    left_alone.may_change_data = false;
    repaired(left_alone, "CA1", "CA2", &incomplete);
    let mut secret = secret("CA2");
    secret.repair = vec![b"no certificate".to_vec().into(), secret.get("CA1").der.to_vec().into()];
    let (stored, leaf) = (secret.ca_crt.clone().unwrap(), None);
    assert_eq!(secret.write_bytes(&stored, leaf).warnings, incomplete);
    assert_eq!(secret.shows(), "CA2 CA1*");
}

#[test]
fn a_certificate_that_is_readable_only_in_part_is_not_repaired() {
    let mut secret = secret("CA2");
    let mut der = secret.get("X").der.to_vec();
    // The decision itself does not read notBefore.
    let not_before = der.windows(2).position(|head| head == [0x17, 0x0d]).unwrap() + 2;
    der[not_before] = b'x';
    assert!(
        Bundle::parse(certs::pem_of(&der, 64, "\n").as_bytes(), 8).unwrap().certificates().len()
            == 1
    );
    secret.repair = vec![der.into()];
    let stored = secret.ca_crt.clone().unwrap();
    let decision = secret.write_bytes(&stored, None);
    assert_eq!((decision.appended, decision.warnings), (0, vec![Warning::RepairIncomplete]));
}

#[test]
fn carried_certificates_count_toward_keep() {
    let incomplete = [Warning::RepairIncomplete];
    repaired(secret("CA3 CA2*"), "CA1", "CA3 CA2*", &incomplete);
    repaired(secret("CA3"), "CA2 CA1", "CA3 CA2*", &incomplete);
    let mut two = secret("CA3 CA2*");
    two.keep = "2";
    repaired(two, "CA1 CA4", "CA3 CA2* CA1*", &incomplete);
    let mut none = secret("CA3");
    none.keep = "0";
    repaired(none, "CA2", "CA3", &incomplete);
    repaired(secret("CA3"), "Int1 Root1", "CA3 Int1* Root1*", &[]);
    repaired(secret("CA3 Int1*"), "Root1", "CA3 Int1* Root1*", &[]);
    // A certificate that has ended makes room.
    let mut over = secret("CA3 CA2*");
    over.window = "23h";
    repaired(over, "CA1", "CA3 CA1*", &[]);
}

#[test]
fn a_repair_follows_the_dates_of_the_record() {
    // A PATCH of ca.crt while the webhook was down: the record is there, the certificate is not.
    let lost = || {
        let mut secret = secret("CA2 CA1*");
        secret.ca_crt = Some(secret.pem("CA2").into_bytes());
        secret
    };
    let mut over = lost();
    over.window = "23h";
    repaired(over, "CA1", "CA2", &[Warning::RepairIncomplete]);
    let done = repaired(lost(), "CA1", "CA2 CA1*", &[]);
    let entry =
        *done.record.as_ref().unwrap().entry(Fingerprint::of(&done.get("CA1").der)).unwrap();
    assert_eq!(entry.since, done.now - SignedDuration::from_hours(24));
    assert_eq!(entry.until, Some(done.now + SignedDuration::from_hours(24)));
    // An earlier `until` is kept.
    let mut short = lost();
    let mut entries = short.record.take().unwrap().entries().to_vec();
    entries[0].until = Some(short.now + SignedDuration::from_mins(5));
    short.record = Some(Record::new(entries));
    let done = repaired(short, "CA1", "CA2 CA1*", &[]);
    assert_eq!(until(&done, "CA1"), Some(done.now + SignedDuration::from_mins(5)));
}

/// These certificates with the dates of a record of a day ago.
fn dated(secret: &TestSecret, names: &str, until: Option<Timestamp>) -> Vec<Repaired> {
    let entries = secret.entries(names).into_iter();
    let certificates = names.split_whitespace().map(|name| name.trim_end_matches('*'));
    let dated = |(name, entry)| Repaired {
        der: secret.get(name).der.to_vec(),
        entry: Some(Entry { until, ..entry }),
    };
    certificates.zip(entries).map(dated).collect()
}

#[test]
fn without_a_record_a_repair_follows_the_remembered_dates() {
    let mut lost = secret("CA2");
    let end = lost.now + SignedDuration::from_mins(5);
    let decision = lost.ask(dated(&lost, "CA1*", Some(end)));
    assert_eq!((lost.shows().as_str(), decision.appended), ("CA2 CA1*", 1));
    assert_eq!(until(&lost, "CA1"), Some(end), "a new object is no new window");

    let mut open = secret("CA2");
    open.ask(dated(&open, "CA1*", None));
    assert_eq!(until(&open, "CA1"), Some(open.now + SignedDuration::from_hours(24)));

    for (until, window) in [(Some(end - SignedDuration::from_mins(6)), "none"), (None, "23h")] {
        let mut over = secret("CA2");
        over.window = window;
        let decision = over.ask(dated(&over, "CA1*", until));
        assert_eq!((over.shows().as_str(), decision.appended), ("CA2", 0));
        assert_eq!(decision.warnings, [Warning::RepairIncomplete]);
    }

    // The record overrides the keeper's memory.
    let mut listed = secret("CA2 CA1*");
    listed.ca_crt = Some(listed.pem("CA2").into_bytes());
    listed.ask(dated(&listed, "CA1*", Some(end)));
    assert_ne!(until(&listed, "CA1"), Some(end));
}

#[test]
fn a_repair_records_a_stored_ca_again_and_it_ends() {
    let mut wiped = secret("CA2 CA1");
    let end = wiped.now + SignedDuration::from_mins(5);
    let decision = wiped.ask(dated(&wiped, "CA1*", Some(end)));
    assert_eq!((decision.ca_crt, decision.appended, decision.warnings), (None, 0, vec![]));
    assert_eq!(wiped.shows(), "CA2 CA1*");
    assert_eq!(until(&wiped, "CA1"), Some(end));
    wiped.now = end;
    wiped.repair("");
    assert_eq!(wiped.shows(), "CA2");

    // The first certificate is the generator's own, and so is one without dates.
    let mut own = secret("CA1 CA2");
    own.ask(dated(&own, "CA1*", None));
    own.repair("CA2");
    assert_eq!(own.shows(), "CA1 CA2");
    let mut left_alone = secret("CA2 CA1");
    left_alone.may_change_data = false;
    left_alone.ask(dated(&left_alone, "CA1*", None));
    assert_eq!(left_alone.shows(), "CA2 CA1");
    // A certificate that this write cuts is not carried again by it.
    let mut over = secret("CA2 CA1*");
    over.window = "23h";
    over.ask(dated(&over, "CA1*", None));
    assert_eq!(over.shows(), "CA2");
}

#[test]
fn a_repair_stays_within_the_room() {
    let size = secret("CA1").ca_crt.unwrap().len();
    for (room, expected) in [(size / 2, "CA3"), (size + size / 2, "CA3 CA2*")] {
        let mut tight = secret("CA3");
        (tight.keep, tight.room) = ("2", room);
        let decision = tight.repair("CA2 CA1");
        assert_eq!(tight.shows(), expected);
        assert!(decision.warnings.contains(&Warning::RepairIncomplete));
        assert!(decision.ca_crt.is_none_or(|bytes| bytes.len() <= size + room));
    }
    // Two are carried although keep is 1: the issuer of the first may be added if it fits.
    let mut lowered = secret("CA3 Int1* CA1*");
    lowered.room = size / 2;
    let decision = lowered.repair("Root1");
    assert_eq!((lowered.shows().as_str(), decision.appended), ("CA3 Int1* CA1*", 0));
}

#[test]
fn a_certificate_cut_by_a_repair_makes_room_for_another() {
    let mut full = secret("CA3 CA2*");
    (full.window, full.keep, full.room) = ("23h", "2", 64);
    let decision = full.repair("CA1 CA4");
    assert_eq!((full.shows().as_str(), decision.appended), ("CA3 CA1*", 1), "room for one");
    assert!(decision.warnings.contains(&Warning::RepairIncomplete));
}

#[test]
fn a_repair_may_use_the_last_byte() {
    // One byte is reserved for a final newline that may be missing.
    for (more, expected) in [(0, "CA2"), (1, "CA2 CA1*")] {
        let mut tight = secret("CA2");
        tight.room = tight.pem("CA1").len() + more;
        tight.repair("CA1");
        assert_eq!(tight.shows(), expected, "{more}");
    }
}

#[test]
fn chains_include_stored_links_and_exclude_those_that_are_over() {
    let incomplete = [Warning::RepairIncomplete];
    let sub = |secret: &TestSecret| Spec { subject: "Sub", ..CA }.signed_by(secret.get("Int1"));
    // The generator's own intermediate links the two into one chain: `keep` is 1.
    let mut own = secret("CA2 Int1");
    own.add("Sub", sub(&own));
    repaired(own, "Sub Root1", "CA2 Int1 Sub* Root1*", &[]);
    let mut over = secret("CA2");
    over.add("Sub", sub(&over));
    over.distrust = vec!["Int1"];
    repaired(over, "Int1 Sub Root1", "CA2 Sub*", &incomplete);
}

#[test]
fn a_since_date_in_the_future_becomes_now() {
    let mut lost = secret("CA2");
    let mut repair = dated(&lost, "CA1*", None);
    repair[0].entry.as_mut().unwrap().since = lost.now + SignedDuration::from_hours(1);
    lost.ask(repair);
    let record = lost.record.clone().unwrap();
    let entry = record.entry(Fingerprint::of(&lost.get("CA1").der)).unwrap();
    assert_eq!(entry.since, lost.now);
}

#[test]
fn carried_certificates_do_not_count_toward_a_trust_store() {
    for (own, expected) in [(MAX_OWN, 1), (MAX_OWN + 1, 0)] {
        let mut secret = secret("CA2 CA1*");
        secret.keep = "2";
        let own: String = (0..own).map(|_| certs::ca().pem).collect();
        secret.ca_crt = Some((own + &secret.pem("CA1")).into_bytes());
        assert_eq!(secret.repair("CA3").appended, expected);
    }
}

#[test]
fn an_unreadable_ca_crt_and_a_trust_store_are_not_repaired() {
    let many: String = (0..65).map(|_| certs::ca().pem).collect();
    for text in ["garbage".to_owned(), String::new(), many] {
        let mut secret = secret("CA2");
        secret.ca_crt = Some(text.clone().into_bytes());
        let decision = secret.repair("CA1");
        assert_eq!((decision.ca_crt, decision.warnings), (None, vec![Warning::RepairIncomplete]));
        assert_eq!(decision.record, RecordAfter::Gone);
    }
}

#[test]
fn a_repair_adds_a_missing_final_newline() {
    let mut secret = secret("CA2");
    secret.ca_crt = Some(secret.pem("CA2").trim_end().into());
    secret.repair("CA1");
    assert_eq!(secret.ca_crt.clone().unwrap(), secret.pem("CA2 CA1").into_bytes());
}

/// Six roots of one subject, one of which expires within a history.
static POOL: LazyLock<Vec<Arc<Identity>>> = LazyLock::new(|| {
    let mut pool: Vec<_> = (0..5).map(|_| Arc::new(certs::ca())).collect();
    pool.push(Arc::new(Spec { not_after: (2026, 3, 2), ..CA }.self_signed()));
    pool
});

const NAMES: [&str; 6] = ["P0", "P1", "P2", "P3", "P4", "P5"];

/// An event of a history.
#[derive(Clone, Debug)]
enum Event {
    /// The generator writes a CA and a leaf of it.
    Rotate(usize),
    /// The same while the webhook is down, by a PUT that wipes the record or by a PATCH.
    RotateUnseen { ca: usize, wipes: bool },
    /// The keeper asks to repair these.
    Repair(Vec<usize>),
    /// The keeper asks to retire.
    Retire,
    /// A person distrusts this one.
    Distrust(usize),
    /// The clock moves by so many hours, also back.
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
    #![proptest_config(config(3_000))]

    #[test]
    fn the_laws_of_asks_hold_in_every_history(
        events in vec(event(), 1..12),
        keep in 0..3_usize,
        window in prop_oneof![Just("none"), Just("10h")],
    ) {
        static LEAVES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
            POOL.iter().map(|ca| certs::leaf(ca, true).pem.clone().into_bytes()).collect()
        });
        let mut secret = TestSecret::with(NAMES.into_iter().zip(POOL.iter().cloned()));
        (secret.keep, secret.window) = (["0", "1", "2"][keep], window);
        secret.ca_crt = Some(POOL[0].pem.clone().into_bytes());
        secret.tls_crt = Some(LEAVES[0].clone());
        for event in events {
            match event {
                Event::Rotate(ca) => {
                    let leaf = LEAVES[ca].clone();
                    secret.write_bytes(POOL[ca].pem.as_bytes(), Some(&leaf));
                }
                Event::RotateUnseen { ca, wipes } => {
                    secret.ca_crt = Some(POOL[ca].pem.clone().into_bytes());
                    secret.tls_crt = Some(LEAVES[ca].clone());
                    if wipes {
                        secret.record = None;
                    }
                }
                Event::Distrust(ca) => secret.distrust.push(NAMES[ca]),
                Event::Clock(hours) => secret.now += SignedDuration::from_hours(hours),
                Event::Retire => drop(secret.repair("")),
                Event::Repair(ref cas) => {
                    let names: Vec<_> = cas.iter().map(|ca| NAMES[*ca]).collect();
                    check_repair(&mut secret, &names.join(" "), keep)?;
                }
            }
            all_carried_are_recorded(&secret)?;
            if matches!(event, Event::Repair(_) | Event::Retire) {
                nothing_over_stays(&secret)?;
            }
        }
    }
}

fn check_repair(secret: &mut TestSecret, names: &str, keep: usize) -> Result<(), TestCaseError> {
    let carried = |secret: &TestSecret| secret.record.as_ref().map_or(0, |r| r.entries().len());
    secret.repair("");
    let (before, already) = (secret.ca_crt.clone().unwrap(), carried(secret));
    let decision = secret.repair(names);
    let after = secret.ca_crt.clone().unwrap();
    prop_assert!(after.starts_with(&before), "what is there stays, to the byte");
    prop_assert!(decision.appended == 0 || carried(secret) <= keep, "no more than keep");
    prop_assert_eq!(carried(secret), already + decision.appended);
    let settings = secret.settings();
    for certificate in Bundle::parse(&after[before.len()..], 100).unwrap().certificates() {
        prop_assert!(!certificate.is_expired(secret.now));
        prop_assert!(!settings.distrust.contains(&certificate.fingerprint()));
        let entry = secret.record.as_ref().unwrap().entry(certificate.fingerprint()).copied();
        let until = entry.and_then(|entry| entry.until);
        prop_assert!(until.is_some_and(|until| until > secret.now), "always with an end");
    }
    let record = secret.record.clone();
    secret.repair(names);
    prop_assert_eq!((&secret.ca_crt, &secret.record), (&Some(after), &record), "once is enough");
    Ok(())
}

/// Each certificate after the first is in the record.
fn all_carried_are_recorded(secret: &TestSecret) -> Result<(), TestCaseError> {
    let stored = Bundle::parse(secret.ca_crt.as_ref().unwrap(), 100).unwrap();
    let first = stored.certificates()[0].fingerprint();
    let carried = stored.certificates().iter().skip(1);
    for certificate in carried {
        let entry = secret.record.as_ref().and_then(|r| r.entry(certificate.fingerprint()));
        prop_assert!(entry.is_some(), "what the generator did not write is in the record");
        prop_assert!(certificate.fingerprint() != first);
    }
    Ok(())
}

/// After an ask every carried certificate that has ended is gone, unless the Secret's leaf needs it.
fn nothing_over_stays(secret: &TestSecret) -> Result<(), TestCaseError> {
    let settings = secret.settings();
    let leaf = Bundle::parse(secret.tls_crt.as_ref().unwrap(), 10).unwrap();
    let stored = Bundle::parse(secret.ca_crt.as_ref().unwrap(), 100).unwrap();
    for entry in secret.record.iter().flat_map(Record::entries) {
        let certificate =
            stored.certificates().iter().find(|c| c.fingerprint() == entry.sha256).unwrap();
        prop_assert!(!settings.distrust.contains(&entry.sha256), "nothing distrusted is carried");
        let issued = certificate.subject_key_id() == leaf.certificates()[0].authority_key_id();
        let over = certificate.is_expired(secret.now)
            || entry.is_past_deadline(secret.now, settings.window.length());
        prop_assert!(issued || !over, "nothing stays that has ended");
    }
    Ok(())
}
