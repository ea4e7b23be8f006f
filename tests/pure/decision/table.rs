//! Every row of the table in the design (§4.1).

use ca_overlap::overlap::{Case, RecordAfter, Warning};
use jiff::SignedDuration;

use super::secret::{TestSecret, secret};

fn row(secret: TestSecret, incoming: &str, expected: &str, case: Case) -> TestSecret {
    let mut secret = secret;
    let decision = secret.write(incoming);
    assert_eq!(secret.shows(), expected);
    assert_eq!(decision.case, case);
    secret
}

#[test]
fn a_rotation_carries_the_previous_ca_and_no_older_one() {
    let mut secret = row(secret("CA1"), "CA2", "CA2 CA1*", Case::Rotation);
    for (incoming, expected) in [("CA3", "CA3 CA2*"), ("CA4", "CA4 CA3*")] {
        let decision = secret.write(incoming);
        assert_eq!((secret.shows().as_str(), decision.case), (expected, Case::Rotation));
    }
}

#[test]
fn a_reapply_results_in_exactly_the_stored_bytes() {
    let mut secret = secret("CA2 CA1*");
    let (bytes, record) = (secret.ca_crt.clone(), secret.record.clone());
    assert_eq!(secret.write("CA2").case, Case::Same);
    assert_eq!((secret.ca_crt, secret.record), (bytes, record));
}

#[test]
fn keep_two_carries_two() {
    let mut secret = secret("CA2 CA1*");
    secret.keep = "2";
    row(secret, "CA3", "CA3 CA2* CA1*", Case::Rotation);
}

#[test]
fn a_rollback_carries_the_ca_whose_leaves_are_in_use() {
    row(secret("CA2 CA1*"), "CA1", "CA1 CA2*", Case::Rollback);
}

#[test]
fn an_echo_stays_carried_with_its_dates() {
    // The comment makes the bytes differ from the stored ones, so that the write is decided.
    let mut secret = secret("CA2 CA1*");
    let record = secret.record.clone();
    let echo = format!("# exported\n{}", secret.pem("CA2 CA1"));
    let decision = secret.write_bytes(echo.as_bytes(), None);
    assert_eq!((decision.case, decision.ca_crt), (Case::Same, None));
    assert_eq!(secret.shows(), "CA2 CA1*");
    assert_eq!(secret.record, record);
}

#[test]
fn a_generators_own_retirement_is_respected() {
    let mut secret = row(secret("CA1"), "CA1 CA2", "CA1 CA2", Case::Same);
    assert_eq!(secret.write("CA2").case, Case::Retirement);
    assert_eq!(secret.shows(), "CA2");
}

#[test]
fn the_write_of_a_generator_that_bundles_is_left_as_written() {
    row(secret("CA2 CA1"), "CA3 CA2", "CA3 CA2", Case::Retirement);
    row(secret("CA2 CA1").recorded(), "CA3 CA2", "CA3 CA2", Case::Retirement);
}

#[test]
fn the_active_ca_is_carried_not_the_first() {
    row(secret("X CA2").leaf_by("CA2"), "X CA3", "X CA3 CA2*", Case::Rotation);
}

#[test]
fn without_a_leaf_the_replaced_member_of_a_trust_list_is_carried() {
    row(secret("X CA2"), "X CA3", "X CA3 CA2*", Case::Rotation);
    row(secret("X CA2 CA1*"), "X CA3", "X CA3 CA2*", Case::Rotation);
    row(secret("CA2 X").recorded(), "CA3 X", "CA3 X CA2*", Case::Rotation);
    // A member that is added or removed takes no place.
    row(secret("X CA2").recorded(), "X CA2 CA3", "X CA2 CA3", Case::Same);
    row(secret("X CA2 CA3").recorded(), "X CA2", "X CA2", Case::Retirement);
}

#[test]
fn members_that_are_replaced_at_once_are_carried_as_far_as_keep_allows() {
    let mut one = secret("X CA1 CA2");
    let warnings = one.write("X CA3 CA4").warnings;
    assert_eq!((one.shows().as_str(), warnings), ("X CA3 CA4 CA1*", vec![Warning::KeepTooSmall]));
    let mut two = secret("X CA1 CA2");
    two.keep = "2";
    let warnings = two.write("X CA3 CA4").warnings;
    assert_eq!((two.shows().as_str(), warnings), ("X CA3 CA4 CA1* CA2*", vec![]));
    let mut none = secret("X CA1 CA2");
    none.keep = "0";
    assert_eq!(none.write("X CA3 CA4").warnings, vec![]);
}

#[test]
fn a_carried_ca_that_is_over_is_not_carried_again() {
    let mut secret = secret("CA2 CA1*");
    secret.window = "23h";
    row(secret, "CA2", "CA2", Case::Same);
}

#[test]
fn a_ca_that_the_generator_bundles_becomes_its_own() {
    let secret = row(secret("CA2 CA1*"), "CA3 CA2 CA1", "CA3 CA2 CA1", Case::Same);
    assert!(secret.record.unwrap().is_empty());
}

#[test]
fn the_ca_of_the_served_leaf_is_carried_first() {
    row(secret("CA2 CA1*").leaf_by("CA1"), "CA3", "CA3 CA1*", Case::Rotation);
}

#[test]
fn a_retirement_ends_older_overlaps() {
    let mut secret = row(secret("CA2 CA1*"), "CA2 CA3", "CA2 CA3 CA1*", Case::Same);
    assert_eq!(secret.write("CA3").case, Case::Retirement);
    assert_eq!(secret.shows(), "CA3");
}

#[test]
fn a_chain_counts_as_one() {
    let secret = row(secret("Int1 Root1"), "Int2 Root2", "Int2 Root2 Int1* Root1*", Case::Rotation);
    row(secret, "Int2 Root2", "Int2 Root2 Int1* Root1*", Case::Same);
}

#[test]
fn a_chain_counts_as_one_in_any_order() {
    row(secret("Root1 Int1"), "Root2 Int2", "Root2 Int2 Root1* Int1*", Case::Rotation);
}

#[test]
fn another_encoding_is_the_same_certificate() {
    let mut secret = secret("CA1");
    let ca = secret.get("CA1");
    for text in [
        ca.pem_wrapped(64, "\r\n"),
        ca.pem_wrapped(76, "\n"),
        format!("# comment\n\n{}trailer\n", ca.pem),
        ca.pem.trim_end().to_owned(),
    ] {
        let decision = secret.decide(Some(text.as_bytes()), None);
        assert_eq!((decision.ca_crt, decision.case), (None, Case::FirstContact));
    }
    secret = secret.recorded();
    let text = secret.get("CA1").pem_wrapped(76, "\r\n");
    let decision = secret.decide(Some(text.as_bytes()), None);
    assert_eq!((decision.ca_crt, decision.case), (None, Case::Same));
}

#[test]
fn a_renewal_with_the_same_key_and_subject_is_a_rotation() {
    row(secret("CA1"), "CA1renewed", "CA1renewed CA1*", Case::Rotation);
    // Both certificates have the key that the leaf names.
    let mut secret = secret("CA1").leaf_by("CA1");
    secret.write("CA1renewed");
    assert_eq!(secret.shows(), "CA1renewed CA1*");
}

#[test]
fn garbage_is_stored_as_written_with_a_warning() {
    for garbage in ["", "garbage", "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"]
    {
        let secret = secret("CA2 CA1*");
        let decision = secret.decide(Some(garbage.as_bytes()), None);
        assert_eq!((decision.case, decision.ca_crt), (Case::NotReadable, None));
        assert_eq!(decision.record, RecordAfter::AsStored);
        assert_eq!(decision.warnings, [Warning::IncomingUnreadable]);
    }
}

#[test]
fn stored_garbage_is_not_carried() {
    let mut secret = TestSecret::new();
    secret.ca_crt = Some(b"garbage".to_vec());
    let decision = secret.write("CA2");
    assert_eq!((secret.shows().as_str(), decision.ca_crt), ("CA2", None));
    assert_eq!(decision.warnings, [Warning::StoredUnreadable]);
    assert!(matches!(decision.record, RecordAfter::Set(record) if record.is_empty()));
}

#[test]
fn filling_an_empty_ca_crt_gives_no_warning() {
    let mut secret = TestSecret::new();
    secret.ca_crt = Some(Vec::new());
    let decision = secret.write("CA1");
    assert_eq!((secret.shows().as_str(), decision.warnings.as_slice()), ("CA1", &[][..]));
}

#[test]
fn many_blocks_of_one_certificate_are_not_a_trust_store() {
    let mut secret = secret("CA1");
    let doubled = secret.pem("CA2").repeat(128);
    assert_eq!(secret.write_bytes(doubled.as_bytes(), None).case, Case::Rotation);
    let stored = secret.ca_crt.clone();
    assert_eq!(secret.write_bytes(doubled.as_bytes(), None).case, Case::Same);
    assert_eq!(secret.ca_crt, stored);
}

#[test]
fn more_than_64_certificates_are_a_trust_store() {
    let many: Vec<_> = (0..65).map(|_| devtools::certs::ca().pem).collect();
    let mut secret = secret("CA1");
    let decision = secret.decide(Some(many.concat().as_bytes()), None);
    assert_eq!((decision.case, decision.ca_crt), (Case::TrustStore, None));
    // 64 are a rotation, and a re-apply of them is stable although 65 are stored.
    let just_fits = many[..64].concat();
    assert_eq!(secret.write_bytes(just_fits.as_bytes(), None).case, Case::Rotation);
    let stored = secret.ca_crt.clone();
    assert_eq!(secret.write_bytes(just_fits.as_bytes(), None).case, Case::Same);
    assert_eq!(secret.ca_crt, stored);
    assert!(secret.shows().ends_with("CA1*"));
    // So is an echo, in which 64 are the generator's own.
    let echo = [b"# exported\n", stored.unwrap().as_slice()].concat();
    assert_eq!(secret.write_bytes(&echo, None).case, Case::Same);
    assert!(secret.shows().ends_with("CA1*"));
    // A write that replaces a trust store by one CA carries nothing.
    secret.ca_crt = Some(many.concat().into_bytes());
    assert_eq!(secret.write("CA1").case, Case::TrustStore);
}

#[test]
fn a_stored_bundle_of_more_blocks_than_an_overlap_can_have_is_a_trust_store() {
    // An overlap has at most twice 64 blocks of the generator and 64 that we added.
    for (blocks, case) in [(192, Case::Rotation), (193, Case::TrustStore)] {
        let mut secret = secret("CA1");
        secret.ca_crt = Some(secret.pem("CA1").repeat(blocks).into_bytes());
        assert_eq!(secret.write("CA2").case, case, "{blocks} blocks");
    }
}

#[test]
fn with_little_room_fewer_are_carried() {
    let mut secret = secret("CA2 CA1*");
    secret.keep = "2";
    let one = secret.get("CA2").pem.len();
    secret.room = one + one / 2;
    let decision = secret.write("CA3");
    assert_eq!(secret.shows(), "CA3 CA2*");
    assert_eq!(decision.warnings, [Warning::DataFull]);
    secret.room = one / 2;
    let decision = secret.write("CA4");
    assert_eq!((secret.shows().as_str(), decision.appended), ("CA4", 0));
    assert_eq!(decision.warnings, [Warning::DataFull]);
}

#[test]
fn a_bundle_may_use_the_last_byte() {
    let mut secret = secret("CA1");
    let (incoming, one) = (secret.pem("CA2"), secret.get("CA1").pem.len());
    // A missing final newline is added, and counts.
    for (text, needed) in [(incoming.as_str(), one), (incoming.trim_end(), one + 1)] {
        secret.room = needed - 1;
        assert_eq!(secret.decide(Some(text.as_bytes()), None).appended, 0);
        secret.room = needed;
        let result = secret.decide(Some(text.as_bytes()), None).ca_crt.unwrap();
        assert_eq!(result.len(), text.len() + needed);
    }
}

#[test]
fn without_ca_crt_on_one_side_there_is_nothing_to_overlap() {
    let mut added = TestSecret::new();
    assert_eq!(added.write("CA1").case, Case::NoCa);
    assert_eq!(added.shows(), "CA1");
    assert!(added.record.is_some_and(|record| record.is_empty()));
    let removed = secret("CA2 CA1*").decide(None, None);
    assert_eq!((removed.case, removed.record), (Case::NoCa, RecordAfter::Gone));
}

#[test]
fn at_first_contact_a_ca_that_the_write_drops_is_carried() {
    row(secret("CA2 CA1"), "CA2", "CA2 CA1*", Case::FirstContact);
    row(secret("CA2 CA1"), "CA3", "CA3 CA2*", Case::Rotation);
}

#[test]
fn a_reapply_keeps_the_dates_of_a_carried_ca_and_a_rotation_restarts_them() {
    let mut secret = secret("CA2 CA1*").leaf_by("CA1");
    let day_before = secret.now - SignedDuration::from_hours(24);
    secret.write("CA2");
    assert_eq!(secret.record.as_ref().unwrap().entries()[0].since, day_before);
    secret.window = "48h";
    secret.write("CA3");
    assert_eq!(secret.shows(), "CA3 CA1*");
    let entry = secret.record.as_ref().unwrap().entries()[0];
    assert_eq!(entry.since, secret.now);
    assert_eq!(entry.until, Some(secret.now + SignedDuration::from_hours(48)));
    // Of two carried CAs only the active one gets a new date.
    let mut both = TestSecret::new().stored("CA2 CA1*");
    both.keep = "2";
    both.write("CA3");
    let since: Vec<_> = both.record.unwrap().entries().iter().map(|e| e.since).collect();
    assert_eq!(since, [both.now, day_before]);
}
