//! Replicas of the webhook come and go under constant writes, and the registration fails closed: a
//! call that gets no answer is a write that is rejected.

use std::collections::BTreeSet;

use ca_overlap::names;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::cluster::{Cluster, WEBHOOK, eventually, is_ending, is_ready, name};
use crate::load::Load;

#[tokio::test]
#[ignore = "needs a cluster: make node-test"]
async fn no_write_is_rejected_while_replicas_are_replaced() {
    let cluster = Cluster::connect().await;
    cluster.install_all().await;
    cluster.set_failure_policy("Fail").await;
    let load = Load::start(&cluster, "load-rollouts").await;

    let line = format!("-n {} rollout restart deployment/{WEBHOOK}", names::NAMESPACE);
    cluster.kubectl(&line).await;
    replaced(&cluster).await;
    load.more(50).await;
    evict_all(&cluster).await;

    let total = load.end().await;
    cluster.set_failure_policy("Ignore").await;
    eprintln!(
        "a rollout and two evictions: {} writes, {} rejected",
        total.writes,
        total.rejected.len()
    );
    total.all_overlap();
}

#[tokio::test]
#[ignore = "needs a cluster: make node-test"]
async fn a_killed_replica_costs_no_write_and_comes_back() {
    let cluster = Cluster::connect().await;
    cluster.install_all().await;
    let agent = Agent::of(&cluster).await;
    let load = Load::start(&cluster, "load-kill").await;

    let pods = cluster.our_pods("webhook").await;
    let victim = pods.iter().find(|pod| is_ready(pod)).unwrap();
    let restarts = |pod: &Value| {
        pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or_default()
    };
    let before = restarts(victim);
    agent.run("kill", container(victim)).await;
    let path = format!("/api/v1/namespaces/{}/pods/{}", names::NAMESPACE, name(victim));
    eventually("the killed replica, ready again", async || {
        let pod = cluster.read(&path).await;
        (restarts(&pod) > before && is_ready(&pod)).then_some(())
    })
    .await;
    eventually("a stretch of writes that all overlap", async || {
        let missed = load.without();
        load.more(100).await;
        (load.without() == missed).then_some(())
    })
    .await;

    let total = load.end().await;
    eprintln!(
        "kill -9: {} writes, {} rejected, {} without an overlap",
        total.writes,
        total.rejected.len(),
        total.without
    );
    total.none_rejected();
}

/// The id of the container, behind the name of its runtime.
pub fn container(pod: &Value) -> &str {
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
    id.split_once("://").unwrap().1
}

/// Waits until the rollout is complete and the old replicas have drained and ended.
pub async fn replaced(cluster: &Cluster) {
    cluster.rolled_out().await;
    eventually("the end of the old replicas", async || {
        let pods = cluster.our_pods("webhook").await;
        (pods.len() == 2 && pods.iter().all(is_ready)).then_some(())
    })
    .await;
}

/// As the drain of a node does it: each pod by the Eviction API, as soon as the budget allows.
async fn evict_all(cluster: &Cluster) {
    let pods = cluster.our_pods("webhook").await;
    let old: BTreeSet<_> = pods.iter().map(|pod| name(pod).to_owned()).collect();
    assert_eq!(old.len(), 2);
    let mut refused = 0;
    for pod in &old {
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod, "namespace": names::NAMESPACE},
        });
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", names::NAMESPACE);
        eventually("an eviction that is allowed", async || {
            let (status, answer) = cluster.request("POST", &path, &eviction).await;
            assert!(matches!(status, 201 | 429), "{status}: {}", answer["message"]);
            refused += usize::from(status == 429);
            (status == 201).then_some(())
        })
        .await;
    }
    assert!(refused > 0, "the budget must have held up the second eviction");
    eventually("two other replicas", async || {
        let pods = cluster.our_pods("webhook").await;
        let is_new = |pod: &Value| !old.contains(name(pod)) && is_ready(pod) && !is_ending(pod);
        (pods.len() == 2 && pods.iter().all(is_new)).then_some(())
    })
    .await;
}
