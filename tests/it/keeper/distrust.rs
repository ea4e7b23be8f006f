//! A distrusted CA comes back nowhere, and nobody distrusts for others.

use ca_overlap::names;
use devtools::certs::{self, bundle};
use devtools::secrets::{Answer, tls_secret};
use serde_json::{Value, json};

use super::repair::{holds, label, logged, recreate, remembers};
use super::setup::{Rotation, Setup, eventually};
use crate::support::command::run;

const LIST: &str = "/api/v1/namespaces/ca-overlap/configmaps/ca-overlap-distrusted";

/// Mounts the ConfigMap in a directory, in place of the kubelet.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The flag of webhook and keeper; lives as long as the test program.
    fn flag(&self) -> &'static str {
        Box::leak(format!("--distrusted={}", self.0.path().display()).into_boxed_str())
    }

    async fn update(&self, setup: &Setup) {
        let map = setup.cluster.plane.json("GET", LIST, &Value::Null).await.unwrap();
        for (key, value) in map["data"].as_object().into_iter().flatten() {
            std::fs::write(self.0.path().join(key), value.as_str().unwrap()).unwrap();
        }
    }
}

#[tokio::test]
async fn a_distrusted_ca_comes_back_nowhere() {
    let test = "a_distrusted_ca_comes_back_nowhere";
    let mount = Mount::new();
    let Some(setup) = Setup::with(test, "keeper", &[mount.flag()]).await else { return };
    let keeper = setup.leading_keeper(&[mount.flag()]).await;
    let (here, there) = (setup.cluster.namespace(test).await, setup.cluster.namespace(test).await);
    let stolen = certs::ca_named("stolen");

    // One tenant's Secret carries the CA, without a label of its own.
    let new = certs::ca_named("new");
    there.create(&tls_secret("carrier", &stolen.pem, &stolen.leaf("envoy"))).await.ok();
    let rotated = tls_secret("carrier", &new.pem, &new.leaf("envoy"));
    let carrying = there.put("carrier", &rotated).await.ok();
    assert_eq!(carrying.pem("ca.crt"), bundle(&[&new, &stolen]));
    // The keeper remembers the CA of another tenant's Secret, which is deleted meanwhile.
    here.create(&tls_secret("victim", &stolen.pem, &stolen.leaf("envoy"))).await.ok();
    let victim =
        Rotation { secrets: here.clone(), name: "victim".into(), generation: vec![stolen] };
    let patch = json!({"metadata": {"annotations": {names::KEEP: "2"}}});
    here.patch("victim", devtools::secrets::MERGE, "fieldManager=person", &patch).await.ok();
    label(&victim, json!("bundle")).await;
    remembers(&keeper, 2).await;
    let of_namespace = format!("namespace=\"{}\"", here.namespace);
    logged(&keeper, &["read the uid of a namespace", &of_namespace]).await;
    here.delete("victim").await.ok();

    let kubeconfig = setup.cluster.plane.admin_kubeconfig();
    let sha256 = victim.generation[0].sha256();
    let done = run(&kubeconfig, &["distrust", &sha256, "-A", "-o", "json"]);
    done.with_code(0);
    let report = done.json();
    assert_eq!(report["secrets"][0]["results"][0]["result"], "dropped", "{report}");
    mount.update(&setup).await;
    // Both servers report the list by the hash that the command waits for.
    let hash = report["list"]["sha256"].as_str().unwrap().to_owned();
    let line = format!("ca_overlap_distrusted{{sha256=\"{hash}\"}} 1");
    eventually("both servers use the list", async || {
        let servers = [setup.cluster.metrics().await, keeper.metrics().await];
        servers.iter().all(|metrics| metrics.contains(&line)).then_some(())
    })
    .await;
    logged(&keeper, &["using this list of distrusted CAs", &hash]).await;

    let again = certs::ca_named("again");
    here.create(&tls_secret("victim", &again.pem, &again.leaf("envoy"))).await.ok();
    let repaired = eventually("the settings", async || {
        let stored = victim.stored().await;
        (stored.annotation(names::KEEP) == Some("2")).then_some(stored)
    })
    .await;
    assert_eq!(repaired.pem("ca.crt"), again.pem, "the CA stays away");
    // Nor does a rotation bring it back, not even in a namespace that is new.
    let later = setup.cluster.namespace(test).await;
    let own = &victim.generation[0];
    later.create(&tls_secret("later", &own.pem, &own.leaf("envoy"))).await.ok();
    let rotated = later.put("later", &tls_secret("later", &new.pem, &new.leaf("envoy"))).await.ok();
    assert_eq!(rotated.pem("ca.crt"), new.pem);
}

#[tokio::test]
async fn the_keeper_retires_what_the_list_names() {
    let test = "the_keeper_retires_what_the_list_names";
    let mount = Mount::new();
    let Some(setup) = Setup::with(test, "keeper", &[mount.flag()]).await else { return };
    let _keeper = setup.leading_keeper(&[mount.flag()]).await;
    let secrets = setup.cluster.namespace(test).await;
    let mut rotation = Rotation::begin(&secrets, "envoy", json!({})).await;
    rotation.rotate().await;
    let list = json!({"data": {rotation.generation[0].sha256(): "by hand"}}).to_string();
    let patch = ["-n", names::NAMESPACE, "patch", "configmap", names::DISTRUSTED_CONFIG_MAP];
    let arguments = [&patch[..], &["--type=merge", "-p", &list]].concat();
    setup.cluster.plane.kubectl(&arguments, &[]).await.unwrap();
    holds(&rotation, &[1, 0]).await;
    mount.update(&setup).await;
    rotation.wait_until_retired().await;
    setup.event(&rotation, "Distrusted").await;
}

#[tokio::test]
async fn a_namespace_does_not_distrust_for_others() {
    let test = "a_namespace_does_not_distrust_for_others";
    let Some(setup) = Setup::start(test).await else { return };
    let keeper = setup.leading_keeper(&[]).await;
    let (mine, hostile) =
        (setup.cluster.namespace(test).await, setup.cluster.namespace(test).await);
    let mut victim = Rotation::begin(&mine, "envoy", json!({names::KEEP: "2"})).await;
    label(&victim, json!("bundle")).await;
    let theirs = json!({names::DISTRUST: victim.generation[0].sha256()});
    let attacker = Rotation::begin(&hostile, "attack", theirs).await;
    label(&attacker, json!("bundle")).await;
    remembers(&keeper, 2).await;
    let of_namespace = format!("namespace=\"{}\"", mine.namespace);
    logged(&keeper, &["read the uid of a namespace", &of_namespace]).await;
    recreate(&mut victim).await;
    let repaired: Answer = holds(&victim, &[1, 0]).await;
    assert_eq!(repaired.annotation(names::KEEP), Some("2"));
}
