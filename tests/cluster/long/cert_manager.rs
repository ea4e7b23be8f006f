//! cert-manager's controllers as a pod: the root of a CA issuer is renewed, then its leaves, while
//! pods do handshakes with them.

use ca_overlap::names;
use devtools::secrets::Secrets;
use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually};
use crate::handshakes::{Log, failures, more, table};
use crate::peers::{Peers, SECRETS, pod_spec};
use crate::readme::cert_manager_crds;
use crate::records::{Count, Rotation, key_ids};

const NAMESPACE: &str = "cert-manager";
const IMAGE: &str = "ca-overlap-test-cert-manager:dev";
const ROOT: &str = "mesh-root";
const GROUP: &str = "/apis/cert-manager.io/v1";

#[tokio::test]
#[ignore = "needs a cluster and cert-manager: make kind-test-cert-manager"]
async fn handshakes_fail_only_where_the_next_root_is_not_announced() {
    let cluster = Cluster::connect().await;
    cluster.install_all().await;
    let central = install(&cluster).await;
    order(&cluster, NAMESPACE, ROOT, true, "self-signed").await;
    issued(&cluster, NAMESPACE, ROOT, 1).await;
    issuer(&cluster, "mesh", &json!({"ca": {"secretName": ROOT}})).await;

    let names = ["issued-a", "issued-b", "issued-control"];
    // The webhook is not called in a namespace that has opted out, so nothing can be announced there.
    let labels = [json!({}), json!({}), json!({names::MODE: "off"})];
    let [a, b, control] = [0, 1, 2].map(|i| start(&cluster, names[i], &labels[i]));
    let (a, b, control) = tokio::join!(a, b, control);
    eventually("the keeper that follows the issuer", async || {
        let root = central.get(ROOT).await.ok();
        (root.label(names::SOURCE) == Some("issuer")).then_some(())
    })
    .await;

    let old = root(&central).await;
    let mut logs = Vec::new();
    for peers in [&a, &b, &control] {
        logs.push(Log::begin(peers).await);
    }
    renew(&cluster, NAMESPACE, ROOT).await;
    issued(&cluster, NAMESPACE, ROOT, 2).await;
    let new = root(&central).await;
    assert_ne!(old, new);
    for peers in [&a, &b] {
        for name in SECRETS {
            eventually("the next root in each Secret", async || {
                key_ids(&peers.secret(name).await.pem("ca.crt")).contains(&new).then_some(())
            })
            .await;
        }
    }
    let logs = logs.into_iter().map(|log| log.of(Rotation { old: old.clone(), new: new.clone() }));
    let logs: Vec<Log> = logs.collect();
    let mut spread = Vec::new();
    for (peers, log) in [&a, &b].into_iter().zip(&logs) {
        spread.push(log.spread(peers).await);
    }
    for name in SECRETS {
        for peers in [&a, &b, &control] {
            renew(&cluster, peers.namespace(), name).await;
            issued(&cluster, peers.namespace(), name, 2).await;
        }
    }

    for ((peers, log), spread) in [&a, &b].into_iter().zip(&logs).zip(spread) {
        let shown = log.shown(peers, spread).await;
        let end = more(peers, shown).await;
        let records = peers.records(0).await;
        let failures = failures(&records[log.start..end]);
        assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
        let (before, told, renewed) = log.phases(&records, spread, end);
        let rows = [("before", &before), ("root renewed", &told), ("leaves renewed", &renewed)];
        eprintln!("{}", table("cert-manager, the next root announced", &rows));
    }
    let log = &logs[2];
    let spread = log.spread(&control).await;
    let end = more(&control, spread).await;
    let count = Count::of(&control.records(0).await[log.begin..end], &log.rotation);
    eprintln!("{}", table("cert-manager alone", &[("renewed", &count)]));
    assert!(count.failed > 0, "nothing fails without announcements: this shows nothing");

    cluster.kubectl(&format!("delete namespace {} --wait=false", names.join(" "))).await;
    cluster.kubectl(&format!("delete -f {}", cert_manager_crds())).await;
    cluster.kubectl(&format!("delete namespace {NAMESPACE} --wait=false")).await;
}

/// Starts the controllers, and returns the Secrets of their namespace.
async fn install(cluster: &Cluster) -> Secrets {
    cluster.kubectl(&format!("apply --server-side -f {}", cert_manager_crds())).await;
    cluster.kubectl("wait --for=condition=Established --timeout=60s crd --all").await;
    let secrets = cluster.namespace(NAMESPACE, &json!({})).await;
    let metadata = json!({"name": NAMESPACE, "namespace": NAMESPACE});
    let mut spec = pod_spec(IMAGE, &[]);
    spec["serviceAccountName"] = json!(NAMESPACE);
    spec["automountServiceAccountToken"] = json!(true);
    let labels = json!({"app": NAMESPACE});
    cluster
        .apply(&[
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": {"name": "ca-overlap-test-cert-manager"},
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                    "name": "cluster-admin",
                },
                "subjects": [{"kind": "ServiceAccount", "name": NAMESPACE, "namespace": NAMESPACE}],
            }),
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": spec},
                },
            }),
        ])
        .await;
    let line = format!("-n {NAMESPACE} rollout status deployment/{NAMESPACE} --timeout=120s");
    cluster.kubectl(&line).await;
    issuer(cluster, "self-signed", &json!({"selfSigned": {}})).await;
    secrets
}

async fn issuer(cluster: &Cluster, name: &str, spec: &Value) {
    let issuer = json!({
        "apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer", "metadata": {"name": name},
        "spec": spec,
    });
    cluster.apply(&[issuer]).await;
}

/// Orders a certificate, whose Secret has the same name.
async fn order(cluster: &Cluster, namespace: &str, name: &str, is_ca: bool, issuer: &str) {
    let mut spec = json!({
        "secretName": name, "isCA": is_ca, "privateKey": {"algorithm": "ECDSA"},
        "issuerRef": {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": issuer},
    });
    if is_ca {
        spec["commonName"] = json!(name);
    } else {
        spec["dnsNames"] = json!([name]);
        spec["usages"] = json!(["digital signature", "server auth", "client auth"]);
    }
    let metadata = json!({"name": name, "namespace": namespace});
    let order = json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": metadata, "spec": spec,
    });
    cluster.apply(&[order]).await;
}

/// Peers that mount what cert-manager issues, and reload it.
async fn start(cluster: &Cluster, namespace: &str, labels: &Value) -> Peers {
    let peers = Peers::prepare(cluster, namespace, labels, true).await;
    for name in SECRETS {
        order(cluster, namespace, name, false, "mesh").await;
    }
    for name in SECRETS {
        issued(cluster, namespace, name, 1).await;
    }
    peers.run().await;
    peers
}

fn path(namespace: &str, name: &str) -> String {
    format!("{GROUP}/namespaces/{namespace}/certificates/{name}")
}

fn is_under_way(certificate: &Value) -> bool {
    let mut conditions = certificate["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|one| one["type"] == "Issuing" && one["status"] == "True")
}

/// Waits until a certificate has been issued that often.
async fn issued(cluster: &Cluster, namespace: &str, name: &str, times: u64) {
    eventually(&format!("{namespace}/{name} issued"), async || {
        let certificate = cluster.read(&path(namespace, name)).await;
        let revision = certificate["status"]["revision"].as_u64()?;
        (revision >= times && !is_under_way(&certificate)).then_some(())
    })
    .await;
}

/// Asks for a new certificate as `cmctl renew` does.
async fn renew(cluster: &Cluster, namespace: &str, name: &str) {
    eventually(&format!("{namespace}/{name} marked"), async || {
        let mut certificate = cluster.read(&path(namespace, name)).await;
        let generation = certificate["metadata"]["generation"].clone();
        let conditions = certificate["status"]["conditions"].as_array_mut()?;
        conditions.retain(|condition| condition["type"] != "Issuing");
        conditions.push(json!({
            "type": "Issuing", "status": "True", "reason": "ManuallyTriggered",
            "message": "Certificate re-issuance manually triggered",
            "lastTransitionTime": jiff::Timestamp::now().strftime("%FT%TZ").to_string(),
            "observedGeneration": generation,
        }));
        let status = format!("{}/status", path(namespace, name));
        // A controller may have written in the meantime.
        let (code, _) = cluster.request("PUT", &status, &certificate).await;
        (code < 300).then_some(())
    })
    .await;
}

/// The key id of the root.
async fn root(central: &Secrets) -> String {
    key_ids(&central.get(ROOT).await.ok().pem("tls.crt"))[0].clone()
}
