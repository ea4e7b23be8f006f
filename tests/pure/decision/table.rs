//! Every row of the table in the design (§4.1).

use ca_overlap::overlap::{Case, RecordAfter, Warning};
use jiff::SignedDuration;

use super::scene::Scene;

fn row(scene: Scene, incoming: &str, expected: &str, case: Case) -> Scene {
    let mut scene = scene;
    let decision = scene.write(incoming);
    assert_eq!(scene.shows(), expected);
    assert_eq!(decision.case, case);
    scene
}

fn scene(stored: &str) -> Scene {
    Scene::new().stored(stored)
}

#[test]
fn a_rotation_keeps_the_previous_ca_and_always_two() {
    let mut scene = row(scene("CA1"), "CA2", "CA2 CA1*", Case::Rotation);
    for (incoming, expected) in [("CA3", "CA3 CA2*"), ("CA4", "CA4 CA3*")] {
        let decision = scene.write(incoming);
        assert_eq!((scene.shows().as_str(), decision.case), (expected, Case::Rotation));
    }
}

#[test]
fn a_reapply_gives_the_stored_bytes_exactly() {
    let mut scene = scene("CA2 CA1*");
    let (bytes, record) = (scene.ca_crt.clone(), scene.record.clone());
    assert_eq!(scene.write("CA2").case, Case::Same);
    assert_eq!((scene.ca_crt, scene.record), (bytes, record));
}

#[test]
fn keep_two_carries_two() {
    let mut scene = scene("CA2 CA1*");
    scene.keep = "2";
    row(scene, "CA3", "CA3 CA2* CA1*", Case::Rotation);
}

#[test]
fn a_rollback_keeps_the_ca_whose_leafs_are_alive() {
    row(scene("CA2 CA1*"), "CA1", "CA1 CA2*", Case::Rollback);
}

#[test]
fn an_echo_stays_carried_with_its_dates() {
    // Other bytes than the stored ones, so that the write is decided anew.
    let mut scene = scene("CA2 CA1*");
    let record = scene.record.clone();
    let echo = format!("# exported\n{}", scene.pem("CA2 CA1"));
    let decision = scene.write_bytes(echo.as_bytes(), None);
    assert_eq!((decision.case, decision.ca_crt), (Case::Same, None));
    assert_eq!(scene.shows(), "CA2 CA1*");
    assert_eq!(scene.record, record);
}

#[test]
fn a_staged_generators_own_retirement_is_respected() {
    let mut scene = row(scene("CA1"), "CA1 CA2", "CA1 CA2", Case::Same);
    assert_eq!(scene.write("CA2").case, Case::Retirement);
    assert_eq!(scene.shows(), "CA2");
}

#[test]
fn a_generator_that_bundles_by_itself_is_left_as_written() {
    row(scene("CA2 CA1"), "CA3 CA2", "CA3 CA2", Case::Retirement);
    row(scene("CA2 CA1").recorded(), "CA3 CA2", "CA3 CA2", Case::Retirement);
}

#[test]
fn the_active_ca_is_carried_not_the_first() {
    row(scene("X CA2").leaf_by("CA2"), "X CA3", "X CA3 CA2*", Case::Rotation);
}

#[test]
fn what_is_over_is_not_carried_again() {
    let mut scene = scene("CA2 CA1*");
    scene.window = "23h";
    row(scene, "CA2", "CA2", Case::Same);
}

#[test]
fn what_the_generator_bundles_by_itself_becomes_its_own() {
    let scene = row(scene("CA2 CA1*"), "CA3 CA2 CA1", "CA3 CA2 CA1", Case::Same);
    assert!(scene.record.unwrap().is_empty());
}

#[test]
fn the_ca_of_the_served_leaf_matters_most() {
    row(scene("CA2 CA1*").leaf_by("CA1"), "CA3", "CA3 CA1*", Case::Rotation);
}

#[test]
fn retirement_ends_older_carries() {
    let mut scene = row(scene("CA2 CA1*"), "CA2 CA3", "CA2 CA3 CA1*", Case::Same);
    assert_eq!(scene.write("CA3").case, Case::Retirement);
    assert_eq!(scene.shows(), "CA3");
}

#[test]
fn a_chain_counts_as_one() {
    let scene = row(scene("Int1 Root1"), "Int2 Root2", "Int2 Root2 Int1* Root1*", Case::Rotation);
    row(scene, "Int2 Root2", "Int2 Root2 Int1* Root1*", Case::Same);
}

#[test]
fn a_chain_counts_as_one_in_any_order() {
    row(scene("Root1 Int1"), "Root2 Int2", "Root2 Int2 Root1* Int1*", Case::Rotation);
}

#[test]
fn another_encoding_is_the_same_certificate() {
    let mut scene = scene("CA1");
    let ca = scene.get("CA1");
    for text in [
        ca.pem_wrapped(64, "\r\n"),
        ca.pem_wrapped(76, "\n"),
        format!("# comment\n\n{}trailer\n", ca.pem),
        ca.pem.trim_end().to_owned(),
    ] {
        let decision = scene.decide(Some(text.as_bytes()), None);
        assert_eq!((decision.ca_crt, decision.case), (None, Case::FirstContact));
    }
    scene = scene.recorded();
    let text = scene.get("CA1").pem_wrapped(76, "\r\n");
    let decision = scene.decide(Some(text.as_bytes()), None);
    assert_eq!((decision.ca_crt, decision.case), (None, Case::Same));
}

#[test]
fn a_renewal_with_the_same_key_and_subject_is_a_rotation() {
    row(scene("CA1"), "CA1renewed", "CA1renewed CA1*", Case::Rotation);
    // The leaf names the key that both certificates have.
    let mut scene = scene("CA1").leaf_by("CA1");
    scene.write("CA1renewed");
    assert_eq!(scene.shows(), "CA1renewed CA1*");
}

#[test]
fn garbage_is_stored_as_written_with_a_warning() {
    for garbage in ["", "garbage", "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"]
    {
        let scene = scene("CA2 CA1*");
        let decision = scene.decide(Some(garbage.as_bytes()), None);
        assert_eq!((decision.case, decision.ca_crt), (Case::NotReadable, None));
        assert_eq!(decision.record, RecordAfter::AsStored);
        assert_eq!(decision.warnings, [Warning::IncomingUnreadable]);
    }
}

#[test]
fn of_stored_garbage_nothing_is_carried() {
    let mut scene = Scene::new();
    scene.ca_crt = Some(b"garbage".to_vec());
    let decision = scene.write("CA2");
    assert_eq!((scene.shows().as_str(), decision.ca_crt), ("CA2", None));
    assert_eq!(decision.warnings, [Warning::StoredUnreadable]);
    assert!(matches!(decision.record, RecordAfter::Set(record) if record.is_empty()));
}

#[test]
fn an_empty_value_that_is_filled_later_is_no_loss() {
    let mut scene = Scene::new();
    scene.ca_crt = Some(Vec::new());
    let decision = scene.write("CA1");
    assert_eq!((scene.shows().as_str(), decision.warnings.as_slice()), ("CA1", &[][..]));
}

#[test]
fn many_blocks_of_few_certificates_are_no_trust_store_either_time() {
    let mut scene = scene("CA1");
    let doubled = scene.pem("CA2").repeat(128);
    assert_eq!(scene.write_bytes(doubled.as_bytes(), None).case, Case::Rotation);
    let stored = scene.ca_crt.clone();
    assert_eq!(scene.write_bytes(doubled.as_bytes(), None).case, Case::Same);
    assert_eq!(scene.ca_crt, stored);
}

#[test]
fn more_than_64_certificates_are_a_trust_store() {
    let many: Vec<_> = (0..65).map(|_| devtools::certs::ca().pem).collect();
    let mut scene = scene("CA1");
    let decision = scene.decide(Some(many.concat().as_bytes()), None);
    assert_eq!((decision.case, decision.ca_crt), (Case::TrustStore, None));
    // 64 are a rotation, and a re-apply of them is stable though 65 are stored then.
    let just_fits = many[..64].concat();
    assert_eq!(scene.write_bytes(just_fits.as_bytes(), None).case, Case::Rotation);
    let stored = scene.ca_crt.clone();
    assert_eq!(scene.write_bytes(just_fits.as_bytes(), None).case, Case::Same);
    assert_eq!(scene.ca_crt, stored);
    assert!(scene.shows().ends_with("CA1*"));
    // So is an echo, of which 64 are the generator's own.
    let echo = [b"# exported\n", stored.unwrap().as_slice()].concat();
    assert_eq!(scene.write_bytes(&echo, None).case, Case::Same);
    assert!(scene.shows().ends_with("CA1*"));
    // From a trust store to one CA: nothing is carried.
    scene.ca_crt = Some(many.concat().into_bytes());
    assert_eq!(scene.write("CA1").case, Case::TrustStore);
}

#[test]
fn a_stored_text_of_more_blocks_than_we_could_have_left_is_a_trust_store() {
    // Twice 64 of the generator's, and 64 that we added.
    for (blocks, case) in [(192, Case::Rotation), (193, Case::TrustStore)] {
        let mut scene = scene("CA1");
        scene.ca_crt = Some(scene.pem("CA1").repeat(blocks).into_bytes());
        assert_eq!(scene.write("CA2").case, case, "{blocks} blocks");
    }
}

#[test]
fn without_room_fewer_are_carried() {
    let mut scene = scene("CA2 CA1*");
    scene.keep = "2";
    let one = scene.get("CA2").pem.len();
    scene.room = one + one / 2;
    let decision = scene.write("CA3");
    assert_eq!(scene.shows(), "CA3 CA2*");
    assert_eq!(decision.warnings, [Warning::DataFull]);
    scene.room = one / 2;
    let decision = scene.write("CA4");
    assert_eq!((scene.shows().as_str(), decision.appended), ("CA4", 0));
    assert_eq!(decision.warnings, [Warning::DataFull]);
}

#[test]
fn room_is_used_to_the_last_byte() {
    let mut scene = scene("CA1");
    let (incoming, one) = (scene.pem("CA2"), scene.get("CA1").pem.len());
    // A final newline that is missing is added, and counts.
    for (text, needed) in [(incoming.as_str(), one), (incoming.trim_end(), one + 1)] {
        scene.room = needed - 1;
        assert_eq!(scene.decide(Some(text.as_bytes()), None).appended, 0);
        scene.room = needed;
        let result = scene.decide(Some(text.as_bytes()), None).ca_crt.unwrap();
        assert_eq!(result.len(), text.len() + needed);
    }
}

#[test]
fn without_ca_crt_on_one_side_there_is_nothing_to_overlap() {
    let mut added = Scene::new();
    assert_eq!(added.write("CA1").case, Case::NoCa);
    assert_eq!(added.shows(), "CA1");
    assert!(added.record.is_some_and(|record| record.is_empty()));
    let removed = scene("CA2 CA1*").decide(None, None);
    assert_eq!((removed.case, removed.record), (Case::NoCa, RecordAfter::Gone));
}

#[test]
fn first_contact_without_a_record_keeps_what_a_shrinking_write_drops() {
    row(scene("CA2 CA1"), "CA2", "CA2 CA1*", Case::FirstContact);
    row(scene("CA2 CA1"), "CA3", "CA3 CA2*", Case::Rotation);
}

#[test]
fn dates_of_a_carry_are_kept_by_a_reapply_and_begin_anew_with_a_rotation() {
    let mut scene = scene("CA2 CA1*").leaf_by("CA1");
    let day_before = scene.now - SignedDuration::from_hours(24);
    scene.write("CA2");
    assert_eq!(scene.record.as_ref().unwrap().entries()[0].since, day_before);
    scene.window = "48h";
    scene.write("CA3");
    assert_eq!(scene.shows(), "CA3 CA1*");
    let entry = scene.record.as_ref().unwrap().entries()[0];
    assert_eq!(entry.since, scene.now);
    assert_eq!(entry.until, Some(scene.now + SignedDuration::from_hours(48)));
    // Of two carried ones, only the active begins anew.
    let mut both = Scene::new().stored("CA2 CA1*");
    both.keep = "2";
    both.write("CA3");
    let since: Vec<_> = both.record.unwrap().entries().iter().map(|e| e.since).collect();
    assert_eq!(since, [both.now, day_before]);
}
