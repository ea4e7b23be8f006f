//! The edges of the decision that hurt: leafs, distrust, deadlines, byte-exactness, guards.

use ca_overlap::overlap::record::Record;
use ca_overlap::overlap::{Case, RecordAfter, Warning};
use ca_overlap::x509::certs::Certificate;
use ca_overlap::x509::pem;
use jiff::SignedDuration;

use super::scene::Scene;
use devtools::certs::{self, CA, Spec};

fn scene(stored: &str) -> Scene {
    Scene::new().stored(stored)
}

#[test]
fn a_missing_final_newline_does_not_glue_blocks_together() {
    let mut scene = scene("CA1");
    let incoming = scene.pem("CA2").trim_end().to_owned();
    scene.write_bytes(incoming.as_bytes(), None);
    let stored = String::from_utf8(scene.ca_crt.clone().unwrap()).unwrap();
    assert_eq!(stored, format!("{incoming}\n{}", scene.pem("CA1")));
    let before = scene.ca_crt.clone();
    scene.write_bytes(incoming.as_bytes(), None);
    assert_eq!(scene.ca_crt, before);
}

#[test]
fn nothing_but_plain_certificates_is_carried() {
    let mut scene = scene("CA1");
    let key = "-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n";
    let headers = scene.pem("X").replace("CERTIFICATE-----\nM", "CERTIFICATE-----\nA: b\n\nM");
    let trusted = scene.pem("CA3").replace("CERTIFICATE", "TRUSTED CERTIFICATE");
    scene.ca_crt = Some(format!("{key}{headers}{trusted}{}", scene.pem("CA1")).into_bytes());
    scene.keep = "8";
    let decision = scene.write("CA2");
    let stored = String::from_utf8(scene.ca_crt.clone().unwrap()).unwrap();
    assert_eq!(stored, scene.pem("CA2 CA1"));
    assert_eq!(decision.warnings, [Warning::StoredUnreadable]);
}

#[test]
fn a_certificate_under_another_label_is_not_carried_and_a_warning_says_so() {
    for label in ["TRUSTED CERTIFICATE", "X509 CERTIFICATE"] {
        let mut scene = scene("CA1");
        let other = scene.pem("X").replace("CERTIFICATE", label);
        scene.ca_crt = Some(format!("{}{other}", scene.pem("CA1")).into_bytes());
        scene.keep = "2";
        let decision = scene.write("CA2");
        assert_eq!(scene.shows(), "CA2 CA1*");
        assert_eq!(decision.warnings, [Warning::StoredUnreadable], "{label}");
    }
}

#[test]
fn a_certificate_whose_key_is_damaged_is_never_carried() {
    let mut scene = scene("CA1");
    let mut der = pem::blocks(scene.pem("X").as_bytes()).next().unwrap().contents().unwrap();
    let curve: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let at = der.windows(curve.len()).position(|w| w == curve).unwrap() + curve.len();
    assert_eq!(der[at], 0x03, "the key is a bit string");
    der[at] = 0x04;
    let mut torn = Vec::new();
    pem::encode_certificate(&der, &mut torn);
    assert!(Certificate::from_der(der).is_none());
    scene.ca_crt = Some([scene.pem("CA1").as_bytes(), &torn].concat());
    scene.keep = "2";
    let decision = scene.write("CA2");
    assert_eq!(scene.shows(), "CA2 CA1*");
    assert_eq!(decision.warnings, [Warning::StoredUnreadable]);
}

#[test]
fn an_unterminated_tail_of_the_write_does_not_hide_what_is_carried() {
    let mut scene = scene("CA1");
    let torn = format!("{}-----BEGIN CERTIFICATE-----\nQUJD\n", scene.pem("CA2"));
    scene.write_bytes(torn.as_bytes(), None);
    assert_eq!(scene.shows(), "CA2 CA1*");
    let before = scene.ca_crt.clone();
    scene.write_bytes(torn.as_bytes(), None);
    assert_eq!(scene.ca_crt, before);
}

#[test]
fn an_expired_ca_is_not_carried_and_its_last_second_counts_as_expired() {
    let mut scene = scene("Expired");
    let decision = scene.write("CA2");
    assert_eq!((scene.shows().as_str(), decision.appended), ("CA2", 0));
    let mut scene = Scene::new().stored("CA1");
    scene.now = "2089-12-31T23:59:59Z".parse().unwrap();
    assert_eq!(scene.decide(Some(scene.pem("CA2").as_bytes()), None).appended, 1);
    scene.now = "2090-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(scene.decide(Some(scene.pem("CA2").as_bytes()), None).appended, 0);
}

#[test]
fn keep_zero_carries_nothing() {
    let mut scene = scene("CA1");
    scene.keep = "0";
    scene.write("CA2");
    assert_eq!(scene.shows(), "CA2");
}

#[test]
fn distrust_is_never_carried_and_a_distrusted_own_stays_with_a_warning() {
    let mut scene = scene("CA1");
    scene.distrust = vec!["CA1"];
    scene.write("CA2");
    assert_eq!(scene.shows(), "CA2");
    let decision = scene.write("CA1");
    assert_eq!(decision.warnings, [Warning::DistrustedOwn]);
    assert!(scene.shows().starts_with("CA1"));
}

#[test]
fn distrust_acts_at_once_on_an_unchanged_ca_crt_even_for_the_needed() {
    let mut scene = scene("CA2 CA1*").leaf_by("CA1");
    scene.distrust = vec!["CA1"];
    let decision = scene.write("CA2 CA1");
    assert_eq!((decision.case, decision.cut), (Case::Unchanged, 1));
    assert_eq!(scene.shows(), "CA2");
    assert!(scene.record.unwrap().is_empty());
}

#[test]
fn a_shorter_window_acts_at_once_and_every_other_byte_stays() {
    let mut scene = scene("CA2 CA1*");
    let (head, tail) = (format!("# by hand\r\n{}", scene.pem("CA2")), "# end, no newline");
    let text = format!("{head}{}{tail}", scene.pem("CA1"));
    scene.ca_crt = Some(text.clone().into_bytes());
    scene.window = "25h";
    assert_eq!(scene.write_bytes(text.as_bytes(), None).ca_crt, None);
    scene.window = "24h";
    let decision = scene.write_bytes(text.as_bytes(), None);
    assert_eq!(decision.ca_crt.unwrap(), format!("{head}{tail}").into_bytes());
}

#[test]
fn what_the_own_leaf_needs_is_not_cut_by_a_deadline() {
    let mut needed = scene("CA2 CA1*").leaf_by("CA1");
    needed.window = "1h";
    let decision = needed.write("CA2 CA1");
    assert_eq!((decision.ca_crt, decision.record), (None, RecordAfter::AsStored));
    // The other one goes, as the leaf needs only one of the two.
    let mut one = Scene::new();
    one = one.stored("CA2 CA1*").leaf_by("CA2");
    one.window = "1h";
    one.write("CA2 CA1");
    assert_eq!(one.shows(), "CA2");
}

#[test]
fn a_needed_intermediate_keeps_its_root() {
    let mut scene = scene("CA2 Int1* Root1*").leaf_by("Int1");
    scene.window = "1h";
    scene.write("CA2 Int1 Root1");
    assert_eq!(scene.shows(), "CA2 Int1* Root1*");
    scene.distrust = vec!["Root1"];
    scene.write("CA2 Int1 Root1");
    assert_eq!(scene.shows(), "CA2 Int1*");
}

#[test]
fn a_distrusted_intermediate_keeps_no_root() {
    let mut scene = scene("CA2 Int1* Root1*").leaf_by("Int1");
    scene.window = "1h";
    scene.distrust = vec!["Int1"];
    scene.write("CA2 Int1 Root1");
    assert_eq!(scene.shows(), "CA2");
}

#[test]
fn the_issuer_of_the_incoming_leaf_is_carried_though_its_deadline_has_passed() {
    // The CA was renewed, the leaf was not.
    let mut scene = scene("CA2 X* CA1*").leaf_by("CA1");
    scene.window = "1h";
    scene.write("CA2");
    assert_eq!(scene.shows(), "CA2 CA1*");
    // Also where the write is a retirement.
    let mut retiring = Scene::new().stored("CA1 CA2").recorded().leaf_by("CA1");
    assert_eq!(retiring.write("CA2").case, Case::Retirement);
    assert_eq!(retiring.shows(), "CA2 CA1*");
    // Not where it is expired or distrusted.
    let mut distrusted = Scene::new().stored("CA2 CA1*").leaf_by("CA1");
    distrusted.distrust = vec!["CA1"];
    distrusted.write("CA2");
    assert_eq!(distrusted.shows(), "CA2");
}

#[test]
fn without_key_ids_the_signature_tells_the_issuer() {
    // All have the same subject; only the signature says that CA2, not CA1, issued the leaf.
    let mut scene = scene("CA1 CA2");
    scene.tls_crt = Some(certs::leaf(scene.get("CA2"), false).pem.clone().into_bytes());
    let incoming = scene.pem("CA1 CA3");
    let leaf = certs::leaf(scene.get("CA3"), false).pem;
    let decision = scene.write_bytes(incoming.as_bytes(), Some(leaf.as_bytes()));
    assert_eq!(decision.case, Case::Rotation);
    assert_eq!(scene.shows(), "CA1 CA3 CA2*");
}

#[test]
fn an_intermediate_in_the_outgoing_chain_makes_its_root_active() {
    let mut scene = scene("X Root1");
    let chain = format!("{}{}", certs::leaf(scene.get("Int1"), true).pem, scene.pem("Int1"));
    scene.tls_crt = Some(chain.into_bytes());
    assert_eq!(scene.write_bytes(scene.pem("X Root2").as_bytes(), None).case, Case::Rotation);
    assert_eq!(scene.shows(), "X Root2 Root1*");
}

#[test]
fn a_self_signed_leaf_that_is_its_own_anchor_is_bundled() {
    let mut scene = scene("CA1");
    for name in ["Old", "New"] {
        scene.add(name, Spec { is_ca: false, subject: "serving", ..CA }.self_signed());
    }
    let (old, new) = (scene.pem("Old"), scene.pem("New"));
    scene.ca_crt = Some(old.clone().into_bytes());
    scene.tls_crt = Some(old.into_bytes());
    scene.write_bytes(new.as_bytes(), Some(new.as_bytes()));
    assert_eq!(scene.shows(), "New Old*");
}

#[test]
fn one_subject_and_serial_for_all_is_no_obstacle() {
    // As OPA's cert-controller makes them.
    let mut scene = scene("CA1");
    for name in ["A", "B"] {
        scene.add(name, Spec { serial: Some(0), ..CA }.self_signed());
    }
    scene.ca_crt = Some(scene.pem("A").into_bytes());
    scene.write("B");
    assert_eq!(scene.shows(), "B A*");
}

#[test]
fn two_intermediates_of_one_root_are_two_chains() {
    let mut scene = scene("CA1");
    let second = Spec { subject: "Int1b", ..CA }.signed_by(scene.get("Root1"));
    scene.add("Int1b", second);
    scene.ca_crt = Some(scene.pem("Int1 Int1b Root1").into_bytes());
    scene.write("Int2 Root2");
    assert_eq!(scene.shows(), "Int2 Root2 Int1* Root1*");
    scene.keep = "2";
    scene.ca_crt = Some(scene.pem("Int1 Int1b Root1").into_bytes());
    scene.record = None;
    scene.write("Int2 Root2");
    assert_eq!(scene.shows(), "Int2 Root2 Int1* Root1* Int1b*");
}

#[test]
fn a_chain_whose_root_stays_brings_only_what_is_missing() {
    let mut scene = scene("CA1");
    let second = Spec { subject: "Int1b", ..CA }.signed_by(scene.get("Root1"));
    scene.add("Int1b", second);
    scene.ca_crt = Some(scene.pem("Int1 Root1").into_bytes());
    scene.tls_crt = Some(scene.leaf("Int1"));
    assert_eq!(scene.write_bytes(scene.pem("Int1b Root1").as_bytes(), None).case, Case::Rotation);
    assert_eq!(scene.shows(), "Int1b Root1 Int1*");
}

#[test]
fn a_chain_is_counted_by_the_links_that_the_result_holds() {
    for stays in [true, false] {
        let mut scene = Scene::new();
        let year = if stays { 2030 } else { 2025 };
        let middle =
            Spec { subject: "Middle", not_after: (year, 1, 1), ..CA }.signed_by(scene.get("Root1"));
        let low = Spec { subject: "Low", ..CA }.signed_by(&middle);
        scene.add("Middle", middle);
        scene.add("Low", low);
        let mut scene = scene.stored("Low Middle Root1");
        // An expired link is not carried; what is above it is another chain then, for this write
        // as for every re-apply.
        for _ in 0..2 {
            scene.write(if stays { "CA2 Middle" } else { "CA2" });
            assert_eq!(scene.shows(), if stays { "CA2 Middle Low* Root1*" } else { "CA2 Low*" });
        }
    }
}

#[test]
fn a_circle_of_cross_signed_cas_counts_as_one() {
    let mut scene = Scene::new();
    let named = |subject| Spec { subject, key_ids: false, ..CA };
    let (x, y) = (named("circle x").self_signed(), named("circle y").self_signed());
    scene.add("XbyY", named("circle x").signed_by(&y));
    scene.add("YbyX", named("circle y").signed_by(&x));
    let mut scene = scene.stored("XbyY YbyX CA1 CA2");
    for _ in 0..2 {
        scene.write("CA3");
        assert_eq!(scene.shows(), "CA3 XbyY* YbyX*");
    }
}

#[test]
fn entries_for_the_first_or_for_absent_certificates_do_not_count() {
    let mut scene = scene("CA2 CA1");
    let entries = scene.entries("CA2* CA1* CA4*");
    scene.record = Some(Record::new(entries));
    // CA2 is the generator's own all the same: without it, it is a retirement of nothing carried.
    let decision = scene.write("CA3");
    assert_eq!((decision.case, scene.shows().as_str()), (Case::Rotation, "CA3 CA2*"));
}

#[test]
fn the_first_certificate_is_never_cut_whatever_the_record_says() {
    let mut scene = scene("CA2 CA1*");
    let entries = scene.entries("CA2* CA1*");
    scene.record = Some(Record::new(entries));
    scene.window = "1h";
    assert_eq!(scene.write("CA2 CA1").cut, 1);
    assert_eq!(scene.shows(), "CA2");
}

#[test]
fn a_record_with_entries_that_do_not_count_is_put_right_by_any_write() {
    let mut scene = scene("CA2 CA1*");
    let entries = scene.entries("CA1* CA4*");
    scene.record = Some(Record::new(entries));
    let decision = scene.write("CA2 CA1");
    assert_eq!((decision.case, decision.ca_crt), (Case::Unchanged, None));
    assert_eq!(scene.record.as_ref().unwrap().entries(), scene.entries("CA1*"));
}

#[test]
fn where_data_is_left_alone_the_record_is_kept_true_but_none_is_begun() {
    let mut off = scene("CA1");
    off.may_change_data = false;
    let decision = off.write("CA2");
    assert_eq!((decision.ca_crt, decision.record), (None, RecordAfter::Gone));
    let mut carrying = scene("CA2 CA1*");
    carrying.may_change_data = false;
    let decision = carrying.write("CA3");
    assert_eq!((carrying.shows().as_str(), decision.appended), ("CA3", 0));
    assert!(carrying.record.is_some_and(|record| record.is_empty()));
    // An unchanged ca.crt is not cut either.
    let mut over = scene("CA2 CA1*");
    (over.may_change_data, over.window) = (false, "1h");
    let decision = over.write("CA2 CA1");
    assert_eq!((decision.ca_crt, decision.record), (None, RecordAfter::AsStored));
}

#[test]
fn the_bundle_of_a_hash_checking_generator_arrives_untouched_over_many_rotations() {
    // CockroachDB's self-signer: new first, never prunes, rotates again if a byte is changed.
    let mut scene = scene("CA1");
    for (bundle, _) in [("CA2 CA1", 0), ("CA3 CA2 CA1", 1), ("CA4 CA3 CA2 CA1", 2)] {
        let decision = scene.write(bundle);
        assert_eq!((decision.ca_crt, decision.case), (None, Case::Same));
        assert_eq!(scene.shows(), bundle);
    }
}

#[test]
fn a_hostile_crowd_of_look_alikes_is_answered_within_the_budget() {
    let key = certs::ca();
    let crowd: Vec<_> = (1..=64)
        .map(|serial| {
            Spec { serial: Some(serial), key_ids: false, ..CA }.self_signed_with(&key.key)
        })
        .collect();
    let mut scene = scene("CA1");
    scene.ca_crt = Some(crowd.iter().map(|one| one.pem.as_str()).collect::<String>().into_bytes());
    let leafs: String = (0..16).map(|_| certs::leaf(&crowd[63], false).pem).collect();
    scene.tls_crt = Some(leafs.into_bytes());
    let decision = scene.write("CA2");
    assert_eq!((decision.case, decision.appended), (Case::Rotation, 1));
}

#[test]
fn a_leap_of_the_clock_only_changes_what_is_over() {
    let mut scene = scene("CA2 CA1*");
    scene.window = "48h";
    for hours in [-1_000, 23] {
        scene.now = certs::now() + SignedDuration::from_hours(hours);
        assert_eq!(scene.decide(Some(scene.pem("CA2").as_bytes()), None).appended, 1, "{hours}");
    }
    scene.now = certs::now() + SignedDuration::from_hours(24);
    assert_eq!(scene.decide(Some(scene.pem("CA2").as_bytes()), None).appended, 0);
}

#[test]
fn what_is_carried_keeps_its_order_whatever_the_leaf_needs() {
    let mut scene = Scene::new().stored("CA3 CA2* CA1*");
    scene.keep = "2";
    let (bytes, leaf) = (scene.pem("CA3").into_bytes(), scene.leaf("CA1"));
    scene.write_bytes(&bytes, Some(&leaf));
    assert_eq!(scene.shows(), "CA3 CA2* CA1*");
}

#[test]
fn chains_that_a_later_one_joins_count_as_one() {
    // A root and its renewal are two chains, until an intermediate comes that both have issued.
    let mut scene = Scene::new().recorded();
    let renewed = Spec { not_after: (2091, 1, 1), ..CA }.self_signed_with(&scene.get("CA1").key);
    scene.add("Again", renewed);
    scene.add("Int", Spec { subject: "Int", ..CA }.signed_by(scene.get("CA1")));
    scene.keep = "2";
    let mut scene = scene.stored("CA1 Again X Int");
    scene.write("CA2");
    assert_eq!(scene.shows(), "CA2 CA1* Again* X* Int*");
    scene.write("CA2");
    assert_eq!(scene.shows(), "CA2 CA1* Again* X* Int*");
}
