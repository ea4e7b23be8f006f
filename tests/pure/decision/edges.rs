//! Edge cases of the decision: leaves, distrust, deadlines, exact bytes, guards.

use ca_overlap::overlap::record::Record;
use ca_overlap::overlap::{Case, RecordAfter, Warning};
use ca_overlap::x509::certs::Certificate;
use ca_overlap::x509::pem;
use jiff::SignedDuration;

use super::secret::{TestSecret, secret};
use devtools::certs::{self, CA, Spec};

#[test]
fn a_missing_final_newline_does_not_join_two_blocks() {
    let mut secret = secret("CA1");
    let incoming = secret.pem("CA2").trim_end().to_owned();
    secret.write_bytes(incoming.as_bytes(), None);
    let stored = String::from_utf8(secret.ca_crt.clone().unwrap()).unwrap();
    assert_eq!(stored, format!("{incoming}\n{}", secret.pem("CA1")));
    let before = secret.ca_crt.clone();
    secret.write_bytes(incoming.as_bytes(), None);
    assert_eq!(secret.ca_crt, before);
}

#[test]
fn only_plain_certificate_blocks_are_carried() {
    let mut secret = secret("CA1");
    let key = "-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n";
    let headers = secret.pem("X").replace("CERTIFICATE-----\nM", "CERTIFICATE-----\nA: b\n\nM");
    let trusted = secret.pem("CA3").replace("CERTIFICATE", "TRUSTED CERTIFICATE");
    secret.ca_crt = Some(format!("{key}{headers}{trusted}{}", secret.pem("CA1")).into_bytes());
    secret.keep = "8";
    let decision = secret.write("CA2");
    let stored = String::from_utf8(secret.ca_crt.clone().unwrap()).unwrap();
    assert_eq!(stored, secret.pem("CA2 CA1"));
    assert_eq!(decision.warnings, [Warning::StoredUnreadable]);
}

#[test]
fn a_certificate_under_another_label_is_not_carried_and_a_warning_says_so() {
    for label in ["TRUSTED CERTIFICATE", "X509 CERTIFICATE"] {
        let mut secret = secret("CA1");
        let other = secret.pem("X").replace("CERTIFICATE", label);
        secret.ca_crt = Some(format!("{}{other}", secret.pem("CA1")).into_bytes());
        secret.keep = "2";
        let decision = secret.write("CA2");
        assert_eq!(secret.shows(), "CA2 CA1*");
        assert_eq!(decision.warnings, [Warning::StoredUnreadable], "{label}");
    }
}

#[test]
fn a_certificate_whose_key_is_damaged_is_never_carried() {
    let mut secret = secret("CA1");
    let mut der = pem::blocks(secret.pem("X").as_bytes()).next().unwrap().contents().unwrap();
    let curve: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let at = der.windows(curve.len()).position(|w| w == curve).unwrap() + curve.len();
    assert_eq!(der[at], 0x03, "the key is a bit string");
    der[at] = 0x04;
    let mut torn = Vec::new();
    pem::encode_certificate(&der, &mut torn);
    assert!(Certificate::from_der(der).is_none());
    secret.ca_crt = Some([secret.pem("CA1").as_bytes(), &torn].concat());
    secret.keep = "2";
    let decision = secret.write("CA2");
    assert_eq!(secret.shows(), "CA2 CA1*");
    assert_eq!(decision.warnings, [Warning::StoredUnreadable]);
}

#[test]
fn an_unterminated_block_does_not_hide_the_carried_ca() {
    let mut secret = secret("CA1");
    let torn = format!("{}-----BEGIN CERTIFICATE-----\nQUJD\n", secret.pem("CA2"));
    secret.write_bytes(torn.as_bytes(), None);
    assert_eq!(secret.shows(), "CA2 CA1*");
    let before = secret.ca_crt.clone();
    secret.write_bytes(torn.as_bytes(), None);
    assert_eq!(secret.ca_crt, before);
}

#[test]
fn a_ca_is_not_carried_from_the_second_of_its_expiry() {
    let mut secret = secret("Expired");
    let decision = secret.write("CA2");
    assert_eq!((secret.shows().as_str(), decision.appended), ("CA2", 0));
    let mut secret = TestSecret::new().stored("CA1");
    secret.now = "2089-12-31T23:59:59Z".parse().unwrap();
    assert_eq!(secret.decide(Some(secret.pem("CA2").as_bytes()), None).appended, 1);
    secret.now = "2090-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(secret.decide(Some(secret.pem("CA2").as_bytes()), None).appended, 0);
}

#[test]
fn keep_zero_carries_nothing() {
    let mut secret = secret("CA1");
    secret.keep = "0";
    secret.write("CA2");
    assert_eq!(secret.shows(), "CA2");
}

#[test]
fn a_distrusted_ca_is_never_carried_and_an_own_one_stays_with_a_warning() {
    let mut secret = secret("CA1");
    secret.distrust = vec!["CA1"];
    secret.write("CA2");
    assert_eq!(secret.shows(), "CA2");
    let decision = secret.write("CA1");
    assert_eq!(decision.warnings, [Warning::DistrustedOwn]);
    assert!(secret.shows().starts_with("CA1"));
}

#[test]
fn distrust_acts_at_once_even_on_a_ca_that_the_leaf_needs() {
    let mut secret = secret("CA2 CA1*").leaf_by("CA1");
    secret.distrust = vec!["CA1"];
    let decision = secret.write("CA2 CA1");
    assert_eq!((decision.case, decision.cut), (Case::Unchanged, 1));
    assert_eq!(secret.shows(), "CA2");
    assert!(secret.record.unwrap().is_empty());
}

#[test]
fn a_shorter_window_acts_at_once_and_every_other_byte_stays() {
    let mut secret = secret("CA2 CA1*");
    let (head, tail) = (format!("# by hand\r\n{}", secret.pem("CA2")), "# end, no newline");
    let text = format!("{head}{}{tail}", secret.pem("CA1"));
    secret.ca_crt = Some(text.clone().into_bytes());
    secret.window = "25h";
    assert_eq!(secret.write_bytes(text.as_bytes(), None).ca_crt, None);
    secret.window = "24h";
    let decision = secret.write_bytes(text.as_bytes(), None);
    assert_eq!(decision.ca_crt.unwrap(), format!("{head}{tail}").into_bytes());
}

#[test]
fn a_deadline_does_not_cut_a_ca_that_the_leaf_needs() {
    let mut needed = secret("CA2 CA1*").leaf_by("CA1");
    needed.window = "1h";
    let decision = needed.write("CA2 CA1");
    assert_eq!((decision.ca_crt, decision.record), (None, RecordAfter::AsStored));
    // The leaf needs only one of the two, so the other is cut.
    let mut one = TestSecret::new();
    one = one.stored("CA2 CA1*").leaf_by("CA2");
    one.window = "1h";
    one.write("CA2 CA1");
    assert_eq!(one.shows(), "CA2");
}

#[test]
fn a_needed_intermediate_keeps_its_root() {
    let mut secret = secret("CA2 Int1* Root1*").leaf_by("Int1");
    secret.window = "1h";
    secret.write("CA2 Int1 Root1");
    assert_eq!(secret.shows(), "CA2 Int1* Root1*");
    secret.distrust = vec!["Root1"];
    secret.write("CA2 Int1 Root1");
    assert_eq!(secret.shows(), "CA2 Int1*");
}

#[test]
fn a_distrusted_intermediate_does_not_keep_its_root() {
    let mut secret = secret("CA2 Int1* Root1*").leaf_by("Int1");
    secret.window = "1h";
    secret.distrust = vec!["Int1"];
    secret.write("CA2 Int1 Root1");
    assert_eq!(secret.shows(), "CA2");
}

#[test]
fn the_issuer_of_the_incoming_leaf_is_carried_even_after_its_deadline() {
    // The CA was renewed before its leaf.
    let mut secret = secret("CA2 X* CA1*").leaf_by("CA1");
    secret.window = "1h";
    secret.write("CA2");
    assert_eq!(secret.shows(), "CA2 CA1*");
    // A retirement carries it, too.
    let mut retiring = TestSecret::new().stored("CA1 CA2").recorded().leaf_by("CA1");
    assert_eq!(retiring.write("CA2").case, Case::Retirement);
    assert_eq!(retiring.shows(), "CA2 CA1*");
    // A distrusted one is not carried.
    let mut distrusted = TestSecret::new().stored("CA2 CA1*").leaf_by("CA1");
    distrusted.distrust = vec!["CA1"];
    distrusted.write("CA2");
    assert_eq!(distrusted.shows(), "CA2");
}

#[test]
fn without_key_ids_the_signature_identifies_the_issuer() {
    // All CAs have the same subject: only the signature shows that CA2 issued the leaf.
    let mut secret = secret("CA1 CA2");
    secret.tls_crt = Some(certs::leaf(secret.get("CA2"), false).pem.clone().into_bytes());
    let incoming = secret.pem("CA1 CA3");
    let leaf = certs::leaf(secret.get("CA3"), false).pem;
    let decision = secret.write_bytes(incoming.as_bytes(), Some(leaf.as_bytes()));
    assert_eq!(decision.case, Case::Rotation);
    assert_eq!(secret.shows(), "CA1 CA3 CA2*");
}

#[test]
fn an_intermediate_in_the_outgoing_chain_makes_its_root_active() {
    let mut secret = secret("X Root1");
    let chain = format!("{}{}", certs::leaf(secret.get("Int1"), true).pem, secret.pem("Int1"));
    secret.tls_crt = Some(chain.into_bytes());
    assert_eq!(secret.write_bytes(secret.pem("X Root2").as_bytes(), None).case, Case::Rotation);
    assert_eq!(secret.shows(), "X Root2 Root1*");
}

#[test]
fn a_self_signed_leaf_that_is_its_own_anchor_is_bundled() {
    let mut secret = secret("CA1");
    for name in ["Old", "New"] {
        secret.add(name, Spec { is_ca: false, subject: "serving", ..CA }.self_signed());
    }
    let (old, new) = (secret.pem("Old"), secret.pem("New"));
    secret.ca_crt = Some(old.clone().into_bytes());
    secret.tls_crt = Some(old.into_bytes());
    secret.write_bytes(new.as_bytes(), Some(new.as_bytes()));
    assert_eq!(secret.shows(), "New Old*");
}

#[test]
fn cas_with_the_same_subject_and_serial_are_told_apart() {
    // OPA's cert-controller makes such CAs.
    let mut secret = secret("CA1");
    for name in ["A", "B"] {
        secret.add(name, Spec { serial: Some(0), ..CA }.self_signed());
    }
    secret.ca_crt = Some(secret.pem("A").into_bytes());
    secret.write("B");
    assert_eq!(secret.shows(), "B A*");
}

#[test]
fn two_intermediates_of_one_root_are_two_chains() {
    let mut secret = secret("CA1");
    let second = Spec { subject: "Int1b", ..CA }.signed_by(secret.get("Root1"));
    secret.add("Int1b", second);
    secret.ca_crt = Some(secret.pem("Int1 Int1b Root1").into_bytes());
    secret.write("Int2 Root2");
    assert_eq!(secret.shows(), "Int2 Root2 Int1* Root1*");
    secret.keep = "2";
    secret.ca_crt = Some(secret.pem("Int1 Int1b Root1").into_bytes());
    secret.record = None;
    secret.write("Int2 Root2");
    assert_eq!(secret.shows(), "Int2 Root2 Int1* Root1* Int1b*");
}

#[test]
fn a_chain_whose_root_stays_carries_only_the_missing_links() {
    let mut secret = secret("CA1");
    let second = Spec { subject: "Int1b", ..CA }.signed_by(secret.get("Root1"));
    secret.add("Int1b", second);
    secret.ca_crt = Some(secret.pem("Int1 Root1").into_bytes());
    secret.tls_crt = Some(secret.leaf("Int1"));
    assert_eq!(secret.write_bytes(secret.pem("Int1b Root1").as_bytes(), None).case, Case::Rotation);
    assert_eq!(secret.shows(), "Int1b Root1 Int1*");
}

#[test]
fn a_chain_counts_only_the_links_in_the_result() {
    for stays in [true, false] {
        let mut secret = TestSecret::new();
        let year = if stays { 2030 } else { 2025 };
        let middle = Spec { subject: "Middle", not_after: (year, 1, 1), ..CA }
            .signed_by(secret.get("Root1"));
        let low = Spec { subject: "Low", ..CA }.signed_by(&middle);
        secret.add("Middle", middle);
        secret.add("Low", low);
        let mut secret = secret.stored("Low Middle Root1");
        // An expired link is not carried, so its issuer belongs to another chain, in this write
        // and in each re-apply.
        for _ in 0..2 {
            secret.write(if stays { "CA2 Middle" } else { "CA2" });
            assert_eq!(secret.shows(), if stays { "CA2 Middle Low* Root1*" } else { "CA2 Low*" });
        }
    }
}

#[test]
fn a_cycle_of_cross_signed_cas_counts_as_one_chain() {
    let mut secret = TestSecret::new();
    let named = |subject| Spec { subject, key_ids: false, ..CA };
    let (x, y) = (named("circle x").self_signed(), named("circle y").self_signed());
    secret.add("XbyY", named("circle x").signed_by(&y));
    secret.add("YbyX", named("circle y").signed_by(&x));
    let mut secret = secret.stored("XbyY YbyX CA1 CA2");
    for _ in 0..2 {
        secret.write("CA3");
        assert_eq!(secret.shows(), "CA3 XbyY* YbyX*");
    }
}

#[test]
fn entries_for_the_first_or_an_absent_certificate_do_not_count() {
    let mut secret = secret("CA2 CA1");
    let entries = secret.entries("CA2* CA1* CA4*");
    secret.record = Some(Record::new(entries));
    // The first certificate, CA2, stays the generator's own.
    let decision = secret.write("CA3");
    assert_eq!((decision.case, secret.shows().as_str()), (Case::Rotation, "CA3 CA2*"));
}

#[test]
fn the_first_certificate_is_never_cut() {
    let mut secret = secret("CA2 CA1*");
    let entries = secret.entries("CA2* CA1*");
    secret.record = Some(Record::new(entries));
    secret.window = "1h";
    assert_eq!(secret.write("CA2 CA1").cut, 1);
    assert_eq!(secret.shows(), "CA2");
}

#[test]
fn any_write_corrects_a_record_with_entries_that_do_not_count() {
    let mut secret = secret("CA2 CA1*");
    let entries = secret.entries("CA1* CA4*");
    secret.record = Some(Record::new(entries));
    let decision = secret.write("CA2 CA1");
    assert_eq!((decision.case, decision.ca_crt), (Case::Unchanged, None));
    assert_eq!(secret.record.as_ref().unwrap().entries(), secret.entries("CA1*"));
}

#[test]
fn where_data_is_left_alone_a_record_is_corrected_but_not_begun() {
    let mut off = secret("CA1");
    off.may_change_data = false;
    let decision = off.write("CA2");
    assert_eq!((decision.ca_crt, decision.record), (None, RecordAfter::Gone));
    let mut carrying = secret("CA2 CA1*");
    carrying.may_change_data = false;
    let decision = carrying.write("CA3");
    assert_eq!((carrying.shows().as_str(), decision.appended), ("CA3", 0));
    assert!(carrying.record.is_some_and(|record| record.is_empty()));
    // An unchanged ca.crt is not cut.
    let mut over = secret("CA2 CA1*");
    (over.may_change_data, over.window) = (false, "1h");
    let decision = over.write("CA2 CA1");
    assert_eq!((decision.ca_crt, decision.record), (None, RecordAfter::AsStored));
}

#[test]
fn the_bundles_of_a_generator_that_checks_their_hash_are_left_as_written() {
    // CockroachDB's self-signer writes the new CA first, removes none, and rotates again if a
    // byte has changed.
    let mut secret = secret("CA1");
    for bundle in ["CA2 CA1", "CA3 CA2 CA1", "CA4 CA3 CA2 CA1"] {
        let decision = secret.write(bundle);
        assert_eq!((decision.ca_crt, decision.case), (None, Case::Same));
        assert_eq!(secret.shows(), bundle);
    }
}

#[test]
fn many_look_alike_cas_are_decided_within_the_budget() {
    let key = certs::ca();
    let look_alikes: Vec<_> = (1..=64)
        .map(|serial| {
            Spec { serial: Some(serial), key_ids: false, ..CA }.self_signed_with(&key.key)
        })
        .collect();
    let mut secret = secret("CA1");
    secret.ca_crt =
        Some(look_alikes.iter().map(|one| one.pem.as_str()).collect::<String>().into_bytes());
    let leaves: String = (0..16).map(|_| certs::leaf(&look_alikes[63], false).pem).collect();
    secret.tls_crt = Some(leaves.into_bytes());
    let decision = secret.write("CA2");
    assert_eq!((decision.case, decision.appended), (Case::Rotation, 1));
}

#[test]
fn a_clock_jump_changes_only_what_is_over() {
    let mut secret = secret("CA2 CA1*");
    secret.window = "48h";
    for hours in [-1_000, 23] {
        secret.now = certs::now() + SignedDuration::from_hours(hours);
        assert_eq!(secret.decide(Some(secret.pem("CA2").as_bytes()), None).appended, 1, "{hours}");
    }
    secret.now = certs::now() + SignedDuration::from_hours(24);
    assert_eq!(secret.decide(Some(secret.pem("CA2").as_bytes()), None).appended, 0);
}

#[test]
fn the_order_of_carried_certificates_does_not_depend_on_the_leaf() {
    let mut secret = secret("CA3 CA2* CA1*");
    secret.keep = "2";
    let (bytes, leaf) = (secret.pem("CA3").into_bytes(), secret.leaf("CA1"));
    secret.write_bytes(&bytes, Some(&leaf));
    assert_eq!(secret.shows(), "CA3 CA2* CA1*");
}

#[test]
fn two_chains_that_a_later_certificate_joins_count_as_one() {
    // A root and its renewal are two chains until both have issued the same intermediate.
    let mut secret = TestSecret::new().recorded();
    let renewed = Spec { not_after: (2091, 1, 1), ..CA }.self_signed_with(&secret.get("CA1").key);
    secret.add("Again", renewed);
    secret.add("Int", Spec { subject: "Int", ..CA }.signed_by(secret.get("CA1")));
    secret.keep = "2";
    let mut secret = secret.stored("CA1 Again X Int");
    secret.write("CA2");
    assert_eq!(secret.shows(), "CA2 CA1* Again* X* Int*");
    secret.write("CA2");
    assert_eq!(secret.shows(), "CA2 CA1* Again* X* Int*");
}
