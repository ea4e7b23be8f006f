//! The keeper's memory, and the repair that follows from comparing a Secret with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ca_overlap::keeper::memory::{Memory, Remembered, RepairPlan};
use ca_overlap::kubernetes::key::Key;
use ca_overlap::kubernetes::secret_view::SecretView;
use ca_overlap::names;
use ca_overlap::overlap::ask::Repaired;
use ca_overlap::overlap::distrust::{DistrustList, FormerDistrust};
use ca_overlap::overlap::outlook::Rules;
use ca_overlap::overlap::record::{Entry, Record};
use ca_overlap::overlap::settings::Defaults;
use ca_overlap::x509::certs::Fingerprint;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use devtools::certs::{self, Identity, bundle};
use devtools::secrets::tls_secret;

const NOW: &str = "2026-03-01T10:00:00Z";
const RECORD: &str = "[]";

fn rules() -> Rules {
    Rules { defaults: Defaults::default(), settle: Duration::from_secs(120) }
}

/// A Secret of `cas` with a leaf of the first, as the watch shows it.
fn secret(uid: &str, cas: &[&Identity], annotations: &Value, mode: Option<&str>) -> SecretView {
    let mut object = tls_secret("envoy", &bundle(cas), &cas[0].leaf("envoy"));
    object["metadata"]["namespace"] = json!("n");
    object["metadata"]["uid"] = json!(uid);
    object["metadata"]["annotations"] = annotations.clone();
    if let Some(mode) = mode {
        object["metadata"]["labels"] = json!({names::MODE: mode});
    }
    serde_json::from_value(object).unwrap()
}

fn compare(before: &SecretView, after: &SecretView) -> Option<RepairPlan> {
    compare_with(before, after, &[])
}

fn compare_with(
    before: &SecretView,
    after: &SecretView,
    distrusted: &[Fingerprint],
) -> Option<RepairPlan> {
    let now: Timestamp = NOW.parse().unwrap();
    let namespace = Arc::new(distrusted.iter().copied().collect());
    let former = FormerDistrust { namespace, ..FormerDistrust::default() };
    Remembered::of(before).unwrap().compare(after, &rules(), &former, now)
}

fn distrusted(memory: &Memory, namespace: &str) -> Vec<Fingerprint> {
    let former = memory.distrusted(namespace);
    former.namespace.iter().chain(&*former.cluster).copied().collect()
}

/// To be carried with a new date.
fn again(ca: &Identity) -> [Repaired; 1] {
    [ca.der.to_vec().into()]
}

/// To be carried as [`carried`] says.
fn as_before(ca: &Identity) -> [Repaired; 1] {
    let record = carried(ca)[names::CARRIED].as_str().unwrap().to_owned();
    let entry: Entry = Record::parse(&record).unwrap().entries()[0];
    [Repaired { der: ca.der.to_vec(), entry: Some(entry) }]
}

fn carried(ca: &Identity) -> Value {
    let record = json!([{"sha256": ca.sha256(), "since": NOW}]).to_string();
    json!({names::CARRIED: record})
}

#[test]
fn a_rotation_that_the_webhook_missed_is_detected() {
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    for record in [json!({}), json!({names::CARRIED: RECORD})] {
        let before = secret("u", &[&old], &record, Some("bundle"));
        let after = secret("u", &[&new], &record, Some("bundle"));
        let plan = compare(&before, &after).unwrap();
        assert_eq!(plan.certificates, again(&old));
        assert!(plan.annotations.is_empty() && plan.mode.is_none() && !plan.is_recreated);
    }
}

#[test]
fn a_write_that_the_webhook_has_seen_needs_no_repair() {
    let [one, two, three] = ["CA1", "CA2", "CA3"].map(certs::ca_named);
    let first = secret("u", &[&one], &json!({}), Some("bundle"));
    let second = secret("u", &[&two, &one], &carried(&one), Some("bundle"));
    let third = secret("u", &[&three, &two], &carried(&two), Some("bundle"));
    assert_eq!(compare(&first, &second), None);
    assert_eq!(compare(&second, &third), None);
    // Two rotations, of which the watch showed only the last.
    assert_eq!(compare(&first, &third), None);
    // Retired, re-applied, unchanged.
    let retired = secret("u", &[&two], &json!({names::CARRIED: RECORD}), Some("bundle"));
    assert_eq!(compare(&second, &retired), None);
    assert_eq!(compare(&retired, &retired), None);
}

#[test]
fn a_repair_obeys_the_settings() {
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let distrust = json!({names::DISTRUST: old.sha256()});
    for (settings, mode) in
        [(json!({names::KEEP: "0"}), "bundle"), (json!({}), "off"), (distrust, "bundle")]
    {
        let before = secret("u", &[&old], &settings, Some(mode));
        let after = secret("u", &[&new], &settings, Some(mode));
        assert_eq!(compare(&before, &after), None, "{settings}");
    }
}

#[test]
fn a_recreated_secret_gets_its_settings_and_its_overlap_back() {
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let settings = json!({names::KEEP: "2", names::WINDOW: "1h", names::CARRIED: RECORD});
    let before = secret("u", &[&old], &settings, Some("bundle"));
    let after = secret("v", &[&new], &json!({names::WINDOW: "2h"}), None);
    let plan = compare(&before, &after).unwrap();
    assert!(plan.is_recreated);
    assert_eq!(plan.certificates, again(&old));
    assert_eq!(plan.mode.as_deref(), Some("bundle"));
    let restored: Vec<_> = plan.annotations.into_iter().collect();
    assert_eq!(restored, [(names::KEEP, "2".to_owned())], "what is set again counts");

    // The restored settings apply at once.
    let distrust = json!({names::DISTRUST: old.sha256()});
    let before = secret("u", &[&old], &distrust, Some("bundle"));
    let plan = compare(&before, &secret("v", &[&new], &json!({}), None)).unwrap();
    assert!(plan.certificates.is_empty() && plan.annotations.contains_key(names::DISTRUST));
}

#[test]
fn lost_certificates_and_settings_are_asked_for() {
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let settings = json!({names::KEEP: "2", names::RESTARTED: "T1"});
    let before = secret("u", &[&old], &settings, Some("bundle"));
    let repair = compare(&before, &secret("v", &[&new], &json!({}), None)).unwrap().repair();
    assert_eq!(repair.certificates, again(&old));
    let wanted = [(names::KEEP, "2"), (names::RESTARTED, "T1"), (names::MODE, "bundle")];
    assert_eq!(repair.settings, wanted.map(|(key, value)| (key, value.to_owned())));
}

#[test]
fn where_the_webhook_leaves_data_alone_no_certificate_is_asked_for() {
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let before = secret("u", &[&old], &json!({names::KEEP: "2"}), Some("staged"));
    let after = |change: Value| -> SecretView {
        let mut object = tls_secret("envoy", &new.pem, &new.leaf("envoy"));
        object["metadata"]["uid"] = json!("v");
        json_patch::merge(&mut object, &change);
        serde_json::from_value(object).unwrap()
    };
    for change in [
        json!({"data": {"old-ca.crt": ""}}),
        json!({"data": {"tls.crt": null, "ca.key": ""}}),
        json!({"metadata": {"labels": {"strimzi.io/kind": "Kafka"}}}),
        json!({"metadata": {"ownerReferences": [{"apiVersion": "secrets.hashicorp.com/v1beta1"}]}}),
        json!({"immutable": true}),
    ] {
        let plan = compare(&before, &after(change.clone())).unwrap();
        assert_eq!((plan.certificates.len(), plan.annotations.len()), (0, 1), "{change}");
    }
    // Service account tokens are not compared at all.
    let token = after(json!({"type": "kubernetes.io/service-account-token"}));
    assert_eq!(compare(&before, &token), None);
    // With the restored mode bundle even a signer's Secret is bundled.
    let bundle = secret("u", &[&old], &json!({}), Some("bundle"));
    let signer = after(json!({"data": {"tls.crt": null, "ca.key": ""}}));
    assert_eq!(compare(&bundle, &signer).unwrap().certificates, again(&old));
}

#[test]
fn a_put_that_wiped_our_keys_is_repaired_and_a_person_who_removed_them_is_obeyed() {
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let mut settings = carried(&old);
    settings[names::KEEP] = json!("2");
    let before = secret("u", &[&new, &old], &settings, Some("bundle"));
    // A missed PUT by a generator: the carried CA is gone, too.
    let wiped = compare(&before, &secret("u", &[&new], &json!({}), None)).unwrap();
    assert_eq!(wiped.certificates, as_before(&old), "its dates continue");
    assert_eq!(wiped.mode.as_deref(), Some("bundle"));
    // `kubectl label … mode-` and `annotate … keep-`.
    let obeyed = secret("u", &[&new, &old], &carried(&old), None);
    assert_eq!(compare(&before, &obeyed), None);
}

#[test]
fn a_put_that_wiped_settings_without_a_record_brings_back_no_distrusted_ca() {
    let [stolen, new] = ["CA1", "CA2"].map(certs::ca_named);
    let distrust = json!({names::DISTRUST: stolen.sha256()});
    let before = secret("u", &[&stolen], &distrust, Some("bundle"));
    let plan = compare(&before, &secret("u", &[&new], &json!({}), None)).unwrap();
    assert_eq!(plan.certificates, []);
    assert_eq!(plan.mode.as_deref(), Some("bundle"));
    assert_eq!(plan.annotations[names::DISTRUST], stolen.sha256());
    // A PATCH keeps the record, so a removed setting is not restored. The CA was distrusted when
    // it was last seen, so it is not brought back.
    let mut listed = distrust;
    listed[names::CARRIED] = json!(RECORD);
    let before = secret("u", &[&stolen], &listed, Some("bundle"));
    let after = secret("u", &[&new], &json!({names::CARRIED: RECORD}), Some("bundle"));
    assert_eq!(compare(&before, &after), None);
}

#[test]
fn a_recreated_secret_keeps_its_distrusted_cas() {
    let [stolen, new] = ["CA1", "CA2"].map(certs::ca_named);
    let [stolen_sha256, other] = [&stolen.der[..], b"other"].map(devtools::certs::sha256);
    let distrust = json!({names::DISTRUST: stolen_sha256});
    let before = secret("u", &[&stolen], &distrust, Some("bundle"));
    for (listed, expected) in [
        (other.clone(), format!("{other},{stolen_sha256}")),
        (format!("{other}, "), format!("{other},{stolen_sha256}")),
        (String::new(), stolen_sha256.clone()),
    ] {
        let listed = json!({names::DISTRUST: listed});
        let plan = compare(&before, &secret("v", &[&new], &listed, Some("bundle"))).unwrap();
        assert_eq!(plan.certificates, []);
        assert_eq!(plan.annotations[names::DISTRUST], expected);
        let done = json!({names::DISTRUST: expected});
        assert_eq!(compare(&before, &secret("v", &[&new], &done, Some("bundle"))), None);
    }
}

#[test]
fn a_ca_that_was_once_distrusted_is_not_repaired() {
    let [stolen, new] = ["CA1", "CA2"].map(certs::ca_named);
    let before = secret("u", &[&stolen], &json!({}), Some("bundle"));
    let after = secret("v", &[&new], &json!({}), Some("bundle"));
    assert_eq!(compare(&before, &after).unwrap().certificates, again(&stolen));
    assert_eq!(compare_with(&before, &after, &[Fingerprint::of(&stolen.der)]), None);
    let mut rules = rules();
    rules.defaults.distrusted = list(&[&stolen]);
    let remembered = Remembered::of(&before).unwrap();
    let former = FormerDistrust::default();
    assert_eq!(remembered.compare(&after, &rules, &former, NOW.parse().unwrap()), None, "listed");
}

fn list(cas: &[&Identity]) -> Arc<DistrustList> {
    let list: BTreeMap<_, _> = cas.iter().map(|ca| (ca.sha256(), "")).collect();
    Arc::new(DistrustList::read(&list))
}

#[tokio::test(start_paused = true)]
async fn what_was_once_distrusted_is_remembered_as_long_as_anything_is() {
    let [stolen, other] = ["CA1", "CA2"].map(certs::ca_named);
    let [stolen_sha256, other_sha256] = [&stolen, &other].map(|ca| Fingerprint::of(&ca.der));
    let says = |ca: &Identity| secret("u", &[ca], &json!({names::DISTRUST: ca.sha256()}), None);
    let mut memory = Memory::default();
    let [victim, witness] = ["victim", "witness"].map(|name| Key::new("n", name));
    memory.distrust(&witness, &[other_sha256]);
    assert!(distrusted(&memory, "n").is_empty(), "there is nothing to repair yet");

    memory.remember(&victim, &secret("u", &[&stolen], &json!({}), Some("bundle")));
    memory.remember(&witness, &says(&stolen));
    memory.lose(&victim, Instant::now());
    memory.forget(&witness);
    assert_eq!(distrusted(&memory, "n"), [stolen_sha256], "also when the Secret is gone");
    assert!(distrusted(&memory, "theirs").is_empty(), "it says nothing to other namespaces");
    memory.distrust(&witness, &[other_sha256]);
    assert_eq!(distrusted(&memory, "n").len(), 2, "also from a Secret that is not remembered");
    let many: Vec<_> = (0..1000_u32).map(|n| Fingerprint::of(&n.to_be_bytes())).collect();
    memory.distrust(&witness, &many);
    assert_eq!(distrusted(&memory, "n").len(), 256, "the memory of a namespace is bounded");

    // What the cluster once distrusted is remembered everywhere.
    memory.delist(&list(&[&stolen]));
    assert_eq!(distrusted(&memory, "theirs"), [stolen_sha256]);
    tokio::time::advance(Duration::from_secs(601)).await;
    assert_eq!(memory.expire(Instant::now()), std::slice::from_ref(&victim));
    assert!(distrusted(&memory, "n").is_empty() && distrusted(&memory, "theirs").is_empty());

    // A change of the only Secret keeps both.
    memory.remember(&victim, &says(&stolen));
    memory.delist(&list(&[&other]));
    memory.remember(&victim, &secret("u", &[&other], &json!({}), Some("bundle")));
    assert_eq!(distrusted(&memory, "n"), [stolen_sha256, other_sha256]);
}

#[test]
fn a_ca_that_lost_its_record_is_carried_again_with_its_dates() {
    let [old, new, newer] = ["CA1", "CA2", "CA3"].map(certs::ca_named);
    let before = secret("u", &[&new, &old], &carried(&old), Some("bundle"));
    for uid in ["u", "v"] {
        // The same object, and a recreated one.
        let after = secret(uid, &[&new, &old], &json!({}), Some("bundle"));
        assert_eq!(compare(&before, &after).unwrap().certificates, as_before(&old), "{uid}");
        let done = secret(uid, &[&new, &old], &carried(&old), Some("bundle"));
        assert_eq!(compare(&before, &done), None, "{uid}");
    }
    // The generator's new bundle contains the old CA, which is thus its own.
    let own = secret("u", &[&newer, &old], &json!({}), Some("bundle"));
    assert_eq!(compare(&before, &own).unwrap().certificates, again(&new));
}

#[test]
fn a_recreated_secret_keeps_the_dates_of_its_carried_ca() {
    let [old, new] = ["CA1", "CA2"].map(certs::ca_named);
    let before = secret("u", &[&new, &old], &carried(&old), Some("bundle"));
    let plan = compare(&before, &secret("v", &[&new], &json!({}), Some("bundle"))).unwrap();
    assert_eq!(plan.certificates, as_before(&old));
}

#[test]
fn what_keep_has_no_room_for_is_not_asked_for_after_the_repair() {
    let [one, two, three, four] = ["CA1", "CA2", "CA3", "CA4"].map(certs::ca_named);
    let before = secret("u", &[&two, &one], &carried(&one), Some("bundle"));
    let recreated = secret("v", &[&three], &json!({}), None);
    assert_eq!(compare(&before, &recreated).unwrap().certificates, again(&two));
    let repaired = secret("v", &[&three, &two], &carried(&two), Some("bundle"));
    assert_eq!(compare(&before, &repaired), None, "the ask would be refused");
    // The webhook saw a rotation of the new object before the keeper looked.
    let rotated = secret("v", &[&four, &three], &carried(&three), Some("bundle"));
    assert_eq!(compare(&before, &rotated), None);
    // Where there is room, the rest is asked for.
    let mut two_cas = carried(&two);
    two_cas[names::KEEP] = json!("2");
    let repaired = secret("v", &[&three, &two], &two_cas, Some("bundle"));
    assert_eq!(compare(&before, &repaired).unwrap().certificates, as_before(&one));
}

#[test]
fn a_namespace_younger_than_the_secret_is_a_different_one() {
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let mut object = tls_secret("envoy", &old.pem, &old.leaf("envoy"));
    object["metadata"]["uid"] = json!("u");
    let after = secret("v", &[&new], &json!({}), Some("bundle"));
    let plan = |object: &Value| {
        let before: SecretView = serde_json::from_value(object.clone()).unwrap();
        compare(&before, &after).unwrap()
    };
    let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
    assert!(!plan(&object).can_be_of(at("2026-01-01T10:00:00Z")), "not known");
    object["metadata"]["creationTimestamp"] = json!("2026-02-01T10:00:00Z");
    let plan = plan(&object);
    for (namespace, expected) in [
        (at("2026-01-01T10:00:00Z"), true),
        (at("2026-02-01T10:00:00Z"), true),
        (at("2026-02-01T10:00:01Z"), false),
        (None, false),
    ] {
        assert_eq!(plan.can_be_of(namespace), expected, "{namespace:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_in_size_number_and_time() {
    let ca = certs::ca_named("CA1");
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
    assert!(memory.get(&key(1), Instant::now()).is_some());
    tokio::time::advance(Duration::from_secs(1)).await;
    // Entries expire even if they are not looked up.
    assert!(memory.get(&key(1), Instant::now()).is_none());
    assert!(memory.lose(&key(0), Instant::now()).is_none());
    assert_eq!(memory.len(), 255);
    // Now there is room for another deleted Secret.
    memory.remember(&key(300), &seen);
    assert!(memory.lose(&key(300), Instant::now()).is_some());
    memory.remember(&key(300), &seen);
    assert_eq!((memory.len(), memory.expire(Instant::now()).len()), (256, 255));
    assert_eq!(memory.len(), 1);
    assert!(memory.lose(&key(999), Instant::now()).is_none(), "never remembered");

    let large = bundle(&vec![&ca; 200]);
    let mut object = tls_secret("large", &large, &ca.leaf("x"));
    object["metadata"]["uid"] = json!("u");
    let large: SecretView = serde_json::from_value(object).unwrap();
    memory.remember(&key(300), &large);
    assert!(memory.is_empty(), "neither the large one nor the one before it");
    assert_eq!(memory.refused(), 1);
    memory.remember(&key(300), &seen);
    assert_eq!((memory.len(), memory.refused()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_secret_is_looked_for_less_and_less_often() {
    let ca = certs::ca_named("CA1");
    let mut memory = Memory::default();
    let key = Key::new("n", "s");
    memory.remember(&key, &secret("u", &[&ca], &json!({}), Some("bundle")));
    let mut pauses = Vec::new();
    while let Some(next) = memory.lose(&key, Instant::now()) {
        pauses.push((next - Instant::now()).as_secs());
        tokio::time::advance(next - Instant::now()).await;
    }
    assert_eq!(pauses[..7], [1, 1, 2, 4, 8, 16, 30]);
    assert!(pauses.len() < 30, "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn the_memory_of_a_deleted_secret_ends_with_its_namespace() {
    let ca = certs::ca_named("CA1");
    let mut memory = Memory::default();
    let seen = secret("u", &[&ca], &json!({}), Some("bundle"));
    let [lost, alive, late] = ["lost", "alive", "late"].map(|name| Key::new("n", name));
    memory.remember(&lost, &seen);
    memory.remember(&alive, &seen);
    memory.set_namespace_uid("n", Some("first"));
    memory.remember(&late, &seen);
    for key in [&lost, &alive, &late] {
        assert_eq!(memory.namespace_uid(key), Some("first"));
    }
    memory.lose(&lost, Instant::now());
    memory.set_namespace_uid("n", Some("first"));
    assert!(memory.get(&lost, Instant::now()).is_some());
    memory.set_namespace_uid("n", Some("second"));
    assert!(memory.get(&lost, Instant::now()).is_none());
    assert_eq!(memory.namespace_uid(&alive), Some("second"));
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_only_lost_its_labels_stays_in_memory() {
    let ca = certs::ca_named("CA1");
    let mut memory = Memory::default();
    let seen = |uid: &str| secret(uid, &[&ca], &json!({}), Some("bundle"));
    let [wiped, recreated] = ["wiped", "recreated"].map(|name| Key::new("n", name));
    for key in [&wiped, &recreated] {
        memory.remember(key, &seen("u"));
    }
    memory.set_namespace_uid("n", Some("first"));
    for key in [&wiped, &recreated] {
        memory.lose(key, Instant::now());
    }
    memory.found(&wiped, &secret("u", &[&ca], &json!({}), None));
    memory.found(&recreated, &secret("v", &[&ca], &json!({}), None));
    tokio::time::advance(Duration::from_secs(601)).await;
    assert_eq!(memory.expire(Instant::now()), [recreated]);
    assert!(memory.get(&wiped, Instant::now()).is_some());
    assert_eq!(memory.namespace_uid(&wiped), Some("first"));
    // The uid of its namespace is known, so the next Secret in it does not ask for it.
    let other = Key::new("n", "other");
    assert_eq!(memory.remember(&other, &seen("w")), None);
    assert_eq!(memory.namespace_uid(&other), Some("first"));
    // A later deletion starts the usual time.
    assert!(memory.lose(&wiped, Instant::now()).is_some());
    tokio::time::advance(Duration::from_secs(601)).await;
    assert_eq!(memory.expire(Instant::now()), [wiped]);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_is_read_again_once_all_its_secrets_are_gone() {
    let ca = certs::ca_named("CA1");
    let mut memory = Memory::default();
    let seen = secret("u", &[&ca], &json!({}), Some("bundle"));
    let [tls, other] = ["tls", "other"].map(|name| Key::new("n", name));
    memory.remember(&tls, &seen);
    memory.set_namespace_uid("n", Some("first"));
    memory.lose(&tls, Instant::now());
    // The namespace may have been recreated, so the known uid is not used.
    assert_eq!(memory.remember(&other, &seen), Some(Key::new("", "n")));
    assert_eq!(memory.namespace_uid(&other), None);
    assert_eq!(memory.namespace_uid(&tls), Some("first"));
    memory.set_namespace_uid("n", Some("second"));
    assert!(memory.get(&tls, Instant::now()).is_none());
    assert_eq!(memory.namespace_uid(&other), Some("second"));
    // A change of a known Secret does not ask again.
    assert_eq!(memory.remember(&other, &seen), None);
    assert_eq!(memory.namespace_uid(&other), Some("second"));
}

#[tokio::test(start_paused = true)]
async fn what_a_namespace_deletes_or_stores_costs_no_other_one_its_memory() {
    let ca = certs::ca_named("CA1");
    let mut memory = Memory::default();
    let seen = secret("u", &[&ca], &json!({}), Some("bundle"));
    let busy = |number: usize| Key::new("busy", format!("s{number}"));
    let quiet = |number: usize| Key::new("quiet", format!("s{number}"));
    for number in 0..300 {
        memory.remember(&busy(number), &seen);
        memory.lose(&busy(number), Instant::now());
    }
    for number in 0..100 {
        memory.remember(&quiet(number), &seen);
        assert!(memory.lose(&quiet(number), Instant::now()).is_some(), "{number}");
    }
    let polled = |key: &Key| memory.get(key, Instant::now()).is_some();
    assert_eq!((0..300).filter(|&number| polled(&busy(number))).count(), 156);
    assert!((0..100).all(|number| polled(&quiet(number))));

    // 1,000 Secrets of 60 KB are more than all that the keeper remembers.
    let mut object = tls_secret("large", &"#".repeat(60_000), &ca.leaf("x"));
    object["metadata"]["uid"] = json!("u");
    let large: SecretView = serde_json::from_value(object).unwrap();
    let mut memory = Memory::default();
    for number in 0..1000 {
        memory.remember(&busy(number), &large);
    }
    let full = memory.len();
    assert!(full < 600 && memory.refused() == 1000 - full, "{full}");
    for number in 0..100 {
        memory.remember(&quiet(number), &large);
    }
    let kept = |key: &Key| memory.get(key, Instant::now()).is_some();
    assert!((0..100).all(|number| kept(&quiet(number))));
    assert!(kept(&busy(0)), "it keeps its share");
    assert_eq!(memory.len(), full);
    assert_eq!(memory.refused(), 1100 - full);
}
