//! The annotation and the ask `announce`: who may announce, what is restored, and what a copy brings.

use base64::prelude::*;
use ca_overlap::overlap::announcement::Announcement;
use ca_overlap::overlap::staged::KeeperHealth;
use devtools::certs::{self, Identity};
use devtools::reviews;
use serde_json::{Value, json};

use super::endpoint::{admit, annotate, as_patch, review, secret};
use super::staged::secret::{CAS, GENERATOR, KEEPER, TlsSecret, bundle, leaf};

const UNTIL: &str = "2086-03-31T10:00:00Z";

fn word(ca: &Identity) -> String {
    let until = Some(UNTIL.parse().unwrap());
    Announcement { der: ca.der.to_vec(), until }.to_string()
}

fn entry(carried: Option<&str>) -> Value {
    let mut record: Value = serde_json::from_str(carried.unwrap()).unwrap();
    record[0].take()
}

/// A Secret in which a person announces `next`.
async fn told(own: &Identity, next: &Identity) -> Value {
    let stored = secret(&own.pem);
    let annotated = annotate(stored.clone(), "announce", &word(next));
    admit(&as_patch(review(&stored, &annotated))).await.stored
}

#[tokio::test]
async fn a_person_announces_and_takes_back() {
    let (own, next) = (certs::ca(), certs::ca());
    let stored = secret(&own.pem);
    let annotated = annotate(stored.clone(), "announce", &word(&next));
    let mut patch = as_patch(review(&stored, &annotated));
    patch["request"]["userInfo"]["username"] = "alice".into();
    let outcome = admit(&patch).await;
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&own, &next]));
    assert_eq!(outcome.label("phase"), Some("overlap"));
    assert!(outcome.warnings().is_empty(), "{:?}", outcome.warnings());
    let entry = entry(outcome.annotation("carried"));
    assert_eq!((&entry["announced"], &entry["until"]), (&json!("person"), &json!(UNTIL)));

    let mut without = outcome.stored.clone();
    without["metadata"]["annotations"].as_object_mut().unwrap().remove("ca-overlap.dev/announce");
    let back = admit(&as_patch(review(&outcome.stored, &without))).await;
    assert_eq!((back.ca_crt(), back.annotation("carried")), (own.pem.clone(), Some("[]")));
    assert_eq!(back.label("phase"), None);
}

#[tokio::test]
async fn a_put_of_the_generator_loses_no_announcement() {
    let (own, next, other) = (certs::ca(), certs::ca(), certs::ca());
    let stored = told(&own, &next).await;
    let again = admit(&review(&stored, &secret(&own.pem))).await;
    assert_eq!(again.stored["data"], stored["data"]);
    assert_eq!(again.annotation("announce"), Some(word(&next).as_str()));
    let rotated = admit(&review(&stored, &secret(&other.pem))).await;
    assert_eq!(rotated.ca_crt(), certs::bundle(&[&other, &own, &next]));
    let used = admit(&review(&stored, &secret(&next.pem))).await;
    assert_eq!(used.ca_crt(), certs::bundle(&[&next, &own]));

    // Sixteen CAs are longer than other settings may be.
    let many = vec![word(&next); 16].join(",");
    assert!((4097..16 * 1024).contains(&many.len()));
    let stored = annotate(stored, "announce", &many);
    let again = admit(&review(&stored, &secret(&own.pem))).await;
    assert_eq!(again.annotation("announce"), Some(many.as_str()));
    let too_long = annotate(stored.clone(), "announce", &vec![many; 3].join(","));
    let refused = admit(&as_patch(review(&stored, &too_long))).await;
    assert!(refused.warnings().iter().any(|w| w.contains("expected base64")));
}

#[tokio::test]
async fn only_the_keeper_asks_to_announce() {
    let (own, next) = (certs::ca(), certs::ca());
    let stored = secret(&own.pem);
    let ask = format!("announce {} #1", word(&next));
    let asked = annotate(stored.clone(), "ask", &ask);
    for user in ["alice", GENERATOR] {
        let review = reviews::update(&stored, &asked, user);
        assert_eq!(admit(&as_patch(review)).await.ca_crt(), own.pem);
    }
    let outcome = admit(&as_patch(reviews::update(&stored, &asked, KEEPER))).await;
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&own, &next]));
    assert_eq!(outcome.response["auditAnnotations"]["asked"], "announce");
    assert_eq!(entry(outcome.annotation("carried"))["announced"], "keeper");
    let again = annotate(outcome.stored.clone(), "ask", &ask.replace("#1", "#2"));
    let twice = admit(&as_patch(reviews::update(&outcome.stored, &again, KEEPER))).await;
    assert_eq!(twice.stored, outcome.stored);
    let none = annotate(outcome.stored.clone(), "ask", "announce #3");
    let withdrawn = admit(&as_patch(reviews::update(&outcome.stored, &none, KEEPER))).await;
    assert_eq!(withdrawn.ca_crt(), own.pem);
}

/// What stands in the copy is its writer's own. The annotation counts from the next write on.
#[tokio::test]
async fn a_copy_announces_nothing_by_its_record() {
    let (own, next) = (certs::ca(), certs::ca());
    let mut copied = told(&own, &next).await;
    let copy = admit(&reviews::create(&copied, "system:serviceaccount:kyverno:background")).await;
    assert_eq!(copy.ca_crt(), certs::bundle(&[&own, &next]));
    assert_eq!(copy.annotation("carried"), Some("[]"));

    copied["data"]["ca.crt"] = BASE64_STANDARD.encode(&own.pem).into();
    let copy = admit(&reviews::create(&copied, "alice")).await;
    assert_eq!((copy.ca_crt(), copy.annotation("carried")), (own.pem.clone(), Some("[]")));
    let next_write = admit(&review(&copy.stored, &secret(&own.pem))).await;
    assert_eq!(next_write.ca_crt(), certs::bundle(&[&own, &next]));
}

/// The previous CA matters more than one that nobody uses yet.
#[tokio::test]
async fn where_annotations_have_no_room_the_previous_ca_stays_and_nothing_is_announced() {
    let (own, next, new) = (certs::ca(), certs::ca(), certs::ca());
    let mut full = annotate(secret(&new.pem), "announce", &word(&next));
    let used: usize = "ca-overlap.dev/announce".len() + word(&next).len();
    full["metadata"]["annotations"]["big"] = "x".repeat(262_144 - 3 - used - 200).into();
    let outcome = admit(&review(&secret(&own.pem), &full)).await;
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&new, &own]));
    assert!(outcome.warnings().iter().any(|w| w.contains("annotations have no room")));
}

/// What this Secret was told says nothing of its peers.
#[test]
fn an_announced_ca_is_staged_like_any_other() {
    let mut it = TlsSecret::new(leaf(0));
    assert_eq!(it.keeper, KeeperHealth::Alive);
    it.patch(|object| {
        object["metadata"]["annotations"]["ca-overlap.dev/announce"] = word(&CAS[1]).into();
    });
    assert_eq!(it.stored["data"]["ca.crt"], bundle(&[0, 1]));
    it.put(&[1], leaf(1));
    assert_eq!(it.stored["metadata"]["labels"]["ca-overlap.dev/phase"], "staged");
    assert_eq!(it.stored["data"]["ca.crt"], bundle(&[1, 0]));
}
