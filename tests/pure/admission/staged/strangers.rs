//! Writers who may not read the Secret: the answer to a write holds the stored object, so it must
//! hold no key that its writer does not write himself.

use ca_overlap::admission::respond::Answer;
use ca_overlap::overlap::Warning;
use ca_overlap::overlap::staged::KeeperHealth;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::secret::{GENERATOR, KEEPER, TlsSecret, bundle, fresh, issuer, leaf, set_pair};
use crate::support::property::config;

fn mode(object: &mut Value, mode: &str) {
    object["metadata"]["labels"]["ca-overlap.dev/mode"] = mode.into();
}

/// The paths under `data` that the answer changes.
fn data_paths(answer: &Answer) -> Vec<(String, String)> {
    let operations = serde_json::to_value(&answer.patch).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let operations = operations.as_array().into_iter().flatten();
    let all = operations.map(|op| (text(&op["op"]), text(&op["path"])));
    all.filter(|(_, path)| path.starts_with("/data/")).collect()
}

#[test]
fn a_rotation_by_a_stranger_is_bundled_and_says_why() {
    let mut secret = TlsSecret::new(leaf(1));
    secret.is_by_stranger = true;
    let answer = secret.put(&[2], leaf(2));
    assert_eq!((answer.staged, answer.warnings.as_slice()), (None, &[Warning::StagedStranger][..]));
    assert_eq!(data_paths(&answer), [("add".into(), "/data/ca.crt".into())]);
    assert_eq!(secret.shows(), (Some(6), None, vec![2, 1], vec![1]));
    // `status` can say it until the CA goes.
    let noted = |secret: &TlsSecret| {
        let record: Value = serde_json::from_str(secret.annotation("carried").unwrap()).unwrap();
        record[0]["notStaged"].clone()
    };
    assert_eq!(noted(&secret), "staged_stranger");
    // Nothing to say where nothing would be staged.
    assert_eq!(secret.put(&[2], leaf(2)).warnings, []);
    assert_eq!(noted(&secret), "staged_stranger");
    // The next rotation has a record of its own.
    secret.is_by_stranger = false;
    assert_eq!(secret.put(&[3], leaf(3)).staged, Some("begun"));
    assert_eq!(noted(&secret), Value::Null);
}

#[test]
fn a_stranger_ends_a_stage_with_the_pair_that_he_writes() {
    for (written, change) in [(leaf(1), "cancelled"), (leaf(2), "ended"), (leaf(3), "ended")] {
        let mut secret = TlsSecret::staged();
        secret.is_by_stranger = true;
        let answer = secret.put(&[issuer(written)], written);
        assert_eq!(answer.staged, Some(change));
        let says_why = answer.warnings.contains(&Warning::StagedStranger);
        assert_eq!(says_why, change == "ended", "{:?}", answer.warnings);
        let (served, waiting, cas, _) = secret.shows();
        assert_eq!((served, waiting), (Some(written), None));
        assert!(cas.contains(&issuer(written)) && cas.len() == 2, "{cas:?}");
        assert!(data_paths(&answer).iter().all(|(_, path)| path == "/data/ca.crt"));
    }
    // A pair without a mark, which another program left behind.
    let mut secret = TlsSecret::staged();
    secret.is_by_stranger = true;
    secret.stored["metadata"]["annotations"] = json!({});
    secret.stored["metadata"]["labels"] = json!({"ca-overlap.dev/mode": "staged"});
    secret.put(&[3], leaf(3));
    assert_eq!((secret.served(), secret.waiting()), (Some(9), None));
}

#[test]
fn a_stranger_who_leaves_the_pairs_alone_changes_nothing_of_them() {
    let changes: [fn(&mut Value); 5] = [
        |object| object["metadata"]["labels"]["app"] = "x".into(),
        |object| mode(object, "bundle"),
        |object| object["data"]["ca.crt"] = bundle(&[2]),
        |object| object["metadata"]["annotations"] = json!({}),
        |object| object["metadata"]["labels"] = json!({}),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        for keeper in [KeeperHealth::Alive, KeeperHealth::Lost] {
            let mut secret = TlsSecret::staged();
            (secret.is_by_stranger, secret.keeper) = (true, keeper);
            let staged = secret.annotation("staged").unwrap().to_owned();
            let answer = secret.patch(change);
            assert_eq!(secret.annotation("staged"), Some(staged.as_str()), "{number}");
            assert_eq!(secret.shows(), (Some(3), Some(6), vec![2, 1], vec![1]), "{number}");
            assert!(data_paths(&answer).iter().all(|(_, path)| path == "/data/ca.crt"));
            // The next write of a reader continues from there.
            (secret.is_by_stranger, secret.keeper) = (false, KeeperHealth::Alive);
            let next = secret.patch(|_| ()).staged;
            let has_mode = ![1, 4].contains(&number);
            assert_eq!(next, Some(if has_mode { "kept" } else { "ended" }), "{number}");
        }
    }
}

#[test]
fn a_stage_ends_where_a_stranger_makes_the_secret_immutable() {
    let mut secret = TlsSecret::staged();
    secret.is_by_stranger = true;
    secret.patch(|object| object["immutable"] = true.into());
    assert_eq!((secret.served(), secret.waiting()), (Some(6), None));
}

#[test]
fn a_write_that_sets_the_mode_does_not_stage_itself() {
    let mut secret = TlsSecret::new(leaf(1));
    secret.stored["metadata"]["labels"] = json!({});
    let mut write = fresh(&[2], leaf(2));
    mode(&mut write, "staged");
    let answer = secret.write(write.clone(), GENERATOR);
    assert_eq!((answer.staged, answer.warnings), (None, vec![Warning::StagedLater]));
    assert_eq!(secret.shows(), (Some(6), None, vec![2, 1], vec![1]));
    // From the next write on it counts.
    assert_eq!(secret.write(write, GENERATOR).warnings, []);
    assert_eq!(secret.put(&[3], leaf(3)).staged, Some("begun"));
}

#[test]
fn a_copy_made_by_a_stranger_is_not_staged() {
    let mut secret = TlsSecret::staged();
    secret.is_by_stranger = true;
    let copy = secret.stored.clone();
    let answer = secret.create(copy);
    assert!(answer.warnings.contains(&Warning::StagedStranger), "{:?}", answer.warnings);
    assert_eq!((secret.served(), secret.waiting()), (Some(3), None));
}

/// A write by someone.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    is_by_stranger: bool,
    leaf: usize,
    /// A fresh object, an edit of the pair, an edit of the pair without a key, or an edit of
    /// nothing but marks.
    how: u8,
    mode: Option<&'static str>,
    keeper: KeeperHealth,
    ask: Option<&'static str>,
    is_by_keeper: bool,
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let keeper = prop_oneof![4 => Just(KeeperHealth::Alive), 1 => Just(KeeperHealth::Lost)];
    let mode = prop_oneof![3 => Just(None), 1 => Just(Some("staged")), 1 => Just(Some("bundle"))];
    let ask = prop_oneof![4 => Just(None), 1 => Just(Some("retire")), 1 => Just(Some("promote"))];
    let who = (any::<bool>(), prop::bool::weighted(0.2));
    (who, 0..12_usize, 0..5_u8, mode, keeper, ask).prop_map(
        |((is_by_stranger, is_by_keeper), leaf, how, mode, keeper, ask)| Attempt {
            is_by_stranger,
            leaf,
            how,
            mode,
            keeper,
            ask,
            is_by_keeper,
        },
    )
}

proptest! {
    #![proptest_config(config(1_000))]

    /// The keys in the answer are those that the writer wrote, each where he wrote it.
    #[test]
    fn no_answer_shows_a_stranger_a_key(attempts in vec(attempt(), 1..12)) {
        let mut secret = TlsSecret::new(leaf(1));
        for attempt in attempts {
            secret.keeper = attempt.keeper;
            secret.is_by_stranger = attempt.is_by_stranger;
            let mut object = match attempt.how {
                0 | 1 => fresh(&[issuer(attempt.leaf)], attempt.leaf),
                _ => secret.stored.clone(),
            };
            match attempt.how {
                2 => set_pair(&mut object, attempt.leaf),
                3 => drop(object["data"].as_object_mut().unwrap().remove("tls.key")),
                _ => {}
            }
            if let Some(set) = attempt.mode {
                mode(&mut object, set);
            }
            if let Some(ask) = attempt.ask {
                let pending = secret.stage().map(|stage| stage.pending.to_string());
                let ask = if ask == "promote" { format!("promote {}", pending.unwrap_or_default()) }
                    else { ask.to_owned() };
                object["metadata"]["annotations"]["ca-overlap.dev/ask"] = ask.into();
            }
            let user = if attempt.is_by_keeper { KEEPER } else { GENERATOR };
            let before = secret.stored.clone();
            let answer = secret.write(object, user);
            if attempt.is_by_stranger {
                prop_assert_ne!(answer.staged, Some("begun"));
                for (op, path) in data_paths(&answer) {
                    let is_public = path == "/data/ca.crt" || op == "remove";
                    prop_assert!(is_public, "{op} {path} in the answer to {attempt:?}");
                }
            }
            if attempt.how == 3 {
                // Half a pair is no state that the other events begin with.
                secret.stored = before;
            }
        }
    }
}
