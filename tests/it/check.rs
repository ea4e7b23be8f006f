//! `ca-overlap check` against a real API server, with the real webhook and keeper. Nothing runs the
//! Deployments, so the tests write their status, and a pod and an endpoint in their place.

use std::collections::BTreeMap;
use std::path::Path;

use base64::prelude::*;
use serde_json::{Value, json};

use crate::helm;
use crate::keeper::setup::{Keeper, LEASE, Setup, eventually};
use crate::support::{self, command::run};
use crate::support::{Cluster, Plane, manifests};
use devtools::certs::{self, bundle};
use devtools::control_plane::Patches;
use devtools::secrets::tls_secret;

const NAMES: [&str; 12] = [
    "kubernetes",
    "registration",
    "caBundle",
    "endpoints",
    "dryRun",
    "webhook",
    "keeper",
    "lease",
    "versions",
    "flags",
    "webhookRights",
    "keeperRights",
];
const REGISTRATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/ca-overlap";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/ca-overlap/deployments";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/ca-overlap/endpointslices";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// A sound installation.
async fn sound(test: &str) -> Option<(Setup, Keeper)> {
    let arguments = ["--staged", "--default-mode", "staged"];
    let setup = Setup::with(test, "full", &arguments).await?;
    let keeper = setup.leading_keeper(&["--lease-duration", "1h"]).await;
    for name in ["webhook", "keeper"] {
        ready(&setup.cluster, name, 2).await;
    }
    let plane = &setup.cluster.plane;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "keeper-0", "labels": {
            "app.kubernetes.io/name": "ca-overlap", "app.kubernetes.io/component": "keeper",
        }},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "keeper", "image": "it", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
            }}],
            "automountServiceAccountToken": false, "serviceAccountName": "ca-overlap-keeper",
        },
    });
    plane.json("POST", "/api/v1/namespaces/ca-overlap/pods", &pod).await.unwrap();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "it", "labels": {"kubernetes.io/service-name": "ca-overlap-webhook"}},
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}],
    });
    plane.json("POST", SLICES, &slice).await.unwrap();
    Some((setup, keeper))
}

/// Writes the status of a Deployment with this many ready replicas.
async fn ready(cluster: &Cluster, component: &str, replicas: u32) {
    let path = format!("{DEPLOYMENTS}/ca-overlap-{component}");
    let mut it = cluster.plane.json("GET", &path, &Value::Null).await.unwrap();
    it["status"] = json!({
        "observedGeneration": it["metadata"]["generation"], "replicas": replicas,
        "readyReplicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas,
    });
    cluster.plane.json("PUT", &format!("{path}/status"), &it).await.unwrap();
}

/// Changes an object and returns it as it was.
async fn change(plane: &Plane, path: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut it = plane.json("GET", path, &Value::Null).await.unwrap();
    let before = it.clone();
    change(&mut it);
    plane.json("PUT", path, &it).await.unwrap();
    before
}

/// Makes an object what it was.
async fn restore(plane: &Plane, path: &str, mut before: Value) {
    let now = plane.json("GET", path, &Value::Null).await.unwrap();
    before["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
    plane.json("PUT", path, &before).await.unwrap();
}

/// The last argument of a Deployment's container.
fn last(it: &mut Value) -> &mut Value {
    let args = it.pointer_mut("/spec/template/spec/containers/0/args").unwrap();
    args.as_array_mut().unwrap().last_mut().unwrap()
}

/// The results by name, and what was found.
fn checks(kubeconfig: &Path, arguments: &[&str]) -> (i32, BTreeMap<String, (String, String)>) {
    let ended = run(kubeconfig, &[&["check", "-o", "json"], arguments].concat());
    let text = |it: &Value| it.as_str().unwrap().to_owned();
    let all = ended.json()["checks"].as_array().unwrap().clone();
    let all = all.iter().map(|it| (text(&it["name"]), (text(&it["result"]), text(&it["found"]))));
    (ended.code, all.collect())
}

/// Fails unless exactly these checks fail, and the first of them says `expected`.
#[track_caller]
fn fails(plane: &Plane, names: &[&str], expected: &str) {
    let (code, checks) = checks(&plane.admin_kubeconfig(), &[]);
    let bad: Vec<&String> =
        checks.iter().filter(|(_, (result, _))| result == "bad").map(|(name, _)| name).collect();
    let mut names: Vec<&str> = names.to_vec();
    assert!(checks[names[0]].1.contains(expected), "{checks:?}");
    names.sort_unstable();
    assert_eq!(bad, names, "{checks:?}");
    assert_eq!(code, 1, "{checks:?}");
}

#[tokio::test]
async fn check_is_content_with_a_sound_installation() {
    let test = "check_is_content_with_a_sound_installation";
    let Some((setup, _keeper)) = sound(test).await else { return };
    let kubeconfig = setup.cluster.plane.admin_kubeconfig();
    let ended = run(&kubeconfig, &["check"]);
    let shown = ended.with_code(0);
    assert_eq!(ended.stderr, "");
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown}");
    let signs: Vec<&&str> = lines.iter().filter(|line| line.starts_with("✓ ")).collect();
    assert_eq!(signs.len(), NAMES.len(), "{shown}");
    for (line, name) in signs.iter().zip(NAMES) {
        assert!(line.starts_with(&format!("✓ {name} ")), "{shown}");
    }
    assert_eq!(lines.last(), Some(&"All is well."));
    for part in ["2 entries, failurePolicy Ignore", "--default-mode=staged", "keeper-0 renewed it"]
    {
        assert!(shown.contains(part), "{shown}");
    }
    // Nothing is stored.
    let secrets = "/api/v1/namespaces/default/secrets";
    let stored = setup.cluster.plane.json("GET", secrets, &Value::Null).await.unwrap();
    assert_eq!(stored["items"], json!([]));

    let json = run(&kubeconfig, &["check", "-o", "json"]).json();
    let yaml = run(&kubeconfig, &["check", "-o", "yaml"]);
    let names = |it: &Value| {
        let all = it["checks"].as_array().unwrap().iter();
        all.map(|it| it["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&json), NAMES);
    assert_eq!(names(&serde_saphyr::from_str(yaml.with_code(0)).unwrap()), NAMES);

    // A caller without rights: what he may not see is not bad, and not good.
    let (code, checks) = checks(&kubeconfig, &["--as", "nobody"]);
    assert_eq!(code, 2, "{checks:?}");
    let result = |name: &str| checks[name].0.as_str();
    assert_eq!(result("kubernetes"), "good");
    for name in ["registration", "dryRun", "deployments"] {
        assert_eq!(result(name), "unknown", "{checks:?}");
    }
    assert!(checks["dryRun"].1.contains("cannot create resource \"secrets\""), "{checks:?}");
}

/// What `helm test` runs, with the rights that the chart gives to its pod: they are enough, and each
/// is needed.
#[tokio::test]
async fn the_pod_of_helm_test_has_the_rights_that_check_needs() {
    let test = "the_pod_of_helm_test_has_the_rights_that_check_needs";
    let Some(helm) = helm::find() else { return };
    let Some((setup, _keeper)) = sound(test).await else { return };
    let plane = &setup.cluster.plane;
    let mut template = helm::command(&helm, "template");
    template.arg("ca-overlap").arg(helm::chart()).args(["--namespace", "ca-overlap"]);
    template.args(["--show-only", "templates/tests/check.yaml", "--set", helm::IMAGE]);
    let rendered = template.args(["--set", "keeper.enabled=true"]).output().unwrap();
    assert!(rendered.status.success(), "{}", helm::printed(&rendered));
    plane.kubectl(&["apply", "-f", "-"], &rendered.stdout).await.unwrap();
    let account = plane.service_account_kubeconfig("ca-overlap", "ca-overlap-check");
    let kubeconfig = account.await.unwrap();
    let ends_with = async |code: i32, why: &str| {
        eventually(why, async || (run(&kubeconfig, &["check"]).code == code).then_some(())).await;
    };
    ends_with(0, "a check with all rights").await;

    let mut removed = 0;
    for role in [
        "clusterroles/ca-overlap-check",
        "namespaces/ca-overlap/roles/ca-overlap-check",
        "namespaces/default/roles/ca-overlap-check",
    ] {
        let path = format!("{RBAC}/{role}");
        let before = plane.json("GET", &path, &Value::Null).await.unwrap();
        for rule in 0..before["rules"].as_array().unwrap().len() {
            let without = |it: &mut Value| drop(it["rules"].as_array_mut().unwrap().remove(rule));
            let before = change(plane, &path, without).await;
            ends_with(2, &format!("a check without rule {rule} of {role}")).await;
            restore(plane, &path, before).await;
            ends_with(0, "a check with all rights again").await;
            removed += 1;
        }
    }
    assert_eq!(removed, 8);
}

#[tokio::test]
async fn check_names_each_fault() {
    let test = "check_names_each_fault";
    let Some((setup, mut keeper)) = sound(test).await else { return };
    let plane = &setup.cluster.plane;
    let (webhook, of_keeper) =
        (format!("{DEPLOYMENTS}/ca-overlap-webhook"), format!("{DEPLOYMENTS}/ca-overlap-keeper"));
    let before = change(plane, &of_keeper, |it| *last(it) = json!("--window=7d")).await;
    ready(&setup.cluster, "keeper", 2).await;
    fails(plane, &["flags"], "--default-mode=staged for the webhook");
    restore(plane, &of_keeper, before).await;
    let image = "/spec/template/spec/containers/0/image";
    let before =
        change(plane, &of_keeper, |it| *it.pointer_mut(image).unwrap() = json!("i:2")).await;
    ready(&setup.cluster, "keeper", 2).await;
    fails(plane, &["versions"], "the keeper i:2");
    restore(plane, &of_keeper, before).await;
    // Its controller has not seen the change.
    fails(plane, &["keeper"], "0 of 2 replicas");
    ready(&setup.cluster, "keeper", 2).await;
    ready(&setup.cluster, "webhook", 1).await;
    fails(plane, &["webhook"], "1 of 2 replicas");
    let before = change(plane, &webhook, |it| *last(it) = json!("--audit")).await;
    ready(&setup.cluster, "webhook", 2).await;
    fails(plane, &["registration", "flags"], "ca-overlap.dev/audit");
    restore(plane, &webhook, before).await;
    ready(&setup.cluster, "webhook", 2).await;

    let slice = format!("{SLICES}/it");
    let before =
        change(plane, &slice, |it| it["endpoints"][0]["conditions"]["ready"] = json!(false));
    let before = before.await;
    fails(plane, &["endpoints"], "no ready endpoint");
    restore(plane, &slice, before).await;

    let role = format!("{RBAC}/clusterroles/ca-overlap-keeper");
    let before = change(plane, &role, |it| {
        it["rules"][0]["verbs"] = json!(["get", "list", "watch"]);
    });
    let before = before.await;
    fails(plane, &["keeperRights"], "ca-overlap-keeper may not patch secrets");
    restore(plane, &role, before).await;
    let binding = format!("{RBAC}/clusterrolebindings/ca-overlap-webhook");
    let before = plane.json("DELETE", &binding, &Value::Null).await;
    before.unwrap();
    fails(plane, &["webhookRights"], "get mutatingwebhookconfigurations/ca-overlap, patch");

    // The webhook lacks the right to repair this. It still answers the calls of connections that the
    // API server keeps.
    let before = change(plane, REGISTRATION, |it| {
        it["webhooks"][1]["clientConfig"]["caBundle"] = json!("");
    });
    let before = before.await;
    fails(plane, &["caBundle", "webhookRights"], "empty in the entry strangers.");
    let other = BASE64_STANDARD.encode(certs::ca().pem);
    change(plane, REGISTRATION, |it| it["webhooks"][1]["clientConfig"]["caBundle"] = json!(other))
        .await;
    fails(plane, &["caBundle", "webhookRights"], "lacks the CA");
    restore(plane, REGISTRATION, before).await;
    let only = change(plane, REGISTRATION, |it| {
        it["webhooks"].as_array_mut().unwrap().truncate(1);
    });
    let before = only.await;
    fails(plane, &["registration", "webhookRights"], "there is no entry strangers.");
    restore(plane, REGISTRATION, before).await;

    let pod = "/api/v1/namespaces/ca-overlap/pods/keeper-0";
    plane.json("DELETE", pod, &Value::Null).await.unwrap();
    fails(plane, &["lease", "webhookRights"], "no pod of the keeper");
    keeper.process.signal("KILL");
    drop(keeper);
    change(plane, LEASE, |it| it["spec"]["renewTime"] = json!("2026-01-01T00:00:00.000000Z")).await;
    fails(plane, &["lease", "webhookRights"], "no keeper acts");
    change(plane, LEASE, |it| it["spec"]["holderIdentity"] = json!("ca-overlap-drain-1")).await;
    fails(plane, &["lease", "webhookRights"], "ca-overlap drain holds it");
    plane.json("DELETE", LEASE, &Value::Null).await.unwrap();
    fails(plane, &["lease", "webhookRights"], "there is no Lease");
    plane.json("DELETE", &of_keeper, &Value::Null).await.unwrap();
    fails(plane, &["keeper", "webhookRights"], "nothing is staged");

    setup.stop_webhook().await;
    fails(plane, &["dryRun", "keeper", "webhookRights"], "did not answer a dry-run write");
    change(plane, REGISTRATION, |it| it["webhooks"][0]["failurePolicy"] = json!("Fail")).await;
    fails(plane, &["dryRun", "keeper", "webhookRights"], "failed calling webhook");
    plane.json("DELETE", REGISTRATION, &Value::Null).await.unwrap();
    let expected = "no MutatingWebhookConfiguration has the webhook";
    fails(plane, &["registration", "dryRun", "keeper", "webhookRights"], expected);
}

/// An installation under way: no replica has started.
#[tokio::test]
async fn check_and_status_read_what_is_installed() {
    let test = "check_and_status_read_what_is_installed";
    let Some(plane) = Plane::exclusive(test).await else { return };
    let kubeconfig = plane.admin_kubeconfig();
    let bad = |arguments: &[&str]| {
        let (code, checks) = checks(&kubeconfig, arguments);
        assert_eq!(code, 1, "{checks:?}");
        checks.into_iter().filter(|(_, it)| it.0 == "bad").map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(bad(&[]), ["dryRun", "registration", "webhook"]);
    let said = run(&kubeconfig, &["status"]).stderr;
    assert!(
        said.contains("there is no Deployment of the webhook in namespace ca-overlap"),
        "{said}"
    );
    plane.install(&manifests().join("base"), Patches::default()).await.unwrap();
    assert_eq!(bad(&[]), ["caBundle", "dryRun", "endpoints", "webhook"]);
    assert_eq!(run(&kubeconfig, &["status"]).stderr, "");
    let said = run(&kubeconfig, &["status", "--ca-overlap-namespace", "default"]).stderr;
    assert!(said.contains("no Deployment"), "{said}");
    let flags = ["--window", "1h", "--settle", "1s", "--default-mode", "bundle"];
    let given = [&["status", "--ca-overlap-namespace", "default"], &flags[..]].concat();
    assert_eq!(run(&kubeconfig, &given).stderr, "", "all is given");

    // A CA that was carried for an hour is over if, and only if, the webhook has --window=1h.
    let [new, old] = ["New", "Old"].map(certs::ca_named);
    let mut secret = tls_secret("it", &bundle(&[&new, &old]), &new.leaf("it"));
    let record = json!([{"sha256": old.sha256(), "since": "2026-01-01T00:00:00Z"}]);
    secret["metadata"]["labels"] = json!({"ca-overlap.dev/phase": "overlap"});
    secret["metadata"]["annotations"] = json!({"ca-overlap.dev/carried": record.to_string()});
    let secrets = support::namespace(&plane, test, &json!({})).await;
    secrets.create(&secret).await.ok();
    let status = |more: &[&str]| {
        let arguments = ["status", "-n", &secrets.namespace, "-o", "json"];
        let json = run(&kubeconfig, &[&arguments[..], more].concat()).json();
        json["rotations"][0]["next"]["what"].as_str().unwrap().to_owned()
    };
    let (before, short) = (status(&[]), status(&["--window", "1h"]));
    assert_ne!(before, short);
    change(&plane, &format!("{DEPLOYMENTS}/ca-overlap-webhook"), |it| {
        *last(it) = json!("--window=1h");
    })
    .await;
    assert_eq!(status(&[]), short);
    assert_eq!(status(&["--window", "none"]), before);
}

/// A webhook that changes nothing still shows that it is called, and one that is not called does not.
#[tokio::test]
async fn check_sees_the_answer_of_a_trial() {
    let test = "check_sees_the_answer_of_a_trial";
    let Some(cluster) = Cluster::start(test, &["--audit"]).await else { return };
    let kubeconfig = cluster.plane.admin_kubeconfig();
    let (_, all) = checks(&kubeconfig, &[]);
    assert_eq!(all["dryRun"].0, "good", "{all:?}");
    assert!(all["dryRun"].1.contains("(--audit)"), "{all:?}");
    let off = cluster.namespace_with(test, &json!({"ca-overlap.dev/mode": "off"})).await;
    let (_, all) = checks(&kubeconfig, &["-n", &off.namespace]);
    assert_eq!(all["dryRun"].0, "bad", "{all:?}");
    let (_, all) = checks(&kubeconfig, &["-n", "no-such-namespace"]);
    assert_eq!(all["dryRun"].0, "unknown", "{all:?}");
}
