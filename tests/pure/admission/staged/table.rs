//! What happens to a waiting pair.

use ca_overlap::overlap::Warning;
use ca_overlap::overlap::staged::KeeperHealth;
use ca_overlap::x509::certs::Fingerprint;
use jiff::SignedDuration;
use serde_json::json;

use super::secret::{
    CAS, GENERATOR, KEEPER, LEAVES, RENEWED, SHORT, TlsSecret, annotate, bundle, fresh, leaf, set,
    set_pair,
};

/// A leaf of CA 1 is in service, a leaf of CA 2 waits, and both CAs are in `ca.crt`.
const STAGED: (Option<usize>, Option<usize>, [usize; 2], [usize; 1]) =
    (Some(3), Some(6), [2, 1], [1]);

#[track_caller]
fn is_staged(secret: &TlsSecret) {
    let (served, waiting, cas, carried) = secret.shows();
    assert_eq!(
        (served, waiting, &cas[..], &carried[..]),
        (STAGED.0, STAGED.1, &STAGED.2[..], &STAGED.3[..])
    );
}

/// An overlap without a waiting pair: leaf in service, CAs, of them carried.
#[track_caller]
fn is_plain(secret: &TlsSecret, served: usize, cas: &[usize], carried: &[usize]) {
    assert_eq!(secret.shows(), (Some(served), None, cas.to_vec(), carried.to_vec()));
}

#[test]
fn a_rotation_stores_the_new_ca_at_once_and_the_new_leaf_waits() {
    let secret = TlsSecret::staged();
    is_staged(&secret);
    let stage = secret.stage().unwrap();
    assert_eq!((stage.since, stage.moved), (secret.now, 0));
    assert_eq!(stage.held, Fingerprint::of(LEAVES[3].as_bytes()));
    assert_eq!(stage.pending, Fingerprint::of(LEAVES[6].as_bytes()));
}

#[test]
fn a_waiting_leaf_that_has_expired_is_not_promoted() {
    let at = |time: &str| {
        let mut secret = TlsSecret::new(leaf(2));
        assert_eq!(secret.put(&[1], SHORT).staged, Some("begun"));
        secret.now = time.parse().unwrap();
        secret
    };
    let (alive, expired) = ("2026-03-01T23:59:59Z", "2026-03-02T00:00:00Z");
    let mut secret = at(alive);
    secret.promote();
    assert_eq!((secret.served(), secret.waiting()), (Some(SHORT), None));
    let mut secret = at(expired);
    let answer = secret.promote();
    let warnings = vec![Warning::AskRefused, Warning::StagedUnverified];
    assert_eq!((answer.staged, answer.warnings), (Some("ended"), warnings));
    assert_eq!((secret.served(), secret.waiting()), (Some(leaf(2)), None));
    // The same if the stage ends because the keeper is gone.
    let mut secret = at(expired);
    secret.keeper = KeeperHealth::Lost;
    secret.patch(|object| object["metadata"]["labels"]["app"] = "x".into());
    assert_eq!((secret.served(), secret.waiting()), (Some(leaf(2)), None));
}

#[test]
fn a_new_leaf_that_has_expired_does_not_wait() {
    let mut secret = TlsSecret::new(leaf(2));
    secret.now = "2026-03-03T00:00:00Z".parse().unwrap();
    let answer = secret.put(&[1], SHORT);
    assert_eq!((answer.staged, answer.warnings), (None, vec![Warning::StagedUnverified]));
    assert_eq!((secret.served(), secret.waiting()), (Some(SHORT), None), "as its generator wrote");
}

#[test]
fn the_same_write_again_keeps_the_stage() {
    let mut secret = TlsSecret::staged();
    let before = secret.stored.clone();
    secret.now += SignedDuration::from_hours(1);
    for keeper in [KeeperHealth::Alive, KeeperHealth::Unknown] {
        secret.keeper = keeper;
        assert_eq!(secret.put(&[2], leaf(2)).staged, Some("kept"));
        assert_eq!(secret.stored, before);
        secret.patch(|object| set(object, &[2], leaf(2)));
        assert_eq!(secret.stored, before, "read, modified and written");
        secret.patch(|object| object["metadata"]["labels"]["app"] = "x".into());
        secret.patch(|o| drop(o["metadata"]["labels"].as_object_mut().unwrap().remove("app")));
        assert_eq!(secret.stored, before, "a write of other things");
    }
}

#[test]
fn a_promotion_begins_the_overlap() {
    let mut secret = TlsSecret::staged();
    annotate(&mut secret.stored, "window", "1h");
    secret.now += SignedDuration::from_hours(5);
    secret.patch(|_| ());
    is_staged(&secret);
    let answer = secret.promote();
    assert_eq!((answer.asked, answer.staged), (Some("promote"), Some("promoted")));
    assert!(answer.warnings.is_empty(), "{:?}", answer.warnings);
    is_plain(&secret, 6, &[2, 1], &[1]);
    assert_eq!((secret.phase(), secret.annotation("ask")), (Some("overlap"), None));
    // The window begins with the promotion.
    secret.now += SignedDuration::from_mins(59);
    secret.put(&[2], leaf(2));
    is_plain(&secret, 6, &[2, 1], &[1]);
    secret.now += SignedDuration::from_mins(1);
    secret.ask("retire");
    is_plain(&secret, 6, &[2], &[]);
    assert_eq!(secret.phase(), None);
}

#[test]
fn a_deadline_does_not_remove_the_ca_of_the_leaf_in_service() {
    let mut secret = TlsSecret::staged();
    annotate(&mut secret.stored, "window", "1h");
    secret.now += SignedDuration::from_hours(5);
    for _ in 0..2 {
        secret.ask("retire #1");
        is_staged(&secret);
        secret.put(&[2], leaf(2));
        is_staged(&secret);
    }
}

#[test]
fn only_the_recorded_pair_is_promoted_and_only_by_the_keeper() {
    let mut secret = TlsSecret::staged();
    let other = Fingerprint::of(LEAVES[9].as_bytes());
    let answer = secret.ask(&format!("promote {other}"));
    assert_eq!((answer.asked, answer.warnings), (None, vec![Warning::AskRefused]));
    is_staged(&secret);
    let mut forged = secret.stored.clone();
    annotate(&mut forged, "ask", &format!("promote {}", secret.stage().unwrap().pending));
    let answer = secret.write(forged, GENERATOR);
    assert_eq!((answer.asked, answer.warnings), (None, vec![Warning::AskNotAllowed]));
    is_staged(&secret);
    assert_eq!(secret.annotation("ask"), None);
    // In a write of other data it does not count as an ask.
    let mut mixed = fresh(&[2], leaf(2));
    annotate(&mut mixed, "ask", &format!("promote {}", secret.stage().unwrap().pending));
    assert_eq!(secret.write(mixed, KEEPER).asked, None);
    is_staged(&secret);
}

#[test]
fn a_leaf_that_no_longer_verifies_is_not_promoted() {
    // ca.crt was replaced while the webhook was down: the waiting leaf's CA is gone.
    let mut secret = TlsSecret::staged();
    secret.stored["data"]["ca.crt"] = bundle(&[3, 1]);
    let answer = secret.promote();
    assert_eq!((answer.asked, answer.staged), (None, Some("ended")));
    assert!(answer.warnings.contains(&Warning::StagedUnverified));
    assert!(answer.warnings.contains(&Warning::AskRefused));
    assert_eq!((secret.served(), secret.stage()), (Some(3), None));
    // The held leaf's CA is gone: the next write puts the waiting pair into service.
    let mut secret = TlsSecret::staged();
    secret.stored["data"]["ca.crt"] = bundle(&[2]);
    secret.patch(|_| ());
    assert_eq!((secret.served(), secret.stage()), (Some(6), None));
}

#[test]
fn a_stage_that_differs_from_its_annotation_ends_with_the_newer_pair_in_service() {
    type Edit = fn(&mut TlsSecret);
    let edits: [(Edit, usize); 5] = [
        (|w| set_pair(&mut w.stored, leaf(1) + 1), leaf(1) + 1),
        (|w| w.stored["data"]["pending.tls.crt"] = w.stored["data"]["tls.crt"].clone(), 3),
        (|w| drop(w.stored["data"].as_object_mut().unwrap().remove("pending.tls.key")), 3),
        (|w| annotate(&mut w.stored, "staged", "{}"), 6),
        (
            |w| {
                drop(
                    w.stored["metadata"]["annotations"]
                        .as_object_mut()
                        .unwrap()
                        .remove("ca-overlap.dev/staged"),
                );
            },
            6,
        ),
    ];
    for (edit, served) in edits {
        for promoted in [false, true] {
            let mut secret = TlsSecret::staged();
            edit(&mut secret);
            let text = format!("promote {}", Fingerprint::of(LEAVES[6].as_bytes()));
            let answer = if promoted { secret.ask(&text) } else { secret.patch(|_| ()) };
            assert_eq!((answer.asked, answer.staged), (None, Some("ended")));
            assert!(answer.warnings.contains(&Warning::StagedBroken));
            assert_eq!((secret.served(), secret.stage()), (Some(served), None));
        }
    }
}

#[test]
fn the_held_pair_written_back_cancels_the_stage() {
    for read_modify_write in [false, true] {
        let mut secret = TlsSecret::staged();
        let answer = if read_modify_write {
            secret.patch(|object| set(object, &[1], leaf(1)))
        } else {
            secret.put(&[1], leaf(1))
        };
        assert_eq!(answer.staged, Some("cancelled"));
        is_plain(&secret, 3, &[1, 2], &[2]);
    }
}

#[test]
fn another_pair_replaces_the_waiting_one_at_most_twice() {
    let mut secret = TlsSecret::staged();
    for (ca, moved) in [(3, 1), (4, 2)] {
        secret.now += SignedDuration::from_hours(1);
        let answer = secret.put(&[ca], leaf(ca));
        assert_eq!((answer.staged, answer.warnings.as_slice()), (Some("moved"), &[][..]));
        assert_eq!(secret.shows(), (Some(3), Some(leaf(ca)), vec![ca, 1], vec![1]));
        let stage = secret.stage().unwrap();
        assert_eq!((stage.moved, stage.since), (moved, secret.now));
    }
    let answer = secret.put(&[0], leaf(0));
    assert_eq!((answer.staged, answer.warnings), (Some("ended"), vec![Warning::StagedMoved]));
    is_plain(&secret, leaf(0), &[0, 1], &[1]);
    // A generator issues another leaf under the same CA, because it finds a pair that is not its own.
    let mut secret = TlsSecret::staged();
    assert_eq!(secret.put(&[2], leaf(2) + 1).staged, Some("moved"));
    assert_eq!(secret.shows(), (Some(3), Some(7), vec![2, 1], vec![1]));
}

#[test]
fn any_write_under_a_stale_lease_puts_the_waiting_pair_into_service() {
    for keeper in [KeeperHealth::Lost, KeeperHealth::Absent] {
        let writes: [fn(&mut TlsSecret) -> ca_overlap::admission::respond::Answer; 3] =
            [|w| w.put(&[2], leaf(2)), |w| w.patch(|_| ()), |w| w.ask("retire")];
        for write in writes {
            let mut secret = TlsSecret::staged();
            secret.keeper = keeper;
            assert_eq!(write(&mut secret).staged, Some("ended"));
            is_plain(&secret, 6, &[2, 1], &[1]);
        }
    }
}

#[test]
fn a_change_of_mode_puts_the_waiting_pair_into_service() {
    for mode in [json!("bundle"), json!("off"), json!(null), json!("")] {
        let mut secret = TlsSecret::staged();
        secret.patch(|object| object["metadata"]["labels"]["ca-overlap.dev/mode"] = mode.clone());
        is_plain(&secret, 6, &[2, 1], &[1]);
    }
}

#[test]
fn a_leaf_written_without_a_ca_goes_into_service() {
    let mut secret = TlsSecret::staged();
    assert_eq!(secret.patch(|object| set_pair(object, leaf(2) + 1)).staged, Some("ended"));
    is_plain(&secret, 7, &[2, 1], &[1]);
}

#[test]
fn a_put_of_the_stored_values_changes_nothing() {
    let mut secret = TlsSecret::staged();
    let mut object = fresh(&[2], leaf(1));
    object["data"]["ca.crt"] = secret.stored["data"]["ca.crt"].clone();
    let answer = secret.write(object, GENERATOR);
    assert_eq!(answer.staged, Some("kept"));
    is_staged(&secret);
}

#[test]
fn half_a_pair_is_completed_by_its_waiting_half() {
    // The pair comes in two patches, the first with ca.crt: half a pair does not wait.
    let mut secret = TlsSecret::new(leaf(1));
    let new = fresh(&[2], leaf(2));
    let answer = secret.patch(|object| {
        object["data"]["ca.crt"] = new["data"]["ca.crt"].clone();
        object["data"]["tls.crt"] = new["data"]["tls.crt"].clone();
    });
    assert_eq!(answer.warnings, [Warning::StagedUnverified]);
    secret.patch(|object| object["data"]["tls.key"] = new["data"]["tls.key"].clone());
    is_plain(&secret, 6, &[2, 1], &[1]);
    // Each half is written again while the pair waits.
    for half in ["tls.crt", "tls.key"] {
        let mut secret = TlsSecret::staged();
        secret.patch(|object| object["data"][half] = new["data"][half].clone());
        is_staged(&secret);
    }
}

#[test]
fn a_renewed_leaf_gets_the_key_of_the_waiting_pair() {
    // A PATCH of tls.crt alone: the stored key beside it is of the pair in service.
    let renewed = fresh(&[2], RENEWED);
    let mut secret = TlsSecret::staged();
    secret.patch(|object| object["data"]["tls.crt"] = renewed["data"]["tls.crt"].clone());
    is_plain(&secret, RENEWED, &[2, 1], &[1]);
    // It is not known which key belongs to another leaf, so the pair is stored as written.
    let other = fresh(&[2], leaf(2) + 1);
    let mut secret = TlsSecret::staged();
    let served = secret.stored["data"]["tls.key"].clone();
    secret.patch(|object| object["data"]["tls.crt"] = other["data"]["tls.crt"].clone());
    assert_eq!(secret.stored["data"]["tls.crt"], other["data"]["tls.crt"]);
    assert_eq!(secret.stored["data"]["tls.key"], served);
}

#[test]
fn distrusting_the_ca_in_service_promotes_at_once() {
    let mut secret = TlsSecret::staged();
    let fingerprint = CAS[1].sha256();
    let answer = secret.patch(|object| annotate(object, "distrust", &fingerprint));
    assert_eq!(answer.staged, Some("promoted"));
    is_plain(&secret, 6, &[2], &[]);
    // Distrusting another CA does not promote.
    let mut secret = TlsSecret::staged();
    let other = CAS[4].sha256();
    secret.patch(|object| annotate(object, "distrust", &other));
    is_staged(&secret);
}

#[test]
fn when_ca_crt_is_removed_the_waiting_pair_goes_into_service() {
    let mut secret = TlsSecret::staged();
    secret.patch(|object| drop(object["data"].as_object_mut().unwrap().remove("ca.crt")));
    assert_eq!(secret.shows(), (Some(6), None, vec![], vec![]));
    let mut secret = TlsSecret::staged();
    let mut without = fresh(&[3], leaf(3));
    without["data"].as_object_mut().unwrap().remove("ca.crt");
    secret.write(without, GENERATOR);
    assert_eq!(secret.shows(), (Some(9), None, vec![], vec![]));
    // An unreadable ca.crt verifies neither leaf, so the new pair goes into service.
    let mut secret = TlsSecret::staged();
    secret.patch(|object| object["data"]["ca.crt"] = "Z2FyYmFnZQ==".into());
    assert_eq!((secret.served(), secret.stage()), (Some(6), None));
}

#[test]
fn a_secret_that_becomes_immutable_keeps_no_waiting_key() {
    let mut secret = TlsSecret::staged();
    let answer = secret.patch(|object| object["immutable"] = true.into());
    assert_eq!(answer.decision.as_str(), "immutable");
    assert_eq!((secret.served(), secret.stage()), (Some(6), None));
}

#[test]
fn our_state_cannot_be_edited_or_forged() {
    let mut secret = TlsSecret::staged();
    secret.patch(|object| {
        object["data"]["pending.tls.key"] = "Rk9SR0VE".into();
        object["data"].as_object_mut().unwrap().remove("pending.tls.crt");
        annotate(object, "staged", "forged");
    });
    is_staged(&secret);
    // A backup of a staged Secret is applied over one that is not staged.
    let backup = TlsSecret::staged().stored;
    let mut secret = TlsSecret::new(leaf(2));
    secret.write(backup, GENERATOR);
    assert_eq!((secret.served(), secret.stage()), (Some(3), None));
    // Where staging is off, no key stays behind.
    let mut backup = TlsSecret::staged().stored;
    backup["metadata"]["labels"]["ca-overlap.dev/mode"] = "bundle".into();
    let mut secret = TlsSecret::new(leaf(2));
    secret.keeper = KeeperHealth::Absent;
    secret.write(backup, GENERATOR);
    assert_eq!((secret.served(), secret.stage()), (Some(3), None));
}

#[test]
fn another_pair_waits_only_where_a_stage_could_begin() {
    let mut secret = TlsSecret::staged();
    secret.keeper = KeeperHealth::Unknown;
    let answer = secret.put(&[3], leaf(3));
    assert_eq!((answer.staged, answer.warnings), (Some("ended"), vec![Warning::StagedNoKeeper]));
    is_plain(&secret, 9, &[3, 1], &[1]);
}

#[test]
fn a_staged_secret_is_repaired_too() {
    use base64::prelude::*;
    let mut secret = TlsSecret::staged();
    annotate(&mut secret.stored, "keep", "2");
    let answer = secret.ask(&format!("repair {}", BASE64_STANDARD.encode(&CAS[4].der)));
    assert_eq!((answer.asked, answer.staged), (Some("repair"), Some("kept")));
    assert_eq!(secret.shows(), (Some(3), Some(6), vec![2, 1, 4], vec![1, 4]));
}

#[test]
fn where_staging_is_off_a_stage_ends_with_a_warning() {
    let mut secret = TlsSecret::staged();
    secret.keeper = KeeperHealth::Absent;
    let answer = secret.patch(|_| ());
    assert_eq!((answer.staged, answer.warnings), (Some("ended"), vec![Warning::StagedUnavailable]));
    is_plain(&secret, 6, &[2, 1], &[1]);
}

#[test]
fn the_end_of_a_stage_carries_the_ca_of_the_leaf_in_service() {
    // The write contains the held leaf, and the waiting one goes into service.
    let mut secret = TlsSecret::staged();
    secret.keeper = KeeperHealth::Lost;
    let answer = secret.patch(|object| object["data"]["ca.crt"] = bundle(&[4]));
    assert_eq!((answer.staged, answer.warnings), (Some("ended"), vec![Warning::StagedNoKeeper]));
    is_plain(&secret, 6, &[4, 2], &[2]);
}

#[test]
fn the_held_pair_written_back_with_a_change_of_mode_stays_in_service() {
    // The mode changes in the same write.
    let mut secret = TlsSecret::staged();
    let mut back = fresh(&[1], leaf(1));
    back["metadata"]["labels"] = json!({"ca-overlap.dev/mode": "bundle"});
    assert_eq!(secret.write(back, GENERATOR).staged, Some("ended"));
    is_plain(&secret, 3, &[1, 2], &[2]);
}
