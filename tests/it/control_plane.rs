//! The control plane of tests and demo: it works, several run at the same time, and it leaves
//! nothing behind.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use devtools::certs::{self, bundle};
use devtools::control_plane::{ControlPlane, Options};
use devtools::secrets::{MERGE, Secrets, secret, tls_secret};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

use crate::support::Cluster;
use crate::support::{self, Plane};

const GONE_WITHIN: Duration = Duration::from_secs(20);

/// Devtools has copies of the names, because it must not depend on the program.
#[test]
fn devtools_use_the_same_names_as_the_program() {
    use ca_overlap::names as ours;
    use devtools::names;

    assert_eq!(names::MODE, ours::MODE);
    assert_eq!(names::CARRIED, ours::CARRIED);
    assert_eq!(names::NAMESPACE, ours::NAMESPACE);
    assert_eq!(names::SERVICE, ours::SERVICE);
    assert_eq!(names::WEBHOOK_CONFIGURATION, ours::WEBHOOK_CONFIGURATION);
    assert_eq!(names::WEBHOOK_SERVICE_ACCOUNT, ours::WEBHOOK_SERVICE_ACCOUNT);
}

#[tokio::test]
async fn the_control_plane_has_rbac_and_an_audit_log() {
    let test = "the_control_plane_has_rbac_and_an_audit_log";
    let Some(assets) = support::assets(test) else { return };
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "rules": [{"level": "Metadata"}],
    });
    let options = Options::new(assets)
        .file("policy.yaml", policy.to_string())
        .flag("--audit-policy-file={dir}/policy.yaml")
        .flag("--audit-log-path={dir}/audit.log");
    let plane = Plane::with(options).await;

    let version = plane.client().await.unwrap().apiserver_version().await.unwrap();
    // `KUBEBUILDER_ASSETS` may have any version; matchConditions are GA since 1.30.
    let minor: u32 = version.minor.trim_end_matches('+').parse().unwrap();
    assert!(version.major == "1" && minor >= 30, "{}", version.git_version);

    let secrets = support::namespace(&plane, test, &json!({})).await;
    secrets.create(&secret("it", "Opaque", &[("key", b"1")])).await.ok();
    let patch = json!({"stringData": {"key": "2"}});
    let patched = secrets.patch("it", MERGE, "fieldManager=me", &patch).await.ok();
    assert_eq!(patched.data("key").unwrap(), b"2");

    // A ServiceAccount is authenticated, and has no rights by default.
    let account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "nobody"},
    });
    let accounts = format!("/api/v1/namespaces/{}/serviceaccounts", secrets.namespace);
    plane.json("POST", &accounts, &account).await.unwrap();
    let file = plane.service_account_kubeconfig(&secrets.namespace, "nobody").await.unwrap();
    let kubeconfig = Kubeconfig::read_from(file).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    let nobody = Secrets::new(config.try_into().unwrap(), secrets.namespace.clone());
    let refused = nobody.get("it").await;
    assert_eq!(refused.status, 403);
    let message = refused.body["message"].as_str().unwrap();
    assert!(message.contains(&format!("serviceaccount:{}:nobody", secrets.namespace)), "{message}");

    assert!(plane.metrics().await.unwrap().contains("apiserver_request_total"));
    let nodes = plane.kubectl(&["get", "nodes", "-o", "name"], &[]).await.unwrap();
    assert_eq!(nodes, "");
    let audit = std::fs::read_to_string(plane.scratch().path().join("audit.log")).unwrap();
    assert!(audit.contains("\"verb\":\"patch\""));
}

#[tokio::test]
async fn a_rejected_flag_is_reported_with_the_log() {
    let Some(assets) = support::assets("a_rejected_flag_is_reported_with_the_log") else { return };
    let options = Options::new(assets).flag("--audit-policy-file={dir}/none.yaml");
    let error = ControlPlane::start(options).await.unwrap_err().to_string();
    assert!(error.starts_with("kube-apiserver ended"), "{error}");
    assert!(error.contains("none.yaml"), "{error}");
}

#[tokio::test]
async fn two_control_planes_run_side_by_side_and_clean_up() {
    let Some(assets) = support::assets("two_control_planes_run_side_by_side_and_clean_up") else {
        return;
    };
    let (one, two) = tokio::join!(
        ControlPlane::start(Options::new(assets.clone())),
        ControlPlane::start(Options::new(assets)),
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.address(), two.address());
    if one.has_loopback_cluster_ips() {
        assert_ne!(one.cluster_ip_range(), two.cluster_ip_range());
    }
    let pids = [one.pids(), two.pids()].concat();
    let directories = [one.scratch().path().to_owned(), two.scratch().path().to_owned()];
    drop((one, two));
    assert!(!pids.iter().any(|pid| alive(*pid)));
    assert!(!directories.iter().any(|directory| directory.exists()));
}

/// The replicas fill the empty CA Secret together, and the API server reaches each by the Service.
#[tokio::test]
async fn two_replicas_serve_one_service() {
    let test = "two_replicas_serve_one_service";
    let Some(cluster) = Cluster::without_webhook(test).await else { return };
    let (proxy, mut webhooks) = cluster.replicas(2, &[]).await;
    let secrets = cluster.namespace(test).await;
    let (one, two) = (certs::ca_named("ca"), certs::ca_named("ca"));
    for (index, webhook) in webhooks.iter().enumerate() {
        // One backend at a time, because the API server keeps its connection to a replica.
        proxy.set_backends(vec![webhook.listen()]);
        let name = format!("it-{index}");
        secrets.create(&tls_secret(&name, &one.pem, &one.leaf("it"))).await.ok();
        let rotated = secrets.put(&name, &tls_secret(&name, &two.pem, &two.leaf("it"))).await.ok();
        assert_eq!(rotated.pem("ca.crt"), bundle(&[&two, &one]));
    }
    let mut calls = 0.0;
    for webhook in &webhooks {
        let metrics = webhook.metrics().await.unwrap();
        calls += support::sum(&metrics, "ca_overlap_admissions_total", &["rotation"]);
    }
    assert!(calls >= 2.0, "{calls}");
    webhooks[0].process().signal("TERM");
    drop(webhooks);
    // Without a backend the write passes unchanged (failurePolicy: Ignore).
    let three = certs::ca_named("ca");
    let alone = secrets.put("it-0", &tls_secret("it-0", &three.pem, &three.leaf("it"))).await.ok();
    assert_eq!(alone.pem("ca.crt"), three.pem);
}

#[test]
fn a_killed_owner_leaves_nothing_behind() {
    end_helper_by(&mut |helper| helper.kill().unwrap());
}

#[test]
fn a_terminated_owner_leaves_nothing_behind() {
    end_helper_by(&mut |helper| {
        let pid = helper.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    });
}

#[test]
fn an_owner_that_exits_without_drop_leaves_nothing_behind() {
    end_helper_by(&mut |helper| {
        helper.stdin.take().unwrap().write_all(b"exit\n").unwrap();
    });
}

fn end_helper_by(end: &mut dyn FnMut(&mut Child)) {
    if support::assets("the end of an owner").is_none() {
        return;
    }
    let mut helper = Command::new(support::example("plane-owner"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (pids, directory) = read_helper(&mut helper);
    assert!(pids.iter().all(|pid| alive(*pid)) && directory.exists());
    end(&mut helper);
    helper.wait().unwrap();
    let deadline = Instant::now() + GONE_WITHIN;
    while pids.iter().any(|pid| alive(*pid)) || directory.exists() {
        assert!(Instant::now() < deadline, "{pids:?} or {} still exist", directory.display());
        std::thread::yield_now();
    }
}

fn read_helper(helper: &mut Child) -> (Vec<u32>, PathBuf) {
    let line = BufReader::new(helper.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find(|line| line.starts_with("helper "))
        .expect("the helper starts a control plane");
    let words: Vec<_> = line.split(' ').collect();
    (words[1..3].iter().map(|w| w.parse().unwrap()).collect(), Path::new(words[3]).to_owned())
}

fn alive(pid: u32) -> bool {
    Command::new("kill")
        .args(["-0", &pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}
