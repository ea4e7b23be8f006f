//! Where the webhook is not called any more, the keeper ends stages itself.

use base64::prelude::*;
use ca_overlap::names;
use serde_json::{Value, json};

use super::drain::{unregister, until_not_called};
use super::promote::stage;
use super::setup::{Rotation, Setup, eventually};
use crate::api_server::canary::{audit_log, audited};
use crate::support::{Plane, assets, sample, sum};
use devtools::certs::{self, Identity};
use devtools::secrets::{Answer, MERGE};

#[tokio::test]
async fn without_the_registration_the_keeper_ends_stages_itself() {
    let test = "without_the_registration_the_keeper_ends_stages_itself";
    let arguments = ["--staged", "--settle", "1h"];
    let Some(assets) = assets(test) else { return };
    let plane = Plane::with(audited(assets)).await;
    let Some(setup) = Setup::on(plane, test, "staged", &arguments).await else { return };
    let mut keeper = setup.keeper_at_rest().await;
    let secrets = setup.cluster.namespace(test).await;
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let leaf = new.leaf("envoy");
    let stage = async |name: &str| stage(&secrets, name, [&old, &new], &leaf).await;
    let (marked, wiped) = (stage("marked").await, stage("wiped").await);
    let stuck = stage("stuck").await;
    unregister(&setup, &marked).await;
    // Nothing can be done about an immutable Secret, but someone has to know.
    secrets.patch("stuck", MERGE, "", &json!({"immutable": true})).await.ok();
    setup.event(&stuck, "PromoteBlocked").await;
    // Neither watch shows a Secret without labels, and the next keeper has never seen it.
    keeper.process.signal("KILL");
    wipe(&wiped).await;

    let next = setup.keeper("keeper-1", &["--settle", "1s", "--group-wait", "2s"]).await;
    for rotation in [&marked, &wiped] {
        let stored = ended(rotation).await;
        assert_ended(&stored, [&old, &new], &leaf);
        assert_eq!(rotation.data_managers().await, ["ca-overlap-keeper", "helm"]);
        // The watch can show the promotion first, and then tells of it, too.
        eventually("an Event that says who did it", async || {
            let events = setup.events(rotation, "Promoted").await;
            let says =
                |event: &Value| event["note"].as_str().unwrap().contains("the keeper itself");
            events.iter().any(says).then_some(())
        })
        .await;
    }
    assert_eq!(marked.stored().await.label(names::PHASE), Some("overlap"));
    let ended = sample(&next.metrics().await, "ca_overlap_keeper_stages_ended_total");
    assert!(ended >= 2.0, "{ended}");
    assert!(stuck.stored().await.data(names::PENDING_TLS_KEY).is_some());
    no_move_shows_a_key(&audit_log(&setup.cluster), &leaf);
}

#[tokio::test]
async fn in_an_opted_out_namespace_the_keeper_ends_stages_itself_and_asks_nothing() {
    let test = "in_an_opted_out_namespace_the_keeper_ends_stages_itself_and_asks_nothing";
    let Some((setup, mut keeper)) = Setup::at_rest(test).await else { return };
    let secrets = setup.cluster.namespace(test).await;
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let leaf = new.leaf("envoy");
    let rotation = stage(&secrets, "envoy", [&old, &new], &leaf).await;
    let opt_out = json!({"metadata": {"labels": {names::MODE: "off"}}}).to_string();
    let arguments = ["patch", "namespace", &secrets.namespace, "--type=merge", "-p", &opt_out];
    setup.cluster.plane.kubectl(&arguments, &[]).await.unwrap();
    until_not_called(&rotation).await;
    keeper.process.signal("KILL");

    let next = setup.keeper("keeper-1", &["--settle", "1s", "--group-wait", "2s"]).await;
    assert_ended(&ended(&rotation).await, [&old, &new], &leaf);
    assert_eq!(rotation.data_managers().await, ["ca-overlap-keeper", "helm"]);
    let event: Value = setup.event(&rotation, "Promoted").await;
    assert!(event["note"].as_str().unwrap().contains("the keeper itself"), "{event}");
    let asked = sum(&next.metrics().await, "ca_overlap_keeper_asks_total", &[]);
    assert!(asked < 0.5, "{asked} asks in a namespace that is opted out");
}

#[tokio::test]
async fn marks_that_are_wiped_while_the_webhook_is_down_strand_no_pair() {
    let test = "marks_that_are_wiped_while_the_webhook_is_down_strand_no_pair";
    let Some((setup, _keeper)) = Setup::at_rest(test).await else { return };
    let secrets = setup.cluster.namespace(test).await;
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let leaf = new.leaf("envoy");
    let rotation = stage(&secrets, "envoy", [&old, &new], &leaf).await;
    setup.stop_webhook().await;
    wipe(&rotation).await;
    setup.start_webhook().await;
    // The settle time is not over: the name left the watch, so the keeper has looked at it.
    assert_ended(&ended(&rotation).await, [&old, &new], &leaf);
    assert_eq!(rotation.data_managers().await, ["helm"], "the webhook has ended it");
}

/// A `move` names two paths. So at level `Request` the audit log has no key of what the keeper does
/// itself, other than of what the generator and the webhook write.
fn no_move_shows_a_key(audit: &str, leaf: &Identity) {
    let plain = leaf.key.lines().nth(1).unwrap();
    let encoded = BASE64_STANDARD.encode(&leaf.key);
    // What follows the first line of the PEM, which is the same for each key.
    let shows_key = |text: &str| text.contains(plain) || text.contains(&encoded[60..160]);
    let is_move = |line: &&str| {
        let event: Value = serde_json::from_str(line).unwrap();
        let user = event["user"]["username"].as_str().unwrap_or_default();
        let operations = event["requestObject"].as_array();
        let moves = |operation: &Value| operation["op"] == "move";
        user.ends_with(names::KEEPER_SERVICE_ACCOUNT)
            && operations.is_some_and(|all| all.iter().filter(|one| moves(one)).count() == 2)
    };
    let moves: Vec<&str> = audit.lines().filter(is_move).collect();
    assert!(moves.len() >= 2, "both stages were ended by a move");
    assert!(!moves.iter().any(|line| shows_key(line)));
    assert!(audit.lines().any(shows_key), "control: the log has the requests of the generator");
}

/// Waits until no key waits.
async fn ended(rotation: &Rotation) -> Answer {
    eventually(&format!("the end of the stage of {}", rotation.name), async || {
        let stored = rotation.stored().await;
        stored.data(names::PENDING_TLS_KEY).is_none().then_some(stored)
    })
    .await
}

fn assert_ended(stored: &Answer, [old, new]: [&Identity; 2], leaf: &Identity) {
    let pair = (stored.pem("tls.crt"), stored.pem("tls.key"));
    assert_eq!(pair, (leaf.pem.clone(), leaf.key.clone()));
    assert_eq!(stored.pem("ca.crt"), certs::bundle(&[new, old]));
    assert_eq!(stored.data(names::PENDING_TLS_CRT), None);
    assert_eq!((stored.annotation(names::STAGED), stored.annotation(names::ASK)), (None, None));
}

/// Removes all labels and annotations, as a controller does that sets those it knows.
async fn wipe(rotation: &Rotation) {
    let labels = json!({names::MODE: null, names::PHASE: null});
    let annotations = json!({names::STAGED: null, names::CARRIED: null, names::GROUP: null});
    let wipe = json!({"metadata": {"labels": labels, "annotations": annotations}});
    rotation.secrets.patch(&rotation.name, MERGE, "", &wipe).await.ok();
}
