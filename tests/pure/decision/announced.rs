//! Announced CAs: the rows of the design's table (§4.1), their end, and what cannot be announced.

use ca_overlap::overlap::announcement::{Announcement, MAX_ANNOUNCED};
use ca_overlap::overlap::record::{Announcer, Record};
use ca_overlap::overlap::{Case, RecordAfter, Warning};
use devtools::certs::{self, CA, Spec};
use jiff::SignedDuration;

use super::secret::{TestSecret, secret};

fn row(mut secret: TestSecret, incoming: &str, expected: &str, case: Case) -> TestSecret {
    let decision = secret.write(incoming);
    assert_eq!((secret.shows().as_str(), decision.case), (expected, case));
    let (bytes, record) = (secret.ca_crt.clone(), secret.record.clone());
    secret.write(incoming);
    assert_eq!((&secret.ca_crt, &secret.record), (&bytes, &record), "a repeated write");
    secret
}

#[test]
fn a_rotation_to_the_announced_ca_carries_the_previous_one() {
    row(secret("CA1 CA2+"), "CA2", "CA2 CA1*", Case::Rotation);
    row(secret("CA1 CA2+").leaf_by("CA1"), "CA2", "CA2 CA1*", Case::Rotation);
    row(secret("CA1 CA2+ CA3+"), "CA2", "CA2 CA1* CA3+", Case::Rotation);
}

#[test]
fn a_rotation_to_announced_cas_alone_notes_since_when_they_were_there() {
    let since = secret("CA1 CA2+").record.unwrap().entries()[0].since;
    let told = |it: &TestSecret| {
        let record = it.record.clone().unwrap();
        let previous = record.entries().iter().filter(|entry| entry.announced.is_none());
        previous.map(|entry| entry.successor_since).collect::<Vec<_>>()
    };
    let mut it = row(secret("CA1 CA2+"), "CA2", "CA2 CA1*", Case::Rotation);
    assert_eq!(told(&it), [Some(since)]);
    it.write_bytes(format!("# again\n{}", it.pem("CA2")).as_bytes(), None);
    assert_eq!(told(&it), [Some(since)]);
    it.write("CA2 CA3");
    assert_eq!(told(&it), [None], "CA3 is new");
    for (stored, incoming) in [("CA1 CA2+", "CA2 CA3"), ("CA2 CA1*", "CA1"), ("CA1", "CA2")] {
        let mut it = secret(stored);
        it.write(incoming);
        assert_eq!(told(&it), [None], "{stored} {incoming}");
    }
    let mut several = secret("CA2 CA1* CA3+");
    several.keep = "2";
    several.write("CA3");
    assert_eq!((several.shows().as_str(), told(&several)), ("CA3 CA2* CA1*", vec![Some(since); 2]));
}

#[test]
fn an_announced_ca_stays_through_other_writes_with_its_dates() {
    let since = secret("CA1 CA2+").record.unwrap().entries()[0].since;
    let after = row(secret("CA1 CA2+"), "CA1", "CA1 CA2+", Case::Same);
    assert_eq!(after.record.unwrap().entries()[0].since, since);
    let after = row(secret("CA1 CA2+"), "CA3", "CA3 CA1* CA2+", Case::Rotation);
    assert_eq!(after.record.unwrap().entries()[1].since, since);
    row(secret("CA3 CA1* CA2+"), "CA4", "CA4 CA3* CA2+", Case::Rotation);
    row(secret("CA2 CA1* CA3+"), "CA1", "CA1 CA2* CA3+", Case::Rollback);
    let mut retired = secret("CA1 X CA2+");
    assert_eq!(retired.write("CA1").case, Case::Retirement);
    assert_eq!(retired.shows(), "CA1 CA2+");
}

#[test]
fn an_echo_of_an_announced_ca_stays_announced() {
    let mut it = secret("CA1 CA2+");
    let text = format!("# read and written back\n{}", it.pem("CA1 CA2"));
    assert_eq!(it.write_bytes(text.as_bytes(), None).case, Case::Same);
    assert_eq!(it.shows(), "CA1 CA2+");
}

#[test]
fn an_announced_ca_does_not_count_towards_keep() {
    let mut several = secret("CA2 CA1* CA3+ CA4+");
    several.keep = "0";
    several.write("CA2");
    assert_eq!(several.shows(), "CA2 CA3+ CA4+");
}

#[test]
fn an_announced_ca_that_issued_the_leaf_stays_announced_until_it_is_taken_back() {
    let mut early = secret("CA1").leaf_by("CA1");
    early.announce = vec![early.announcement("CA2")];
    early.touch();
    let (text, leaf) = (early.pem("CA1"), early.leaf("CA2"));
    early.write_bytes(text.as_bytes(), Some(&leaf));
    assert_eq!(early.shows(), "CA1 CA2+");
    early.announce.clear();
    early.write_bytes(text.as_bytes(), Some(&leaf));
    assert_eq!(early.shows(), "CA1 CA2*");
}

#[test]
fn an_announced_root_is_not_counted_as_the_root_of_a_previous_chain() {
    let mut it = secret("Int1").leaf_by("Int1");
    it.ask_announce("Root1");
    it.write("Int2 Root2");
    assert_eq!(it.shows(), "Int2 Root2 Int1* Root1+");
    row(it, "Int2 Root2", "Int2 Root2 Int1* Root1+", Case::Same);
}

#[test]
fn the_ask_says_the_whole_list_of_the_keeper() {
    let mut it = secret("CA1").leaf_by("CA1");
    assert_eq!(it.ask_announce("CA2 CA3").announced, 2);
    assert_eq!(it.shows(), "CA1 CA2+ CA3+");
    let before = it.record.clone();
    let again = it.ask_announce("CA2 CA3");
    assert_eq!(
        (again.ca_crt, again.record),
        (None, RecordAfter::AsStored),
        "twice changes nothing"
    );
    it.ask_announce("CA3");
    assert_eq!(it.shows(), "CA1 CA3+");
    assert_eq!(it.record.as_ref().unwrap().entries()[0], before.unwrap().entries()[1]);
    it.ask_announce("");
    assert_eq!(it.shows(), "CA1");
}

#[test]
fn what_is_trusted_already_is_not_announced() {
    let mut it = secret("CA2 CA1*");
    it.ask_announce("CA2 CA1");
    assert_eq!(it.shows(), "CA2 CA1*");
}

#[test]
fn a_previous_ca_that_ends_stays_as_long_as_it_is_announced() {
    let mut it = secret("CA2 CA1*");
    it.announce = vec![it.announcement("CA1")];
    it.touch();
    assert_eq!(it.shows(), "CA2 CA1*");
    it.window = "1h";
    let bytes = it.ca_crt.clone();
    it.touch();
    assert_eq!((it.shows().as_str(), &it.ca_crt), ("CA2 CA1+", &bytes));
    it.announce.clear();
    it.touch();
    assert_eq!(it.shows(), "CA2");
}

#[test]
fn the_annotation_of_a_person_and_the_ask_of_the_keeper_end_apart() {
    let mut it = secret("CA1");
    it.ask_announce("CA2");
    it.announce = vec![it.announcement("CA3")];
    assert_eq!(it.touch().announced, 1);
    assert_eq!(it.shows(), "CA1 CA2+ CA3+");
    let by: Vec<_> = it.record.as_ref().unwrap().entries().iter().map(|e| e.announced).collect();
    assert_eq!(by, [Some(Announcer::Keeper), Some(Announcer::Person)]);
    it.ask_announce("");
    assert_eq!(it.shows(), "CA1 CA3+");
    it.announce.clear();
    it.touch();
    assert_eq!(it.shows(), "CA1");
}

#[test]
fn an_announcement_ends_at_its_time_with_any_write() {
    let until = certs::now() + SignedDuration::from_hours(1);
    let mut it = secret("CA1");
    it.announce = vec![Announcement { until: Some(until), ..it.announcement("CA2") }];
    it.window = "1m";
    it.touch();
    it.now = until - SignedDuration::from_secs(1);
    it.touch();
    assert_eq!(it.shows(), "CA1 CA2+", "the window does not limit it");
    it.now = until;
    let again = it.decide(Some(it.pem("CA1").as_bytes()), None);
    assert_eq!((again.ca_crt, again.record), (None, RecordAfter::Set(Record::default())));
    it.touch();
    assert_eq!(it.shows(), "CA1");
}

#[test]
fn a_distrusted_or_expired_ca_is_not_announced() {
    for name in ["CA2", "Expired"] {
        let mut it = secret("CA1");
        it.distrust = vec!["CA2"];
        let decision = it.ask_announce(name);
        assert_eq!((it.shows().as_str(), decision.announced), ("CA1", 0));
        assert_eq!(decision.warnings, [Warning::AnnounceRefused]);
    }
    let mut it = secret("CA1 CA2+");
    it.distrust = vec!["CA2"];
    it.touch();
    assert_eq!(it.shows(), "CA1");
}

#[test]
fn only_a_readable_ca_is_announced_and_at_most_sixteen() {
    let mut it = secret("CA1");
    let leaf = Spec { is_ca: false, ..CA }.self_signed();
    it.announce = vec![Announcement { der: leaf.der.to_vec(), until: None }];
    assert_eq!((it.touch().warnings, it.shows()), (vec![Warning::AnnounceRefused], "CA1".into()));
    it.announce = vec![Announcement { der: b"no certificate".to_vec(), until: None }];
    assert_eq!((it.touch().warnings, it.shows()), (vec![Warning::AnnounceRefused], "CA1".into()));

    let many: Vec<_> = (0..=MAX_ANNOUNCED).map(|_| certs::ca()).collect();
    let of = |ca: &certs::Identity| Announcement { der: ca.der.to_vec(), until: None };
    it.announce = many.iter().take(MAX_ANNOUNCED).map(of).collect();
    assert_eq!((it.touch().announced, it.touch().warnings.len()), (MAX_ANNOUNCED, 0));
    it.announce = many.iter().map(of).collect();
    assert_eq!(it.touch().warnings, [Warning::AnnounceRefused]);
    assert_eq!(it.record.unwrap().entries().len(), MAX_ANNOUNCED);
}

#[test]
fn without_room_nothing_is_announced() {
    let mut it = secret("CA1");
    it.room = it.get("CA2").pem.len() - 1;
    let decision = it.ask_announce("CA2");
    assert_eq!((it.shows().as_str(), decision.warnings), ("CA1", vec![Warning::AnnounceFull]));
    it.room += 1;
    it.ask_announce("CA2");
    assert_eq!(it.shows(), "CA1 CA2+");
    // A previous CA comes before an announced one.
    it.room = it.get("CA1").pem.len();
    let decision = it.write("CA3");
    assert_eq!((it.shows().as_str(), decision.warnings), ("CA3 CA1*", vec![Warning::AnnounceFull]));
}

#[test]
fn an_exempt_secret_is_not_told() {
    let mut it = secret("CA1");
    it.may_change_data = false;
    it.ask_announce("CA2");
    assert_eq!(it.shows(), "CA1");
}

#[test]
fn a_ca_that_both_announce_stays_until_both_take_it_back() {
    for person_first in [true, false] {
        let mut it = secret("CA1");
        it.announce = vec![it.announcement("CA2")];
        it.ask_announce("CA2");
        if person_first {
            it.announce.clear();
            it.touch();
        } else {
            it.ask_announce("");
        }
        assert_eq!(it.shows(), "CA1 CA2+");
        it.announce.clear();
        it.ask_announce("");
        assert_eq!(it.shows(), "CA1");
    }
}

#[test]
fn what_is_taken_back_but_needed_by_the_leaf_is_carried_as_a_previous_ca() {
    let mut it = secret("CA1 CA2+").leaf_by("CA2");
    it.ask_announce("");
    assert_eq!(it.shows(), "CA1 CA2*");
    assert_eq!(it.record.as_ref().unwrap().entries()[0].since, certs::now());
    let (bytes, record) = (it.ca_crt.clone(), it.record.clone());
    it.touch();
    assert_eq!((it.ca_crt, it.record), (bytes, record));
}

/// The leaf went first: the generator drops the CA that its peers know, and must not.
#[test]
fn a_generator_that_goes_on_to_the_announced_ca_of_its_leaf_rotates() {
    row(secret("CA1 CA2+").leaf_by("CA2"), "CA2", "CA2 CA1*", Case::Rotation);
}

#[test]
fn a_member_of_a_list_that_an_announced_ca_replaces_makes_it_the_generators_own() {
    let mut it = secret("CA1 X CA2+");
    assert_eq!(it.write("X CA2").case, Case::Retirement);
    assert_eq!(it.shows(), "X CA2");
    it.ask_announce("");
    assert_eq!(it.shows(), "X CA2");
}

#[test]
fn a_repeated_write_keeps_the_stored_order() {
    let mut it = secret("CA1");
    it.announce = vec![it.announcement("CA3")];
    it.touch();
    it.ask_announce("CA2");
    assert_eq!(it.shows(), "CA1 CA3+ CA2+");
    row(it, "CA1", "CA1 CA3+ CA2+", Case::Same);
}

#[test]
fn a_first_ca_crt_is_told_at_once_and_a_trust_store_is_not() {
    let mut it = TestSecret::new();
    it.announce = vec![it.announcement("CA2")];
    assert_eq!(it.write("CA1").case, Case::NoCa);
    assert_eq!(it.shows(), "CA1 CA2+");

    let many: String = (0..=ca_overlap::overlap::MAX_OWN).map(|_| certs::ca().pem).collect();
    let mut store = TestSecret::new();
    store.announce = vec![store.announcement("CA2")];
    store.write_bytes(many.as_bytes(), None);
    let decision = store.write_bytes(many.as_bytes(), None);
    assert_eq!((decision.ca_crt, decision.warnings), (None, vec![Warning::AnnounceRefused]));
}
