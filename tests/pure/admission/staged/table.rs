//! What happens to a pair that waits.

use ca_overlap::overlap::Warning;
use ca_overlap::overlap::staged::KeeperHealth;
use ca_overlap::x509::certs::Fingerprint;
use jiff::SignedDuration;
use serde_json::json;

use super::world::{
    CAS, GENERATOR, KEEPER, LEAFS, RENEWED, World, annotate, bundle, fresh, leaf, set, set_pair,
};

/// Leaf 1 is in service, leaf 2 waits, and both CAs are trusted.
const STAGED: (Option<usize>, Option<usize>, [usize; 2], [usize; 1]) =
    (Some(3), Some(6), [2, 1], [1]);

#[track_caller]
fn is_staged(world: &World) {
    let (served, waiting, cas, carried) = world.shows();
    assert_eq!(
        (served, waiting, &cas[..], &carried[..]),
        (STAGED.0, STAGED.1, &STAGED.2[..], &STAGED.3[..])
    );
}

/// An ordinary overlap with this leaf, its CA first.
#[track_caller]
fn is_plain(world: &World, served: usize, cas: &[usize], carried: &[usize]) {
    assert_eq!(world.shows(), (Some(served), None, cas.to_vec(), carried.to_vec()));
}

#[test]
fn a_rotation_is_trusted_at_once_and_its_leaf_waits() {
    let world = World::staged();
    is_staged(&world);
    let stage = world.stage().unwrap();
    assert_eq!((stage.since, stage.moved), (world.now, 0));
    assert_eq!(stage.held, Fingerprint::of(LEAFS[3].as_bytes()));
    assert_eq!(stage.pending, Fingerprint::of(LEAFS[6].as_bytes()));
}

#[test]
fn the_same_again_changes_nothing() {
    let mut world = World::staged();
    let before = world.stored.clone();
    world.now += SignedDuration::from_hours(1);
    for keeper in [KeeperHealth::Alive, KeeperHealth::Unknown] {
        world.keeper = keeper;
        assert_eq!(world.put(&[2], leaf(2)).staged, Some("kept"));
        assert_eq!(world.stored, before);
        world.patch(|object| set(object, &[2], leaf(2)));
        assert_eq!(world.stored, before, "read, modified and written");
        world.patch(|object| object["metadata"]["labels"]["app"] = "x".into());
        world.patch(|o| drop(o["metadata"]["labels"].as_object_mut().unwrap().remove("app")));
        assert_eq!(world.stored, before, "a write of other things");
    }
}

#[test]
fn the_keeper_promotes_and_then_the_overlap_begins() {
    let mut world = World::staged();
    annotate(&mut world.stored, "window", "1h");
    world.now += SignedDuration::from_hours(5);
    world.patch(|_| ());
    is_staged(&world);
    let answer = world.promote();
    assert_eq!((answer.asked, answer.staged), (Some("promote"), Some("promoted")));
    assert!(answer.warnings.is_empty(), "{:?}", answer.warnings);
    is_plain(&world, 6, &[2, 1], &[1]);
    assert_eq!((world.phase(), world.annotation("ask")), (Some("overlap"), None));
    // The window counts from the change of the leaf.
    world.now += SignedDuration::from_mins(59);
    world.put(&[2], leaf(2));
    is_plain(&world, 6, &[2, 1], &[1]);
    world.now += SignedDuration::from_mins(1);
    world.ask("retire");
    is_plain(&world, 6, &[2], &[]);
    assert_eq!(world.phase(), None);
}

#[test]
fn a_deadline_does_not_take_the_ca_of_the_leaf_in_service() {
    let mut world = World::staged();
    annotate(&mut world.stored, "window", "1h");
    world.now += SignedDuration::from_hours(5);
    for _ in 0..2 {
        world.ask("retire #1");
        is_staged(&world);
        world.put(&[2], leaf(2));
        is_staged(&world);
    }
}

#[test]
fn only_the_recorded_pair_is_promoted_and_only_by_the_keeper() {
    let mut world = World::staged();
    let other = Fingerprint::of(LEAFS[9].as_bytes());
    let answer = world.ask(&format!("promote {other}"));
    assert_eq!((answer.asked, answer.warnings), (None, vec![Warning::AskRefused]));
    is_staged(&world);
    let mut forged = world.stored.clone();
    annotate(&mut forged, "ask", &format!("promote {}", world.stage().unwrap().pending));
    let answer = world.write(forged, GENERATOR);
    assert_eq!((answer.asked, answer.warnings), (None, vec![Warning::AskNotAllowed]));
    is_staged(&world);
    assert_eq!(world.annotation("ask"), None);
    // With other data in the same write it is none of the keeper's asks.
    let mut mixed = fresh(&[2], leaf(2));
    annotate(&mut mixed, "ask", &format!("promote {}", world.stage().unwrap().pending));
    assert_eq!(world.write(mixed, KEEPER).asked, None);
    is_staged(&world);
}

#[test]
fn what_does_not_verify_any_more_is_not_promoted() {
    // While we were away, ca.crt alone was replaced: the waiting leaf's CA is gone.
    let mut world = World::staged();
    world.stored["data"]["ca.crt"] = bundle(&[3, 1]);
    let answer = world.promote();
    assert_eq!((answer.asked, answer.staged), (None, Some("ended")));
    assert!(answer.warnings.contains(&Warning::StagedUnverified));
    assert!(answer.warnings.contains(&Warning::AskRefused));
    assert_eq!((world.served(), world.stage()), (Some(3), None));
    // The held leaf's CA is gone: what verifies goes into service with the next write.
    let mut world = World::staged();
    world.stored["data"]["ca.crt"] = bundle(&[2]);
    world.patch(|_| ());
    assert_eq!((world.served(), world.stage()), (Some(6), None));
}

#[test]
fn a_stage_that_is_not_as_recorded_ends_with_what_stands_in_service() {
    type Edit = fn(&mut World);
    let edits: [(Edit, usize); 5] = [
        (|w| set_pair(&mut w.stored, leaf(4)), leaf(4)),
        (|w| w.stored["data"]["pending.tls.crt"] = w.stored["data"]["tls.crt"].clone(), 3),
        (|w| drop(w.stored["data"].as_object_mut().unwrap().remove("pending.tls.key")), 3),
        (|w| annotate(&mut w.stored, "staged", "{}"), 3),
        (
            |w| {
                drop(
                    w.stored["metadata"]["annotations"]
                        .as_object_mut()
                        .unwrap()
                        .remove("ca-overlap.dev/staged"),
                );
            },
            3,
        ),
    ];
    for (edit, served) in edits {
        for promoted in [false, true] {
            let mut world = World::staged();
            edit(&mut world);
            let text = format!("promote {}", Fingerprint::of(LEAFS[6].as_bytes()));
            let answer = if promoted { world.ask(&text) } else { world.patch(|_| ()) };
            assert_eq!((answer.asked, answer.staged), (None, Some("ended")));
            assert!(answer.warnings.contains(&Warning::StagedBroken));
            assert_eq!((world.served(), world.stage()), (Some(served), None));
        }
    }
}

#[test]
fn the_held_pair_written_back_cancels() {
    for read_modify_write in [false, true] {
        let mut world = World::staged();
        let answer = if read_modify_write {
            world.patch(|object| set(object, &[1], leaf(1)))
        } else {
            world.put(&[1], leaf(1))
        };
        assert_eq!(answer.staged, Some("cancelled"));
        is_plain(&world, 3, &[1, 2], &[2]);
    }
}

#[test]
fn another_pair_takes_the_place_of_the_waiting_one_twice() {
    let mut world = World::staged();
    for (ca, moved) in [(3, 1), (4, 2)] {
        world.now += SignedDuration::from_hours(1);
        let answer = world.put(&[ca], leaf(ca));
        assert_eq!((answer.staged, answer.warnings.as_slice()), (Some("moved"), &[][..]));
        assert_eq!(world.shows(), (Some(3), Some(leaf(ca)), vec![ca, 1], vec![1]));
        let stage = world.stage().unwrap();
        assert_eq!((stage.moved, stage.since), (moved, world.now));
    }
    let answer = world.put(&[0], leaf(0));
    assert_eq!((answer.staged, answer.warnings), (Some("ended"), vec![Warning::StagedMoved]));
    is_plain(&world, leaf(0), &[0, 1], &[1]);
    // A generator that issues anew under the same CA, because it finds another pair than its own.
    let mut world = World::staged();
    assert_eq!(world.put(&[2], leaf(2) + 1).staged, Some("moved"));
    assert_eq!(world.shows(), (Some(3), Some(7), vec![2, 1], vec![1]));
}

#[test]
fn any_write_under_a_stale_lease_puts_the_pair_into_service() {
    for keeper in [KeeperHealth::Lost, KeeperHealth::Absent] {
        let writes: [fn(&mut World) -> ca_overlap::admission::respond::Answer; 3] =
            [|w| w.put(&[2], leaf(2)), |w| w.patch(|_| ()), |w| w.ask("retire")];
        for write in writes {
            let mut world = World::staged();
            world.keeper = keeper;
            assert_eq!(write(&mut world).staged, Some("ended"));
            is_plain(&world, 6, &[2, 1], &[1]);
        }
    }
}

#[test]
fn another_mode_puts_the_pair_into_service() {
    for mode in [json!("bundle"), json!("off"), json!(null), json!("")] {
        let mut world = World::staged();
        world.patch(|object| object["metadata"]["labels"]["ca-overlap.dev/mode"] = mode.clone());
        is_plain(&world, 6, &[2, 1], &[1]);
    }
}

#[test]
fn a_leaf_that_is_written_alone_goes_into_service() {
    let mut world = World::staged();
    assert_eq!(world.patch(|object| set_pair(object, leaf(2) + 1)).staged, Some("ended"));
    is_plain(&world, 7, &[2, 1], &[1]);
}

#[test]
fn a_fresh_object_that_holds_what_stands_there_changes_nothing() {
    let mut world = World::staged();
    let mut object = fresh(&[2], leaf(1));
    object["data"]["ca.crt"] = world.stored["data"]["ca.crt"].clone();
    let answer = world.write(object, GENERATOR);
    assert_eq!(answer.staged, Some("kept"));
    is_staged(&world);
}

#[test]
fn half_a_pair_is_completed_by_the_half_that_waits() {
    // The pair comes by two patches, first with ca.crt: nothing is put aside of half a pair.
    let mut world = World::new(leaf(1));
    let new = fresh(&[2], leaf(2));
    let answer = world.patch(|object| {
        object["data"]["ca.crt"] = new["data"]["ca.crt"].clone();
        object["data"]["tls.crt"] = new["data"]["tls.crt"].clone();
    });
    assert_eq!(answer.warnings, [Warning::StagedUnverified]);
    world.patch(|object| object["data"]["tls.key"] = new["data"]["tls.key"].clone());
    is_plain(&world, 6, &[2, 1], &[1]);
    // Each half again, while the pair waits.
    for half in ["tls.crt", "tls.key"] {
        let mut world = World::staged();
        world.patch(|object| object["data"][half] = new["data"][half].clone());
        is_staged(&world);
    }
}

#[test]
fn a_renewal_that_keeps_the_key_of_the_waiting_pair_gets_it() {
    // A PATCH of tls.crt alone: the key beside it, as stored, is that of the pair in service.
    let renewed = fresh(&[2], RENEWED);
    let mut world = World::staged();
    world.patch(|object| object["data"]["tls.crt"] = renewed["data"]["tls.crt"].clone());
    is_plain(&world, RENEWED, &[2, 1], &[1]);
    // Whose the key of another leaf is nobody knows: it is stored as it was written.
    let other = fresh(&[2], leaf(2) + 1);
    let mut world = World::staged();
    let served = world.stored["data"]["tls.key"].clone();
    world.patch(|object| object["data"]["tls.crt"] = other["data"]["tls.crt"].clone());
    assert_eq!(world.stored["data"]["tls.crt"], other["data"]["tls.crt"]);
    assert_eq!(world.stored["data"]["tls.key"], served);
}

#[test]
fn to_distrust_the_ca_in_service_promotes_at_once() {
    let mut world = World::staged();
    let fingerprint = CAS[1].sha256();
    let answer = world.patch(|object| annotate(object, "distrust", &fingerprint));
    assert_eq!(answer.staged, Some("promoted"));
    is_plain(&world, 6, &[2], &[]);
    // Another CA is no reason.
    let mut world = World::staged();
    let other = CAS[4].sha256();
    world.patch(|object| annotate(object, "distrust", &other));
    is_staged(&world);
}

#[test]
fn when_ca_crt_goes_the_pair_comes_and_our_state_goes() {
    let mut world = World::staged();
    world.patch(|object| drop(object["data"].as_object_mut().unwrap().remove("ca.crt")));
    assert_eq!(world.shows(), (Some(6), None, vec![], vec![]));
    let mut world = World::staged();
    let mut without = fresh(&[3], leaf(3));
    without["data"].as_object_mut().unwrap().remove("ca.crt");
    world.write(without, GENERATOR);
    assert_eq!(world.shows(), (Some(9), None, vec![], vec![]));
    // Unreadable: neither leaf verifies, and the generator's own stands.
    let mut world = World::staged();
    world.patch(|object| object["data"]["ca.crt"] = "Z2FyYmFnZQ==".into());
    assert_eq!((world.served(), world.stage()), (Some(6), None));
}

#[test]
fn a_secret_that_becomes_immutable_keeps_no_key_aside() {
    let mut world = World::staged();
    let answer = world.patch(|object| object["immutable"] = true.into());
    assert_eq!(answer.verdict.as_str(), "immutable");
    assert_eq!((world.served(), world.stage()), (Some(6), None));
}

#[test]
fn our_state_cannot_be_edited_or_forged() {
    let mut world = World::staged();
    world.patch(|object| {
        object["data"]["pending.tls.key"] = "Rk9SR0VE".into();
        object["data"].as_object_mut().unwrap().remove("pending.tls.crt");
        annotate(object, "staged", "forged");
    });
    is_staged(&world);
    // A backup of a staged Secret, over one that is not.
    let backup = World::staged().stored;
    let mut world = World::new(leaf(2));
    world.write(backup, GENERATOR);
    assert_eq!((world.served(), world.stage()), (Some(3), None));
    // Nor where nothing is ever staged: no key stays behind.
    let mut backup = World::staged().stored;
    backup["metadata"]["labels"]["ca-overlap.dev/mode"] = "bundle".into();
    let mut world = World::new(leaf(2));
    world.keeper = KeeperHealth::Absent;
    world.write(backup, GENERATOR);
    assert_eq!((world.served(), world.stage()), (Some(3), None));
}

#[test]
fn another_pair_waits_only_where_it_could_begin_to() {
    let mut world = World::staged();
    world.keeper = KeeperHealth::Unknown;
    let answer = world.put(&[3], leaf(3));
    assert_eq!((answer.staged, answer.warnings), (Some("ended"), vec![Warning::StagedNoKeeper]));
    is_plain(&world, 9, &[3, 1], &[1]);
}

#[test]
fn a_repair_reaches_a_staged_secret_too() {
    use base64::prelude::*;
    let mut world = World::staged();
    annotate(&mut world.stored, "keep", "2");
    let answer = world.ask(&format!("repair {}", BASE64_STANDARD.encode(&CAS[4].der)));
    assert_eq!((answer.asked, answer.staged), (Some("repair"), Some("kept")));
    assert_eq!(world.shows(), (Some(3), Some(6), vec![2, 1, 4], vec![1, 4]));
}

#[test]
fn without_staged_mode_a_stage_ends_and_says_it_once() {
    let mut world = World::staged();
    world.keeper = KeeperHealth::Absent;
    let answer = world.patch(|_| ());
    assert_eq!((answer.staged, answer.warnings), (Some("ended"), vec![Warning::StagedUnavailable]));
    is_plain(&world, 6, &[2, 1], &[1]);
}

#[test]
fn a_stage_that_ends_carries_what_the_leaf_in_service_needs() {
    // The write shows the held leaf, and the one that waits comes into service.
    let mut world = World::staged();
    world.keeper = KeeperHealth::Lost;
    let answer = world.patch(|object| object["data"]["ca.crt"] = bundle(&[4]));
    assert_eq!((answer.staged, answer.warnings), (Some("ended"), vec![Warning::StagedNoKeeper]));
    is_plain(&world, 6, &[4, 2], &[2]);
}

#[test]
fn the_held_pair_that_is_written_with_its_ca_is_meant() {
    // It could not tell before what it means: the mode is changed by the same write.
    let mut world = World::staged();
    let mut back = fresh(&[1], leaf(1));
    back["metadata"]["labels"] = json!({"ca-overlap.dev/mode": "bundle"});
    assert_eq!(world.write(back, GENERATOR).staged, Some("ended"));
    is_plain(&world, 3, &[1, 2], &[2]);
}
