//! `ca-overlap distrust` with a real API server and the real webhook.
use std::path::PathBuf;

use devtools::certs::{self, Identity, bundle};
use devtools::secrets::{MERGE, Secrets, secret, tls_secret};
use serde_json::{Value, json};

use crate::support::command::run;
use crate::support::{Cluster, cluster};

const DISTRUST: &str = "ca-overlap.dev/distrust";

#[tokio::test]
async fn distrust_drops_a_carried_ca_and_reports_an_own_one() {
    let test = "distrust_drops_a_carried_ca_and_reports_an_own_one";
    let Some(cluster) = cluster(test).await else { return };
    let (here, there) = (cluster.namespace(test).await, cluster.namespace(test).await);
    let (stolen, new, other) =
        (certs::ca_named("Legacy CA"), certs::ca_named("Legacy CA"), certs::ca_named("Legacy CA"));
    rotate(&here, "carries", &stolen, &new).await;
    let older = other.sha256();
    annotate(&here, "carries", &older).await;
    there.create(&tls_secret("owns", &stolen.pem, &stolen.leaf("it"))).await.ok();
    there.create(&tls_secret("has-not", &other.pem, &other.leaf("it"))).await.ok();
    there.create(&secret("no-ca", "Opaque", &[("key", b"1")])).await.ok();
    let kubeconfig = cluster.plane.admin_kubeconfig();
    let file = File::of(&stolen.pem);

    // A dry run shows the same changes and stores nothing.
    let versions = || async { [here.get("carries").await, there.get("owns").await] };
    let before = versions().await;
    let dry = run(&kubeconfig, &["distrust", file.path(), "-A", "--dry-run"]);
    let shown = dry.with_code(1);
    assert!(shown.contains("would be dropped") && shown.contains("would stay"), "{shown}");
    assert!(shown.contains("Nothing was stored"), "{shown}");
    let after = versions().await;
    assert!(before.iter().zip(&after).all(|(b, a)| b.resource_version() == a.resource_version()));

    let done = run(&kubeconfig, &["distrust", file.path(), "-A"]);
    let shown = done.with_code(1);
    let line = |name: &str| shown.lines().find(|line| line.contains(name)).unwrap_or(shown);
    assert!(line(" carries ").contains("dropped"), "{shown}");
    assert!(line(" owns ").contains(" own ") && line(" owns ").contains("STILL THERE"), "{shown}");
    assert!(!shown.contains("has-not") && !shown.contains("no-ca"), "{shown}");
    assert!(shown.contains("Only the generator can replace it"), "{shown}");

    let carries = here.get("carries").await.ok();
    let fingerprint = stolen.sha256();
    assert_eq!(carries.pem("ca.crt"), new.pem);
    assert_eq!(carries.annotation(DISTRUST), Some(format!("{older},{fingerprint}").as_str()));
    assert_eq!(carries.label("ca-overlap.dev/phase"), None);
    let owns = there.get("owns").await.ok();
    assert_eq!(owns.pem("ca.crt"), stolen.pem);
    assert_eq!(owns.annotation(DISTRUST), Some(fingerprint.as_str()));

    // A second run writes nothing, and still reports the generator's own CA.
    let again = run(&kubeconfig, &["distrust", &fingerprint, "-A", "-o", "json"]);
    assert_eq!(again.code, 1);
    let report = again.json();
    assert_eq!(report["secrets"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["secrets"][0]["name"], "owns");
    assert_eq!(report["secrets"][0]["results"][0]["result"], "own");
    assert_eq!(there.get("owns").await.resource_version(), owns.resource_version());

    // After the generator's rotation the distrusted CA is not carried, and nothing is left to
    // report.
    there.put("owns", &tls_secret("owns", &new.pem, &new.leaf("it"))).await.ok();
    assert_eq!(there.get("owns").await.pem("ca.crt"), new.pem);
    let clean = run(&kubeconfig, &["distrust", &fingerprint, "-A"]);
    assert!(
        clean.with_code(0).contains("No Secret in any namespace holds the CA"),
        "{}",
        clean.stdout
    );
}

#[tokio::test]
async fn the_scope_is_a_namespace_or_named_secrets() {
    let test = "the_scope_is_a_namespace_or_named_secrets";
    let Some(cluster) = cluster(test).await else { return };
    let (here, there) = (cluster.namespace(test).await, cluster.namespace(test).await);
    let (stolen, new) = (certs::ca_named("Legacy CA"), certs::ca_named("Legacy CA"));
    for (secrets, name) in [(&here, "a"), (&here, "b"), (&there, "a")] {
        rotate(secrets, name, &stolen, &new).await;
    }
    let kubeconfig = cluster.plane.admin_kubeconfig();
    let carrying = async || {
        let mut still = Vec::new();
        for (secrets, name) in [(&here, "a"), (&here, "b"), (&there, "a")] {
            still.push(secrets.get(name).await.pem("ca.crt") == bundle(&[&new, &stolen]));
        }
        still
    };
    let fingerprint = stolen.sha256().to_uppercase();
    let named = format!("{}/a", here.namespace);
    run(&kubeconfig, &["distrust", &fingerprint, &named]).with_code(0);
    assert_eq!(carrying().await, [false, true, true]);
    let clean = run(&kubeconfig, &["distrust", &fingerprint, "-n", &here.namespace]);
    let only = format!("Looked at namespace {} only", here.namespace);
    assert!(clean.with_code(0).contains(&only), "{}", clean.stdout);
    assert_eq!(carrying().await, [false, false, true]);

    // A named Secret that does not exist is a failure.
    let missing =
        run(&kubeconfig, &["distrust", &fingerprint, "-n", &there.namespace, "a", "none"]);
    let shown = missing.with_code(2);
    assert!(shown.contains("Looked at these Secrets only"), "{shown}");
    let no_secret = format!("there is no Secret {}/none", there.namespace);
    assert!(missing.stderr.contains(&no_secret), "{}", missing.stderr);
    assert_eq!(carrying().await, [false, false, false]);
}

#[tokio::test]
async fn a_leaf_that_needs_the_ca_is_reported() {
    let test = "a_leaf_that_needs_the_ca_is_reported";
    let Some(cluster) = cluster(test).await else { return };
    let secrets = cluster.namespace(test).await;
    let (stolen, new) = (certs::ca_named("Legacy CA"), certs::ca_named("Legacy CA"));
    let leaf = stolen.leaf("it");
    secrets.create(&tls_secret("it", &stolen.pem, &leaf)).await.ok();
    secrets.put("it", &tls_secret("it", &new.pem, &leaf)).await.ok();
    let kubeconfig = cluster.plane.admin_kubeconfig();
    let file = File::of(&bundle(&[&stolen, &certs::ca_named("unknown")]));
    let done = run(&kubeconfig, &["distrust", file.path(), "-n", &secrets.namespace]);
    let shown = done.with_code(1);
    assert!(shown.contains("dropped, leaf needs it"), "{shown}");
    assert!(shown.contains("The leaf needs it: 1 Secret"), "{shown}");
    assert_eq!(secrets.get("it").await.pem("ca.crt"), new.pem);
    let listed = shown.lines().filter(|line| line.starts_with("  sha256 ")).count();
    assert_eq!(listed, 2, "every certificate of the file is listed: {shown}");
}

#[tokio::test]
async fn distrust_reports_a_missing_webhook_and_works_once_it_is_back() {
    let test = "distrust_reports_a_missing_webhook_and_works_once_it_is_back";
    let Some(cluster) = Cluster::start(test, &[]).await else { return };
    let secrets = cluster.namespace(test).await;
    let (stolen, new) = (certs::ca_named("Legacy CA"), certs::ca_named("Legacy CA"));
    rotate(&secrets, "it", &stolen, &new).await;
    drop(cluster.webhook.lock().await.take());

    let kubeconfig = cluster.plane.admin_kubeconfig();
    let fingerprint = stolen.sha256();
    let arguments = ["distrust", &fingerprint, "-n", &secrets.namespace];
    let shown = run(&kubeconfig, &arguments).with_code(1).to_owned();
    assert!(
        shown.contains("STILL CARRIED") && shown.contains("The webhook did not act"),
        "{shown}"
    );
    assert_eq!(secrets.get("it").await.pem("ca.crt"), bundle(&[&new, &stolen]));

    cluster.start_webhook("again", cluster.port_443(), &[]).await.unwrap();
    let shown = run(&kubeconfig, &arguments).with_code(0).to_owned();
    assert!(shown.contains("dropped"), "{shown}");
    let after = secrets.get("it").await.ok();
    assert_eq!(after.pem("ca.crt"), new.pem);
    let listed = after.annotation(DISTRUST).unwrap().trim_end_matches(',');
    assert_eq!(listed, fingerprint);
}

#[tokio::test]
async fn a_forbidden_namespace_is_reported_and_the_others_are_processed() {
    let test = "a_forbidden_namespace_is_reported_and_the_others_are_processed";
    let Some(cluster) = cluster(test).await else { return };
    let (mine, theirs) = (cluster.namespace(test).await, cluster.namespace(test).await);
    let (stolen, new) = (certs::ca_named("Legacy CA"), certs::ca_named("Legacy CA"));
    rotate(&mine, "it", &stolen, &new).await;
    rotate(&theirs, "it", &stolen, &new).await;
    let kubeconfig = limited_user(cluster, &mine.namespace).await;

    let arguments = ["distrust", &stolen.sha256(), "-A"];
    let done = run(&kubeconfig, &arguments);
    let shown = done.with_code(2);
    assert!(shown.contains("could not be added to the list: configmaps"), "{shown}");
    assert!(shown.lines().any(|line| line.starts_with(&mine.namespace)), "{shown}");
    // What was not read is an error.
    let everywhere = ["configmaps", "apiservices", "customresourcedefinitions"];
    let refused = everywhere.map(|kind| format!("in all namespaces: {kind}"));
    for refused in [&refused[..], &[format!("in {}: secrets", theirs.namespace)]].concat() {
        assert!(done.stderr.contains(&refused), "{refused}: {}", done.stderr);
        assert!(!shown.contains(&refused), "{shown}");
    }
    assert_eq!(mine.get("it").await.pem("ca.crt"), new.pem);
    assert_eq!(theirs.get("it").await.pem("ca.crt"), bundle(&[&new, &stolen]));

    // A user who may read but not write gets an error for each Secret.
    let revoke =
        format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles/it", mine.namespace);
    let mut role = cluster.plane.json("GET", &revoke, &Value::Null).await.unwrap();
    role["rules"][0]["verbs"] = json!(["get", "list"]);
    cluster.plane.json("PUT", &revoke, &role).await.unwrap();
    rotate(&mine, "second", &stolen, &new).await;
    let scoped = ["distrust", &stolen.sha256(), "-n", &mine.namespace];
    // The API server applies a change of RBAC some milliseconds later.
    let shown = loop {
        let done = run(&kubeconfig, &[&scoped[..], &["--dry-run"]].concat());
        if done.stdout.contains("FAILED") {
            break done.with_code(1).to_owned();
        }
        tokio::task::yield_now().await;
    };
    assert!(shown.contains("failed: secrets \"second\" is forbidden"), "{shown}");
}

#[tokio::test]
async fn all_pages_are_read() {
    let test = "all_pages_are_read";
    let Some(cluster) = cluster(test).await else { return };
    let secrets = cluster.namespace(test).await;
    let (stolen, new) = (certs::ca_named("Legacy CA"), certs::ca_named("Legacy CA"));
    // The list is sorted by name: "a" comes first, and "z" after two pages of others.
    rotate(&secrets, "a", &stolen, &new).await;
    rotate(&secrets, "z", &stolen, &new).await;
    let others = (0..1001).map(|number| {
        let other = secret(&format!("m-{number}"), "Opaque", &[("ca.crt", b"none")]);
        let secrets = &secrets;
        async move { secrets.create(&other).await.ok() }
    });
    futures::future::join_all(others).await;
    let kubeconfig = cluster.plane.admin_kubeconfig();
    let arguments = ["distrust", &stolen.sha256(), "-n", &secrets.namespace, "-o", "yaml"];
    let yaml = run(&kubeconfig, &arguments);
    let report: Value = serde_saphyr::from_str(yaml.with_code(0)).unwrap();
    let names: Vec<_> = report["secrets"].as_array().unwrap().iter().map(|s| &s["name"]).collect();
    assert_eq!(names, ["a", "z"]);
    assert!(
        report["secrets"]
            .as_array()
            .unwrap()
            .iter()
            .all(|s| s["results"][0]["result"] == "dropped")
    );
}

#[test]
fn a_usage_error_exits_64_and_a_failure_exits_2() {
    let nowhere = PathBuf::from("/dev/null");
    let fingerprint = "5e".repeat(32);
    let usage: [(&[&str], &str); 4] = [
        (&["distrust", "no-such-file.pem"], "FINGERPRINT|FILE: no-such-file.pem is neither"),
        (&["distrust", &fingerprint, "-A", "a/b"], "--all-namespaces: does not go with names"),
        (&["distrust", &fingerprint, "a/b/c"], "SECRET: a/b/c is not the name of a Secret"),
        (&["distrust"], "required arguments were not provided"),
    ];
    for (arguments, expected) in usage {
        let ended = run(&nowhere, arguments);
        assert_eq!(ended.code, 64, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
    let empty = File::of("nothing of interest");
    let failing: [(&[&str], &str); 2] = [
        (&["distrust", empty.path()], "no certificate in it, as PEM or DER"),
        (
            &["distrust", &fingerprint, "--kubeconfig", "/no/such"],
            "set KUBECONFIG, or --kubeconfig",
        ),
    ];
    for (arguments, expected) in failing {
        let ended = run(&nowhere, arguments);
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
}

/// Rotates from `old` to `new`, which leaves the bundle `[new, old*]`.
async fn rotate(secrets: &Secrets, name: &str, old: &Identity, new: &Identity) {
    secrets.create(&tls_secret(name, &old.pem, &old.leaf("it"))).await.ok();
    let leaf: Identity = new.leaf("it");
    let rotated = secrets.put(name, &tls_secret(name, &new.pem, &leaf)).await.ok();
    assert_eq!(rotated.pem("ca.crt"), bundle(&[new, old]));
}

async fn annotate(secrets: &Secrets, name: &str, distrust: &str) {
    let patch = json!({"metadata": {"annotations": {DISTRUST: distrust}}});
    secrets.patch(name, MERGE, "", &patch).await.ok();
}

/// The kubeconfig of a user who may list namespaces, and read and patch the Secrets of one.
async fn limited_user(cluster: &Cluster, namespace: &str) -> PathBuf {
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
    let here = json!({"name": "it", "namespace": namespace});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": here});
    let subjects = json!([{"kind": "ServiceAccount", "name": "it", "namespace": namespace}]);
    let rbac = "rbac.authorization.k8s.io";
    let role = json!({"metadata": here, "rules": [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "patch"]}]});
    let binding = json!({"metadata": here, "subjects": subjects,
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "it"}});
    let cluster_role = json!({"metadata": {"name": namespace}, "rules": [
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list"]}]});
    let cluster_binding = json!({"metadata": {"name": namespace}, "subjects": subjects,
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": namespace}});
    let plane = &cluster.plane;
    let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    plane.json("POST", &accounts, &account).await.unwrap();
    for (path, object) in [
        (format!("{RBAC}/namespaces/{namespace}/roles"), role),
        (format!("{RBAC}/namespaces/{namespace}/rolebindings"), binding),
        (format!("{RBAC}/clusterroles"), cluster_role),
        (format!("{RBAC}/clusterrolebindings"), cluster_binding),
    ] {
        plane.json("POST", &path, &object).await.unwrap();
    }
    plane.service_account_kubeconfig(namespace, "it").await.unwrap()
}

/// A temporary file, removed when dropped.
struct File(tempfile::NamedTempFile);

impl File {
    fn of(content: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        Self(file)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }
}
