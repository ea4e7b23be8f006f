//! Staged rotations: a group of Secrets is promoted only when all members trust the new CA.

use std::time::Duration;

use base64::prelude::*;
use ca_overlap::names;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::setup::{Rotation, Setup, eventually};
use devtools::certs::{self, Identity, bundle};
use devtools::secrets::{Answer, MERGE, Secrets, tls_secret};

const SETTLE: &str = "3s";

pub async fn apply(secrets: &Secrets, name: &str, ca: &Identity, leaf: &Identity) -> Answer {
    let secret = tls_secret(name, &ca.pem, leaf);
    secrets.apply(name, "helm", false, &secret).await.ok()
}

/// Creates a Secret with a first CA, and sets its mode and group as a person does.
pub async fn begin(secrets: &Secrets, name: &str, ca: &Identity, mode: &str) -> Rotation {
    begin_in(secrets, name, ca, mode, Some("mesh")).await
}

async fn begin_in(
    secrets: &Secrets,
    name: &str,
    ca: &Identity,
    mode: &str,
    group: Option<&str>,
) -> Rotation {
    apply(secrets, name, ca, &ca.leaf("envoy")).await;
    let patch = json!({"metadata": {
        "labels": {names::MODE: mode}, "annotations": {names::GROUP: group},
    }});
    secrets.patch(name, MERGE, "fieldManager=person", &patch).await.ok();
    Rotation { secrets: secrets.clone(), name: name.into(), generation: Vec::new() }
}

/// Begins with a CA in mode `staged`, and rotates to another one with this leaf, which then waits.
pub async fn stage(
    secrets: &Secrets,
    name: &str,
    [old, new]: [&Identity; 2],
    leaf: &Identity,
) -> Rotation {
    let rotation = begin(secrets, name, old, "staged").await;
    assert!(is_staged(&apply(secrets, name, new, leaf).await), "{name}");
    rotation
}

pub fn is_staged(answer: &Answer) -> bool {
    answer.label(names::PHASE) == Some("staged")
}

/// Waits until the webhook knows the Lease. Before that it stages nothing.
pub async fn wait_for_lease(secrets: &Secrets) {
    eventually("a webhook that knows the keeper", async || {
        let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
        begin(secrets, "trial", &old, "staged").await;
        let trial = apply(secrets, "trial", &new, &new.leaf("envoy")).await;
        let is_there = is_staged(&trial);
        secrets.delete("trial").await.ok();
        if !is_there {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        is_there.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_group_is_promoted_once_all_members_trust_the_new_ca() {
    rotate_together("a_group_is_promoted_once_all_members_trust_the_new_ca", Some("mesh")).await;
}

#[tokio::test]
async fn without_a_group_those_of_the_same_old_ca_are_promoted_together() {
    rotate_together("without_a_group_those_of_the_same_old_ca_are_promoted_together", None).await;
}

async fn rotate_together(test: &str, group: Option<&str>) {
    let arguments = ["--staged", "--settle", SETTLE];
    let Some(setup) = Setup::with(test, "staged", &arguments).await else { return };
    let keeper = setup.leading_keeper(&["--settle", SETTLE, "--group-wait", "1h"]).await;
    wait_for_lease(&setup.cluster.namespace("trial").await).await;
    let secrets = setup.cluster.namespace(test).await;
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let server = begin_in(&secrets, "server", &old, "staged", group).await;
    let proxy = begin_in(&secrets, "proxy", &old, "staged", group).await;
    let client = begin_in(&secrets, "client", &old, "bundle", group).await;

    // Neither waits for, nor delays, Secrets of another CA.
    let stranger = certs::ca_named("stranger");
    begin_in(&secrets, "stranger", &stranger, "staged", None).await;

    let held = server.stored().await.pem("tls.crt");
    let [for_server, for_proxy] = [new.leaf("envoy"), new.leaf("envoy")];
    let rotated = apply(&secrets, "server", &new, &for_server).await;
    assert!(is_staged(&rotated));
    assert_eq!(rotated.pem("tls.crt"), held);
    assert_eq!(rotated.pem("ca.crt"), bundle(&[&new, &old]));
    setup.event(&server, "Staged").await;
    let waits = || {
        let log = keeper.log();
        let line = |l: &&str| l.contains("waiting for others to be ready") && l.contains("/server");
        log.lines().filter(line).count()
    };
    eventually("two checks after its settle time", async || (waits() >= 2).then_some(())).await;
    assert!(is_staged(&server.stored().await), "the others do not trust the new CA yet");

    assert!(is_staged(&apply(&secrets, "proxy", &new, &for_proxy).await));
    let before_last = Timestamp::now();
    apply(&secrets, "client", &new, &new.leaf("envoy")).await;
    for (rotation, leaf) in [(&server, &for_server), (&proxy, &for_proxy)] {
        let promoted = eventually("a promotion", async || {
            let stored = rotation.stored().await;
            (!is_staged(&stored)).then_some(stored)
        })
        .await;
        assert_eq!(promoted.pem("tls.crt"), leaf.pem);
        assert_eq!(promoted.pem("tls.key"), leaf.key);
        assert_eq!(promoted.data(names::PENDING_TLS_KEY), None, "no key is left behind");
        assert_eq!(promoted.annotation(names::STAGED), None);
        assert_eq!(promoted.label(names::PHASE), Some("overlap"));
        assert_eq!(rotation.data_managers().await, ["helm"]);
        let event: Value = setup.event(rotation, "Promoted").await;
        let at: Timestamp = event["eventTime"].as_str().unwrap().parse().unwrap();
        // Dates of the record have whole seconds, so one second is subtracted.
        let earliest = before_last + SignedDuration::from_secs(2);
        assert!(at >= earliest, "promoted at {at}, but the last write came after {before_last}");
    }
    assert_eq!(client.stored().await.pem("ca.crt"), bundle(&[&new, &old]));
    assert!(keeper.asks("promote", "done").await >= 2.0);
    // The generator can apply again without a conflict.
    apply(&secrets, "server", &new, &for_server).await;
}

#[tokio::test]
async fn a_keeper_killed_while_a_leaf_waits_loses_nothing() {
    let test = "a_keeper_killed_while_a_leaf_waits_loses_nothing";
    let arguments = ["--staged", "--settle", SETTLE];
    let Some(setup) = Setup::with(test, "staged", &arguments).await else { return };
    let mut keeper = setup.leading_keeper(&["--settle", "1h"]).await;
    wait_for_lease(&setup.cluster.namespace("trial").await).await;
    let secrets = setup.cluster.namespace(test).await;
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let server = begin(&secrets, "server", &old, "staged").await;
    let leaf = new.leaf("envoy");
    assert!(is_staged(&apply(&secrets, "server", &new, &leaf).await));
    keeper.process.signal("KILL");
    let next = setup.keeper("keeper-1", &["--settle", SETTLE]).await;
    let promoted = eventually("a promotion", async || {
        let stored = server.stored().await;
        (!is_staged(&stored)).then_some(stored)
    })
    .await;
    assert_eq!(promoted.pem("tls.crt"), leaf.pem);
    assert_eq!(promoted.pem("tls.key"), leaf.key);
    // The count follows the answer. A webhook that sees the new Lease late refuses the ask, and ends
    // the stage with the waiting pair in service.
    eventually("the ask is counted", async || {
        let count = next.asks("promote", "done").await + next.asks("promote", "refused").await;
        (count >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn touching_a_secret_of_the_group_every_second_delays_no_promotion() {
    let test = "touching_a_secret_of_the_group_every_second_delays_no_promotion";
    let arguments = ["--staged", "--settle", SETTLE];
    let Some(setup) = Setup::with(test, "staged", &arguments).await else { return };
    let _keeper = setup.leading_keeper(&["--settle", SETTLE, "--group-wait", "1h"]).await;
    wait_for_lease(&setup.cluster.namespace("trial").await).await;
    let secrets = setup.cluster.namespace(test).await;
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let server = begin(&secrets, "server", &old, "staged").await;
    begin(&secrets, "client", &old, "bundle").await;
    // A third one that no watch shows: its bundle is its generator's own, so it has no phase.
    let trust = json!({"metadata": {"labels": {names::MODE: null}}});
    begin(&secrets, "trust", &old, "bundle").await;
    secrets.patch("trust", MERGE, "fieldManager=person", &trust).await.ok();
    let both = tls_secret("trust", &bundle(&[&old, &new]), &old.leaf("envoy"));
    secrets.apply("trust", "helm", false, &both).await.ok();
    apply(&secrets, "client", &new, &new.leaf("envoy")).await;
    assert!(is_staged(&apply(&secrets, "server", &new, &new.leaf("envoy")).await));
    let limit = tokio::time::Instant::now() + Duration::from_secs(60);
    for touch in 0.. {
        for name in ["client", "trust"] {
            let patch = json!({"metadata": {"annotations": {"touch": touch.to_string()}}});
            secrets.patch(name, MERGE, "fieldManager=person", &patch).await.ok();
        }
        if !is_staged(&server.stored().await) {
            break;
        }
        assert!(tokio::time::Instant::now() < limit, "touching a Secret starves its group");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn a_stranger_in_the_group_delays_a_promotion_by_the_group_wait_and_is_named() {
    let test = "a_stranger_in_the_group_delays_a_promotion_by_the_group_wait_and_is_named";
    let arguments = ["--staged", "--settle", SETTLE];
    let Some(setup) = Setup::with(test, "staged", &arguments).await else { return };
    let _keeper = setup.leading_keeper(&["--settle", SETTLE, "--group-wait", "5s"]).await;
    wait_for_lease(&setup.cluster.namespace("trial").await).await;
    let secrets = setup.cluster.namespace(test).await;
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let server = begin(&secrets, "server", &old, "staged").await;
    begin(&secrets, "stranger", &certs::ca_named("CA3"), "bundle").await;
    let before = Timestamp::now();
    assert!(is_staged(&apply(&secrets, "server", &new, &new.leaf("envoy")).await));
    let event = eventually("an Event that names the stranger", async || {
        let events = setup.events(&server, "Promoted").await;
        let names = |e: &Value| e["note"].as_str().is_some_and(|note| note.contains("stranger"));
        events.into_iter().find(names)
    })
    .await;
    assert_eq!(event["type"], "Warning");
    // The stage is dated in whole seconds: 3 s to settle, 5 s for the group.
    assert!(Timestamp::now() >= before + SignedDuration::from_secs(7));
    assert!(!is_staged(&server.stored().await));
}

/// As a Helm chart with `genCA` does: the API server would reject the held leaf.
#[tokio::test]
async fn a_stage_ends_at_once_where_a_ca_bundle_holds_the_new_ca_alone() {
    let test = "a_stage_ends_at_once_where_a_ca_bundle_holds_the_new_ca_alone";
    let arguments = ["--staged", "--settle", "1h"];
    let Some(setup) = Setup::with(test, "staged", &arguments).await else { return };
    let _keeper = setup.leading_keeper(&["--settle", "1h"]).await;
    wait_for_lease(&setup.cluster.namespace("trial").await).await;
    let [served, bundled, elsewhere] = [
        setup.cluster.namespace(test).await,
        setup.cluster.namespace(test).await,
        setup.cluster.namespace(test).await,
    ];
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let leaf = new.leaf("hooks");
    for secrets in [&served, &bundled, &elsewhere] {
        stage(secrets, "hooks", [&old, &new], &leaf).await;
    }
    let register = async |name: &str, secrets: &Secrets, cas: &str| {
        let service = json!({"name": "hooks", "namespace": secrets.namespace});
        let object = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [{
                "name": "hooks.example.com", "admissionReviewVersions": ["v1"],
                "sideEffects": "None", "failurePolicy": "Ignore",
                "clientConfig": {"service": service, "caBundle": BASE64_STANDARD.encode(cas)},
                "rules": [{
                    "apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["nothings"],
                    "operations": ["CREATE"],
                }],
            }],
        });
        let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
        setup.cluster.plane.json("POST", path, &object).await.unwrap();
    };
    register("both", &bundled, &bundle(&[&new, &old])).await;
    register("new-alone", &served, &new.pem).await;
    let promoted = eventually("a promotion", async || {
        let stored = served.get("hooks").await.ok();
        (!is_staged(&stored)).then_some(stored)
    })
    .await;
    assert_eq!(promoted.pem("tls.crt"), leaf.pem);
    assert_eq!(promoted.pem("ca.crt"), bundle(&[&new, &old]));
    for secrets in [&bundled, &elsewhere] {
        assert!(is_staged(&secrets.get("hooks").await.ok()), "the API server trusts its held leaf");
    }
}
