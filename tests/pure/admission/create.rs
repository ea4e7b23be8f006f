//! A new object that brings our state: a copy, or a restore from a backup. No state is believed.

use ca_overlap::overlap::Warning;
use ca_overlap::overlap::staged::KeeperHealth;
use devtools::certs::{self, Identity};
use devtools::reviews;
use jiff::ToSpan;
use serde_json::{Value, json};

use super::endpoint::{Outcome, admit, annotate, label, review, secret};
use super::staged::secret::{SHORT, TlsSecret, bundle, fresh, leaf, set_pair};

/// `new`, and `old`, which is carried since January.
fn carrying(new: &Identity, old: &Identity) -> Value {
    let entry = json!([{"sha256": old.sha256(), "since": "2026-01-01T00:00:00Z", "uid": "source"}]);
    let stored = annotate(secret(&certs::bundle(&[new, old])), "carried", &entry.to_string());
    label(stored, "phase", "overlap")
}

async fn create(object: &Value) -> Outcome {
    admit(&reviews::create(object, "system:serviceaccount:kyverno:background")).await
}

#[tokio::test]
async fn a_copy_of_an_overlap_begins_a_record_and_follows_its_source() {
    let (old, new) = (certs::ca(), certs::ca());
    let mut source = annotate(carrying(&new, &old), "keep", "2");
    for key in ["ask", "restarted"] {
        source = annotate(source, key, "of the source");
    }
    let copy = create(&source).await;
    assert_eq!((copy.decision(), copy.ca_crt()), ("created", certs::bundle(&[&new, &old])));
    let state = ["carried", "ask", "restarted"].map(|key| copy.annotation(key));
    assert_eq!((state, copy.label("phase")), ([Some("[]"), None, None], None));
    assert_eq!(copy.annotation("keep"), Some("2"), "a setting stays");
    // The source retires the old CA, and its copy does, too.
    let followed = admit(&review(&copy.stored, &secret(&new.pem))).await;
    assert_eq!((followed.decision(), followed.ca_crt()), ("retirement", new.pem.clone()));
}

#[tokio::test]
async fn what_is_over_by_the_record_is_cut_before_the_record_begins() {
    let (old, new) = (certs::ca(), certs::ca());
    for (key, value) in [("window", "1h"), ("distrust", old.sha256().as_str())] {
        let restored = create(&annotate(carrying(&new, &old), key, value)).await;
        assert_eq!(restored.ca_crt(), new.pem, "{key}");
        assert_eq!((restored.annotation("carried"), restored.label("phase")), (Some("[]"), None));
    }
    // An own certificate is never cut.
    let own = annotate(secret(&old.pem), "distrust", &old.sha256());
    assert_eq!(create(&own).await.ca_crt(), old.pem);
}

#[tokio::test]
async fn the_state_of_an_exempt_object_goes_and_its_data_stays() {
    let (old, new) = (certs::ca(), certs::ca());
    let over = annotate(carrying(&new, &old), "window", "1h");
    let mut signer = over.clone();
    signer["data"].as_object_mut().unwrap().remove("tls.crt");
    signer["data"]["ca.key"] = "".into();
    let mut immutable = over.clone();
    immutable["immutable"] = true.into();
    let off = label(over, "mode", "off");
    for (object, decision) in [(signer, "signer"), (immutable, "immutable"), (off, "off")] {
        let outcome = create(&object).await;
        assert_eq!(outcome.decision(), decision);
        assert_eq!(outcome.stored["data"], object["data"]);
        assert_eq!((outcome.annotation("carried"), outcome.label("phase")), (Some("[]"), None));
    }
    let mut own = reviews::create(&carrying(&new, &old), "x");
    own["request"]["namespace"] = "ca-overlap".into();
    assert!(admit(&own).await.operations.is_empty());
    let mut without = carrying(&new, &old);
    without["data"].as_object_mut().unwrap().remove("ca.crt");
    let outcome = create(&without).await;
    assert_eq!((outcome.annotation("carried"), outcome.label("phase")), (None, None));
}

#[tokio::test]
async fn a_record_that_does_not_parse_is_replaced() {
    let (old, new) = (certs::ca(), certs::ca());
    let outcome = create(&annotate(carrying(&new, &old), "carried", "CANARY{")).await;
    assert_eq!(outcome.annotation("carried"), Some("[]"));
    assert!(outcome.warnings()[0].contains("ca-overlap.dev/carried"));
    let mut full = carrying(&new, &old);
    full["metadata"]["annotations"].as_object_mut().unwrap().clear();
    full["metadata"]["annotations"]["big"] = "x".repeat(262_144 - 3).into();
    assert_eq!(create(&full).await.annotation("carried"), None, "no room");
}

/// A copy of a staged Secret: leaf 3 of CA 1 is in service, and leaf 6 of CA 2 waits.
fn copy_of_staged() -> (TlsSecret, Value) {
    let secret = TlsSecret::staged();
    let copy = secret.stored.clone();
    (secret, copy)
}

#[test]
fn a_waiting_pair_becomes_a_stage_of_the_new_object() {
    let (mut secret, copy) = copy_of_staged();
    secret.now = secret.now.checked_add(1.hour()).unwrap();
    let answer = secret.create(copy);
    assert_eq!((answer.staged, answer.warnings.as_slice()), (Some("begun"), &[][..]));
    assert_eq!(secret.shows(), (Some(3), Some(6), vec![2, 1], vec![]));
    assert_eq!(secret.annotation("carried"), Some("[]"));
    let stage = secret.stage().unwrap();
    assert_eq!((stage.since, stage.moved), (secret.now, 0), "with its own dates");
    // The uid comes with the next write, and the stage continues.
    assert!(!secret.annotation("staged").unwrap().contains("uid"));
    assert_eq!(secret.patch(|_| ()).staged, Some("kept"));
    assert!(secret.annotation("staged").unwrap().contains(r#""uid":"1""#));
    assert_eq!(secret.promote().staged, Some("promoted"));
    assert_eq!(secret.shows(), (Some(6), None, vec![2, 1], vec![]));
}

#[test]
fn a_waiting_pair_that_cannot_be_staged_is_dropped() {
    /// What is changed of the webhook or of the copy, and what the writer is told of it.
    type UnfitCase = (fn(&mut TlsSecret, &mut Value), Option<Warning>);
    let cases: [UnfitCase; 6] = [
        (|secret, _| secret.keeper = KeeperHealth::Lost, Some(Warning::StagedNoKeeper)),
        (|secret, _| secret.keeper = KeeperHealth::Absent, Some(Warning::StagedUnavailable)),
        (|_, copy| copy["metadata"]["labels"] = json!({"ca-overlap.dev/mode": "bundle"}), None),
        (|_, copy| copy["metadata"]["labels"] = json!({"ca-overlap.dev/mode": "off"}), None),
        (|_, copy| copy["immutable"] = true.into(), None),
        (|_, copy| copy["data"]["other"] = "".into(), Some(Warning::StagedOtherKeys)),
    ];
    for (number, (change, reason)) in cases.into_iter().enumerate() {
        let (mut secret, mut copy) = copy_of_staged();
        change(&mut secret, &mut copy);
        let answer = secret.create(copy);
        assert_eq!(answer.staged, Some("ended"), "{number}");
        assert!(answer.warnings.contains(&Warning::CopiedPairDropped), "{number}");
        assert!(reason.is_none_or(|reason| answer.warnings.contains(&reason)), "{number}");
        assert_eq!(secret.shows(), (Some(3), None, vec![2, 1], vec![]), "{number}");
    }
    // Half a pair, and a pair without any mark.
    let (mut secret, mut copy) = copy_of_staged();
    copy["data"].as_object_mut().unwrap().remove("pending.tls.crt");
    secret.create(copy);
    assert_eq!(secret.shows(), (Some(3), None, vec![2, 1], vec![]));
    let (mut secret, mut copy) = copy_of_staged();
    copy["metadata"]["labels"] = json!({});
    copy["metadata"]["annotations"] = json!({});
    secret.create(copy);
    assert_eq!(secret.shows(), (Some(3), None, vec![2, 1], vec![]));
}

#[test]
fn a_waiting_pair_goes_into_service_where_the_held_leaf_is_of_no_use() {
    // The held leaf has expired.
    let mut secret = TlsSecret::new(SHORT);
    let mut copy = fresh(&[2, 1], SHORT);
    let waiting = fresh(&[2], leaf(2));
    for key in ["tls.crt", "tls.key"] {
        copy["data"][format!("pending.{key}")] = waiting["data"][key].clone();
    }
    secret.now = "2026-03-03T00:00:00Z".parse().unwrap();
    assert_eq!(secret.create(copy.clone()).staged, Some("promoted"));
    assert_eq!(secret.shows(), (Some(6), None, vec![2, 1], vec![]));
    // It does not verify.
    secret.now = certs::now();
    set_pair(&mut copy, leaf(4));
    assert_eq!(secret.create(copy.clone()).staged, Some("promoted"));
    assert_eq!(secret.shows(), (Some(6), None, vec![2, 1], vec![]));
    // Neither does the waiting one.
    copy["data"]["ca.crt"] = bundle(&[3]);
    assert_eq!(secret.create(copy).staged, Some("ended"));
    assert_eq!(secret.shows(), (Some(leaf(4)), None, vec![3], vec![]));
}
