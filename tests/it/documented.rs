//! The kubectl commands that pages show, word for word, on a real API server with the webhook.

use std::path::Path;
use std::process::Command;

use ca_overlap::names;
use devtools::certs;
use devtools::secrets::{Secrets, tls_secret};
use serde_json::{Value, json};

use crate::support::pages::{self, ON_AN_API_SERVER};
use crate::support::{assets, cluster};

#[tokio::test]
async fn the_kubectl_commands_of_the_pages_work() {
    let test = "the_kubectl_commands_of_the_pages_work";
    let (Some(assets), Some(cluster)) = (assets(test), cluster(test).await) else { return };
    let secrets = cluster.namespace(test).await;
    let gateway = json!({"metadata": {"name": "envoy-gateway-system"}});
    cluster.plane.json("POST", "/api/v1/namespaces", &gateway).await.unwrap();
    let gateway =
        Secrets::new(cluster.plane.client().await.unwrap(), "envoy-gateway-system".to_owned());
    let ca = certs::ca_named("Example CA");
    let names = ["envoy", "envoy-gateway", "envoy-rate-limit"];
    for (secrets, name) in [(&secrets, "api"), (&secrets, "NAME")]
        .into_iter()
        .map(|(secrets, name)| (secrets, name.to_lowercase()))
        .chain(names.map(|name| (&gateway, name.to_owned())))
    {
        secrets.create(&tls_secret(&name, &ca.pem, &ca.leaf(&name))).await.ok();
    }

    // The commands without -n work in the namespace of the reader's context.
    let admin = std::fs::read(cluster.plane.admin_kubeconfig()).unwrap();
    let mut kubeconfig: Value = serde_json::from_slice(&admin).unwrap();
    kubeconfig["contexts"][0]["context"]["namespace"] = json!(secrets.namespace);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();

    let mut run = 0;
    for part in ON_AN_API_SERVER {
        let shown = pages::commands().into_iter().filter(|shown| shown.is_in(&[part]));
        let is_run = |line: &String| {
            (line.starts_with("kubectl ") || line.starts_with("SECRETS="))
                && !line.contains(" logs ")
        };
        let lines: Vec<String> = shown.map(|shown| shown.command).filter(is_run).collect();
        assert!(!lines.is_empty(), "{part:?} shows no command");
        run += lines.len();
        let script = lines.join("\n").replace("NAMESPACE", &secrets.namespace);
        shell(&assets.kubectl, &path, &script.replace("NAME", "name"));
    }
    assert!(run >= 7, "{run}");

    let restart = secrets.get("api").await.ok();
    assert_eq!(restart.annotation(names::RESTART), Some("deployment/api"));
    for name in names {
        let object = gateway.get(name).await.ok();
        assert_eq!(object.annotation(names::GROUP), Some("envoy-gateway"), "{name}");
        assert_eq!(object.label(names::MODE), Some("staged"), "{name}");
    }
}

/// Runs lines as a reader's shell does, and stops at the first that fails.
fn shell(kubectl: &Path, kubeconfig: &Path, script: &str) {
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("sh")
        .args(["-eu", "-c", script])
        .env("KUBECONFIG", kubeconfig)
        .env("PATH", format!("{}:{path}", kubectl.parent().unwrap().display()))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{errors}");
}
