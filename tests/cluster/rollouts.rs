//! Replicas of the webhook are replaced or killed under a constant load of writes.

use ca_overlap::names;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::cluster::{Cluster, WEBHOOK, eventually, is_ready, name};
use crate::load::Load;
use crate::nodes::all_overlap_again;

#[tokio::test]
#[ignore = "needs a cluster: make kind-test"]
async fn no_write_is_rejected_while_replicas_are_replaced() {
    let cluster = Cluster::connect().await;
    cluster.install_all().await;
    cluster.set_failure_policy("Fail").await;
    let load = Load::start(&cluster, "load-rollouts").await;

    let line = format!("-n {} rollout restart deployment/{WEBHOOK}", names::NAMESPACE);
    cluster.kubectl(&line).await;
    cluster.rolled_out().await;
    load.more(50).await;
    evict_all(&cluster).await;

    let total = load.end().await;
    cluster.set_failure_policy("Ignore").await;
    eprintln!(
        "a rollout and two evictions: {} writes, {} rejected",
        total.writes,
        total.rejected.len()
    );
    for pod in cluster.our_pods("webhook").await {
        eprintln!("{}: {} s from scheduled to ready", name(&pod), seconds_to_ready(&pod));
    }
    total.all_overlap();
}

#[tokio::test]
#[ignore = "needs a cluster: make kind-test"]
async fn a_killed_replica_rejects_no_write_and_comes_back() {
    let cluster = Cluster::connect().await;
    cluster.install_all().await;
    let agent = Agent::of(&cluster).await;
    let load = Load::start(&cluster, "load-kill").await;

    let pods = cluster.replicas("webhook").await;
    let victim = &pods[0];
    let restarts = |pod: &Value| {
        pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or_default()
    };
    let before = restarts(victim);
    agent.run("kill", victim).await;
    let path = format!("/api/v1/namespaces/{}/pods/{}", names::NAMESPACE, name(victim));
    eventually("the killed replica, ready again", async || {
        let pod = cluster.read(&path).await;
        (restarts(&pod) > before && is_ready(&pod)).then_some(())
    })
    .await;
    all_overlap_again(&load).await;

    let total = load.end().await;
    eprintln!(
        "kill -9: {} writes, {} rejected, {} without an overlap",
        total.writes,
        total.rejected.len(),
        total.without
    );
    total.none_rejected();
}

/// The seconds from scheduling to ready. Conditions have whole seconds.
fn seconds_to_ready(pod: &Value) -> i64 {
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let time = |kind: &str| -> jiff::Timestamp {
        let one = conditions.iter().find(|one| one["type"] == kind).unwrap();
        one["lastTransitionTime"].as_str().unwrap().parse().unwrap()
    };
    time("Ready").as_second() - time("PodScheduled").as_second()
}

/// The container id without the name of the runtime.
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

/// Evicts each pod with the Eviction API as soon as the budget allows, as the drain of a node does.
/// Waits until all replaced replicas have drained and ended.
async fn evict_all(cluster: &Cluster) {
    let pods = cluster.replicas("webhook").await;
    let old: Vec<_> = pods.iter().map(name).collect();
    let [one, two] = old[..] else { panic!("not two replicas: {old:?}") };
    // The budget counts the replicas of the rollout, of which there were three, with a delay.
    let budget =
        format!("/apis/policy/v1/namespaces/{}/poddisruptionbudgets/{WEBHOOK}", names::NAMESPACE);
    eventually("a budget that allows one eviction", async || {
        let status = &cluster.read(&budget).await["status"];
        (status["currentHealthy"] == 2 && status["disruptionsAllowed"] == 1).then_some(())
    })
    .await;
    // Both at once, so that no third replica becomes ready in between.
    let both = tokio::join!(evict(cluster, one), evict(cluster, two));
    assert!(both.0 != both.1, "the budget must allow exactly one, allowed: {both:?}");
    let other = if both.0 { two } else { one };
    eventually("an allowed eviction", async || evict(cluster, other).await.then_some(())).await;
    eventually("two other replicas", async || {
        let pods = cluster.our_pods("webhook").await;
        let is_new = |pod: &Value| !old.contains(&name(pod)) && is_ready(pod);
        (pods.len() == 2 && pods.iter().all(is_new)).then_some(())
    })
    .await;
}

/// Evicts a pod, and returns whether that was allowed. Uses kubectl, because the client of these
/// tests repeats a refused eviction.
async fn evict(cluster: &Cluster, pod: &str) -> bool {
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": pod, "namespace": names::NAMESPACE},
    });
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", names::NAMESPACE);
    let line = format!("kubectl create --raw {path} -f -");
    match cluster.shell(&line, &eviction.to_string()).await {
        Ok(_) => true,
        Err(error) => {
            assert!(error.contains("would violate the pod's disruption budget"), "{error}");
            false
        }
    }
}
