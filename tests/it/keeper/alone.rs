//! Where the webhook is not called any more, the keeper ends stages itself.

use ca_overlap::names;
use serde_json::{Value, json};

use super::drain::unregister;
use super::promote::{stage, wait_for_lease};
use super::setup::{Setup, eventually};
use crate::support::sample;
use devtools::certs;
use devtools::secrets::MERGE;

#[tokio::test]
async fn without_the_registration_the_keeper_ends_stages_itself() {
    let test = "without_the_registration_the_keeper_ends_stages_itself";
    let arguments = ["--staged", "--settle", "1h"];
    let Some(setup) = Setup::with(test, "staged", &arguments).await else { return };
    let mut keeper = setup.leading_keeper(&["--settle", "1h"]).await;
    wait_for_lease(&setup.cluster.namespace("trial").await).await;
    let secrets = setup.cluster.namespace(test).await;
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let leaf = new.leaf("envoy");
    let stage = async |name: &str| stage(&secrets, name, [&old, &new], &leaf).await;
    let (marked, wiped) = (stage("marked").await, stage("wiped").await);
    let stuck = stage("stuck").await;
    unregister(&setup, &marked).await;
    // Nothing can be done about an immutable Secret, but somebody has to know.
    secrets.patch("stuck", MERGE, "", &json!({"immutable": true})).await.ok();
    setup.event(&stuck, "PromoteBlocked").await;
    // Neither watch shows a Secret without labels, and the next keeper has never seen it.
    keeper.process.signal("KILL");
    let none = json!({
        names::MODE: null, names::PHASE: null,
    });
    let no_annotations = json!({names::STAGED: null, names::CARRIED: null, names::GROUP: null});
    let wipe = json!({"metadata": {"labels": none, "annotations": no_annotations}});
    secrets.patch("wiped", MERGE, "", &wipe).await.ok();

    let next = setup.keeper("keeper-1", &["--settle", "1s", "--group-wait", "2s"]).await;
    for rotation in [&marked, &wiped] {
        let what = format!("a promotion of {}", rotation.name);
        let stored = eventually(&what, async || {
            let stored = rotation.stored().await;
            stored.data(names::PENDING_TLS_KEY).is_none().then_some(stored)
        })
        .await;
        assert_eq!(
            (stored.pem("tls.crt"), stored.pem("tls.key")),
            (leaf.pem.clone(), leaf.key.clone())
        );
        assert_eq!(stored.pem("ca.crt"), certs::bundle(&[&new, &old]));
        assert_eq!(stored.data(names::PENDING_TLS_CRT), None);
        assert_eq!((stored.annotation(names::STAGED), stored.annotation(names::ASK)), (None, None));
        assert_eq!(rotation.data_managers().await, ["ca-overlap-keeper", "helm"]);
        let event: Value = setup.event(rotation, "Promoted").await;
        assert!(event["note"].as_str().unwrap().contains("the keeper itself"), "{event}");
    }
    assert_eq!(marked.stored().await.label(names::PHASE), Some("overlap"));
    let ended = sample(&next.metrics().await, "ca_overlap_keeper_stages_ended_total");
    assert!(ended >= 2.0, "{ended}");
    assert!(stuck.stored().await.data(names::PENDING_TLS_KEY).is_some());
}
