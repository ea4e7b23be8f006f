//! `ca-overlap status` with a real API server and the real webhook, also as a plugin of kubectl.
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::prelude::*;
use devtools::certs::{self, Identity, bundle};
use devtools::control_plane::{Patches, Supervised};
use devtools::secrets::{MERGE, Secrets, tls_secret};
use serde_json::{Value, json};

use crate::support;
use crate::support::command::{command, run};
use crate::support::{Cluster, Plane, cluster};

/// The time limit for a line of output, far above what a change takes to arrive.
const LINE_TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn status_shows_each_rotation_with_its_next_step() {
    let test = "status_shows_each_rotation_with_its_next_step";
    let Some(cluster) = cluster(test).await else { return };
    let secrets = cluster.namespace(test).await;
    let kubeconfig = cluster.plane.admin_kubeconfig();
    let scoped = ["status", "-n", &secrets.namespace];
    let nothing = format!("No rotation in flight in namespace {} (-A looks", secrets.namespace);
    assert!(run(&kubeconfig, &scoped).with_code(0).starts_with(&nothing));

    let (old, new) = (certs::ca_named("Old Root CA"), certs::ca_named("New Root CA"));
    secrets.create(&tls_secret("quiet", &old.pem, &old.leaf("it"))).await.ok();
    rotate(&secrets, "open", &old, &new, &json!({})).await;
    let window = json!({"ca-overlap.dev/window": "24h"});
    rotate(&secrets, "with-a-very-long-name-that-fills-the-line", &old, &new, &window).await;

    let status = run(&kubeconfig, &scoped);
    let shown = status.with_code(0);
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("NAMESPACE "), "{shown}");
    let row = lines.iter().position(|line| is_row(line, &secrets.namespace, "open"));
    let row = row.unwrap_or_else(|| panic!("{shown}"));
    let (own, carried) = (&new.sha256()[..8], &old.sha256()[..8]);
    for part in ["overlap", own, "New Root CA", carried, "Old Root CA", "s"] {
        assert!(lines[row].contains(part), "{part} is not in {}", lines[row]);
    }
    let next = "    next: previous CA is dropped at the next rotation or at expiry in ";
    assert!(lines[row + 1].starts_with(next), "{shown}");
    assert!(
        shown.contains("next: a previous CA is dropped in 23h (") || shown.contains("in 24h ("),
        "{shown}"
    );
    assert!(!shown.contains("quiet"), "{shown}");

    let json = run(&kubeconfig, &[&scoped[..], &["-o", "json"]].concat()).json();
    let yaml = run(&kubeconfig, &[&scoped[..], &["-o", "yaml"]].concat());
    assert_eq!(serde_saphyr::from_str::<Value>(yaml.with_code(0)).unwrap(), json);
    let rotations = json["rotations"].as_array().unwrap();
    assert_eq!(rotations.len(), 2, "{json}");
    let open = &rotations[0];
    assert_eq!((&open["name"], &open["phase"]), (&json!("open"), &json!("overlap")));
    assert_eq!(
        (&open["next"]["action"], &open["next"]["due"]),
        (&json!("retireAtRotation"), &json!(false))
    );
    assert_eq!(open["own"][0]["sha256"], new.sha256());
    assert_eq!(open["carried"][0]["sha256"], old.sha256());
    assert_eq!(open["carried"][0]["commonName"], "Old Root CA");
    assert_eq!((&open["carried"][0]["until"], &open["problems"]), (&Value::Null, &json!([])));
    let bounded = &rotations[1];
    assert_eq!(bounded["next"]["at"], bounded["carried"][0]["until"]);
    assert_eq!(bounded["next"]["action"], "retire");
    let since: jiff::Timestamp = bounded["carried"][0]["since"].as_str().unwrap().parse().unwrap();
    let until: jiff::Timestamp = bounded["carried"][0]["until"].as_str().unwrap().parse().unwrap();
    assert_eq!(until.as_second() - since.as_second(), 86_400);
}

/// Whether a line of a table is about this Secret.
fn is_row(line: &str, namespace: &str, name: &str) -> bool {
    line.split_whitespace().take(2).eq([namespace, name])
}

#[tokio::test]
async fn status_exits_1_if_there_are_problems() {
    let test = "status_exits_1_if_there_are_problems";
    let Some(cluster) = cluster(test).await else { return };
    let secrets = cluster.namespace(test).await;
    let ca = certs::ca_named("Legacy CA");
    let mut object = tls_secret("it", &ca.pem, &ca.leaf("it"));
    object["metadata"]["labels"] = json!({"ca-overlap.dev/mode": "bundle"});
    object["metadata"]["annotations"] =
        json!({"ca-overlap.dev/distrust": ca.sha256(), "ca-overlap.dev/keep": "many"});
    secrets.create(&object).await.ok();
    // A Secret without the label is not in the care of ca-overlap.
    object["metadata"]["name"] = json!("other");
    object["metadata"]["labels"] = json!({});
    secrets.create(&object).await.ok();

    let kubeconfig = cluster.plane.admin_kubeconfig();
    let arguments = ["status", "-n", &secrets.namespace];
    let status = run(&kubeconfig, &arguments);
    let shown = status.with_code(1);
    assert!(
        shown.contains("PROBLEM: ca-overlap.dev/keep: expected a number from 0 to 8"),
        "{shown}"
    );
    assert!(shown.contains("only the generator can replace it"), "{shown}");
    assert!(!shown.contains("other"), "{shown}");
    let json = run(&kubeconfig, &[&arguments[..], &["-o", "json"]].concat()).json();
    let reasons: Vec<_> = json["rotations"][0]["problems"].as_array().unwrap().iter().collect();
    let reasons: Vec<_> =
        reasons.iter().map(|problem| problem["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["setting_unreadable", "own_distrusted"]);
}

#[tokio::test]
async fn a_watch_shows_each_change_as_it_happens() {
    let test = "a_watch_shows_each_change_as_it_happens";
    let Some(cluster) = cluster(test).await else { return };
    let secrets = cluster.namespace(test).await;
    let (old, new, newer) = (certs::ca_named("1"), certs::ca_named("2"), certs::ca_named("3"));
    rotate(&secrets, "first", &old, &new, &json!({})).await;
    let kubeconfig = cluster.plane.admin_kubeconfig();
    let arguments = ["status", "-n", &secrets.namespace, "--watch"];
    let json = Running::start(&kubeconfig, &[&arguments[..], &["-o", "json"]].concat());
    let shown = Running::start(&kubeconfig, &arguments);

    let change = json.json();
    assert_eq!((&change["type"], &change["rotation"]["name"]), (&json!("ADDED"), &json!("first")));
    assert!(shown.line().starts_with("NAMESPACE"));
    let row = format!("{}/first", secrets.namespace);
    assert!(is_row(&shown.line(), &secrets.namespace, "first"));

    rotate(&secrets, "second", &old, &new, &json!({})).await;
    let change = json.json();
    assert_eq!((&change["type"], &change["rotation"]["name"]), (&json!("ADDED"), &json!("second")));
    let leaf = newer.leaf("it");
    secrets.put("second", &tls_secret("second", &newer.pem, &leaf)).await.ok();
    let change = json.json();
    assert_eq!(change["type"], "MODIFIED");
    assert_eq!(change["rotation"]["carried"][0]["sha256"], new.sha256());

    let patch = json!({"metadata": {"annotations": {"ca-overlap.dev/distrust": old.sha256()}}});
    secrets.patch("first", MERGE, "", &patch).await.ok();
    let change = json.json();
    assert_eq!(change["type"], "DELETED");
    assert_eq!(change["rotation"]["name"], "first");
    shown.until(&format!("{row} is no longer in flight"));

    // A command whose reader has closed the pipe ends at the next change.
    let mut unread = Running::start(&kubeconfig, &arguments);
    unread.line();
    drop(std::mem::replace(&mut unread.lines, channel().1));
    let mut number = 0;
    let status = loop {
        if let Some(status) = unread.child.try_wait().unwrap() {
            break status;
        }
        rotate(&secrets, &format!("more-{number}"), &old, &new, &json!({})).await;
        number += 1;
    };
    assert!(status.success());
}

#[tokio::test]
async fn kubectl_finds_its_plugin_and_help_says_its_name() {
    let test = "kubectl_finds_its_plugin_and_help_says_its_name";
    let Some(cluster) = cluster(test).await else { return };
    let secrets = cluster.namespace(test).await;
    let (old, new) = (certs::ca_named("1"), certs::ca_named("2"));
    rotate(&secrets, "it", &old, &new, &json!({})).await;
    let directory = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_ca-overlap");
    std::os::unix::fs::symlink(program, directory.path().join("kubectl-ca_overlap")).unwrap();
    let kubectl = |arguments: &[&str]| {
        let output = Command::new(cluster.plane.kubectl_path())
            .args(arguments)
            .env("PATH", directory.path())
            .env("KUBECONFIG", cluster.plane.admin_kubeconfig())
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code().unwrap(), shown)
    };
    let (code, shown) = kubectl(&["ca-overlap", "status", "-n", &secrets.namespace]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.lines().any(|line| is_row(line, &secrets.namespace, "it")), "{shown}");
    let (code, shown) =
        kubectl(&["ca-overlap", "distrust", &old.sha256(), "-n", &secrets.namespace]);
    assert_eq!(code, 0, "{shown}");
    assert_eq!(secrets.get("it").await.pem("ca.crt"), new.pem);

    let (code, shown) = kubectl(&["ca-overlap", "distrust", "--help"]);
    assert_eq!(code, 0);
    assert!(shown.contains("Usage: kubectl ca-overlap distrust [OPTIONS]"), "{shown}");
    assert!(shown.contains("  kubectl ca-overlap distrust stolen-ca.pem -A"), "{shown}");
    let (code, shown) = kubectl(&["ca-overlap", "status", "--no-such-flag"]);
    assert_eq!(code, 64);
    assert!(shown.contains("Usage: kubectl ca-overlap status"), "{shown}");
    let plain = run(Path::new("/dev/null"), &["distrust", "--help"]);
    assert!(plain.stdout.contains("Usage: ca-overlap distrust"), "{}", plain.stdout);
    assert!(!plain.stdout.contains("kubectl ca-overlap"), "{}", plain.stdout);
}

#[tokio::test]
async fn status_and_inspect_say_that_the_webhook_is_not_called() {
    let test = "status_and_inspect_say_that_the_webhook_is_not_called";
    let Some(plane) = Plane::exclusive(test).await else { return };
    let kubeconfig = plane.admin_kubeconfig();
    let ca = certs::ca_named("Legacy CA");
    let secret = tls_secret("it", &ca.pem, &ca.leaf("it"));
    plane.json("POST", "/api/v1/namespaces/default/secrets", &secret).await.unwrap();
    let assert_says = |expected: &str| {
        for arguments in [&["status", "-A"][..], &["inspect", "default/it"]] {
            let ended = run(&kubeconfig, arguments);
            let words: Vec<_> = ended.with_code(1).split_whitespace().collect();
            let shown = words.join(" ");
            assert!(shown.contains("the webhook is not called: "), "{shown}");
            assert!(shown.contains(expected), "{shown}");
            let json = run(&kubeconfig, &[arguments, &["-o", "json"]].concat()).json();
            let registration =
                json.get("registration").unwrap_or(&json["inspected"][0]["registration"]);
            assert_eq!(registration["inForce"], false, "{json}");
        }
    };
    assert_says("no MutatingWebhookConfiguration has the webhook of ca-overlap");
    // As after an installation whose webhook does not start.
    plane.install(&support::manifests().join("base"), Patches::default()).await.unwrap();
    assert_says("the caBundle of its registration is empty");

    // The list of the cluster counts, too.
    let list = "/api/v1/namespaces/ca-overlap/configmaps/ca-overlap-distrusted";
    let mut map = plane.json("GET", list, &Value::Null).await.unwrap();
    map["data"] = json!({ ca.sha256(): "" });
    plane.json("PUT", list, &map).await.unwrap();
    let shown = run(&kubeconfig, &["inspect", "default/it"]);
    assert!(shown.with_code(1).contains("distrusted-ca"), "{}", shown.stdout);
}

#[tokio::test]
async fn status_exits_1_while_restarts_fail() {
    let test = "status_exits_1_while_restarts_fail";
    let Some(cluster) = cluster(test).await else { return };
    let secrets = cluster.namespace(test).await;
    let kubeconfig = cluster.plane.admin_kubeconfig();
    let (old, new) = (certs::ca_named("1"), certs::ca_named("2"));
    rotate(&secrets, "it", &old, &new, &json!({})).await;
    let event = |name: &str, reason: &str, controller: &str, note: &str, time: &str| {
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name},
            "reportingController": controller, "reportingInstance": "it", "action": "Restart",
            "type": "Warning", "eventTime": time, "reason": reason, "note": note,
            "regarding": {"apiVersion": "v1", "kind": "Secret", "name": "it",
                          "namespace": secrets.namespace},
        })
    };
    let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", secrets.namespace);
    let arguments = ["status", "-n", &secrets.namespace];
    let keeper = "ca-overlap-keeper";
    let forged = event("a", "RestartFailed", "other", "forged", "2026-01-01T00:00:00.000000Z");
    cluster.plane.json("POST", &path, &forged).await.unwrap();
    run(&kubeconfig, &arguments).with_code(0);
    let note = "deployment/api: its rollout takes too long";
    let failed = event("b", "RestartFailed", keeper, note, "2026-01-01T00:00:01.000000Z");
    cluster.plane.json("POST", &path, &failed).await.unwrap();
    let shown = run(&kubeconfig, &arguments);
    assert!(shown.with_code(1).contains(&format!("PROBLEM: {note}")), "{}", shown.stdout);
    let done = event("c", "Restarted", keeper, "deployment/api", "2026-01-01T00:00:02.000000Z");
    cluster.plane.json("POST", &path, &done).await.unwrap();
    run(&kubeconfig, &arguments).with_code(0);
}

#[tokio::test]
async fn status_reports_missing_rights() {
    let test = "status_reports_missing_rights";
    let Some(cluster) = cluster(test).await else { return };
    let kubeconfig = cluster.plane.admin_kubeconfig();
    for arguments in [&["status", "-A", "--as", "nobody"][..], &["status", "-Aw", "--as", "nobody"]]
    {
        let ended = run(&kubeconfig, arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{arguments:?}");
        let said = ended.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains("secrets is forbidden: User \"nobody\" cannot list"), "{said}");
    }
}

/// With the real keeper: one waiting leaf is promoted, and another waits for its group.
#[tokio::test]
async fn status_shows_a_waiting_leaf_until_it_is_promoted() {
    let test = "status_shows_a_waiting_leaf_until_it_is_promoted";
    let Some(cluster) = staging(test).await else { return };
    let _keeper = keeper(&cluster).await;
    let kubeconfig = cluster.plane.admin_kubeconfig();
    let (old, new) = (certs::ca_named("1"), certs::ca_named("2"));
    // The webhook stages nothing until it knows the Lease.
    let secrets = loop {
        let secrets = cluster.namespace(test).await;
        let arguments = ["status", "-n", &secrets.namespace, "-w", "-o", "json", "--settle", "3s"];
        let shown = Running::start(&kubeconfig, &arguments);
        let mut first = tls_secret("it", &old.pem, &old.leaf("it"));
        first["metadata"]["labels"] = json!({"ca-overlap.dev/mode": "staged"});
        secrets.create(&first).await.ok();
        secrets.put("it", &tls_secret("it", &new.pem, &new.leaf("it"))).await.ok();
        let change = shown.json();
        assert_eq!(change["type"], "ADDED");
        if change["rotation"]["phase"] == "overlap" {
            continue;
        }
        let rotation = &change["rotation"];
        assert_eq!(rotation["phase"], "staged");
        assert_eq!(rotation["carried"][0]["sha256"], old.sha256());
        let what = rotation["next"]["what"].as_str().unwrap();
        assert!(what.starts_with("the waiting leaf goes into service"), "{what}");
        assert!(rotation["next"]["at"].is_string(), "{rotation}");
        // First the clock changes its row, then the keeper promotes the leaf.
        let promoted = loop {
            let change = shown.json();
            if change["rotation"]["phase"] != "staged" {
                break change;
            }
        };
        assert_eq!(promoted["rotation"]["phase"], "overlap");
        assert_eq!(promoted["rotation"]["problems"], json!([]));
        break secrets;
    };

    // A leaf that has waited for two hours, because a member of its group does not trust the new
    // CA. The webhook would let a new object's stage begin now.
    drop(cluster.webhook.lock().await.take());
    let mut member = tls_secret("member", &old.pem, &old.leaf("it"));
    member["metadata"]["annotations"] = json!({"ca-overlap.dev/group": "mesh"});
    secrets.create(&member).await.ok();
    secrets.create(&waiting_for_long(&old, &new)).await.ok();
    let arguments = ["status", "-n", &secrets.namespace];
    let status = run(&kubeconfig, &arguments);
    let shown = status.with_code(1);
    let row = shown.lines().find(|line| is_row(line, &secrets.namespace, "stuck"));
    assert!(row.is_some_and(|row| row.contains(" staged ")), "{shown}");
    assert!(shown.contains("next: the waiting leaf goes into service when the other"), "{shown}");
    let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("waits for member"), "the member has no label: {shown}");
    assert!(shown.contains("PROBLEM: the new leaf has waited too long to be promoted"), "{shown}");
}

/// Starts a cluster with staged mode.
async fn staging(test: &str) -> Option<Cluster> {
    let cluster = Cluster::on(Plane::exclusive(test).await?, test, "staged").await?;
    let arguments = ["--staged", "--settle", "3s"];
    cluster.start_webhook("webhook", cluster.port_443(), &arguments).await.unwrap();
    Some(cluster)
}

/// Starts the keeper as its `ServiceAccount`. It is killed when dropped.
async fn keeper(cluster: &Cluster) -> Supervised {
    let plane = &cluster.plane;
    let (namespace, account) = ("ca-overlap", "ca-overlap-keeper");
    let kubeconfig = plane.service_account_kubeconfig(namespace, account).await.unwrap();
    let admin = format!("{}:8082", plane.next_cluster_ip().unwrap());
    let arguments = ["keeper", "--namespace", namespace, "--admin-listen", &admin];
    let more = ["--identity", "keeper-0", "--lease-duration", "3s", "--settle", "3s"];
    let scratch = plane.scratch().path();
    let environment = [("KUBECONFIG", kubeconfig.as_os_str())];
    let arguments = [&arguments[..], &more].concat();
    let log = scratch.join("keeper.log");
    let program = support::binary::path();
    Supervised::start("keeper", &program, arguments, &environment, scratch, log).unwrap()
}

/// A Secret in which a leaf has waited for two hours.
fn waiting_for_long(old: &Identity, new: &Identity) -> Value {
    let (held, pending) = (old.leaf("it"), new.leaf("it"));
    let mut object = tls_secret("stuck", &bundle(&[new, old]), &held);
    let encode = |text: &str| BASE64_STANDARD.encode(text);
    object["data"]["pending.tls.crt"] = json!(encode(&pending.pem));
    object["data"]["pending.tls.key"] = json!(encode(&pending.key));
    let since = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(2);
    let since = format!("{since:.0}");
    let stage = json!({
        "since": since, "moved": 0, "held": certs::sha256(held.pem.as_bytes()),
        "pending": certs::sha256(pending.pem.as_bytes()),
    });
    object["metadata"]["labels"] =
        json!({"ca-overlap.dev/mode": "staged", "ca-overlap.dev/phase": "staged"});
    let record = json!([{"sha256": old.sha256(), "since": since}]);
    object["metadata"]["annotations"] = json!({
        "ca-overlap.dev/group": "mesh", "ca-overlap.dev/staged": stage.to_string(),
        "ca-overlap.dev/carried": record.to_string(),
    });
    object
}

/// Creates a Secret with these annotations and rotates it, which leaves the bundle `[new, old*]`.
async fn rotate(
    secrets: &Secrets,
    name: &str,
    old: &Identity,
    new: &Identity,
    annotations: &Value,
) {
    let mut first = tls_secret(name, &old.pem, &old.leaf("it"));
    first["metadata"]["annotations"] = annotations.clone();
    secrets.create(&first).await.ok();
    let rotated = secrets.put(name, &tls_secret(name, &new.pem, &new.leaf("it"))).await.ok();
    assert_eq!(rotated.pem("ca.crt"), bundle(&[new, old]));
}

/// A running command and the lines that it prints. It is killed when dropped.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(kubeconfig: &Path, arguments: &[&str]) -> Self {
        let mut child = command(kubeconfig, arguments).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(LINE_TIMEOUT).expect("a line")
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    fn until(&self, expected: &str) {
        while self.line() != expected {}
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
