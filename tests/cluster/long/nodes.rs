//! Nodes that are drained or cut off, and an API server that restarts in the middle of a rotation.

use std::collections::BTreeSet;

use ca_overlap::names;
use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually, is_ready, name};
use crate::handshakes::staged;
use crate::load::Load;
use crate::nodes::{docker, node_of, run_apart, workers};
use crate::peers::{PEER_IMAGE, pod_spec};
use crate::rollouts::replaced;
use devtools::certs;
use devtools::secrets::tls_secret;

#[tokio::test]
#[ignore = "needs a cluster: make kind-test-full"]
async fn a_drain_of_each_worker_in_turn_rejects_no_write() {
    let cluster = Cluster::connect().await;
    cluster.install_all().await;
    replaced(&cluster).await;
    cluster.set_failure_policy("Fail").await;
    let load = Load::start(&cluster, "load-drain").await;
    for worker in workers(&cluster).await {
        let line = "--ignore-daemonsets --delete-emptydir-data --force --timeout=230s";
        cluster.kubectl(&format!("drain {worker} {line}")).await;
        replaced(&cluster).await;
        cluster.kubectl(&format!("uncordon {worker}")).await;
    }
    let total = load.end().await;
    cluster.set_failure_policy("Ignore").await;
    eprintln!("drains: {} writes, {} rejected", total.writes, total.rejected.len());
    total.all_overlap();
}

/// The leader of the keeper is cut off in the middle of a rotation. It stops by its own clock before
/// the other replica acts, so nothing is done twice.
#[tokio::test]
#[ignore = "needs a kind cluster: make kind-test-full"]
async fn a_leader_that_is_cut_off_stops_before_the_other_replica_acts() {
    let cluster = Cluster::connect().await;
    cluster.install_all().await;
    // After a drain both replicas may be on one node, and only a rollout parts them.
    cluster.kubectl(&format!("-n {} rollout restart deployment", names::NAMESPACE)).await;
    cluster.rolled_out().await;
    run_apart(&cluster, "before the cut").await;
    let pods = cluster.replicas("keeper").await;
    // A replica of an earlier rollout may still hold the Lease.
    let pod = eventually("a leader that acts", async || {
        let leader = cluster.holder().await;
        let pod = pods.iter().find(|pod| name(pod) == leader)?;
        acts(&cluster, pod).await.then_some(pod)
    })
    .await;
    let (leader, node) = (name(pod).to_owned(), node_of(pod));
    let mut workers = workers(&cluster).await.into_iter();
    let elsewhere = workers.find(|worker| worker != node).unwrap();

    let secrets = cluster.namespace(CUT_OFF, &json!({})).await;
    let [one, two] = ["one", "two"].map(certs::ca_named);
    let (old_leaf, new_leaf) = (one.leaf("api"), two.leaf("api"));
    let mut object = tls_secret("api", &one.pem, &old_leaf);
    object["metadata"]["labels"] = json!({names::MODE: "staged"});
    object["metadata"]["annotations"] = json!({names::RESTART: "deployment/reader"});
    secrets.create(&object).await.ok();
    cluster.apply(&[reader(&elsewhere)]).await;
    cluster.kubectl(&format!("-n {CUT_OFF} rollout status deployment/reader")).await;
    eventually("the keeper's note of the trust", async || {
        secrets.get("api").await.ok().annotation(names::RESTARTED).map(drop)
    })
    .await;

    secrets.put("api", &tls_secret("api", &two.pem, &new_leaf)).await.ok();
    let staged = secrets.get("api").await.ok();
    assert_eq!(staged.label(names::PHASE), Some(names::PHASE_STAGED));
    assert_eq!(staged.pem("tls.crt"), old_leaf.pem);
    cut(&cluster, node, "-I").await;
    let next = eventually("another holder of the Lease", async || {
        // Who takes an expired Lease first empties it.
        Some(cluster.holder().await).filter(|now| *now != leader && !now.is_empty())
    })
    .await;
    assert!(!acts(&cluster, pod).await, "{leader} acts beside {next}");

    eventually("the promotion of the leaf", async || {
        (secrets.get("api").await.ok().pem("tls.crt") == new_leaf.pem).then_some(())
    })
    .await;
    cut(&cluster, node, "-D").await;
    eventually("the old leader, ready again", async || {
        let pods = cluster.our_pods("keeper").await;
        (pods.len() == 2 && pods.iter().all(is_ready)).then_some(())
    })
    .await;
    assert!(!acts(&cluster, pod).await, "{leader} acts beside {next}");
    let restarts = restarts(&cluster).await;
    let distinct: BTreeSet<_> = restarts.iter().collect();
    eprintln!("cut off: {leader} stopped before {next} acted; restarts: {restarts:?}");
    assert_eq!(distinct.len(), restarts.len(), "a restart was done twice: {restarts:?}");
    assert!(restarts.len() > 1, "the rotation restarted the reader: {restarts:?}");
}

const CUT_OFF: &str = "cut-off";

/// A Deployment that mounts the Secret, and so lets the keeper restart it, on a node that stays.
fn reader(node: &str) -> Value {
    let mut spec = pod_spec(PEER_IMAGE, &["pause"]);
    spec["nodeName"] = json!(node);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "certs", "mountPath": "/certs"}]);
    spec["volumes"] = json!([{"name": "certs", "secret": {"secretName": "api"}}]);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "reader", "namespace": CUT_OFF},
        "spec": {
            "selector": {"matchLabels": {"app": "reader"}},
            "template": {"metadata": {"labels": {"app": "reader"}}, "spec": spec},
        },
    })
}

/// Whether a replica of the keeper acts, as its metrics say on its own node, which may be cut off.
async fn acts(cluster: &Cluster, pod: &Value) -> bool {
    let (node, address) = (node_of(pod), pod["status"]["podIP"].as_str().unwrap());
    let get = "GET /metrics HTTP/1.0\\r\\n\\r\\n";
    let ask = format!("exec 3<>/dev/tcp/{address}/8082; printf \"{get}\" >&3; cat <&3");
    let metrics = docker(cluster, &format!("exec {node} bash -c '{ask}'")).await;
    let line = metrics.lines().find_map(|line| line.strip_prefix("ca_overlap_keeper_leader "));
    line.unwrap_or_else(|| panic!("no metric: {metrics}")) == "1"
}

/// Drops all packets of a node (`-I`), or ends that (`-D`). Its pods keep reaching each other.
async fn cut(cluster: &Cluster, node: &str, change: &str) {
    for rule in ["INPUT -i eth0", "OUTPUT -o eth0", "FORWARD -i eth0", "FORWARD -o eth0"] {
        docker(cluster, &format!("exec {node} iptables -w {change} {rule} -j DROP")).await;
    }
}

/// For what the reader was restarted: the marks of each revision.
async fn restarts(cluster: &Cluster) -> Vec<String> {
    let list = cluster.read(&format!("/apis/apps/v1/namespaces/{CUT_OFF}/replicasets")).await;
    let marks = |set: &Value| {
        let marks = set["spec"]["template"]["metadata"]["annotations"].as_object().cloned();
        let marks = marks.unwrap_or_default().into_iter();
        let marks = marks.filter(|(key, _)| key.starts_with(names::RESTARTED_FOR));
        json!(marks.collect::<std::collections::BTreeMap<_, _>>()).to_string()
    };
    list["items"].as_array().unwrap().iter().map(marks).collect()
}

/// The API server restarts while trust spreads: no handshake fails, and the rotation completes.
#[tokio::test]
#[ignore = "needs a kind cluster: make kind-test-full"]
async fn a_restart_of_the_api_server_in_a_rotation_fails_no_handshake() {
    let cluster = Cluster::connect().await;
    cluster.install_all().await;
    let table = staged(&cluster, "peers-api-server", async || {
        let before = api_server_restarts(&cluster).await;
        let node = control_plane(&cluster).await;
        docker(&cluster, &format!("exec {node} pkill -KILL -x kube-apiserver")).await;
        eventually("a restarted API server", async || {
            cluster.text("/readyz").await?;
            (api_server_restarts(&cluster).await > before).then_some(())
        })
        .await;
    })
    .await;
    eprintln!("{table}");
}

async fn control_plane(cluster: &Cluster) -> String {
    let path = "/api/v1/nodes?labelSelector=node-role.kubernetes.io%2Fcontrol-plane";
    name(&cluster.read(path).await["items"][0]).to_owned()
}

/// How often the API server has restarted, or 0 while it does not answer.
async fn api_server_restarts(cluster: &Cluster) -> i64 {
    let path = "/api/v1/namespaces/kube-system/pods?labelSelector=component%3Dkube-apiserver";
    let Some(text) = cluster.text(path).await else { return 0 };
    let list: Value = serde_json::from_str(&text).unwrap();
    let status = &list["items"][0]["status"]["containerStatuses"][0];
    status["restartCount"].as_i64().unwrap_or_default()
}
