//! `ca-overlap drain`: with the webhook, and with its registration gone.

use ca_overlap::names;
use serde_json::{Value, json};

use super::promote::{is_staged, stage};
use super::setup::{Rotation, Setup, eventually};
use crate::support::command::run;
use devtools::certs::{self, Identity};
use devtools::secrets::MERGE;

const REGISTRATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/ca-overlap";

#[tokio::test]
async fn drain_ends_every_stage_and_gives_the_lease_back() {
    let test = "drain_ends_every_stage_and_gives_the_lease_back";
    let Some((setup, keeper)) = Setup::at_rest(test).await else { return };
    let kubeconfig = setup.cluster.plane.admin_kubeconfig();
    let secrets = setup.cluster.namespace(test).await;
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let leaf = new.leaf("envoy");
    let stage = async |name: &str| stage(&secrets, name, [&old, &new], &leaf).await;
    let is_ended = async |rotation: &Rotation, managers: &[&str]| {
        let stored = rotation.stored().await;
        assert_eq!((stored.pem("tls.crt"), stored.pem("tls.key")), pair(&leaf));
        assert_eq!(stored.pem("ca.crt"), certs::bundle(&[&new, &old]));
        for key in [names::PENDING_TLS_CRT, names::PENDING_TLS_KEY] {
            assert_eq!(stored.data(key), None, "{key}");
        }
        assert_eq!((stored.annotation(names::STAGED), stored.annotation(names::ASK)), (None, None));
        assert_eq!(stored.label(names::PHASE), Some("overlap"));
        assert_eq!(rotation.data_managers().await, managers);
    };

    let (first, second) = (stage("first").await, stage("second").await);
    let trial = run(&kubeconfig, &["drain", "-A", "--dry-run"]);
    assert!(trial.with_code(1).contains("To end (dry run): 2 Secrets"), "{}", trial.stdout);
    let shown = run(&kubeconfig, &["drain", "-A"]);
    let output = shown.with_code(0);
    assert!(output.contains("Ended by the webhook: 2 stages"), "{output}");
    assert!(output.contains("No leaf waits in any namespace"), "{output}");
    for rotation in [&first, &second] {
        is_ended(rotation, &["helm"]).await;
    }
    // The keeper leads again, and the webhook stages again.
    keeper.leads(true).await;
    let third = stage("third").await;
    let immutable = stage("immutable").await;

    // Without the registration the command moves the pair by itself.
    unregister(&setup, &third).await;
    let namespace = &secrets.namespace;
    let shown = run(&kubeconfig, &["drain", "-n", namespace, "--timeout", "1m"]);
    let output = shown.with_code(0);
    assert!(output.contains("Ended by this command"), "{output}");
    is_ended(&third, &["ca-overlap-drain", "helm"]).await;
    is_ended(&immutable, &["ca-overlap-drain", "helm"]).await;

    // What cannot end is named, and so is what cannot be read.
    let stuck = certs_of_an_immutable_secret(&old, &leaf);
    secrets.create(&stuck).await.ok();
    let shown = run(&kubeconfig, &["drain", "-n", namespace]);
    let output = shown.with_code(1);
    assert!(
        output.contains("STILL WAITING: 1 Secret") && output.contains("it is immutable"),
        "{output}"
    );
    let denied = run(&kubeconfig, &["drain", "-A", "--as", "nobody"]);
    assert_eq!(denied.code, 2, "{denied:?}");
}

#[tokio::test]
async fn a_webhook_that_restarts_during_a_drain_leaves_no_stage() {
    let test = "a_webhook_that_restarts_during_a_drain_leaves_no_stage";
    let Some((setup, _keeper)) = Setup::at_rest(test).await else { return };
    let secrets = setup.cluster.namespace(test).await;
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let leaf = new.leaf("envoy");
    let mut staged = Vec::new();
    // More than the command ends at the same time.
    for number in 0..12 {
        staged.push(stage(&secrets, &format!("envoy-{number}"), [&old, &new], &leaf).await);
    }
    setup.stop_webhook().await;
    let kubeconfig = setup.cluster.plane.admin_kubeconfig().clone();
    let namespace = secrets.namespace.clone();
    let drain = tokio::task::spawn_blocking(move || run(&kubeconfig, &["drain", "-n", &namespace]));
    eventually("an ask that no webhook has seen", async || {
        for rotation in &staged {
            if rotation.stored().await.annotation(names::ASK).is_some() {
                return Some(());
            }
        }
        None
    })
    .await;
    setup.start_webhook().await;
    let shown = drain.await.unwrap();
    let output = shown.with_code(0);
    assert!(output.contains("No leaf waits"), "{output}");
    for rotation in &staged {
        let stored = rotation.stored().await;
        assert_eq!((stored.pem("tls.crt"), stored.pem("tls.key")), pair(&leaf));
        assert_eq!(stored.pem("ca.crt"), certs::bundle(&[&new, &old]));
        for key in [names::PENDING_TLS_CRT, names::PENDING_TLS_KEY] {
            assert_eq!(stored.data(key), None, "{key}");
        }
        assert_eq!((stored.annotation(names::STAGED), stored.annotation(names::ASK)), (None, None));
    }
}

/// Deletes the registration while this Secret is staged.
pub async fn unregister(setup: &Setup, staged: &Rotation) {
    setup.cluster.plane.json("DELETE", REGISTRATION, &Value::Null).await.unwrap();
    until_not_called(staged).await;
}

/// Waits until the API server does not call the webhook for this staged Secret.
pub async fn until_not_called(staged: &Rotation) {
    eventually("an API server that does not call the webhook", async || {
        let patch = json!({"metadata": {"annotations": {names::ASK: "unstage"}}});
        let query = "dryRun=All&fieldManager=person";
        let tried = staged.secrets.patch(&staged.name, MERGE, query, &patch).await.ok();
        is_staged(&tried).then_some(())
    })
    .await;
}

fn pair(leaf: &Identity) -> (String, String) {
    (leaf.pem.clone(), leaf.key.clone())
}

/// A Secret that became immutable while a leaf waited and the webhook was away.
fn certs_of_an_immutable_secret(old: &Identity, waiting: &Identity) -> Value {
    let mut secret = devtools::secrets::tls_secret("stuck", &old.pem, &old.leaf("envoy"));
    secret["immutable"] = true.into();
    for (key, text) in
        [(names::PENDING_TLS_CRT, &waiting.pem), (names::PENDING_TLS_KEY, &waiting.key)]
    {
        secret["stringData"][key] = text.as_str().into();
    }
    secret
}
