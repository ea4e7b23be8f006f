//! What only several nodes show: replicas run apart, and a node may be lost. The nodes are those of a
//! kind cluster, where each is a container.

use std::collections::BTreeSet;

use ca_overlap::names;
use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually, is_ready, name};
use crate::load::Load;
use crate::peers::{PEER_IMAGE, pod_spec};

#[tokio::test]
#[ignore = "needs a cluster: make kind-test"]
async fn replicas_run_on_different_nodes_after_every_rollout() {
    let cluster = Cluster::connect().await;
    cluster.install_all().await;
    // A scheduler that looks at free resources alone prefers the other node for both replicas.
    cluster.namespace("crowd", &json!({})).await;
    let mut spec = pod_spec(PEER_IMAGE, &["pause"]);
    let workers = workers(&cluster).await;
    assert!(workers.len() >= 2, "needs two workers: {workers:?}");
    spec["nodeName"] = json!(workers[0]);
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": "500m"}});
    let crowd = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "crowd", "namespace": "crowd"}, "spec": spec,
    });
    cluster.apply(&[crowd]).await;

    for rollout in 1..=4 {
        cluster.kubectl(&format!("-n {} rollout restart deployment", names::NAMESPACE)).await;
        cluster.rolled_out().await;
        run_apart(&cluster, &format!("rollout {rollout}")).await;
    }
    cluster.kubectl("delete namespace crowd --wait=false").await;
}

/// A dead node costs overlaps until its replica leaves the Service, but with the default failure
/// policy no write.
#[tokio::test]
#[ignore = "needs a kind cluster: make kind-test"]
async fn a_worker_that_stops_dead_rejects_no_write_and_comes_back() {
    let cluster = Cluster::connect().await;
    cluster.install_all().await;
    run_apart(&cluster, "after the installation").await;
    let load = Load::start(&cluster, "load-dead").await;
    let pods = cluster.replicas("webhook").await;
    let dead = node_of(&pods[0]).to_owned();

    docker(&cluster, &format!("kill {dead}")).await;
    eventually("a node that is noticed to be dead", async || {
        (!is_node_ready(&cluster, &dead).await).then_some(())
    })
    .await;
    all_overlap_again(&load).await;
    let missed = load.without();

    docker(&cluster, &format!("start {dead}")).await;
    eventually("the node, ready again", async || {
        is_node_ready(&cluster, &dead).await.then_some(())
    })
    .await;
    cluster.replicas("webhook").await;
    all_overlap_again(&load).await;

    let total = load.end().await;
    eprintln!(
        "a dead worker: {} writes, {} rejected, {missed} without an overlap while it was dead, {} in all",
        total.writes,
        total.rejected.len(),
        total.without
    );
    total.none_rejected();
}

/// Panics unless the two replicas of each component are ready and run on different nodes. With one
/// node they cannot.
pub async fn run_apart(cluster: &Cluster, when: &str) {
    let apart = workers(cluster).await.len().min(2);
    for component in ["webhook", "keeper"] {
        let pods = cluster.replicas(component).await;
        let nodes: BTreeSet<_> = pods.iter().map(node_of).collect();
        assert_eq!(nodes.len(), apart, "{when}: both replicas of the {component} run on {nodes:?}");
    }
}

/// The name of a pod's node.
pub fn node_of(pod: &Value) -> &str {
    pod["spec"]["nodeName"].as_str().unwrap()
}

/// The names of the nodes that are not the control plane.
pub async fn workers(cluster: &Cluster) -> Vec<String> {
    let path = "/api/v1/nodes?labelSelector=!node-role.kubernetes.io%2Fcontrol-plane";
    let list = cluster.read(path).await;
    list["items"].as_array().unwrap().iter().map(name).map(ToOwned::to_owned).collect()
}

async fn is_node_ready(cluster: &Cluster, node: &str) -> bool {
    is_ready(&cluster.read(&format!("/api/v1/nodes/{node}")).await)
}

/// Runs `docker` with these words. The containers of kind have the names of their nodes.
pub async fn docker(cluster: &Cluster, words: &str) -> String {
    cluster.shell(&format!("docker {words}"), "").await.unwrap_or_else(|error| panic!("{error}"))
}

/// Waits until 100 writes in a row have been stored with the previous CA.
pub async fn all_overlap_again(load: &Load) {
    eventually("100 writes that all overlap", async || {
        let missed = load.without();
        load.more(100).await;
        (load.without() == missed).then_some(())
    })
    .await;
}
