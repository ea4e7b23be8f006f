//! Repairs of writes that the webhook missed, and of Secrets that were deleted and created again.

use ca_overlap::names;
use serde_json::{Value, json};

use super::setup::{Keeper, Rotation, Setup, eventually};
use crate::support::sample;
use devtools::certs::bundle;
use devtools::secrets::{Answer, MERGE, Secrets, tls_secret};

/// Creates a Secret with a mode, and waits until the keeper remembers it.
async fn remembered(keeper: &Keeper, secrets: &Secrets, annotations: Value) -> Rotation {
    let rotation = Rotation::begin(secrets, "envoy", annotations).await;
    label(&rotation, json!("bundle")).await;
    remembers(keeper, 1).await;
    let of_namespace = format!("namespace=\"{}\"", secrets.namespace);
    logged(keeper, &["read the uid of a namespace", &of_namespace]).await;
    rotation
}

pub(super) async fn label(rotation: &Rotation, mode: Value) {
    let patch = json!({"metadata": {"labels": {names::MODE: mode}}});
    rotation.secrets.patch(&rotation.name, MERGE, "fieldManager=person", &patch).await.ok();
}

/// Waits until the keeper remembers `count` Secrets, besides the one of the registration probe.
pub(super) async fn remembers(keeper: &Keeper, count: u32) {
    eventually(&format!("{count} remembered Secrets"), async || {
        let remembered = sample(&keeper.metrics().await, "ca_overlap_keeper_remembered");
        ((remembered - f64::from(count + 1)).abs() < 0.5).then_some(())
    })
    .await;
}

pub(super) async fn logged(keeper: &Keeper, words: &[&str]) {
    eventually(&format!("a line with {words:?}"), async || {
        let log = keeper.log();
        log.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
    })
    .await;
}

/// Waits until `ca.crt` holds the CAs of these generations, in this order.
pub(super) async fn holds(rotation: &Rotation, generations: &[usize]) -> Answer {
    let cas: Vec<_> = generations.iter().map(|&number| &rotation.generation[number]).collect();
    let wanted = bundle(&cas);
    eventually(&format!("the CAs {generations:?}"), async || {
        let stored = rotation.stored().await;
        (stored.pem("ca.crt") == wanted).then_some(stored)
    })
    .await
}

/// Deletes the Secret and creates it with a new CA, as `kubectl replace --force` does.
pub async fn recreate(rotation: &mut Rotation) {
    rotation.secrets.delete(&rotation.name).await.ok();
    let ca = devtools::certs::ca_named("again");
    let secret = tls_secret(&rotation.name, &ca.pem, &ca.leaf("envoy"));
    rotation.generation.push(ca);
    rotation.secrets.create(&secret).await.ok();
}

#[tokio::test]
async fn the_keeper_repairs_an_update_that_the_webhook_missed() {
    let test = "the_keeper_repairs_an_update_that_the_webhook_missed";
    let Some(setup) = Setup::start(test).await else { return };
    let keeper = setup.leading_keeper(&[]).await;
    let secrets = setup.cluster.namespace(test).await;
    let mut rotation = remembered(&keeper, &secrets, json!({})).await;
    setup.stop_webhook().await;
    let rotated = rotation.rotate().await;
    assert_eq!(rotated.pem("ca.crt"), rotation.generation[1].pem, "the webhook missed it");
    setup.start_webhook().await;

    let repaired = holds(&rotation, &[1, 0]).await;
    assert_eq!(repaired.label(names::PHASE), Some("overlap"));
    assert_eq!(repaired.annotation(names::ASK), None);
    let record: Value = serde_json::from_str(repaired.annotation(names::CARRIED).unwrap()).unwrap();
    assert!(record[0]["until"].is_string(), "a repair always has an end: {record}");
    assert_eq!(rotation.data_managers().await, ["helm"]);
    setup.event(&rotation, "Repaired").await;
    // The next rotation works as usual.
    rotation.rotate().await;
    holds(&rotation, &[2, 1]).await;
}

#[tokio::test]
async fn a_recreated_secret_gets_its_overlap_and_settings_back() {
    let test = "a_recreated_secret_gets_its_overlap_and_settings_back";
    let Some(setup) = Setup::start(test).await else { return };
    let keeper = setup.leading_keeper(&[]).await;
    let secrets = setup.cluster.namespace(test).await;
    let mut rotation = remembered(&keeper, &secrets, json!({names::KEEP: "2"})).await;
    recreate(&mut rotation).await;
    let repaired = holds(&rotation, &[1, 0]).await;
    assert_eq!(repaired.label(names::MODE), Some("bundle"));
    assert_eq!(repaired.annotation(names::KEEP), Some("2"));
    assert_eq!(repaired.label(names::PHASE), Some("overlap"));

    // A distrusted CA does not come back, and stays distrusted.
    let distrusted = devtools::certs::sha256(&rotation.generation[1].der);
    let patch = json!({"metadata": {"annotations": {names::DISTRUST: distrusted}}});
    secrets.patch("envoy", MERGE, "fieldManager=person", &patch).await.ok();
    // This Event shows that the keeper has seen the write.
    setup.event(&rotation, "Distrusted").await;
    recreate(&mut rotation).await;
    let again = eventually("the settings", async || {
        let stored = rotation.stored().await;
        stored.annotation(names::DISTRUST).is_some().then_some(stored)
    })
    .await;
    assert_eq!(again.label(names::MODE), Some("bundle"));
    assert!(!again.pem("ca.crt").contains(&rotation.generation[1].pem));
}

#[tokio::test]
async fn a_recreated_namespace_gets_nothing_back() {
    let test = "a_recreated_namespace_gets_nothing_back";
    let Some(setup) = Setup::start(test).await else { return };
    let keeper = setup.leading_keeper(&[]).await;
    let secrets = setup.cluster.namespace(test).await;
    let mut rotation = remembered(&keeper, &secrets, json!({names::KEEP: "2"})).await;
    secrets.delete("envoy").await.ok();
    setup.recreate_namespace(&secrets).await;
    let ca = devtools::certs::ca_named("another tenant");
    let created = secrets.create(&tls_secret("envoy", &ca.pem, &ca.leaf("envoy"))).await.ok();
    rotation.generation.push(ca);

    logged(&keeper, &["not repaired: the namespace was", "secret=", "envoy"]).await;
    remembers(&keeper, 0).await;
    let stored = rotation.stored().await;
    assert_eq!(stored.resource_version(), created.resource_version());
    assert!(keeper.asks("repair", "done").await < 1.0);
}

#[tokio::test]
async fn a_removed_label_stays_removed() {
    let test = "a_removed_label_stays_removed";
    let Some(setup) = Setup::start(test).await else { return };
    let keeper = setup.leading_keeper(&[]).await;
    let secrets = setup.cluster.namespace(test).await;
    let rotation = remembered(&keeper, &secrets, json!({names::KEEP: "2"})).await;
    label(&rotation, Value::Null).await;
    remembers(&keeper, 0).await;
    let stored = rotation.stored().await;
    assert_eq!(stored.label(names::MODE), None);
    assert_eq!(stored.annotation(names::KEEP), Some("2"));
}

/// The field managers of our keys in the metadata, without the key of the ask: only the keeper
/// writes that one, and stays its manager.
fn managers(answer: &Answer) -> Vec<String> {
    let fields = answer.body["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let is_ours = |field: &Value| {
        let owned = field["fieldsV1"].to_string();
        let mut keys = names::KEYS.iter().filter(|key| **key != names::ASK);
        keys.any(|key| owned.contains(&format!("\"f:{key}\"")))
    };
    let of_ours = fields.into_iter().filter(is_ours);
    of_ours.map(|field| field["manager"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn restored_settings_conflict_with_no_other_field_manager() {
    let test = "restored_settings_conflict_with_no_other_field_manager";
    let Some(setup) = Setup::start(test).await else { return };
    let keeper = setup.leading_keeper(&[]).await;
    let secrets = setup.cluster.namespace(test).await;
    let mut rotation =
        remembered(&keeper, &secrets, json!({names::KEEP: "2", names::GROUP: "g"})).await;
    // As a chart that is uninstalled and installed again, and sets none of our keys.
    secrets.delete("envoy").await.ok();
    rotation.rotate().await;
    let repaired = holds(&rotation, &[1, 0]).await;
    assert_eq!(repaired.label(names::MODE), Some("bundle"));
    assert_eq!(
        (repaired.annotation(names::KEEP), repaired.annotation(names::GROUP)),
        (Some("2"), Some("g"))
    );
    assert_eq!(managers(&repaired), Vec::<String>::new(), "our keys have no manager");
    let event = setup.event(&rotation, "Repaired").await;
    let note = event["note"].as_str().unwrap();
    let carried = devtools::certs::sha256(&rotation.generation[0].der);
    for word in [&*carried, names::KEEP, names::GROUP, names::MODE] {
        assert!(note.contains(word), "{note}");
    }

    // The next version of the chart sets other values, without force.
    let ca = &rotation.generation[1];
    let mut secret = tls_secret("envoy", &ca.pem, &ca.leaf("envoy"));
    secret["metadata"]["annotations"] = json!({names::KEEP: "3", names::GROUP: "h"});
    secret["metadata"]["labels"] = json!({names::MODE: "off"});
    let applied = secrets.apply("envoy", "helm", false, &secret).await.ok();
    assert_eq!(
        (applied.annotation(names::KEEP), applied.annotation(names::GROUP)),
        (Some("3"), Some("h"))
    );
    assert_eq!(applied.label(names::MODE), Some("off"));
}

#[tokio::test]
async fn settings_are_restored_even_if_no_ca_is_carried() {
    let test = "settings_are_restored_even_if_no_ca_is_carried";
    let Some(setup) = Setup::start(test).await else { return };
    let keeper = setup.leading_keeper(&[]).await;
    let secrets = setup.cluster.namespace(test).await;
    let rotation = remembered(&keeper, &secrets, json!({names::KEEP: "2"})).await;
    // Create the Secret again with the same certificate.
    let ca = &rotation.generation[0];
    secrets.delete("envoy").await.ok();
    secrets.create(&tls_secret("envoy", &ca.pem, &ca.leaf("envoy"))).await.ok();
    eventually("the settings", async || {
        let stored = rotation.stored().await;
        let is_back = stored.annotation(names::KEEP) == Some("2");
        (is_back && stored.label(names::MODE) == Some("bundle")).then_some(())
    })
    .await;
    let event = setup.event(&rotation, "Repaired").await;
    let note = event["note"].as_str().unwrap();
    assert!(note.contains("set again") && !note.contains("carried again"), "{note}");
    assert!(keeper.asks("repair", "refused").await < 1.0);
    assert_eq!(rotation.stored().await.pem("ca.crt"), ca.pem);
}
