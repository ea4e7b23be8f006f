//! The Helm chart on a real API server: install, upgrade, take-over of the kustomization's objects,
//! uninstall. What the webhook writes into its objects stays there.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ca_overlap::names;
use devtools::control_plane::{ControlPlane, Options};
use serde_json::{Value, json};

use crate::helm;
use crate::support::{self, Plane, command};

const LIST: &str = "/api/v1/namespaces/ca-overlap/configmaps/ca-overlap-distrusted";
const SECRET: &str = "/api/v1/namespaces/ca-overlap/secrets/ca-overlap-ca";
const REGISTRATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/ca-overlap";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/ca-overlap/deployments/ca-overlap-webhook";
const CLUSTER_ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles?labelSelector=app.kubernetes.io/name%3Dca-overlap";

#[tokio::test]
async fn an_upgrade_keeps_our_ca_and_the_ca_bundle() {
    let Some((plane, helm)) = start("an_upgrade_keeps_our_ca_and_the_ca_bundle").await else {
        return;
    };
    run(&plane, &helm, "install", &["--create-namespace", "--set", "keeper.enabled=true"]);
    let encoded = write_ca(&plane).await;

    for values in ["registration.optIn=true", "registration.timeoutSeconds=5,webhook.replicas=3"] {
        run(&plane, &helm, "upgrade", &["--reset-values", "--set", values]);
        assert_kept(&plane, &encoded).await;
    }
    let registration = get(&plane, REGISTRATION).await;
    assert_eq!(registration["webhooks"][0]["timeoutSeconds"], 5);
    assert_eq!(get(&plane, DEPLOYMENT).await["spec"]["replicas"], 3);
    let roles = get(&plane, CLUSTER_ROLES).await;
    assert_eq!(roles["items"].as_array().map(Vec::len), Some(1), "the keeper's role is removed");
}

#[tokio::test]
async fn the_chart_takes_over_from_the_kustomization() {
    let Some((plane, helm)) = start("the_chart_takes_over_from_the_kustomization").await else {
        return;
    };
    let base = support::manifests().join("base").display().to_string();
    plane.kubectl(&["apply", "--server-side", "-k", &base], &[]).await.unwrap();
    let encoded = write_ca(&plane).await;
    let before = get(&plane, DEPLOYMENT).await;

    // Helm 3 does not apply on the server, so it meets no conflict and has no such flag.
    let usage = helm::command(&helm, "install").arg("--help").output().expect("helm");
    let has_conflicts = helm::printed(&usage).contains("--force-conflicts");
    let flags = ["--take-ownership", "--force-conflicts"];
    run(&plane, &helm, "install", if has_conflicts { &flags } else { &flags[..1] });
    assert_kept(&plane, &encoded).await;
    let after = get(&plane, DEPLOYMENT).await;
    assert_eq!(after["spec"], before["spec"], "no pod is replaced");
}

#[tokio::test]
async fn an_uninstall_removes_every_object() {
    let Some((plane, helm)) = start("an_uninstall_removes_every_object").await else {
        return;
    };
    let switches = "keeper.enabled=true,staged.enabled=true,keeper.followIssuers=true,\
                    keeper.renewLeaves=true";
    let everything = ["--create-namespace", "--set", switches];
    run(&plane, &helm, "install", &everything);
    write_ca(&plane).await;
    assert_eq!(get(&plane, CLUSTER_ROLES).await["items"].as_array().map(Vec::len), Some(5));

    run(&plane, &helm, "uninstall", &[]);
    let label = ["-l", "app.kubernetes.io/name=ca-overlap"];
    for kinds in [
        "mutatingwebhookconfigurations,clusterroles,clusterrolebindings",
        "deployments,services,secrets,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets",
    ] {
        let all = ["get", kinds, "--all-namespaces", "--output=name"];
        let left = plane.kubectl(&[&all[..], &label].concat(), &[]).await.unwrap();
        assert_eq!(left.trim(), "");
    }
}

/// Starts a control plane, and finds helm.
async fn start(test: &str) -> Option<(Plane, PathBuf)> {
    let helm = helm::find()?;
    let assets = support::assets(test)?;
    // Not from the pool: Helm would refuse to take over objects that a reset leaves.
    Some((Plane::with(Options::new(assets)).await, helm))
}

/// Runs a helm command on the release.
fn run(plane: &ControlPlane, helm: &Path, subcommand: &str, arguments: &[&str]) {
    let mut command = helm::command(helm, subcommand);
    command.arg("ca-overlap");
    if subcommand != "uninstall" {
        command.arg(helm::chart()).args(["--set", helm::IMAGE]);
    }
    command.args(["--namespace", names::NAMESPACE]).args(arguments);
    let output = command.env("KUBECONFIG", plane.admin_kubeconfig()).output().expect("helm");
    assert!(output.status.success(), "helm {subcommand}: {}", helm::printed(&output));
}

/// Writes a CA into the CA Secret and the caBundle, as the webhook does at its start, and another
/// one into the list of distrusted CAs. Returns the encoded value.
pub async fn write_ca(plane: &ControlPlane) -> String {
    let encoded = BASE64_STANDARD.encode(devtools::certs::ca_named("ca-overlap").pem);
    let mut secret = get(plane, SECRET).await;
    assert!(secret.get("data").is_none(), "the manifest of the Secret has no data");
    secret["data"] = json!({ names::CA_CRT: encoded });
    plane.json("PUT", SECRET, &secret).await.unwrap();
    let ca_bundle = "/webhooks/0/clientConfig/caBundle";
    let patch = json!([{"op": "add", "path": ca_bundle, "value": encoded}]).to_string();
    let registration = ["patch", "mutatingwebhookconfiguration", names::WEBHOOK_CONFIGURATION];
    let arguments = [&registration[..], &["--type=json", "-p", &patch]].concat();
    plane.kubectl(&arguments, &[]).await.unwrap();
    let kubeconfig = plane.admin_kubeconfig();
    command::run(&kubeconfig, &["distrust", &"5e".repeat(32), "-A"]).with_code(0);
    encoded
}

pub async fn assert_kept(plane: &ControlPlane, encoded: &str) {
    assert_eq!(get(plane, SECRET).await["data"][names::CA_CRT], encoded);
    let registration = get(plane, REGISTRATION).await;
    assert_eq!(registration["webhooks"][0]["clientConfig"]["caBundle"], encoded);
    let list = get(plane, LIST).await;
    assert!(list["data"]["5e".repeat(32)].is_string(), "the list of distrusted CAs: {list}");
}

async fn get(plane: &ControlPlane, path: &str) -> Value {
    plane.json("GET", path, &Value::Null).await.unwrap()
}
