//! Sources: the CAs that one held before are kept in its annotation `previous`. Nobody else writes it.

use base64::prelude::*;
use ca_overlap::names;
use ca_overlap::overlap::source::Previous;
use devtools::certs::{self, CA, Identity, Spec};
use devtools::reviews;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::endpoint::{Outcome, admit, annotate, as_patch, label, review};
use super::staged::secret::{CAS, GENERATOR, KEEPER};
use crate::support::property::config;

/// A CA Secret as a user makes it: a chain with its key, and perhaps a `ca.crt`.
fn signer(chain: &[&Identity], ca_crt: &[&Identity]) -> Value {
    let mut data = json!({
        "tls.crt": BASE64_STANDARD.encode(certs::bundle(chain)),
        "tls.key": BASE64_STANDARD.encode("CANARY-tls-key"),
    });
    if !ca_crt.is_empty() {
        data["ca.crt"] = BASE64_STANDARD.encode(certs::bundle(ca_crt)).into();
    }
    secret("kubernetes.io/tls", &data)
}

fn secret(kind: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": kind,
        "metadata": {"name": "root", "namespace": "gateway"}, "data": data,
    })
}

fn source(secret: Value) -> Value {
    label(secret, "source", "true")
}

fn since(ca: &Identity, since: &str) -> String {
    Previous { der: ca.der.to_vec(), since: since.parse().unwrap() }.to_string()
}

fn previous(outcome: &Outcome) -> Vec<Vec<u8>> {
    let text = outcome.annotation("previous").unwrap_or_default();
    let list = Previous::parse_list(text);
    assert_eq!(list.iter().map(ToString::to_string).collect::<Vec<_>>().join(","), text);
    list.into_iter().map(|one| one.der).collect()
}

fn ders(cas: &[&Identity]) -> Vec<Vec<u8>> {
    cas.iter().map(|ca| ca.der.to_vec()).collect()
}

/// Writes one CA after the other, as fresh objects of a program that knows none of our labels.
async fn renewed(cas: &[&Identity], make: impl Fn(&Identity) -> Value) -> Outcome {
    let mut stored = source(make(cas[0]));
    let mut last = None;
    for ca in &cas[1..] {
        let outcome = admit(&review(&stored, &make(ca))).await;
        stored = outcome.stored.clone();
        last = Some(outcome);
    }
    last.unwrap()
}

#[tokio::test]
async fn a_renewed_root_stays_as_previous_and_no_data_is_touched() {
    let (old, new) = (certs::ca(), certs::ca());
    let bare: fn(&Identity) -> Value = |ca| signer(&[ca], &[]);
    let anchored: fn(&Identity) -> Value = |ca| signer(&[ca], &[ca]);
    let opaque: fn(&Identity) -> Value = |ca| {
        let encoded = BASE64_STANDARD.encode(&ca.pem);
        secret("Opaque", &json!({"ca.crt": encoded, "ca.key": ""}))
    };
    for make in [bare, anchored, opaque] {
        for value in [names::SOURCE_TRUE, names::SOURCE_ISSUER] {
            let stored = label(make(&old), "source", value);
            let outcome = admit(&review(&stored, &make(&new))).await;
            assert_eq!(previous(&outcome), ders(&[&old]));
            assert_eq!(outcome.stored["data"], make(&new)["data"]);
            assert_eq!(outcome.label("source"), Some(value), "a fresh object lacks the label");
            let again = admit(&review(&outcome.stored, &make(&new))).await;
            assert_eq!(again.stored, outcome.stored, "a no-op, which the API server drops");
        }
        let off = label(source(make(&old)), "mode", "off");
        assert_eq!(previous(&admit(&review(&off, &make(&new))).await), ders(&[&old]));
        for other in [make(&old), label(make(&old), "source", "yes")] {
            let outcome = admit(&review(&other, &make(&new))).await;
            assert_eq!(outcome.annotation("previous"), None, "no source");
        }
    }
}

#[tokio::test]
async fn of_three_renewals_the_last_two_stay_and_one_that_comes_back_leaves() {
    let [first, second, third, fourth] = std::array::from_fn(|_| certs::ca());
    let make = |ca: &Identity| signer(&[ca], &[]);
    let outcome = renewed(&[&first, &second, &third, &fourth], make).await;
    assert_eq!(previous(&outcome), ders(&[&third, &second]));
    let outcome = renewed(&[&first, &second, &first], make).await;
    assert_eq!(previous(&outcome), ders(&[&second]));
}

#[tokio::test]
async fn an_intermediate_renewed_under_the_same_root_changes_nothing() {
    let (root, next) = (certs::ca(), certs::ca());
    let below = |root: &Identity| Spec { subject: "Intermediate", ..CA }.signed_by(root);
    let (one, two, three) = (below(&root), below(&root), below(&next));
    let stored = source(signer(&[&one], &[&root]));
    let outcome = admit(&review(&stored, &signer(&[&two], &[&root]))).await;
    assert_eq!(outcome.annotation("previous"), None);
    // ca.crt of an intermediate is bundled, and its first certificate is the root in use.
    let outcome = admit(&review(&outcome.stored, &signer(&[&three], &[&next]))).await;
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&next, &root]));
    assert_eq!(previous(&outcome), ders(&[&root]));
}

#[tokio::test]
async fn what_a_bundle_carries_is_passed_on_until_it_goes() {
    let [first, second, third] = std::array::from_fn(|_| certs::ca());
    let make = |ca: &Identity| {
        let leaf = BASE64_STANDARD.encode(certs::leaf(ca, true).pem);
        secret(
            "kubernetes.io/tls",
            &json!({"ca.crt": BASE64_STANDARD.encode(&ca.pem), "tls.crt": leaf, "tls.key": ""}),
        )
    };
    let outcome = renewed(&[&first, &second], make).await;
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&second, &first]));
    assert_eq!(outcome.annotation("previous"), None);
    let outcome = renewed(&[&first, &second, &third], make).await;
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&third, &second]));
    assert_eq!(previous(&outcome), ders(&[&first]));
}

/// Before January 2026, and after.
const PAST: Spec<'_> = Spec { not_after: (2025, 1, 1), ..CA };

#[tokio::test]
async fn a_distrusted_or_expired_ca_does_not_stay() {
    let [first, second, third] = std::array::from_fn(|_| certs::ca());
    let make = |ca: &Identity| signer(&[ca], &[]);
    let outcome = renewed(&[&first, &second, &third], make).await;
    let distrusting = annotate(outcome.stored.clone(), "distrust", &second.sha256());
    let at_once = admit(&as_patch(review(&outcome.stored, &distrusting))).await;
    assert_eq!(previous(&at_once), ders(&[&first]));
    let distrusting = annotate(source(make(&second)), "distrust", &second.sha256());
    let later = admit(&review(&distrusting, &make(&third))).await;
    assert_eq!(later.annotation("previous"), None);
    let expired = PAST.self_signed();
    assert_eq!(renewed(&[&expired, &third], make).await.annotation("previous"), None);
    let stored =
        annotate(source(make(&third)), "previous", &since(&expired, "2024-01-01T00:00:00Z"));
    assert_eq!(admit(&review(&stored, &make(&third))).await.annotation("previous"), None);
}

#[tokio::test]
async fn a_writer_neither_forges_nor_loses_what_is_previous() {
    let [old, new, evil] = std::array::from_fn(|_| certs::ca());
    let state = since(&old, "2026-01-01T00:00:00Z");
    let stored = annotate(source(signer(&[&new], &[])), "previous", &state);
    let forged = annotate(stored.clone(), "previous", &since(&evil, "2026-01-01T00:00:00Z"));
    let mut removed = stored.clone();
    removed["metadata"]["annotations"] = json!({});
    let bare = signer(&[&new], &[]);
    let put = |incoming: &Value| review(&stored, incoming);
    let patch = |incoming: &Value| as_patch(put(incoming));
    for review in [put(&forged), patch(&forged), put(&removed), patch(&removed), put(&bare)] {
        assert_eq!(admit(&review).await.stored["metadata"], stored["metadata"]);
    }
    // Nobody's word counts, and none on a Secret that is no source.
    for before in [source(bare.clone()), bare] {
        let outcome = admit(&as_patch(review(&before, &forged))).await;
        assert_eq!(outcome.annotation("previous"), None);
    }
    let mut immutable = forged;
    immutable["immutable"] = true.into();
    let outcome = admit(&as_patch(review(&stored, &immutable))).await;
    assert_eq!(
        (outcome.decision(), outcome.annotation("previous")),
        ("immutable", Some(state.as_str()))
    );
    let mut unlabelled = stored.clone();
    unlabelled["metadata"]["labels"] = json!({});
    let outcome = admit(&as_patch(review(&stored, &unlabelled))).await;
    assert_eq!((outcome.label("source"), outcome.annotation("previous")), (None, None));
    // What comes with a copy is another object's.
    let created = admit(&reviews::create(&stored, GENERATOR)).await;
    assert_eq!((created.label("source"), created.annotation("previous")), (Some("true"), None));
}

/// A controller that keeps the uid, and replaces data, labels and annotations.
#[tokio::test]
async fn a_write_that_changes_the_pair_of_a_source_takes_no_setting_away() {
    let (old, new) = (certs::ca(), certs::ca());
    let mut stored = annotate(source(signer(&[&old], &[])), "distrust", &"0".repeat(64));
    let mut written = signer(&[&new], &[]);
    for secret in [&mut stored, &mut written] {
        secret["metadata"]["uid"] = "1".into();
        secret["metadata"]["managedFields"] = json!([]);
    }
    let outcome = admit(&review(&stored, &written)).await;
    assert_eq!((outcome.label("source"), previous(&outcome)), (Some("true"), ders(&[&old])));
    assert!(outcome.annotation("distrust").is_some());
}

#[tokio::test]
async fn where_annotations_have_no_room_fewer_are_kept() {
    let [first, second, third] = std::array::from_fn(|_| certs::ca());
    let older = since(&first, "2026-01-01T00:00:00Z");
    let stored = annotate(source(signer(&[&second], &[])), "previous", &older);
    let mut full = signer(&[&third], &[]);
    let one = names::PREVIOUS.len() + since(&second, "2026-01-01T00:00:00Z").len();
    full["metadata"]["annotations"]["big"] = "x".repeat(262_144 - 3 - one).into();
    let outcome = admit(&review(&stored, &full)).await;
    assert_eq!(previous(&outcome), ders(&[&second]));
    assert!(outcome.warnings().iter().any(|w| w.contains("annotations have no room")));
    full["metadata"]["annotations"]["big"] = "x".repeat(262_144 - 3).into();
    assert_eq!(admit(&review(&stored, &full)).await.annotation("previous"), None);
}

#[tokio::test]
async fn trust_set_anew_is_consent_anew() {
    let ca = certs::ca();
    let bare = || signer(&[&certs::leaf(&ca, true)], &[&ca]);
    let stored = annotate(annotate(bare(), "trust", "shop/root"), "trusted", "shop=1");
    let noted = |outcome: &Outcome| outcome.annotation("trusted").map(str::to_owned);
    // A generator's PUT, and another's word, change nothing.
    let wiped = admit(&review(&stored, &bare())).await;
    assert_eq!(
        (wiped.annotation("trust"), noted(&wiped)),
        (Some("shop/root"), Some("shop=1".into()))
    );
    let forged = annotate(stored.clone(), "trusted", "shop=2");
    let patch = |incoming: &Value, user: &str| as_patch(reviews::update(&stored, incoming, user));
    assert_eq!(noted(&admit(&patch(&forged, "alice")).await), Some("shop=1".into()));
    assert_eq!(noted(&admit(&patch(&forged, KEEPER)).await), Some("shop=2".into()));
    for trust in [Some("shop/root,shop/other"), Some(""), None] {
        let mut again = stored.clone();
        again["metadata"]["annotations"][names::TRUST] = json!(trust);
        if trust.is_none() {
            again["metadata"]["annotations"].as_object_mut().unwrap().remove(names::TRUST);
        }
        for user in ["alice", KEEPER] {
            let outcome = admit(&patch(&again, user)).await;
            assert_eq!((outcome.annotation("trust"), noted(&outcome)), (trust, None));
        }
    }
    // The keeper brings back both after a write that the webhook did not see.
    let encoded = |text: &str| BASE64_STANDARD.encode(text);
    let repair = format!("repair trust:{} trusted:{}", encoded("shop/root"), encoded("shop=1"));
    let lost = bare();
    let asked = annotate(lost.clone(), "ask", &repair);
    let repaired = admit(&as_patch(reviews::update(&lost, &asked, KEEPER))).await;
    assert_eq!(
        (repaired.annotation("trust"), noted(&repaired)),
        (Some("shop/root"), Some("shop=1".into()))
    );
    // A copy keeps the setting, which the keeper has not seen there.
    let created = admit(&reviews::create(&stored, GENERATOR)).await;
    assert_eq!((created.annotation("trust"), noted(&created)), (Some("shop/root"), None));
}

/// A write of a source.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A fresh object with this CA.
    Put(usize),
    /// An edit that writes this CA, and forges what is previous.
    Patch(usize),
    /// A person distrusts this CA as well.
    Distrust(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..4_usize).prop_map(Event::Put),
        4 => (0..4_usize).prop_map(Event::Patch),
        1 => (0..4_usize).prop_map(Event::Distrust),
    ]
}

proptest! {
    #![proptest_config(config(200))]

    /// Also where the Secret has no `ca.crt`, or `mode=off`.
    #[test]
    fn the_last_two_other_cas_are_previous_in_every_history(
        events in vec(event(), 1..12),
        has_ca_crt in any::<bool>(),
        is_off in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let make = |ca: usize| {
            let anchors = if has_ca_crt { vec![&CAS[ca]] } else { Vec::new() };
            signer(&[&CAS[ca]], &anchors)
        };
        let mode = if is_off { "off" } else { "" };
        let mut stored = label(source(make(0)), "mode", mode);
        let (mut held, mut expected, mut distrusted) = (0, Vec::new(), Vec::new());
        for event in events {
            let review = match event {
                Event::Put(ca) => review(&stored, &make(ca)),
                Event::Patch(ca) => {
                    let mut object = annotate(stored.clone(), "previous", &since(&CAS[3], "2026-01-01T00:00:00Z"));
                    object["data"] = make(ca)["data"].clone();
                    as_patch(review(&stored, &object))
                }
                Event::Distrust(ca) => {
                    distrusted.push(ca);
                    let all: Vec<_> = distrusted.iter().map(|ca| CAS[*ca].sha256()).collect();
                    as_patch(review(&stored, &annotate(stored.clone(), "distrust", &all.join(","))))
                }
            };
            if let Event::Put(ca) | Event::Patch(ca) = event {
                expected.insert(0, held);
                held = ca;
            }
            let mut seen = vec![held];
            expected.retain(|ca| {
                let stays = !seen.contains(ca) && !distrusted.contains(ca);
                seen.push(*ca);
                stays
            });
            expected.truncate(2);
            let outcome = runtime.block_on(admit(&review));
            let cas: Vec<_> = expected.iter().map(|ca| &CAS[*ca]).collect();
            prop_assert_eq!(previous(&outcome), ders(&cas));
            prop_assert_eq!(&outcome.stored["data"], &make(held)["data"], "it signs");
            stored = outcome.stored;
        }
    }
}
