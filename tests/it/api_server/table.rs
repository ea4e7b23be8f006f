//! The rows of the design's decision table on a real API server, by PUT of fresh objects.

use serde_json::json;

use super::setup::{NAME, Setup};
use crate::support::cluster;
use devtools::certs::sha256;

/// Creates the first bundle, writes the others, and compares the stored bundle after each write.
async fn row(test: &str, keep: Option<&str>, steps: &[(&str, &str)]) -> Option<Setup> {
    let setup = Setup::new(cluster(test).await?.namespace(test).await);
    let ((first, _), rest) = steps.split_first().expect("a first step");
    setup.create(first, None).await;
    if let Some(keep) = keep {
        setup.annotate(json!({"ca-overlap.dev/keep": keep})).await;
    }
    for (bundle, expected) in rest {
        setup.put(bundle).await;
        assert_eq!(setup.stored().await, *expected, "{test}: after {bundle}");
    }
    Some(setup)
}

const UNCHECKED: &str = "";

#[tokio::test]
async fn each_rotation_carries_only_the_previous_ca() {
    let steps = [("CA1", UNCHECKED), ("CA2", "CA2 CA1*"), ("CA3", "CA3 CA2*"), ("CA4", "CA4 CA3*")];
    row("rotations", None, &steps).await;
}

#[tokio::test]
async fn keep_2_carries_the_two_previous_cas() {
    let steps = [
        ("CA1", UNCHECKED),
        ("CA2", "CA2 CA1*"),
        ("CA3", "CA3 CA2* CA1*"),
        ("CA4", "CA4 CA3* CA2*"),
    ];
    row("keep-two", Some("2"), &steps).await;
}

#[tokio::test]
async fn a_rollback_carries_the_later_ca() {
    let steps = [("CA1", UNCHECKED), ("CA2", "CA2 CA1*"), ("CA1", "CA1 CA2*"), ("CA1", "CA1 CA2*")];
    row("rollback", None, &steps).await;
}

#[tokio::test]
async fn a_generator_that_bundles_its_own_cas_is_left_alone() {
    let steps = [("CA1", UNCHECKED), ("CA1 CA2", "CA1 CA2"), ("CA2", "CA2")];
    row("staged-generator", None, &steps).await;
    let steps = [("CA2 CA1", UNCHECKED), ("CA3 CA2", "CA3 CA2"), ("CA4 CA3", "CA4 CA3")];
    row("self-bundler", None, &steps).await;
    let steps = [("CA1", UNCHECKED), ("CA2", "CA2 CA1*"), ("CA3 CA2 CA1", "CA3 CA2 CA1")];
    row("becomes-own", None, &steps).await;
    let steps =
        [("CA1", UNCHECKED), ("CA2", "CA2 CA1*"), ("CA2 CA3", "CA2 CA3 CA1*"), ("CA3", "CA3")];
    row("retirement-ends-carries", None, &steps).await;
}

#[tokio::test]
async fn the_first_write_of_a_bundle_carries_the_ca_that_it_drops() {
    row("first-contact", None, &[("CA2 CA1", UNCHECKED), ("CA2", "CA2 CA1*")]).await;
}

#[tokio::test]
async fn a_chain_counts_as_one_and_a_renewal_with_the_same_key_is_a_rotation() {
    let steps = [
        ("Int1 Root1", UNCHECKED),
        ("Int2 Root2", "Int2 Root2 Int1* Root1*"),
        ("Int2 Root2", "Int2 Root2 Int1* Root1*"),
    ];
    row("chains", None, &steps).await;
    row("same-key", None, &[("CA1", UNCHECKED), ("CA1renewed", "CA1renewed CA1*")]).await;
    row("expired", None, &[("Expired", UNCHECKED), ("CA2", "CA2")]).await;
}

#[tokio::test]
async fn the_leaf_determines_the_active_ca() {
    let Some(cluster) = cluster("active").await else { return };
    let setup = Setup::new(cluster.namespace("active").await);
    setup.create("X CA2", Some("CA2")).await;
    setup.put("X CA3").await;
    assert_eq!(setup.stored().await, "X CA3 CA2*");
    // The CA is rotated while the leaf of CA1 stays in service.
    let setup = Setup::new(cluster.namespace("served-leaf").await);
    setup.create("CA1", None).await;
    setup.put_ca_only(&setup.pem("CA2")).await;
    assert_eq!(setup.stored().await, "CA2 CA1*");
    setup.put("CA3").await;
    assert_eq!(setup.stored().await, "CA3 CA1*");
}

#[tokio::test]
async fn a_reapply_changes_no_resource_version_and_no_byte() {
    let Some(cluster) = cluster("reapply").await else { return };
    let setup = Setup::new(cluster.namespace("reapply").await);
    setup.create("CA1", None).await;
    let fresh = setup.fresh("CA2", &setup.leaf("CA2"));
    let first = setup.secrets.put(NAME, &fresh).await.ok();
    for _ in 0..5 {
        let again = setup.secrets.put(NAME, &fresh).await.ok();
        assert_eq!(again.resource_version(), first.resource_version());
        assert_eq!(again.body["data"], first.body["data"]);
    }
    // A read-modify-write of the stored object changes nothing either.
    let stored = setup.secrets.get(NAME).await.ok();
    let echo = setup.secrets.put(NAME, &stored.body).await.ok();
    assert_eq!(echo.resource_version(), first.resource_version());
}

#[tokio::test]
async fn a_carried_ca_in_another_encoding_stays_carried() {
    let Some(cluster) = cluster("echo").await else { return };
    let setup = Setup::new(cluster.namespace("echo").await);
    setup.create("CA1", None).await;
    setup.put("CA2").await;
    let echo = format!("# exported\n{}", setup.pem("CA2 CA1"));
    let answer = setup.put_ca_only(&echo).await;
    assert_eq!((answer.pem("ca.crt"), setup.bundle(&answer)), (echo, "CA2 CA1*".into()));
    let setup = Setup::new(cluster.namespace("encodings").await);
    setup.create("CA1", None).await;
    let crlf = setup.pem("CA1").replace('\n', "\r\n");
    assert_eq!(setup.put_ca_only(&crlf).await.pem("ca.crt"), crlf);
}

#[tokio::test]
async fn distrust_takes_effect_with_its_own_write_and_lasts() {
    let Some(setup) = row("distrust", None, &[("CA1", UNCHECKED), ("CA2", "CA2 CA1*")]).await
    else {
        return;
    };
    let fingerprint = sha256(&setup.ca("CA1").der);
    setup.annotate(json!({"ca-overlap.dev/distrust": fingerprint})).await;
    assert_eq!(setup.stored().await, "CA2");
    // A fresh object gets the annotation back. CA1 is kept only while the generator writes it.
    setup.put("CA1").await;
    assert_eq!(setup.stored().await, "CA1 CA2*", "the generator's own bytes are never dropped");
    setup.put("CA2").await;
    assert_eq!(setup.stored().await, "CA2", "a distrusted CA is not carried");
    let stored = setup.secrets.get(NAME).await.ok();
    assert_eq!(stored.annotation("ca-overlap.dev/distrust"), Some(fingerprint.as_str()));
}

#[tokio::test]
async fn an_unreadable_bundle_passes_with_a_warning() {
    let Some(setup) = row("garbage", None, &[("CA1", UNCHECKED), ("CA2", "CA2 CA1*")]).await else {
        return;
    };
    let answer = setup.put_ca_only("garbage").await;
    assert_eq!(answer.pem("ca.crt"), "garbage");
    assert!(answer.warnings.iter().any(|w| w.contains("no readable certificate")));
    let answer = setup.put_ca_only(&setup.pem("CA3")).await;
    assert_eq!(setup.bundle(&answer), "CA3");
    assert!(answer.warnings.iter().any(|w| w.contains("previous ca.crt")));
}

#[tokio::test]
async fn ca_crt_can_be_removed_and_added_again() {
    let Some(cluster) = cluster("come-and-go").await else { return };
    let setup = Setup::new(cluster.namespace("come-and-go").await);
    setup.create("CA1", None).await;
    setup.put("CA2").await;
    let mut without = setup.fresh("CA2", &setup.leaf("CA2"));
    without["data"].as_object_mut().unwrap().remove("ca.crt");
    let answer = setup.secrets.put(NAME, &without).await.ok();
    assert_eq!(answer.data("ca.crt"), None);
    assert_eq!(answer.annotation("ca-overlap.dev/carried"), None);
    assert_eq!(answer.label("ca-overlap.dev/phase"), None);
    setup.put("CA3").await;
    assert_eq!(setup.stored().await, "CA3");
}
