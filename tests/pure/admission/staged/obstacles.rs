//! What cannot be staged is bundled, each time with its own warning; what need not be, without one.

use base64::prelude::*;
use ca_overlap::admission::respond::Answer;
use ca_overlap::overlap::Warning;
use ca_overlap::overlap::staged::KeeperHealth;
use serde_json::{Value, json};

use super::world::{CAS, GENERATOR, LEAFS, SHORT, World, annotate, bundle, fresh, leaf, set};

/// Rotates to CA 2, and says what the writer is told. The leaf is in service at once.
fn bundled(mut world: World, object: Value) -> Vec<Warning> {
    let answer = world.write(object, GENERATOR);
    assert_eq!((world.waiting(), world.stage(), answer.staged), (None, None, None));
    assert_eq!(world.served(), Some(leaf(2)));
    answer.warnings
}

fn refused(edit: impl FnOnce(&mut World, &mut Value)) -> Vec<Warning> {
    let (mut world, mut object) = (World::new(leaf(1)), fresh(&[2], leaf(2)));
    edit(&mut world, &mut object);
    bundled(world, object)
}

#[test]
fn the_keeper_must_be_alive() {
    assert_eq!(refused(|w, _| w.keeper = KeeperHealth::Absent), [Warning::StagedUnavailable]);
    assert_eq!(refused(|w, _| w.keeper = KeeperHealth::Lost), [Warning::StagedNoKeeper]);
    assert_eq!(refused(|w, _| w.keeper = KeeperHealth::Unknown), [Warning::StagedNoKeeper]);
}

#[test]
fn nothing_else_may_look_at_the_pair() {
    let other = |_: &mut World, object: &mut Value| object["data"]["keystore.p12"] = "".into();
    assert_eq!(refused(other), [Warning::StagedOtherKeys]);
    for side in ["stored", "incoming"] {
        let owned = |world: &mut World, object: &mut Value| {
            let target = if side == "stored" { &mut world.stored } else { object };
            target["metadata"]["annotations"]["cert-manager.io/certificate-name"] = "x".into();
        };
        assert_eq!(refused(owned), [Warning::StagedCertManager], "{side}");
    }
}

#[test]
fn the_held_leaf_must_live_long_enough() {
    let warnings = bundled(World::new(SHORT), fresh(&[2], leaf(2)));
    assert_eq!(warnings, [Warning::StagedLeafExpires]);
    // Ten times as long as the keeper waits: the leaf lives until 2090.
    let slow = |w: &mut World, _: &mut Value| {
        w.installation.settle = std::time::Duration::from_secs(7 * 365 * 86_400);
    };
    assert_eq!(refused(slow), [Warning::StagedLeafExpires]);
}

#[test]
fn both_pairs_must_fit() {
    let mut full = fresh(&[2], leaf(2));
    // The bundle fits to the last byte, so a second pair does not.
    let others = CAS[2].pem.len() + CAS[1].pem.len() + LEAFS[leaf(2)].len();
    let key = 1_048_576 - others;
    full["data"]["tls.key"] = BASE64_STANDARD.encode(vec![0; key]).into();
    let mut world = World::new(leaf(1));
    world.stored["data"]["tls.key"] = BASE64_STANDARD.encode(vec![0; 2_000]).into();
    let answer = world.write(full.clone(), GENERATOR);
    assert_eq!(answer.warnings, [Warning::StagedNoRoom]);
    assert_eq!(world.cas().0, [2, 1]);
    assert_eq!(world.stored["data"]["tls.key"], full["data"]["tls.key"]);
    assert!(world.stored["data"].get("pending.tls.key").is_none());
}

/// A pair of this leaf with a key of this many bytes.
fn with_key(mut object: Value, bytes: usize) -> Value {
    object["data"]["tls.key"] = BASE64_STANDARD.encode(vec![0; bytes]).into();
    object
}

/// Leaf 3 with a key of 2,000 bytes is in service, and the one that comes is as large as leaves
/// `free` bytes beside both.
fn crowded(free: usize) -> (World, Answer) {
    let mut world = World::new(leaf(1));
    world.stored = with_key(world.stored, 2_000);
    let taken = CAS[2].pem.len() + LEAFS[leaf(1)].len() + 2_000 + LEAFS[leaf(2)].len();
    let answer = world.write(with_key(fresh(&[2], leaf(2)), 1_048_576 - taken - free), GENERATOR);
    (world, answer)
}

#[test]
fn the_bundle_must_fit_beside_both_pairs() {
    let (world, answer) = crowded(CAS[1].pem.len() - 1);
    assert_eq!((answer.staged, answer.warnings), (None, vec![Warning::StagedUnverified]));
    assert_eq!(world.cas().0, [2, 1], "one pair leaves room");
    let (world, answer) = crowded(CAS[1].pem.len());
    assert_eq!((answer.staged, answer.warnings), (Some("begun"), vec![]));
    assert_eq!(world.cas().0, [2, 1]);
}

#[test]
fn a_pair_that_goes_leaves_its_room_to_the_bundle() {
    let (mut world, _) = crowded(CAS[1].pem.len());
    world.keeper = KeeperHealth::Lost;
    let answer = world.patch(|object| object["data"]["ca.crt"] = bundle(&[4, 3]));
    assert_eq!((answer.staged, answer.warnings), (Some("ended"), vec![Warning::StagedNoKeeper]));
    assert_eq!(world.cas().0, [4, 3, 2]);
}

#[test]
fn both_leafs_must_verify() {
    let unkept = |w: &mut World, _: &mut Value| annotate(&mut w.stored, "keep", "0");
    assert_eq!(refused(unkept), [Warning::StagedUnverified]);
    let strange = |_: &mut World, object: &mut Value| object["data"]["ca.crt"] = bundle(&[4]);
    assert_eq!(refused(strange), [Warning::StagedUnverified]);
}

#[test]
fn without_room_for_the_annotation_it_is_bundled() {
    let mut sizes = Vec::new();
    for room in [200, 400] {
        let big = "x".repeat(262_144 - 3 - room);
        let (mut world, mut object) = (World::new(leaf(1)), fresh(&[2], leaf(2)));
        object["metadata"]["annotations"] = json!({"big": big});
        let answer = world.write(object, GENERATOR);
        sizes.push((world.waiting().is_some(), answer.warnings));
        assert_eq!(world.cas().0, [2, 1], "{room}");
    }
    assert_eq!(sizes[0], (false, vec![Warning::AnnotationsFull]));
    assert!(!sizes[1].0 || sizes[1].1.is_empty());
}

#[test]
fn without_room_for_the_record_it_is_stored_as_written() {
    let (mut world, mut object) = (World::new(leaf(1)), fresh(&[2], leaf(2)));
    object["metadata"]["annotations"] = json!({"big": "x".repeat(262_144 - 3 - 10)});
    let answer = world.write(object, GENERATOR);
    assert_eq!(answer.warnings, [Warning::AnnotationsFull]);
    assert_eq!((world.cas().0, world.served()), (vec![2], Some(leaf(2))));
    assert_eq!((world.waiting(), world.stage()), (None, None));
}

#[test]
fn what_has_no_race_is_not_staged() {
    // The same pair; one of a CA that is trusted already; no pair before; another mode.
    let mut world = World::new(leaf(1));
    let answer = world.patch(|object| object["data"]["ca.crt"] = bundle(&[2]));
    assert_eq!((answer.warnings.as_slice(), world.stage()), (&[][..], None));
    let mut world = World::new(leaf(1));
    let answer = world.put(&[2], leaf(1) + 1);
    assert_eq!((answer.warnings.as_slice(), world.served()), (&[][..], Some(4)));
    assert_eq!(world.stage(), None);
    let mut world = World::new(leaf(1));
    world.stored["data"] = json!({"ca.crt": bundle(&[1])});
    let answer = world.put(&[2], leaf(2));
    assert_eq!((answer.warnings.as_slice(), world.stage()), (&[][..], None));
    let mut world = World::new(leaf(1));
    world.stored["metadata"]["labels"] = json!({});
    let answer = world.patch(|object| set(object, &[2], leaf(2)));
    assert_eq!((answer.warnings.as_slice(), world.served()), (&[][..], Some(6)));
    // Keys that happen to have such names are no business of ours.
    let mut world = World::new(leaf(1));
    world.stored["metadata"]["labels"] = json!({});
    world.patch(|object| object["data"]["pending.tls.key"] = "eA==".into());
    let answer = world.patch(|object| object["data"]["ca.crt"] = bundle(&[2]));
    assert_eq!(answer.staged, None);
    assert_eq!(world.stored["data"]["pending.tls.key"], "eA==");
}

#[test]
fn other_keys_that_come_later_end_a_stage() {
    let mut world = World::staged();
    let answer = world.patch(|object| object["data"]["keystore.p12"] = "".into());
    assert_eq!((answer.staged, answer.warnings), (Some("ended"), vec![Warning::StagedOtherKeys]));
    assert_eq!((world.served(), world.stage()), (Some(6), None));
}
