//! Near the API server's limits: never the reason that a write is refused.

use serde_json::json;

use super::scene::{NAME, Scene};
use crate::support::cluster;

#[tokio::test]
async fn a_secret_near_one_mebibyte_is_bundled_while_there_is_room() {
    let Some(cluster) = cluster("large").await else { return };
    let scene = Scene::new(cluster.namespace("large").await);
    let with_blob = |bundle: &str, spare: usize| {
        let leaf = scene.leaf(bundle);
        let mut fresh = scene.fresh(bundle, &leaf);
        let used = scene.pem(bundle).len() + leaf.pem.len() + leaf.key.len();
        let blob = vec![b'x'; 1_048_576 - used - spare];
        fresh["data"]["blob"] =
            base64::Engine::encode(&base64::prelude::BASE64_STANDARD, blob).into();
        fresh
    };
    scene.create("CA1", None).await;
    // Room to spare, room to the byte, one byte too little.
    let answer = scene.secrets.put(NAME, &with_blob("CA2", 10_000)).await.ok();
    assert_eq!(scene.shown(&answer), "CA2 CA1*");
    let needed = scene.pem("CA2").len();
    let answer = scene.secrets.put(NAME, &with_blob("CA3", needed)).await.ok();
    assert_eq!(scene.shown(&answer), "CA3 CA2*");
    // Signatures differ in length, so one CA may fit where the other does not.
    let needed = scene.pem("CA3").len().min(scene.pem("CA2").len());
    let answer = scene.secrets.put(NAME, &with_blob("CA4", needed - 1)).await.ok();
    assert_eq!(scene.shown(&answer), "CA4");
    assert!(answer.warnings.iter().any(|w| w.contains("no room")), "{:?}", answer.warnings);
}

#[tokio::test]
async fn annotations_at_their_limit_do_not_refuse_the_write() {
    let Some(cluster) = cluster("annotations").await else { return };
    let scene = Scene::new(cluster.namespace("annotations").await);
    scene.create("CA1", None).await;
    let mut fresh = scene.fresh("CA2", &scene.leaf("CA2"));
    fresh["metadata"]["annotations"] = json!({"a": "x".repeat(262_144 - 1)});
    let answer = scene.secrets.put(NAME, &fresh).await.ok();
    assert_eq!(answer.pem("ca.crt"), scene.pem("CA2"));
    assert!(answer.warnings.iter().any(|w| w.contains("annotations have no room")));
}

#[tokio::test]
async fn a_trust_store_passes_as_it_is() {
    let Some(cluster) = cluster("trust-store").await else { return };
    let scene = Scene::new(cluster.namespace("trust-store").await);
    scene.create("CA1", None).await;
    let many: String = (0..65).map(|_| devtools::certs::ca_named("public").pem).collect();
    assert_eq!(scene.put_ca_only(&many).await.pem("ca.crt"), many);
    assert_eq!(scene.put_ca_only(&scene.pem("CA2")).await.pem("ca.crt"), scene.pem("CA2"));
}
