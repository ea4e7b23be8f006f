//! The rights of the product's pods, as the node's kernel reports them, and the pods that their
//! namespace admits.

use ca_overlap::names;
use serde_json::json;

use crate::agent::Agent;
use crate::cluster::Cluster;
use crate::peers::{PEER_IMAGE, pod_spec};

#[tokio::test]
#[ignore = "needs a cluster: make kind-test"]
async fn pods_have_no_rights_on_the_node() {
    let cluster = Cluster::connect().await;
    cluster.install_all().await;
    let agent = Agent::of(&cluster).await;
    for component in ["webhook", "keeper"] {
        let pods = cluster.replicas(component).await;
        let status = agent.run("status", &pods[0]).await;
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
            let words: Vec<_> =
                line.unwrap_or_else(|| panic!("no {key}: {status}")).split_whitespace().collect();
            words.join(" ")
        };
        assert_eq!(value("Name"), "ca-overlap");
        for key in ["Uid", "Gid"] {
            assert_eq!(value(key), "65532 65532 65532 65532", "{component}: {key}");
        }
        for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(value(key), "0000000000000000", "{component}: {key}");
        }
        assert_eq!(value("NoNewPrivs"), "1", "{component}");
        assert_eq!(value("Seccomp"), "2", "{component}: has a seccomp filter");
        assert_eq!(value("Root"), "ro", "{component}: has a read-only root filesystem");
    }
}

#[tokio::test]
#[ignore = "needs a cluster: make kind-test"]
async fn the_namespace_admits_only_restricted_pods() {
    let cluster = Cluster::connect().await;
    cluster.install_all().await;
    let path = format!("/api/v1/namespaces/{}/pods?dryRun=All", names::NAMESPACE);
    let pod = |spec: &serde_json::Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "trial"}, "spec": spec});
    let good = pod_spec(PEER_IMAGE, &["collect"]);
    cluster.done("POST", &path, &pod(&good)).await;
    let mut root = good.clone();
    root["securityContext"]["runAsNonRoot"] = json!(false);
    let mut host = good.clone();
    host["hostNetwork"] = json!(true);
    let mut capable = good.clone();
    capable["containers"][0]["securityContext"]["capabilities"] = json!({"add": ["NET_ADMIN"]});
    for spec in [root, host, capable] {
        let (status, answer) = cluster.request("POST", &path, &pod(&spec)).await;
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(
            status == 403 && message.contains("violates PodSecurity \"restricted"),
            "{status}: {message}"
        );
    }
}
