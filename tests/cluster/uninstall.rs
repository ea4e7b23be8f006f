//! An uninstall leaves readable bundles and no object of the product.

use ca_overlap::names;
use serde_json::json;

use crate::cluster::{Cluster, eventually, root};
use crate::records::key_ids;
use devtools::certs::{self, Identity, bundle};
use devtools::secrets::{Secrets, tls_secret};

/// The command of the README and `docs/upgrade.md`.
const OFF: &str = "kubectl delete mutatingwebhookconfiguration ca-overlap";

#[tokio::test]
#[ignore = "needs a cluster: make kind-test"]
async fn an_uninstall_takes_effect_at_once_and_leaves_readable_bundles() {
    for page in ["README.md", "docs/upgrade.md"] {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        let told = format!("To disable immediately: `{OFF}`");
        assert!(text.contains(&told), "{page} does not contain: {told}");
    }
    let cluster = Cluster::connect().await;
    cluster.install_all().await;
    let secrets = cluster.namespace("uninstall", &json!({})).await;
    let cas = ["one", "two", "three"].map(certs::ca_named);
    let [one, two, three] = &cas;
    for name in ["before", "after"] {
        put(&secrets, name, one).await;
        put(&secrets, name, two).await;
    }

    cluster.shell(OFF, "").await.unwrap();
    eventually("writes that pass unchanged", async || {
        let object = tls_secret("after", &three.pem, &three.leaf("api"));
        let answer = secrets.put_with("after", "dryRun=All", &object).await.ok();
        (answer.pem("ca.crt") == three.pem).then_some(())
    })
    .await;

    cluster.uninstall().await;
    let leftovers = leftovers(&cluster).await;
    assert!(leftovers.is_empty(), "left behind:\n{}", leftovers.join("\n"));
    let stored = secrets.get("before").await.ok();
    assert_eq!(stored.pem("ca.crt"), bundle(&[two, one]), "the bundle is unchanged");
    assert_eq!(key_ids(&stored.pem("ca.crt")).len(), 2, "the bundle is readable");
    put(&secrets, "after", three).await;
    assert_eq!(secrets.get("after").await.pem("ca.crt"), three.pem, "writes pass unchanged");
}

/// Creates or overwrites a Secret.
async fn put(secrets: &Secrets, name: &str, ca: &Identity) {
    let object = tls_secret(name, &ca.pem, &ca.leaf("api"));
    if secrets.get(name).await.status.as_u16() == 404 {
        secrets.create(&object).await.ok();
    } else {
        secrets.put(name, &object).await.ok();
    }
}

/// All objects in the cluster, of any kind, that have the product's name in theirs. The name of a
/// node does not count: nodes, their leases and their static pods may be named after the cluster.
pub async fn leftovers(cluster: &Cluster) -> Vec<String> {
    let kinds = cluster.kubectl("api-resources --verbs=list -o name").await;
    // Events expire by themselves.
    let kinds: Vec<_> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let all = cluster.kubectl(&format!("get {} -A -o name", kinds.join(","))).await;
    assert!(all.contains("namespace/kube-system"), "the list is incomplete: {all}");
    let nodes: Vec<_> = all.lines().filter_map(|line| line.strip_prefix("node/")).collect();
    let is_ours = |line: &&str| {
        let rest = nodes.iter().fold((*line).to_owned(), |rest, node| rest.replace(node, ""));
        rest.contains(names::NAMESPACE)
    };
    all.lines().filter(is_ours).map(ToOwned::to_owned).collect()
}
