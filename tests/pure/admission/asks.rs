//! The asks of the keeper, and the asks of others, which are refused.

use base64::prelude::*;
use serde_json::{Value, json};

use super::endpoint::{Outcome, admit, annotate, as_patch, label, review, secret};
use devtools::certs::{self, Identity};

const KEEPER: &str = "system:serviceaccount:ca-overlap:ca-overlap-keeper";

/// A PATCH of the annotation alone, by `user`.
fn asking(stored: &Value, user: &str, text: &str) -> Value {
    let mut review = as_patch(review(stored, &annotate(stored.clone(), "ask", text)));
    review["request"]["userInfo"]["username"] = user.into();
    review
}

fn repair(cas: &[&Identity]) -> String {
    let ders: Vec<_> = cas.iter().map(|ca| BASE64_STANDARD.encode(&ca.der)).collect();
    format!("repair {} #1", ders.join(" "))
}

/// A Secret that carries `old` since January.
fn carrying(new: &Identity, old: &Identity) -> Value {
    let record = json!([{"sha256": old.sha256(), "since": "2026-01-01T00:00:00Z"}]);
    let stored = annotate(secret(&certs::bundle(&[new, old])), "carried", &record.to_string());
    label(stored, "phase", "overlap")
}

/// The ask is removed, nothing else changes, and a warning says why.
fn only_removed(outcome: &Outcome, stored: &Value, why: &str) {
    assert_eq!(&without_empty_maps(&outcome.stored), &without_empty_maps(stored));
    assert!(outcome.warnings().iter().any(|w| w.contains(why)), "{:?}", outcome.warnings());
    assert_eq!(outcome.response["auditAnnotations"].get("asked"), None);
}

fn without_empty_maps(secret: &Value) -> Value {
    let mut secret = secret.clone();
    if secret["metadata"]["annotations"].as_object().is_none_or(serde_json::Map::is_empty) {
        secret["metadata"].as_object_mut().unwrap().remove("annotations");
    }
    secret
}

#[tokio::test]
async fn a_repair_by_the_keeper_carries_with_an_end_and_removes_the_ask() {
    let (old, new) = (certs::ca(), certs::ca());
    let outcome = admit(&asking(&secret(&new.pem), KEEPER, &repair(&[&old]))).await;
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&new, &old]));
    assert_eq!((outcome.annotation("ask"), outcome.label("phase")), (None, Some("overlap")));
    assert!(outcome.annotation("carried").unwrap().contains("until"));
    assert_eq!(outcome.response["auditAnnotations"]["asked"], "repair");
    assert!(outcome.warnings().is_empty(), "{:?}", outcome.warnings());
    // A re-apply by the generator does not undo it.
    let again = admit(&review(&outcome.stored, &secret(&new.pem))).await;
    assert_eq!(again.ca_crt(), outcome.ca_crt());
}

#[tokio::test]
async fn a_retire_by_the_keeper_cuts_what_is_over() {
    let (old, new) = (certs::ca(), certs::ca());
    let stored = annotate(carrying(&new, &old), "window", "1h");
    let outcome = admit(&asking(&stored, KEEPER, "retire")).await;
    assert_eq!((outcome.ca_crt(), outcome.annotation("carried")), (new.pem.clone(), Some("[]")));
    assert_eq!((outcome.annotation("ask"), outcome.label("phase")), (None, None));
    assert_eq!(outcome.response["auditAnnotations"]["asked"], "retire");
    // If nothing has ended, only the ask is removed.
    let stored = carrying(&new, &old);
    let outcome = admit(&asking(&stored, KEEPER, "retire #2")).await;
    assert_eq!(outcome.stored, stored);
    assert_eq!(outcome.operations.len(), 1);
    let plain = secret(&new.pem);
    let outcome = admit(&asking(&plain, KEEPER, "retire #2")).await;
    assert_eq!(without_empty_maps(&outcome.stored), plain);
}

#[tokio::test]
async fn only_the_keeper_may_ask() {
    let (old, new) = (certs::ca(), certs::ca());
    let stored = secret(&new.pem);
    for user in [
        "kubernetes-admin",
        "system:serviceaccount:gateway:certgen",
        "system:serviceaccount:ca-overlap:ca-overlap-webhook",
        "system:serviceaccount:gateway:ca-overlap-keeper",
        "",
    ] {
        let outcome = admit(&asking(&stored, user, &repair(&[&old]))).await;
        only_removed(&outcome, &stored, "only ca-overlap's keeper");
    }
}

#[tokio::test]
async fn an_ask_that_does_not_parse_is_removed() {
    let stored = secret(&certs::ca().pem);
    for text in
        ["", "CANARY", "repair", "repair CANARY%", "repair keep:CANARY%", "promote", "retire now"]
    {
        let outcome = admit(&asking(&stored, KEEPER, text)).await;
        only_removed(&outcome, &stored, "expected retire, promote, repair, announce or unstage");
        assert!(!outcome.response.to_string().contains("CANARY"));
    }
    // An ask for unusable certificates is removed, too.
    let outcome = admit(&asking(&stored, KEEPER, "repair QQ==")).await;
    assert_eq!(without_empty_maps(&outcome.stored), stored);
    assert!(outcome.warnings()[0].contains("a CA was not carried"));
}

#[tokio::test]
async fn an_ask_that_was_missed_is_removed_without_acting_on_it() {
    let (old, new) = (certs::ca(), certs::ca());
    let plain = secret(&new.pem);
    let unseen = annotate(plain.clone(), "ask", &repair(&[&old]));
    // Any next write removes it, even the keeper's: it is not known who set it.
    for user in ["kubernetes-admin", KEEPER] {
        let mut touched = as_patch(review(&unseen, &annotate(unseen.clone(), "group", "g")));
        touched["request"]["userInfo"]["username"] = user.into();
        let outcome = admit(&touched).await;
        assert_eq!((outcome.annotation("ask"), outcome.ca_crt()), (None, new.pem.clone()));
        assert!(outcome.warnings().is_empty());
    }
    // A fresh object does not bring it back, and another number makes it a new ask.
    assert_eq!(admit(&review(&unseen, &plain)).await.annotation("ask"), None);
    let again = repair(&[&old]).replace("#1", "#2");
    let outcome = admit(&asking(&unseen, KEEPER, &again)).await;
    assert_eq!((outcome.annotation("ask"), outcome.ca_crt()), (None, certs::bundle(&[&new, &old])));
}

fn setting(name: &str, value: &str) -> String {
    format!(" {name}:{}", BASE64_STANDARD.encode(value))
}

#[tokio::test]
async fn a_repair_restores_settings_and_they_apply_at_once() {
    let (old, new, stolen) = (certs::ca(), certs::ca(), certs::ca());
    let stored = annotate(secret(&new.pem), "distrust", "nonsense");
    let settings = setting("keep", "2")
        + &setting("window", "1h 30m")
        + &setting("distrust", &stolen.sha256())
        + &setting("restart", "deployment/a, deployment/b")
        + &setting("restarted", "T1")
        + &setting("mode", "bundle");
    let text = repair(&[&stolen, &old]).replacen("repair", &format!("repair{settings}"), 1);
    let outcome = admit(&asking(&stored, KEEPER, &text)).await;
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&new, &old]), "distrust counts");
    assert_eq!(outcome.annotation("keep"), Some("2"));
    assert_eq!(outcome.annotation("window"), Some("1h 30m"));
    assert_eq!(outcome.annotation("distrust"), Some(&*stolen.sha256()));
    assert_eq!(outcome.annotation("restart"), Some("deployment/a, deployment/b"));
    assert_eq!(outcome.annotation("restarted"), Some("T1"));
    assert_eq!((outcome.label("mode"), outcome.annotation("ask")), (Some("bundle"), None));
    // Only the keeper may do so.
    let outcome = admit(&asking(&stored, "kubernetes-admin", &text)).await;
    only_removed(&outcome, &stored, "only ca-overlap's keeper");
}

#[tokio::test]
async fn a_repair_restores_settings_where_data_is_left_alone() {
    let (old, new) = (certs::ca(), certs::ca());
    let mut immutable = secret(&new.pem);
    immutable["immutable"] = true.into();
    let mut foreign = secret(&new.pem);
    foreign["data"]["old-ca.crt"] = "".into();
    let off = label(secret(&new.pem), "mode", "off");
    let text =
        repair(&[&old]).replacen("repair", &("repair".to_owned() + &setting("group", "g")), 1);
    for stored in [immutable, foreign, off] {
        let outcome = admit(&asking(&stored, KEEPER, &text)).await;
        let mut expected = annotate(stored.clone(), "group", "g");
        if stored["immutable"].is_null() {
            // The setting begins the record.
            expected = annotate(expected, "carried", "[]");
        }
        assert_eq!(outcome.stored, expected);
        assert!(outcome.warnings().is_empty(), "{:?}", outcome.warnings());
        assert_eq!(outcome.response["auditAnnotations"]["asked"], "repair");
    }
    // The restored mode is off, so no certificate is added.
    let plain = secret(&new.pem);
    let text = text.replacen("repair", &("repair".to_owned() + &setting("mode", "off")), 1);
    let outcome = admit(&asking(&plain, KEEPER, &text)).await;
    let expected = annotate(label(plain, "mode", "off"), "group", "g");
    assert_eq!(outcome.stored, annotate(expected, "carried", "[]"));
}

#[tokio::test]
async fn an_ask_does_not_change_a_secret_that_is_left_alone() {
    let (old, new) = (certs::ca(), certs::ca());
    let mut signer = secret(&new.pem);
    signer["data"].as_object_mut().unwrap().remove("tls.crt");
    signer["data"]["ca.key"] = "Q0FOQVJZ".into();
    let mut foreign = secret(&new.pem);
    foreign["data"]["old-ca.crt"] = "".into();
    let mut immutable = secret(&new.pem);
    immutable["immutable"] = true.into();
    let off = label(secret(&new.pem), "mode", "off");
    for stored in [off, signer, foreign, immutable] {
        for text in [repair(&[&old]), "retire".into()] {
            let outcome = admit(&asking(&stored, KEEPER, &text)).await;
            only_removed(&outcome, &stored, "not possible in this write");
        }
    }
    // There is no waiting pair to promote.
    let stored = secret(&new.pem);
    let promote = format!("promote {}", old.sha256());
    only_removed(
        &admit(&asking(&stored, KEEPER, &promote)).await,
        &stored,
        "not possible in this write",
    );
}

#[tokio::test]
async fn an_ask_in_a_write_of_data_is_refused_and_the_write_is_decided() {
    let (old, new, other) = (certs::ca(), certs::ca(), certs::ca());
    let incoming = annotate(secret(&new.pem), "ask", &repair(&[&other]));
    let mut write = review(&secret(&old.pem), &incoming);
    write["request"]["userInfo"]["username"] = KEEPER.into();
    let outcome = admit(&write).await;
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&new, &old]));
    assert_eq!(outcome.annotation("ask"), None);
    assert!(outcome.warnings()[0].contains("not possible in this write"));
}

#[tokio::test]
async fn without_room_for_the_record_nothing_is_repaired_and_the_record_stays() {
    let (old, new) = (certs::ca(), certs::ca());
    let mut stored = annotate(secret(&new.pem), "carried", "[]");
    stored["metadata"]["annotations"]["big"] = "x".repeat(262_144 - 3 - 24 - 10).into();
    let outcome = admit(&asking(&stored, KEEPER, &repair(&[&old]))).await;
    assert_eq!(outcome.stored, stored);
    assert!(outcome.warnings().iter().any(|w| w.contains("a CA was not carried")));
}

#[tokio::test]
async fn restored_settings_may_use_the_room_of_the_removed_ask() {
    let mut stored = secret(&certs::ca().pem);
    stored["immutable"] = true.into();
    let group = "ca-overlap.dev/group".len() + "g".len();
    stored["metadata"]["annotations"]["big"] = "x".repeat(262_144 - 3 - group).into();
    let text = "repair".to_owned() + &setting("group", "g");
    let outcome = admit(&asking(&stored, KEEPER, &text)).await;
    assert_eq!(outcome.stored, annotate(stored, "group", "g"));
    assert!(outcome.warnings().is_empty(), "{:?}", outcome.warnings());
}
