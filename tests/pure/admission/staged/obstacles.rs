//! A write that cannot be staged is bundled with a warning; one that needs no stage, without.

use base64::prelude::*;
use ca_overlap::admission::respond::Answer;
use ca_overlap::overlap::Warning;
use ca_overlap::overlap::staged::KeeperHealth;
use serde_json::{Value, json};

use super::secret::{CAS, GENERATOR, LEAVES, SHORT, TlsSecret, annotate, bundle, fresh, leaf, set};

/// Rotates to CA 2, and gives the warnings. The leaf is in service at once.
fn bundled(mut secret: TlsSecret, object: Value) -> Vec<Warning> {
    let answer = secret.write(object, GENERATOR);
    assert_eq!((secret.waiting(), secret.stage(), answer.staged), (None, None, None));
    assert_eq!(secret.served(), Some(leaf(2)));
    answer.warnings
}

fn refused(edit: impl FnOnce(&mut TlsSecret, &mut Value)) -> Vec<Warning> {
    let (mut secret, mut object) = (TlsSecret::new(leaf(1)), fresh(&[2], leaf(2)));
    edit(&mut secret, &mut object);
    bundled(secret, object)
}

#[test]
fn without_a_live_keeper_nothing_is_staged() {
    assert_eq!(refused(|w, _| w.keeper = KeeperHealth::Absent), [Warning::StagedUnavailable]);
    assert_eq!(refused(|w, _| w.keeper = KeeperHealth::Lost), [Warning::StagedNoKeeper]);
    assert_eq!(refused(|w, _| w.keeper = KeeperHealth::Unknown), [Warning::StagedNoKeeper]);
}

#[test]
fn a_secret_with_other_keys_or_of_cert_manager_is_not_staged() {
    let other = |_: &mut TlsSecret, object: &mut Value| object["data"]["keystore.p12"] = "".into();
    assert_eq!(refused(other), [Warning::StagedOtherKeys]);
    for side in ["stored", "incoming"] {
        let owned = |secret: &mut TlsSecret, object: &mut Value| {
            let target = if side == "stored" { &mut secret.stored } else { object };
            target["metadata"]["annotations"]["cert-manager.io/certificate-name"] = "x".into();
        };
        assert_eq!(refused(owned), [Warning::StagedCertManager], "{side}");
    }
}

#[test]
fn a_pair_whose_held_leaf_expires_soon_is_not_staged() {
    let warnings = bundled(TlsSecret::new(SHORT), fresh(&[2], leaf(2)));
    assert_eq!(warnings, [Warning::StagedLeafExpires]);
    // It must live ten times as long as the keeper waits; it expires in 2090.
    let slow = |w: &mut TlsSecret, _: &mut Value| {
        w.installation.settle = std::time::Duration::from_secs(7 * 365 * 86_400);
    };
    assert_eq!(refused(slow), [Warning::StagedLeafExpires]);
}

#[test]
fn two_pairs_that_do_not_fit_are_not_staged() {
    let mut full = fresh(&[2], leaf(2));
    // The bundle fits to the last byte, so a second pair does not fit.
    let others = CAS[2].pem.len() + CAS[1].pem.len() + LEAVES[leaf(2)].len();
    let key = 1_048_576 - others;
    full["data"]["tls.key"] = BASE64_STANDARD.encode(vec![0; key]).into();
    let mut secret = TlsSecret::new(leaf(1));
    secret.stored["data"]["tls.key"] = BASE64_STANDARD.encode(vec![0; 2_000]).into();
    let answer = secret.write(full.clone(), GENERATOR);
    assert_eq!(answer.warnings, [Warning::StagedNoRoom]);
    assert_eq!(secret.cas().0, [2, 1]);
    assert_eq!(secret.stored["data"]["tls.key"], full["data"]["tls.key"]);
    assert!(secret.stored["data"].get("pending.tls.key").is_none());
}

/// The object with a key of this many bytes.
fn with_key(mut object: Value, bytes: usize) -> Value {
    object["data"]["tls.key"] = BASE64_STANDARD.encode(vec![0; bytes]).into();
    object
}

/// Leaf 3 with a key of 2,000 bytes is in service, and the new pair is so large that `free` bytes
/// are left beside both.
fn nearly_full(free: usize) -> (TlsSecret, Answer) {
    let mut secret = TlsSecret::new(leaf(1));
    secret.stored = with_key(secret.stored, 2_000);
    let taken = CAS[2].pem.len() + LEAVES[leaf(1)].len() + 2_000 + LEAVES[leaf(2)].len();
    let answer = secret.write(with_key(fresh(&[2], leaf(2)), 1_048_576 - taken - free), GENERATOR);
    (secret, answer)
}

#[test]
fn a_bundle_that_does_not_fit_beside_both_pairs_is_not_staged() {
    let (secret, answer) = nearly_full(CAS[1].pem.len() - 1);
    assert_eq!((answer.staged, answer.warnings), (None, vec![Warning::StagedUnverified]));
    assert_eq!(secret.cas().0, [2, 1], "one pair leaves room");
    let (secret, answer) = nearly_full(CAS[1].pem.len());
    assert_eq!((answer.staged, answer.warnings), (Some("begun"), vec![]));
    assert_eq!(secret.cas().0, [2, 1]);
}

#[test]
fn a_pair_that_is_dropped_makes_room_for_the_bundle() {
    let (mut secret, _) = nearly_full(CAS[1].pem.len());
    secret.keeper = KeeperHealth::Lost;
    let answer = secret.patch(|object| object["data"]["ca.crt"] = bundle(&[4, 3]));
    assert_eq!((answer.staged, answer.warnings), (Some("ended"), vec![Warning::StagedNoKeeper]));
    assert_eq!(secret.cas().0, [4, 3, 2]);
}

#[test]
fn a_pair_is_not_staged_unless_both_leaves_verify() {
    let unkept = |w: &mut TlsSecret, _: &mut Value| annotate(&mut w.stored, "keep", "0");
    assert_eq!(refused(unkept), [Warning::StagedUnverified]);
    let strange = |_: &mut TlsSecret, object: &mut Value| object["data"]["ca.crt"] = bundle(&[4]);
    assert_eq!(refused(strange), [Warning::StagedUnverified]);
}

#[test]
fn without_room_for_the_annotation_it_is_bundled() {
    let mut sizes = Vec::new();
    for room in [200, 400] {
        let big = "x".repeat(262_144 - 3 - room);
        let (mut secret, mut object) = (TlsSecret::new(leaf(1)), fresh(&[2], leaf(2)));
        object["metadata"]["annotations"] = json!({"big": big});
        let answer = secret.write(object, GENERATOR);
        sizes.push((secret.waiting().is_some(), answer.warnings));
        assert_eq!(secret.cas().0, [2, 1], "{room}");
    }
    assert_eq!(sizes[0], (false, vec![Warning::AnnotationsFull]));
    assert!(!sizes[1].0 || sizes[1].1.is_empty());
}

#[test]
fn without_room_for_the_record_it_is_stored_as_written() {
    let (mut secret, mut object) = (TlsSecret::new(leaf(1)), fresh(&[2], leaf(2)));
    object["metadata"]["annotations"] = json!({"big": "x".repeat(262_144 - 3 - 10)});
    let answer = secret.write(object, GENERATOR);
    assert_eq!(answer.warnings, [Warning::AnnotationsFull]);
    assert_eq!((secret.cas().0, secret.served()), (vec![2], Some(leaf(2))));
    assert_eq!((secret.waiting(), secret.stage()), (None, None));
}

#[test]
fn writes_that_need_no_stage_are_not_staged() {
    // The pair is unchanged.
    let mut secret = TlsSecret::new(leaf(1));
    let answer = secret.patch(|object| object["data"]["ca.crt"] = bundle(&[2]));
    assert_eq!((answer.warnings.as_slice(), secret.stage()), (&[][..], None));
    // The new leaf is of a CA that is trusted already.
    let mut secret = TlsSecret::new(leaf(1));
    let answer = secret.put(&[2], leaf(1) + 1);
    assert_eq!((answer.warnings.as_slice(), secret.served()), (&[][..], Some(4)));
    assert_eq!(secret.stage(), None);
    // There was no pair before.
    let mut secret = TlsSecret::new(leaf(1));
    secret.stored["data"] = json!({"ca.crt": bundle(&[1])});
    let answer = secret.put(&[2], leaf(2));
    assert_eq!((answer.warnings.as_slice(), secret.stage()), (&[][..], None));
    // The mode is bundle.
    let mut secret = TlsSecret::new(leaf(1));
    secret.stored["metadata"]["labels"] = json!({});
    let answer = secret.patch(|object| set(object, &[2], leaf(2)));
    assert_eq!((answer.warnings.as_slice(), secret.served()), (&[][..], Some(6)));
}

#[test]
fn other_keys_that_are_added_end_a_stage() {
    let mut secret = TlsSecret::staged();
    let answer = secret.patch(|object| object["data"]["keystore.p12"] = "".into());
    assert_eq!((answer.staged, answer.warnings), (Some("ended"), vec![Warning::StagedOtherKeys]));
    assert_eq!((secret.served(), secret.stage()), (Some(6), None));
}
