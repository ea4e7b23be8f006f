//! `ca-overlap inspect` with a Secret of a cluster and the user's kubeconfig.

use std::fs;
use std::process::Stdio;

use devtools::certs;
use devtools::secrets::tls_secret;
use serde_json::json;

use crate::support::cluster;
use crate::support::command::{command, run};

#[tokio::test]
async fn inspect_explains_a_stored_rotation() {
    let test = "inspect_explains_a_stored_rotation";
    let Some(cluster) = cluster(test).await else { return };
    let secrets = cluster.namespace(test).await;
    let (old, new) = (certs::ca_named("Old Root CA"), certs::ca_named("New Root CA"));
    secrets.create(&tls_secret("it", &old.pem, &old.leaf("it"))).await.ok();
    secrets.put("it", &tls_secret("it", &new.pem, &new.leaf("it"))).await.ok();
    let kubeconfig = cluster.plane.admin_kubeconfig();
    let name = format!("{}/it", secrets.namespace);

    let shown = run(&kubeconfig, &["inspect", &name]);
    let shown = shown.with_code(0);
    assert!(shown.contains(&format!("Secret    {name}, kubernetes.io/tls")), "{shown}");
    assert!(
        shown.contains("CN=New Root CA\n      the generator's own; active; the leaf"),
        "{shown}"
    );
    assert!(shown.contains("until the next rotation"), "{shown}");
    let document = run(&kubeconfig, &["inspect", &name, "-o", "json"]).json();
    let ca_crt = &document["inspected"][0]["ca.crt"];
    assert_eq!(
        (&ca_crt[0]["sha256"], &ca_crt[0]["carried"]),
        (&json!(new.sha256()), &json!(false))
    );
    assert_eq!((&ca_crt[1]["sha256"], &ca_crt[1]["carried"]), (&json!(old.sha256()), &json!(true)));
}

#[tokio::test]
async fn a_file_overrides_a_secret_and_a_missing_one_is_named() {
    let test = "a_file_overrides_a_secret_and_a_missing_one_is_named";
    let Some(cluster) = cluster(test).await else { return };
    let secrets = cluster.namespace(test).await;
    let (stored, in_file) = (certs::ca_named("Stored"), certs::ca_named("In a file"));
    secrets.create(&tls_secret("it", &stored.pem, &stored.leaf("it"))).await.ok();
    let name = format!("{}/it", secrets.namespace);
    let kubeconfig = cluster.plane.admin_kubeconfig();

    let dir = tempfile::tempdir().unwrap();
    let inspect = || {
        let mut command = command(&kubeconfig, &["inspect", &name]);
        let output = command.current_dir(dir.path()).stdin(Stdio::null()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(inspect().contains("CN=Stored"));
    fs::create_dir(dir.path().join(&secrets.namespace)).unwrap();
    fs::write(dir.path().join(&name), &in_file.pem).unwrap();
    assert!(inspect().contains("CN=In a file"));

    let missing = run(&kubeconfig, &["inspect", &format!("{}/missing", secrets.namespace)]);
    missing.with_code(2);
    assert!(missing.stderr.contains("no file") && missing.stderr.contains("no Secret"));
    let refused = run(&kubeconfig, &["inspect", &name, "--as", "nobody"]);
    refused.with_code(2);
    assert!(
        refused.stderr.contains(&name) && refused.stderr.contains("nobody"),
        "{}",
        refused.stderr
    );
}
