//! Near the API server's limits the webhook never causes a rejected write.

use serde_json::json;

use super::setup::{NAME, Setup};
use crate::support::cluster;

#[tokio::test]
async fn a_secret_near_one_mebibyte_is_bundled_if_there_is_room() {
    let Some(cluster) = cluster("large").await else { return };
    let setup = Setup::new(cluster.namespace("large").await);
    let with_blob = |bundle: &str, spare: usize| {
        let leaf = setup.leaf(bundle);
        let mut fresh = setup.fresh(bundle, &leaf);
        let used = setup.pem(bundle).len() + leaf.pem.len() + leaf.key.len();
        let blob = vec![b'x'; 1_048_576 - used - spare];
        fresh["data"]["blob"] =
            base64::Engine::encode(&base64::prelude::BASE64_STANDARD, blob).into();
        fresh
    };
    setup.create("CA1", None).await;
    // First there is ample room, then exactly enough, then one byte too little.
    let answer = setup.secrets.put(NAME, &with_blob("CA2", 10_000)).await.ok();
    assert_eq!(setup.bundle(&answer), "CA2 CA1*");
    let needed = setup.pem("CA2").len();
    let answer = setup.secrets.put(NAME, &with_blob("CA3", needed)).await.ok();
    assert_eq!(setup.bundle(&answer), "CA3 CA2*");
    // The length of signatures varies, so one CA may fit and the other may not.
    let needed = setup.pem("CA3").len().min(setup.pem("CA2").len());
    let answer = setup.secrets.put(NAME, &with_blob("CA4", needed - 1)).await.ok();
    assert_eq!(setup.bundle(&answer), "CA4");
    assert!(answer.warnings.iter().any(|w| w.contains("no room")), "{:?}", answer.warnings);
}

#[tokio::test]
async fn full_annotations_do_not_reject_the_write() {
    let Some(cluster) = cluster("annotations").await else { return };
    let setup = Setup::new(cluster.namespace("annotations").await);
    setup.create("CA1", None).await;
    let mut fresh = setup.fresh("CA2", &setup.leaf("CA2"));
    fresh["metadata"]["annotations"] = json!({"a": "x".repeat(262_144 - 1)});
    let answer = setup.secrets.put(NAME, &fresh).await.ok();
    assert_eq!(answer.pem("ca.crt"), setup.pem("CA2"));
    assert!(answer.warnings.iter().any(|w| w.contains("annotations have no room")));
}

#[tokio::test]
async fn a_trust_store_is_stored_unchanged() {
    let Some(cluster) = cluster("trust-store").await else { return };
    let setup = Setup::new(cluster.namespace("trust-store").await);
    setup.create("CA1", None).await;
    let many: String = (0..65).map(|_| devtools::certs::ca_named("public").pem).collect();
    assert_eq!(setup.put_ca_only(&many).await.pem("ca.crt"), many);
    assert_eq!(setup.put_ca_only(&setup.pem("CA2")).await.pem("ca.crt"), setup.pem("CA2"));
}
