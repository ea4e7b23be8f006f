//! `ca-overlap announce` with a real API server and the real webhook.

use std::path::PathBuf;

use devtools::certs::{self, Identity, bundle};
use devtools::secrets::{MERGE, Secrets, secret, tls_secret};
use serde_json::json;

use crate::support::command::run;
use crate::support::{Cluster, cluster};

const ANNOUNCE: &str = "ca-overlap.dev/announce";

/// A file with these CAs.
fn file(cas: &[&Identity]) -> tempfile::TempPath {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bundle(cas)).unwrap();
    file.into_temp_path()
}

fn path(file: &tempfile::TempPath) -> &str {
    file.to_str().unwrap()
}

#[tokio::test]
async fn an_announced_ca_is_trusted_until_it_is_withdrawn() {
    let test = "an_announced_ca_is_trusted_until_it_is_withdrawn";
    let Some(cluster) = cluster(test).await else { return };
    let secrets = cluster.namespace(test).await;
    let (own, next) = (certs::ca_named("Own Root CA"), certs::ca_named("Next Root CA"));
    let fresh = |name: &str, ca: &Identity| tls_secret(name, &ca.pem, &ca.leaf("it"));
    for name in ["a", "b"] {
        secrets.create(&fresh(name, &own)).await.ok();
    }
    secrets.create(&secret("no-ca", "Opaque", &[("key", b"1")])).await.ok();
    let signer = secret("signer", "Opaque", &[("ca.key", b"1"), ("ca.crt", own.pem.as_bytes())]);
    secrets.create(&signer).await.ok();
    let (kubeconfig, file) = (cluster.plane.admin_kubeconfig(), file(&[&next]));
    let scoped = ["announce", path(&file), "-n", &secrets.namespace];

    let before = secrets.get("a").await;
    let dry = run(&kubeconfig, &[&scoped[..], &["--dry-run"]].concat());
    let shown = dry.with_code(0);
    assert!(shown.contains("To announce until ") && shown.contains("Nothing was stored"));
    assert_eq!(secrets.get("a").await.resource_version(), before.resource_version());

    let shown = run(&kubeconfig, &scoped).with_code(0).to_owned();
    assert_eq!(shown.lines().filter(|line| line.ends_with("  announced")).count(), 2, "{shown}");
    assert!(!shown.contains("no-ca") && !shown.contains("signer"), "{shown}");
    for name in ["a", "b"] {
        assert_eq!(secrets.get(name).await.pem("ca.crt"), bundle(&[&own, &next]));
    }
    assert_eq!(secrets.get("signer").await.annotation(ANNOUNCE), None);

    let status = run(&kubeconfig, &["status", "-n", &secrets.namespace]).with_code(0).to_owned();
    let digits = &next.sha256()[..8];
    let note = format!("{digits} Next Root CA: announced by a person, until ");
    assert!(status.contains(&note) && status.contains("an announced CA is dropped"), "{status}");
    let name = format!("{}/a", secrets.namespace);
    let inspected = run(&kubeconfig, &["inspect", &name, "--ignore", "leaf-without-names"]);
    assert!(inspected.stdout.contains("announced by a person since "), "{}", inspected.stdout);
    let json = run(&kubeconfig, &["inspect", &name, "-o", "json"]).json();
    assert_eq!(json["inspected"][0]["ca.crt"][1]["announced"], "person", "{json}");

    // The generator does not know it, and moves on to it later.
    let again = secrets.put("a", &fresh("a", &own)).await.ok();
    assert_eq!(again.pem("ca.crt"), bundle(&[&own, &next]));
    let rotated = secrets.put("a", &fresh("a", &next)).await.ok();
    assert_eq!(rotated.pem("ca.crt"), bundle(&[&next, &own]));

    let back = run(&kubeconfig, &[&scoped[..], &["--withdraw", "-o", "json"]].concat());
    back.with_code(0);
    let report = back.json();
    let results = ["own", "absent"];
    for (index, result) in results.into_iter().enumerate() {
        assert_eq!(report["secrets"][index]["results"][0]["result"], result, "{report}");
    }
    let after = secrets.get("b").await;
    assert_eq!((after.pem("ca.crt"), after.annotation(ANNOUNCE)), (own.pem.clone(), None));
    let nothing = run(&kubeconfig, &[&scoped[..], &["--withdraw"]].concat());
    assert!(nothing.with_code(0).contains("announces it."), "{}", nothing.stdout);
}

#[tokio::test]
async fn a_webhook_that_is_away_is_reported() {
    let test = "a_webhook_that_is_away_is_reported";
    let Some(cluster) = Cluster::start(test, &[]).await else { return };
    let secrets = cluster.namespace(test).await;
    let (own, next) = (certs::ca_named("Own Root CA"), certs::ca_named("Next Root CA"));
    secrets.create(&tls_secret("it", &own.pem, &own.leaf("it"))).await.ok();
    drop(cluster.webhook.lock().await.take());
    let (kubeconfig, file) = (cluster.plane.admin_kubeconfig(), file(&[&next]));
    let arguments = ["announce", path(&file), "-n", &secrets.namespace, "it"];
    let shown = run(&kubeconfig, &arguments).with_code(1).to_owned();
    assert!(shown.contains("NOT ANNOUNCED") && shown.contains("registered"), "{shown}");

    cluster.start_webhook("again", cluster.port_443(), &[]).await.unwrap();
    touch(&secrets, "it").await;
    assert_eq!(secrets.get("it").await.pem("ca.crt"), bundle(&[&own, &next]));
}

/// A write that the registration sends for review.
async fn touch(secrets: &Secrets, name: &str) {
    let patch = json!({"metadata": {"annotations": {"ca-overlap.dev/group": "g"}}});
    secrets.patch(name, MERGE, "", &patch).await.ok();
}

#[test]
fn what_cannot_be_announced_is_not_tried() {
    let nowhere = PathBuf::from("/dev/null");
    let (ca, leaf) = (certs::ca(), certs::ca().leaf("it"));
    let (good, bad) = (file(&[&ca]), file(&[&ca, &leaf]));
    let usage: [(&[&str], &str); 3] = [
        (&["announce"], "required arguments were not provided"),
        (&["announce", path(&good), "-A", "a/b"], "--all-namespaces: does not go with names"),
        (&["announce", path(&good), "a", "--for", "0s"], "--for: expected at least a second"),
    ];
    for (arguments, expected) in usage {
        let ended = run(&nowhere, arguments);
        assert_eq!(ended.code, 64, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
    let ended = run(&nowhere, &["announce", path(&bad), "a"]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("certificate 2 is not a CA"), "{}", ended.stderr);
}
