//! What is remembered, and what is found to be lost: the pure part of a repair.

use std::time::Duration;

use ca_overlap::keeper::api::Key;
use ca_overlap::keeper::due::Rules;
use ca_overlap::keeper::memory::{Memory, Plan, Remembered};
use ca_overlap::keeper::secret_view::SecretView;
use ca_overlap::names;
use ca_overlap::overlap::policy::Defaults;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::certs::{Ca, bundle};
use crate::support::secrets::tls_secret;

const NOW: &str = "2026-03-01T10:00:00Z";
const RECORD: &str = "[]";

fn rules() -> Rules {
    Rules { defaults: Defaults::default(), settle: Duration::from_secs(120) }
}

/// A Secret of `cas` with a leaf of the first, as the watch shows it.
fn secret(uid: &str, cas: &[&Ca], annotations: &Value, mode: Option<&str>) -> SecretView {
    let mut object = tls_secret("envoy", &bundle(cas), &cas[0].leaf("envoy"));
    object["metadata"]["namespace"] = json!("n");
    object["metadata"]["uid"] = json!(uid);
    object["metadata"]["annotations"] = annotations.clone();
    if let Some(mode) = mode {
        object["metadata"]["labels"] = json!({names::MODE: mode});
    }
    serde_json::from_value(object).unwrap()
}

fn compare(before: &SecretView, after: &SecretView) -> Option<Plan> {
    let now: Timestamp = NOW.parse().unwrap();
    Remembered::of(before).unwrap().compare(after, &rules(), now)
}

fn carried(ca: &Ca) -> Value {
    let record = json!([{"sha256": crate::scene::sha256(&ca.der), "since": NOW}]).to_string();
    json!({names::CARRIED: record})
}

#[test]
fn a_rotation_that_the_webhook_has_not_seen_is_found() {
    let (old, new) = (Ca::new("CA1"), Ca::new("CA2"));
    for record in [json!({}), json!({names::CARRIED: RECORD})] {
        let before = secret("u", &[&old], &record, Some("bundle"));
        let after = secret("u", &[&new], &record, Some("bundle"));
        let plan = compare(&before, &after).unwrap();
        assert_eq!(plan.certificates, std::slice::from_ref(&old.der));
        assert!(plan.annotations.is_empty() && plan.mode.is_none() && !plan.is_recreated);
    }
}

#[test]
fn what_the_webhook_has_seen_is_left_alone() {
    let [one, two, three] = ["CA1", "CA2", "CA3"].map(Ca::new);
    let first = secret("u", &[&one], &json!({}), Some("bundle"));
    let second = secret("u", &[&two, &one], &carried(&one), Some("bundle"));
    let third = secret("u", &[&three, &two], &carried(&two), Some("bundle"));
    assert_eq!(compare(&first, &second), None);
    assert_eq!(compare(&second, &third), None);
    // Two rotations, of which the watch has shown the last alone.
    assert_eq!(compare(&first, &third), None);
    // Retired, re-applied, unchanged.
    let retired = secret("u", &[&two], &json!({names::CARRIED: RECORD}), Some("bundle"));
    assert_eq!(compare(&second, &retired), None);
    assert_eq!(compare(&retired, &retired), None);
}

#[test]
fn what_the_settings_forbid_is_not_repaired() {
    let (old, new) = (Ca::new("CA1"), Ca::new("CA2"));
    let distrust = json!({names::DISTRUST: crate::scene::sha256(&old.der)});
    for (settings, mode) in
        [(json!({names::KEEP: "0"}), "bundle"), (json!({}), "off"), (distrust, "bundle")]
    {
        let before = secret("u", &[&old], &settings, Some(mode));
        let after = secret("u", &[&new], &settings, Some(mode));
        assert_eq!(compare(&before, &after), None, "{settings}");
    }
}

#[test]
fn a_new_object_gets_its_settings_and_its_overlap_back() {
    let (old, new) = (Ca::new("CA1"), Ca::new("CA2"));
    let settings = json!({names::KEEP: "2", names::WINDOW: "1h", names::CARRIED: RECORD});
    let before = secret("u", &[&old], &settings, Some("bundle"));
    let after = secret("v", &[&new], &json!({names::WINDOW: "2h"}), None);
    let plan = compare(&before, &after).unwrap();
    assert!(plan.is_recreated);
    assert_eq!(plan.certificates, std::slice::from_ref(&old.der));
    assert_eq!(plan.mode.as_deref(), Some("bundle"));
    let restored: Vec<_> = plan.annotations.into_iter().collect();
    assert_eq!(restored, [(names::KEEP, "2".to_owned())], "what is set anew counts");

    // The restored settings count at once.
    let distrust = json!({names::DISTRUST: crate::scene::sha256(&old.der)});
    let before = secret("u", &[&old], &distrust, Some("bundle"));
    let plan = compare(&before, &secret("v", &[&new], &json!({}), None)).unwrap();
    assert!(plan.certificates.is_empty() && plan.annotations.contains_key(names::DISTRUST));
}

#[test]
fn a_put_that_wiped_our_keys_is_found_and_a_person_who_took_them_away_is_obeyed() {
    let (old, new) = (Ca::new("CA1"), Ca::new("CA2"));
    let mut settings = carried(&old);
    settings[names::KEEP] = json!("2");
    let before = secret("u", &[&new, &old], &settings, Some("bundle"));
    // PUT by a generator, unseen: what was carried has gone, too.
    let wiped = compare(&before, &secret("u", &[&new], &json!({}), None)).unwrap();
    assert_eq!(wiped.certificates, std::slice::from_ref(&old.der));
    assert_eq!(wiped.mode.as_deref(), Some("bundle"));
    // `kubectl label … mode-` and `annotate … keep-`.
    let obeyed = secret("u", &[&new, &old], &carried(&old), None);
    assert_eq!(compare(&before, &obeyed), None);
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_in_size_number_and_time() {
    let ca = Ca::new("CA1");
    let mut memory = Memory::default();
    let seen = secret("u", &[&ca], &json!({}), Some("bundle"));
    let key = |number: usize| Key::new("n", format!("s{number}"));
    assert_eq!(memory.remember(&key(0), &seen), Some(Key::new("", "n")), "its uid is wanted once");
    for number in 0..300 {
        assert_eq!(memory.remember(&key(number), &seen), None);
    }
    assert_eq!(memory.len(), 300);
    let looked_at = (0..300).filter(|&n| memory.lose(&key(n), Instant::now()).is_some()).count();
    assert_eq!(looked_at, 256);
    assert_eq!(memory.len(), 256);
    tokio::time::advance(Duration::from_secs(599)).await;
    assert!(memory.lose(&key(0), Instant::now()).is_some());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(memory.lose(&key(0), Instant::now()).is_none());
    assert!(memory.get(&key(0)).is_none());
    assert!(memory.lose(&key(999), Instant::now()).is_none(), "never remembered");

    let large = bundle(&vec![&ca; 200]);
    let mut object = tls_secret("large", &large, &ca.leaf("x"));
    object["metadata"]["uid"] = json!("u");
    let large: SecretView = serde_json::from_value(object).unwrap();
    memory.remember(&key(7), &large);
    assert!(memory.get(&key(7)).is_none(), "neither the large one nor the one before it");
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_in_a_namespace_does_not_outlive_it() {
    let ca = Ca::new("CA1");
    let mut memory = Memory::default();
    let seen = secret("u", &[&ca], &json!({}), Some("bundle"));
    let [lost, alive] = ["lost", "alive"].map(|name| Key::new("n", name));
    memory.remember(&lost, &seen);
    memory.remember(&alive, &seen);
    memory.set_namespace_uid("n", Some("first".into()));
    assert_eq!(memory.namespace_uid("n"), Some("first"));
    memory.lose(&lost, Instant::now());
    memory.set_namespace_uid("n", Some("first".into()));
    assert!(memory.get(&lost).is_some());
    memory.set_namespace_uid("n", Some("second".into()));
    assert!(memory.get(&lost).is_none() && memory.get(&alive).is_some());
}
