//! Waiting pairs whose stage got lost while the webhook was away, and the ask `unstage`.

use ca_overlap::admission::respond::Answer;
use ca_overlap::kubernetes::secret_view::SecretView;
use ca_overlap::kubernetes::stage_end;
use ca_overlap::overlap::Warning;
use ca_overlap::overlap::stage_end::stage_end;
use ca_overlap::overlap::staged::KeeperHealth;
use serde_json::{Value, json};

use super::secret::{
    GENERATOR, KEEPER, NEWER, OLDER, TlsSecret, annotate, bundle, fresh, leaf, set_pair,
};

/// A staged Secret whose labels and annotations were replaced while the webhook was away.
fn wiped(mode: Option<&str>) -> TlsSecret {
    let mut secret = TlsSecret::staged();
    let labels = mode.map_or(json!({}), |mode| json!({"ca-overlap.dev/mode": mode}));
    secret.stored["metadata"]["labels"] = labels;
    secret.stored["metadata"]["annotations"] = json!({});
    secret
}

/// The data after the keeper has ended the stage without the webhook, if it can.
fn keeper_alone(secret: &TlsSecret) -> Option<Value> {
    let mut object = secret.stored.clone();
    object["metadata"]["resourceVersion"] = "7".into();
    let view: SecretView = serde_json::from_value(object.clone()).unwrap();
    let patch = stage_end::patch(&view, stage_end(&view.view(), secret.now)?);
    let text = serde_json::to_string(&patch).unwrap();
    assert!(!text.contains("CANARY") && !text.contains("Q0FOQVJZ"), "no key is in the patch");
    json_patch::patch(&mut object, &patch).unwrap();
    let mut other = secret.stored.clone();
    other["metadata"]["resourceVersion"] = "8".into();
    assert!(json_patch::patch(&mut other, &patch).is_err(), "another version is left alone");
    Some(object["data"].take())
}

/// Nothing waits any more, and this leaf serves.
#[track_caller]
fn serves(secret: &TlsSecret, leaf: usize, answer: &Answer) {
    assert_eq!((secret.served(), secret.waiting(), secret.stage()), (Some(leaf), None, None));
    assert_eq!(answer.staged, Some("ended"));
}

#[test]
fn a_waiting_pair_without_marks_goes_into_service_whatever_mode_and_keeper() {
    for mode in [Some("staged"), Some("bundle"), Some("off"), None] {
        for keeper in [KeeperHealth::Alive, KeeperHealth::Unknown, KeeperHealth::Absent] {
            let mut secret = wiped(mode);
            secret.keeper = keeper;
            let answer = secret.patch(|object| object["metadata"]["labels"]["app"] = "x".into());
            serves(&secret, 6, &answer);
            let is_off = mode == Some("off");
            assert_eq!(answer.warnings.contains(&Warning::StagedBroken), !is_off);
            let stored = secret.stored.clone();
            secret.patch(|_| ());
            assert_eq!(secret.stored, stored, "again is no change");
        }
    }
}

#[test]
fn the_newest_valid_pair_goes_into_service() {
    type Edit = fn(&mut Value);
    // With marks of other pairs, and without marks.
    let edits: [(Edit, usize); 4] = [
        (|stored| set_pair(stored, NEWER), NEWER),
        (|stored| set_pair(stored, OLDER), 6),
        // Half a pair.
        (|stored| drop(stored["data"].as_object_mut().unwrap().remove("pending.tls.crt")), 3),
        (|stored| drop(stored["data"].as_object_mut().unwrap().remove("pending.tls.key")), 3),
    ];
    for (edit, served) in edits {
        for mut secret in [TlsSecret::staged(), wiped(Some("staged"))] {
            edit(&mut secret.stored);
            let alone = keeper_alone(&secret);
            let answer = secret.patch(|_| ());
            serves(&secret, served, &answer);
            assert_eq!(alone.as_ref(), Some(&secret.stored["data"]), "the keeper does the same");
        }
    }
    let edits: [(Edit, usize); 4] = [
        (|stored| stored["data"]["ca.crt"] = bundle(&[1]), 3),
        (|stored| stored["data"]["ca.crt"] = bundle(&[2]), 6),
        // Neither verifies.
        (|stored| stored["data"]["ca.crt"] = bundle(&[4]), 6),
        // One key, two public keys.
        (|stored| stored["data"]["pending.tls.key"] = stored["data"]["tls.key"].clone(), 3),
    ];
    for (edit, served) in edits {
        let mut secret = wiped(Some("staged"));
        edit(&mut secret.stored);
        let answer = secret.patch(|_| ());
        serves(&secret, served, &answer);
    }
}

#[test]
fn a_rotation_over_a_waiting_pair_without_marks_puts_the_new_pair_into_service() {
    let mut secret = wiped(None);
    let answer = secret.put(&[3], leaf(3));
    serves(&secret, leaf(3), &answer);
    assert_eq!(secret.cas(), (vec![3, 1], vec![1]));
    // The generator goes back to the CA and the pair in service.
    let mut secret = wiped(None);
    let answer = secret.put(&[1], leaf(1));
    serves(&secret, leaf(1), &answer);
    // A PATCH of the certificate alone: its key is not there, so the waiting pair is the valid one.
    let mut secret = wiped(None);
    let renewed = fresh(&[2], leaf(2) + 1);
    let answer =
        secret.patch(|object| object["data"]["tls.crt"] = renewed["data"]["tls.crt"].clone());
    serves(&secret, 6, &answer);
}

#[test]
fn a_secret_without_marks_that_becomes_immutable_keeps_no_waiting_key() {
    let mut secret = wiped(None);
    let answer = secret.patch(|object| object["immutable"] = true.into());
    assert_eq!(answer.decision.as_str(), "immutable");
    serves(&secret, 6, &answer);
}

#[test]
fn a_waiting_pair_that_a_writer_brings_is_removed() {
    let staged = TlsSecret::staged().stored;
    for immutable in [false, true] {
        let mut secret = TlsSecret::new(leaf(1));
        secret.patch(|object| {
            for key in ["pending.tls.crt", "pending.tls.key"] {
                object["data"][key] = staged["data"][key].clone();
            }
            object["immutable"] = immutable.into();
        });
        assert_eq!((secret.served(), secret.waiting()), (Some(3), None));
    }
}

/// A write of the ask `unstage` alone.
fn unstage(secret: &mut TlsSecret, user: &str) -> Answer {
    let mut object = secret.stored.clone();
    annotate(&mut object, "ask", "unstage #1");
    secret.write(object, user)
}

#[test]
fn everybody_who_may_write_the_secret_may_end_its_stage() {
    for user in [KEEPER, GENERATOR, "kubernetes-admin"] {
        for keeper in [KeeperHealth::Alive, KeeperHealth::Unknown, KeeperHealth::Lost] {
            let mut secret = TlsSecret::staged();
            secret.keeper = keeper;
            let answer = unstage(&mut secret, user);
            assert_eq!((answer.asked, answer.staged), (Some("unstage"), Some("promoted")));
            assert!(answer.warnings.is_empty(), "{:?}", answer.warnings);
            assert_eq!(secret.shows(), (Some(6), None, vec![2, 1], vec![1]));
            assert_eq!((secret.phase(), secret.annotation("ask")), (Some("overlap"), None));
        }
        // Without marks, and where the mode is off.
        let mut secret = wiped(Some("off"));
        let answer = unstage(&mut secret, user);
        assert_eq!(answer.asked, Some("unstage"));
        serves(&secret, 6, &answer);
        // Where nothing waits.
        let answer = unstage(&mut secret, user);
        assert_eq!((answer.asked, answer.warnings), (None, vec![Warning::AskRefused]));
        assert_eq!(secret.annotation("ask"), None);
    }
}

#[test]
fn an_unstage_in_a_write_of_another_key_does_not_show_the_waiting_key() {
    let mut secret = TlsSecret::staged();
    let mut object = secret.stored.clone();
    object["data"]["tls.key"] = "bm90IGEga2V5".into();
    for key in ["pending.tls.crt", "pending.tls.key"] {
        object["data"].as_object_mut().unwrap().remove(key);
    }
    object["metadata"].as_object_mut().unwrap().remove("uid");
    annotate(&mut object, "ask", "unstage");
    let waiting = secret.stored["data"]["pending.tls.key"].clone();
    let answer = secret.write(object, GENERATOR);
    assert_ne!(answer.asked, Some("promote"));
    assert_ne!(secret.stored["data"]["tls.key"], waiting);
}
