//! Every row of the design's table (§4.1) that an API server can show, by PUT of fresh objects.

use serde_json::json;

use super::scene::{NAME, Scene};
use crate::support::cluster;
use devtools::certs::sha256;

/// Creates the first bundle, writes the others, and compares what is stored after each.
async fn row(test: &str, keep: Option<&str>, steps: &[(&str, &str)]) -> Option<Scene> {
    let scene = Scene::new(cluster(test).await?.namespace(test).await);
    let ((first, _), rest) = steps.split_first().expect("a first step");
    scene.create(first, None).await;
    if let Some(keep) = keep {
        scene.annotate(json!({"ca-overlap.dev/keep": keep})).await;
    }
    for (bundle, expected) in rest {
        scene.put(bundle).await;
        assert_eq!(scene.shows().await, *expected, "{test}: after {bundle}");
    }
    Some(scene)
}

const UNCHECKED: &str = "";

#[tokio::test]
async fn rotations_keep_the_previous_ca_always_two() {
    let steps = [("CA1", UNCHECKED), ("CA2", "CA2 CA1*"), ("CA3", "CA3 CA2*"), ("CA4", "CA4 CA3*")];
    row("rotations", None, &steps).await;
}

#[tokio::test]
async fn keep_two_carries_two() {
    let steps = [
        ("CA1", UNCHECKED),
        ("CA2", "CA2 CA1*"),
        ("CA3", "CA3 CA2* CA1*"),
        ("CA4", "CA4 CA3* CA2*"),
    ];
    row("keep-two", Some("2"), &steps).await;
}

#[tokio::test]
async fn a_rollback_keeps_the_later_ca() {
    let steps = [("CA1", UNCHECKED), ("CA2", "CA2 CA1*"), ("CA1", "CA1 CA2*"), ("CA1", "CA1 CA2*")];
    row("rollback", None, &steps).await;
}

#[tokio::test]
async fn staged_and_bundling_generators_are_left_as_they_write() {
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
async fn first_contact_with_a_bundle_keeps_what_the_write_drops() {
    row("first-contact", None, &[("CA2 CA1", UNCHECKED), ("CA2", "CA2 CA1*")]).await;
}

#[tokio::test]
async fn chains_count_as_one_and_renewals_with_the_same_key_are_rotations() {
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
async fn the_leaf_tells_which_ca_is_active() {
    let Some(cluster) = cluster("active").await else { return };
    let scene = Scene::new(cluster.namespace("active").await);
    scene.create("X CA2", Some("CA2")).await;
    scene.put("X CA3").await;
    assert_eq!(scene.shows().await, "X CA3 CA2*");
    // The CA was rotated, the leaf of CA1 is still served.
    let scene = Scene::new(cluster.namespace("served-leaf").await);
    scene.create("CA1", None).await;
    scene.put_ca_only(&scene.pem("CA2")).await;
    assert_eq!(scene.shows().await, "CA2 CA1*");
    scene.put("CA3").await;
    assert_eq!(scene.shows().await, "CA3 CA1*");
}

#[tokio::test]
async fn a_reapply_moves_no_resource_version_and_keeps_every_byte() {
    let Some(cluster) = cluster("reapply").await else { return };
    let scene = Scene::new(cluster.namespace("reapply").await);
    scene.create("CA1", None).await;
    let fresh = scene.fresh("CA2", &scene.leaf("CA2"));
    let first = scene.secrets.put(NAME, &fresh).await.ok();
    for _ in 0..5 {
        let again = scene.secrets.put(NAME, &fresh).await.ok();
        assert_eq!(again.resource_version(), first.resource_version());
        assert_eq!(again.body["data"], first.body["data"]);
    }
    // A read-modify-write of what is stored is an echo: nothing moves either.
    let stored = scene.secrets.get(NAME).await.ok();
    let echo = scene.secrets.put(NAME, &stored.body).await.ok();
    assert_eq!(echo.resource_version(), first.resource_version());
}

#[tokio::test]
async fn an_echo_in_other_bytes_stays_carried_and_other_encodings_are_the_same_ca() {
    let Some(cluster) = cluster("echo").await else { return };
    let scene = Scene::new(cluster.namespace("echo").await);
    scene.create("CA1", None).await;
    scene.put("CA2").await;
    let echo = format!("# exported\n{}", scene.pem("CA2 CA1"));
    let answer = scene.put_ca_only(&echo).await;
    assert_eq!((answer.pem("ca.crt"), scene.shown(&answer)), (echo, "CA2 CA1*".into()));
    let scene = Scene::new(cluster.namespace("encodings").await);
    scene.create("CA1", None).await;
    let crlf = scene.pem("CA1").replace('\n', "\r\n");
    assert_eq!(scene.put_ca_only(&crlf).await.pem("ca.crt"), crlf);
}

#[tokio::test]
async fn distrust_acts_with_the_write_that_sets_it_and_holds() {
    let Some(scene) = row("distrust", None, &[("CA1", UNCHECKED), ("CA2", "CA2 CA1*")]).await
    else {
        return;
    };
    let fingerprint = sha256(&scene.ca("CA1").der);
    scene.annotate(json!({"ca-overlap.dev/distrust": fingerprint})).await;
    assert_eq!(scene.shows().await, "CA2");
    // The generator's PUT of a fresh object brings the annotation back, and CA1 does not come.
    scene.put("CA1").await;
    assert_eq!(scene.shows().await, "CA1 CA2*", "its own choice stands");
    scene.put("CA2").await;
    assert_eq!(scene.shows().await, "CA2", "and is not carried on");
    let stored = scene.secrets.get(NAME).await.ok();
    assert_eq!(stored.annotation("ca-overlap.dev/distrust"), Some(fingerprint.as_str()));
}

#[tokio::test]
async fn garbage_passes_with_a_warning() {
    let Some(scene) = row("garbage", None, &[("CA1", UNCHECKED), ("CA2", "CA2 CA1*")]).await else {
        return;
    };
    let answer = scene.put_ca_only("garbage").await;
    assert_eq!(answer.pem("ca.crt"), "garbage");
    assert!(answer.warnings.iter().any(|w| w.contains("no readable certificate")));
    let answer = scene.put_ca_only(&scene.pem("CA3")).await;
    assert_eq!(scene.shown(&answer), "CA3");
    assert!(answer.warnings.iter().any(|w| w.contains("previous ca.crt")));
}

#[tokio::test]
async fn ca_crt_may_come_and_go() {
    let Some(cluster) = cluster("come-and-go").await else { return };
    let scene = Scene::new(cluster.namespace("come-and-go").await);
    scene.create("CA1", None).await;
    scene.put("CA2").await;
    let mut without = scene.fresh("CA2", &scene.leaf("CA2"));
    without["data"].as_object_mut().unwrap().remove("ca.crt");
    let answer = scene.secrets.put(NAME, &without).await.ok();
    assert_eq!(answer.data("ca.crt"), None);
    assert_eq!(answer.annotation("ca-overlap.dev/carried"), None);
    assert_eq!(answer.label("ca-overlap.dev/phase"), None);
    scene.put("CA3").await;
    assert_eq!(scene.shows().await, "CA3");
}
