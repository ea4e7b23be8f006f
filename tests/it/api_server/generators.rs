//! Generators that read back `ca.crt`, each in a different way.

use base64::prelude::*;
use serde_json::json;

use super::setup::{NAME, Setup};
use crate::support::cluster;
use devtools::certs::{self, Identity, sha256};
use devtools::secrets::{Answer, MERGE, Secrets, secret};

fn blocks(text: &str) -> Vec<String> {
    text.split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned).collect()
}

/// This generator bundles its CAs, the newest first, and never removes one. It rotates again if the
/// stored data has another hash than its own (like `CockroachDB`'s self-signer).
#[tokio::test]
async fn a_generator_that_hashes_its_own_data_finds_it_unchanged() {
    let Some(cluster) = cluster("hashing").await else { return };
    let secrets = cluster.namespace("hashing").await;
    let mut bundle = certs::ca_named("self-signer").pem;
    let object = |bundle: &str| {
        let mut object = secret(NAME, "Opaque", &[("ca.crt", bundle.as_bytes())]);
        object["metadata"]["annotations"] = json!({"hash": sha256(bundle.as_bytes())});
        object
    };
    secrets.create(&object(&bundle)).await.ok();
    for _ in 0..10 {
        bundle = certs::ca_named("self-signer").pem + &bundle;
        let stored = secrets.put(NAME, &object(&bundle)).await.ok();
        let hash = sha256(&stored.data("ca.crt").unwrap());
        assert_eq!(Some(hash.as_str()), stored.annotation("hash"));
    }
    assert_eq!(blocks(&bundle).len(), 11);
}

/// This generator reads only the first block and makes a new CA if the block does not match its key
/// (like OPA's cert-controller). The Secret has `ca.key` and `tls.crt`, so it is bundled.
#[tokio::test]
async fn a_generator_that_reads_the_first_block_finds_its_own_ca() {
    let Some(cluster) = cluster("first-block").await else { return };
    let secrets = cluster.namespace("first-block").await;
    let object = |ca: &Identity| {
        let leaf = ca.leaf("webhook");
        let key = ca.key.clone();
        let data = [
            ("ca.crt", ca.pem.as_bytes()),
            ("ca.key", key.as_bytes()),
            ("tls.crt", leaf.pem.as_bytes()),
            ("tls.key", leaf.key.as_bytes()),
        ];
        secret(NAME, "Opaque", &data)
    };
    secrets.create(&object(&certs::ca_named("cert"))).await.ok();
    let mut previous = secrets.get(NAME).await.pem("ca.crt");
    for _ in 0..3 {
        let ca = certs::ca_named("cert");
        let stored = secrets.put(NAME, &object(&ca)).await.ok();
        let found = blocks(&stored.pem("ca.crt"));
        assert_eq!(found[0], ca.pem, "the first block is the CA of its key");
        assert_eq!(found[1..], [previous], "its readers also trust the previous CA");
        previous = ca.pem;
    }
}

/// This generator takes the last block as the root, from a Secret with `ca.key` and no leaf (like
/// Cilium's certgen). With a bundle it would pass on the old root with leaves of the new one.
#[tokio::test]
async fn a_generator_that_takes_the_last_block_as_root_is_left_alone() {
    let Some(cluster) = cluster("last-block").await else { return };
    let secrets = cluster.namespace("last-block").await;
    let object = |ca: &Identity| {
        let key = ca.key.clone();
        secret(NAME, "Opaque", &[("ca.crt", ca.pem.as_bytes()), ("ca.key", key.as_bytes())])
    };
    secrets.create(&object(&certs::ca_named("Cilium CA"))).await.ok();
    for _ in 0..3 {
        let ca = certs::ca_named("Cilium CA");
        let stored = secrets.put(NAME, &object(&ca)).await.ok();
        assert_eq!(blocks(&stored.pem("ca.crt")).last(), Some(&ca.pem));
        assert_eq!(blocks(&stored.pem("ca.crt")).len(), 1);
    }
}

/// This generator reads, changes and writes back. It writes the carried CA as if it were its own.
#[tokio::test]
async fn a_generator_that_writes_back_what_it_reads_never_grows_the_bundle() {
    let Some(cluster) = cluster("read-modify-write").await else { return };
    let setup = Setup::new(cluster.namespace("read-modify-write").await);
    setup.create("CA1", None).await;
    for bundle in ["CA2", "CA3", "CA4", "CA1", "CA2"] {
        setup.put(bundle).await;
        for n in 0..3 {
            let mut stored = setup.secrets.get(NAME).await.ok().body;
            stored["metadata"]["labels"]["edit"] = format!("{bundle}-{n}").into();
            setup.secrets.put(NAME, &stored).await.ok();
        }
        assert_eq!(blocks(&setup.secrets.get(NAME).await.pem("ca.crt")).len(), 2);
    }
}

/// This controller repeats its desired state (like ECK). That causes no write and no watch event.
///
/// It has one field manager. If two managers write within one second, the API server sorts their
/// entries again when one of them writes later, and stores that once, even without the webhook.
#[tokio::test]
async fn a_loop_that_repeats_its_desired_state_changes_no_resource_version() {
    let Some(cluster) = cluster("loop").await else { return };
    let setup = Setup::new(cluster.namespace("loop").await);
    setup.create("CA1", None).await;
    let desired = json!({"data": {"ca.crt": BASE64_STANDARD.encode(setup.pem("CA2"))}});
    let first = setup.secrets.patch(NAME, MERGE, "", &desired).await.ok();
    for _ in 0..50 {
        let again = write_again(&setup.secrets, &desired).await;
        assert_eq!(again.resource_version(), first.resource_version());
    }
}

async fn write_again(secrets: &Secrets, desired: &serde_json::Value) -> Answer {
    secrets.patch(NAME, MERGE, "", desired).await.ok()
}
