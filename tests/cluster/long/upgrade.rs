//! An upgrade from an earlier build and a downgrade, under load.

use std::collections::BTreeSet;

use crate::cluster::{Cluster, root};
use crate::load::Load;
use crate::rollouts::replaced;

/// Made by `make node-earlier`: the manifests and the image of an earlier commit, failing closed.
const EARLIER: &str = "target/node/earlier";
const CURRENT: &str = "tests/cluster/manifests/fail-closed";

#[tokio::test]
#[ignore = "needs a cluster, and an earlier build: make kind-test-full"]
async fn an_upgrade_and_a_downgrade_lose_no_write_and_no_overlap() {
    let commit = std::fs::read_to_string(root().join(EARLIER).join("commit"));
    let commit = commit.expect("no earlier build: make node-earlier");
    let cluster = Cluster::connect().await;
    cluster.uninstall().await;
    cluster.install(EARLIER).await;
    let load = Load::start(&cluster, "load-upgrade").await;
    let earlier = images(&cluster).await;

    cluster.install(CURRENT).await;
    replaced(&cluster).await;
    let current = images(&cluster).await;
    assert!(earlier.is_disjoint(&current), "both builds have the same image: {earlier:?}");
    load.more(100).await;

    cluster.install(EARLIER).await;
    replaced(&cluster).await;
    assert_eq!(images(&cluster).await, earlier);
    load.more(100).await;
    let total = load.end().await;
    eprintln!("from {} to this one and back: {} writes", commit.trim(), total.writes);
    total.all_overlap();
    cluster.kubectl(&format!("delete -k {CURRENT} --timeout=200s")).await;
}

/// The digests of the running images.
async fn images(cluster: &Cluster) -> BTreeSet<String> {
    let pods = cluster.our_pods("webhook").await;
    let image = |pod: &serde_json::Value| {
        pod["status"]["containerStatuses"][0]["imageID"].as_str().unwrap().to_owned()
    };
    pods.iter().map(image).collect()
}
