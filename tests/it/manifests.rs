//! The manifests on a real API server: every overlay passes strict validation, a repeated apply
//! removes nothing, and the pod passes the Pod Security Standard of its namespace.

use std::path::Path;

use ca_overlap::names;
use devtools::control_plane::{Options, Patches};
use serde_json::{Value, json};

use crate::chart;
use crate::support::{self, Plane};

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/ca-overlap/deployments/ca-overlap-webhook";
const PODS: &str = "/api/v1/namespaces/ca-overlap/pods";

#[tokio::test]
async fn every_overlay_applies_with_strict_validation() {
    let test = "every_overlay_applies_with_strict_validation";
    let Some(assets) = support::assets(test) else { return };
    // Not from the pool: the foreign CRDs would stay for the next test.
    let plane = Plane::with(Options::new(assets)).await;
    for of in ["cert-manager-", "prometheus-operator-"] {
        let Some(crds) = support::foreign_crds(test, of) else { return };
        support::install_crds(&plane, &crds).await;
    }

    let keeper = "overlays/keeper";
    let overlays = [
        "base",
        "overlays/kind",
        "overlays/opt-in",
        keeper,
        keeper,
        "overlays/full",
        "overlays/staged",
        "overlays/cert-manager",
    ];
    for overlay in overlays {
        let path = support::manifests().join(overlay);
        plane.install(&path, Patches::default()).await.unwrap();
        let deployment = plane.json("GET", DEPLOYMENT, &Value::Null).await.unwrap();
        assert_eq!(deployment["spec"]["replicas"], 2, "{overlay}");
    }
    // Components as users compose them. Strict validation uses the operator's schemas.
    let monitored = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/monitored");
    plane.install(&monitored, Patches::default()).await.unwrap();
    for kind in ["prometheusrules/ca-overlap", "servicemonitors/ca-overlap-webhook"] {
        let path = format!("/apis/monitoring.coreos.com/v1/namespaces/ca-overlap/{kind}");
        plane.json("GET", &path, &Value::Null).await.unwrap();
    }
    // The command of docs/install.md.
    let overlay = support::manifests().join("overlays/kind").display().to_string();
    plane.kubectl(&["apply", "--server-side", "-k", &overlay], &[]).await.unwrap();

    // Negative control: strict validation rejects an unknown field.
    let unknown = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "strict", "namespace": names::NAMESPACE},
        "dat": {},
    })
    .to_string();
    let apply = ["apply", "--server-side", "--validate=strict", "-f", "-"];
    let error = plane.kubectl(&apply, unknown.as_bytes()).await.unwrap_err().to_string();
    assert!(error.contains("dat"), "{error}");
}

#[tokio::test]
async fn applying_again_keeps_our_ca_and_the_ca_bundle() {
    let test = "applying_again_keeps_our_ca_and_the_ca_bundle";
    let Some(plane) = Plane::exclusive(test).await else { return };
    let base = support::manifests().join("base").display().to_string();
    plane.kubectl(&["apply", "-k", &base], &[]).await.unwrap();

    let encoded = chart::write_ca(&plane).await;

    let opt_in = support::manifests().join("overlays/opt-in").display().to_string();
    let ways: [&[&str]; 3] = [
        &["apply", "-k", &base],
        &["apply", "--server-side", "--force-conflicts", "-k", &base],
        &["apply", "-k", &opt_in],
    ];
    for arguments in ways {
        println!("{arguments:?}");
        plane.kubectl(arguments, &[]).await.unwrap();
        chart::assert_kept(&plane, &encoded).await;
    }
}

#[tokio::test]
async fn the_pod_passes_the_standard_that_its_namespace_enforces() {
    let test = "the_pod_passes_the_standard_that_its_namespace_enforces";
    let Some(plane) = Plane::exclusive(test).await else { return };
    let base = support::manifests().join("base");
    plane.install(&base, Patches::default()).await.unwrap();
    let deployment = plane.json("GET", DEPLOYMENT, &Value::Null).await.unwrap();
    let mut pod = deployment["spec"]["template"].clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("webhook");
    let dry_run = format!("{PODS}?dryRun=All");
    plane.json("POST", &dry_run, &pod).await.unwrap();

    // Negative control: the namespace rejects a pod that violates the standard.
    let container = &mut pod["spec"]["containers"][0];
    container["securityContext"]["allowPrivilegeEscalation"] = json!(true);
    let error = plane.json("POST", &dry_run, &pod).await.unwrap_err().to_string();
    assert!(error.contains("allowPrivilegeEscalation"), "{error}");
}
