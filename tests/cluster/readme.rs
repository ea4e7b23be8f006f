//! The commands of the README, `docs/install.md` and `docs/quick-start.md`, word for word.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ca_overlap::names;
use serde_json::{Value, json};

use crate::cluster::{Cluster, REGISTRATION, eventually, root};
use crate::support::pages::{self, ON_A_CLUSTER};
use devtools::certs;
use devtools::secrets::{Secrets, secret};

#[tokio::test]
#[ignore = "needs a cluster: make kind-test"]
async fn each_documented_command_installs_the_webhook() {
    let cluster = Cluster::connect().await;
    let commands = commands();
    // The test in `helm` runs the helm command, which needs a cluster without the product.
    let commands: Vec<_> = commands.iter().filter(|line| line.starts_with("kubectl ")).collect();
    assert!(commands.len() >= 7, "too few commands: {commands:?}");
    for command in commands {
        eprintln!("$ {command}");
        let is_cert_manager = command.contains("overlays/cert-manager");
        if is_cert_manager {
            cluster.kubectl(&format!("apply --server-side -f {}", cert_manager_crds())).await;
            cluster.kubectl("wait --for=condition=Established --timeout=60s crd --all").await;
        }
        cluster.shell(command, "").await.unwrap_or_else(|e| panic!("{e}"));
        if is_cert_manager {
            play_cert_manager(&cluster).await;
        }
        cluster.rolled_out().await;
        cluster.registration_in_force().await;
        if is_cert_manager {
            cluster.kubectl(&format!("delete --wait -f {}", cert_manager_crds())).await;
        }
    }
}

/// All commands of the page in one go, with kind and make.
#[tokio::test]
#[ignore = "needs a kind cluster: make kind-test"]
async fn the_quick_start_ends_with_both_cas() {
    let cluster = Cluster::connect().await;
    cluster.kubectl("delete secret demo --ignore-not-found").await;
    let page = std::fs::read_to_string(root().join("docs/quick-start.md")).unwrap();
    let blocks: Vec<_> = page.split("```").skip(1).step_by(2).collect();
    let (removal, blocks) = blocks.split_last().unwrap();
    // One shell, as the reader has.
    let output =
        cluster.shell(&blocks.concat(), "").await.unwrap_or_else(|error| panic!("{error}"));
    eprintln!("{output}");
    assert!(["CN=one", "CN=two"].iter().all(|ca| output.contains(ca)), "{output}");
    // It waits for the end of the pods.
    let (removed, ()) = tokio::join!(cluster.shell(removal, ""), async {
        let path = format!("/api/v1/namespaces/{}", names::NAMESPACE);
        eventually("a namespace that ends", async || {
            let (status, namespace) = cluster.request("GET", &path, &Value::Null).await;
            (status == 404 || namespace["status"]["phase"] == "Terminating").then_some(())
        })
        .await;
        cluster.remove_pods().await;
    });
    removed.unwrap_or_else(|error| panic!("{error}"));
}

/// The commands that install, in the order of the pages, without duplicates.
pub fn commands() -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for part in &ON_A_CLUSTER[1..] {
        for shown in pages::commands().iter().filter(|shown| shown.is_in(&[*part])) {
            if !commands.contains(&shown.command) {
                commands.push(shown.command.clone());
            }
        }
    }
    commands
}

pub fn cert_manager_crds() -> String {
    let directory = root().join("target/control-plane/crds");
    let files = std::fs::read_dir(directory).expect("foreign CRDs: make control-plane");
    let mut paths = files.map(|file| file.unwrap().path().display().to_string());
    paths.find(|path| path.contains("/cert-manager-")).expect("cert-manager's CRDs")
}

/// Writes the Secret and the caBundle, in place of cert-manager's controllers.
async fn play_cert_manager(cluster: &Cluster) {
    let ca = certs::ca_named("ca-overlap-webhook-ca");
    let leaf = ca.leaf("ca-overlap-webhook.ca-overlap.svc");
    let pair = [
        ("ca.crt", ca.pem.as_bytes()),
        ("tls.crt", leaf.pem.as_bytes()),
        ("tls.key", leaf.key.as_bytes()),
    ];
    let object = secret("ca-overlap-webhook-tls", "kubernetes.io/tls", &pair);
    let secrets = Secrets::new(cluster.client.clone(), names::NAMESPACE.to_owned());
    secrets.create(&object).await.ok();
    let bundle = BASE64_STANDARD.encode(&ca.pem);
    let patch =
        json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]);
    cluster.done("PATCH", REGISTRATION, &patch).await;
}
