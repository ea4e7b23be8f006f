//! `--audit`: webhook and keeper say what they would do, and change nothing.

use ca_overlap::names;
use serde_json::{Value, json};

use super::proxy::Proxy;
use super::setup::{Rotation, Setup, eventually};
use super::workload::Workload;
use crate::support::command::run;
use crate::support::{sample, sum};
use devtools::certs::{self, bundle};
use devtools::secrets::{Answer, MERGE, Secrets, tls_secret};

const TRIAL: &str = "../../tests/data/audit";

/// A Secret that carries a CA whose window is over, as an installation without `--audit` left it.
fn carrying(name: &str) -> Value {
    let [new, old] = ["New", "Old"].map(certs::ca_named);
    let mut object = tls_secret(name, &bundle(&[&new, &old]), &new.leaf(name));
    let record = json!([{"sha256": old.sha256(), "since": "2026-01-01T00:00:00Z"}]);
    object["metadata"]["labels"] = json!({names::PHASE: "overlap"});
    object["metadata"]["annotations"] =
        json!({names::CARRIED: record.to_string(), names::WINDOW: "1h"});
    object
}

/// A Secret that trusts another one, which holds another CA.
fn follower(name: &str, source: &str) -> Value {
    let own = certs::ca_named(name);
    let mut object = tls_secret(name, &own.pem, &own.leaf(name));
    object["metadata"]["annotations"] = json!({names::TRUST: source});
    object
}

/// The notes of the Events on a Secret with this reason, once there is one.
async fn notes(setup: &Setup, secrets: &Secrets, name: &str, reason: &str) -> Vec<String> {
    let it = Rotation { secrets: secrets.clone(), name: name.to_owned(), generation: Vec::new() };
    let first = setup.event(&it, reason).await;
    assert_eq!(first["type"], "Normal", "{first}");
    let all = setup.events(&it, reason).await;
    all.iter().map(|event| event["note"].as_str().unwrap().to_owned()).collect()
}

/// The parts of a stored Secret that a writer chooses.
fn content(stored: &Value) -> Value {
    let metadata = &stored["metadata"];
    json!([stored["data"], stored["type"], metadata["labels"], metadata["annotations"]])
}

#[tokio::test]
async fn with_audit_all_is_said_and_nothing_is_written() {
    let test = "with_audit_all_is_said_and_nothing_is_written";
    let arguments = ["--staged", "--settle", "1s", "--audit"];
    let Some(setup) = Setup::with(test, TRIAL, &arguments).await else { return };
    let plane = &setup.cluster.plane;
    let secrets = setup.cluster.namespace(test).await;
    let source = certs::ca_named("Source");
    let mut waits = tls_secret("waits", &source.pem, &source.leaf("waits"));
    for key in names::PENDING {
        waits["data"][key] = waits["data"][key.trim_start_matches("pending.")].clone();
    }
    let source_of_all = tls_secret("source", &source.pem, &source.leaf("source"));
    let mut before: Vec<Answer> = Vec::new();
    for object in [carrying("carries"), waits, source_of_all, follower("web", "source")] {
        let created = secrets.create(&object).await.ok();
        assert_eq!(content(&created.body), content(&object), "as it was written");
        before.push(created);
    }
    let restart = json!({names::RESTART: "deployment/app"});
    let mut envoy = Rotation::begin(&secrets, "envoy", restart).await;
    let mode = json!({"metadata": {"labels": {names::MODE: "staged"}}});
    secrets.patch("envoy", MERGE, "fieldManager=person", &mode).await.ok();
    let app = Workload { plane, namespace: &secrets.namespace, name: "deployment/app" };
    app.create(Some("envoy"), &json!({})).await;
    let app_before = app.get().await;

    let proxy = Proxy::start(plane, &secrets.namespace, usize::MAX).await;
    proxy.arm();
    let mut keeper = proxy.keeper(&setup, "keeper-0", &["--settle", "1s", "--audit"]).await;
    keeper.ready().await;
    keeper.leads(true).await;
    // A webhook without --audit stages nothing for such a keeper.
    assert_eq!(setup.holder().await.as_deref(), Some("ca-overlap-audit-keeper-0"));

    // Each rotation is stored as it was written, whatever its writer is told.
    let restarted = eventually("what a rotation would cause", async || {
        let unlike = certs::ca_named("CA");
        let written = tls_secret("envoy", &unlike.pem, &unlike.leaf("envoy"));
        let answer = secrets.apply("envoy", "helm", false, &written).await.ok();
        envoy.generation.push(unlike);
        assert_eq!(answer.body["data"], written["data"]);
        let set = json!({names::RESTART: "deployment/app"});
        assert_eq!(answer.body["metadata"]["annotations"], set);
        assert_eq!(answer.body["metadata"]["labels"], json!({names::MODE: "staged"}));
        let first = answer.warnings.first().expect("a warning");
        assert!(first.starts_with("ca-overlap (audit): would keep 1 CA"), "{first}");
        let is_staged = first.contains(", hold the new leaf back;");
        let restarted = setup.events(&envoy, "Restarted").await;
        restarted.first().filter(|_| is_staged).map(|_| answer)
    })
    .await;
    assert_eq!(
        notes(&setup, &secrets, "envoy", "Restarted").await[0],
        "Audit: would restart deployment/app"
    );
    let kept = notes(&setup, &secrets, "envoy", "Overlapping").await;
    let is_kept = |note: &String| note.starts_with("Audit: would keep ");
    assert!(kept.iter().all(is_kept), "{kept:?}");

    let would = |what: &str| vec![format!("Audit: would {what}")];
    let announced = would(&format!("announce {}", source.sha256()));
    assert_eq!(notes(&setup, &secrets, "web", "Announced").await, announced);
    let ended = would("end what is left of a stage");
    assert_eq!(notes(&setup, &secrets, "waits", "StageEnded").await, ended);
    assert_eq!(notes(&setup, &secrets, "carries", "Retired").await.len(), 1);

    // Another write is another look, and nothing is said twice.
    let touched = json!({"metadata": {"annotations": {"touched": "yes"}}});
    let touched = secrets.patch("web", MERGE, "fieldManager=person", &touched).await.ok();
    let marker = secrets.create(&follower("marker", "source")).await.ok();
    notes(&setup, &secrets, "marker", "Announced").await;
    for (name, reason) in [("web", "Announced"), ("carries", "Retired"), ("waits", "StageEnded")] {
        assert_eq!(notes(&setup, &secrets, name, reason).await.len(), 1, "{name}");
    }

    let shown = run(&plane.admin_kubeconfig(), &["status", "-n", &secrets.namespace]);
    let shown = shown.stdout;
    assert!(shown.contains("AUDIT: nothing is changed"), "{shown}");
    assert!(shown.contains("would restart deployment/app"), "{shown}");

    let all = keeper.metrics().await;
    let asks = |labels: &[&str]| sum(&all, "ca_overlap_keeper_asks_total", labels);
    for ask in ["announce", "repair", "retire", "unstage"] {
        let ask = format!("ask=\"{ask}\"");
        assert!(asks(&[&ask, "result=\"would\""]) > 0.5, "{ask}: {all}");
        assert!((asks(&[&ask]) - asks(&[&ask, "result=\"would\""])).abs() < 0.5, "{ask}: {all}");
    }
    assert!(sum(&all, "ca_overlap_keeper_restarts_total", &["result=\"would\""]) > 0.5);
    assert!(sample(&all, "ca_overlap_audit") > 0.5);
    let counted = setup.cluster.metrics().await;
    assert!(sum(&counted, "ca_overlap_stages_total", &["change=\"begun\""]) > 0.5);
    assert!(sample(&counted, "ca_overlap_certificates_carried_total") > 0.5);
    assert!(sample(&counted, "ca_overlap_audit") > 0.5);

    assert_eq!(proxy.changes(), Vec::<String>::new());
    let [carries, waits, source, _web] = before.try_into().ok().unwrap();
    for (name, last) in [
        ("carries", carries),
        ("waits", waits),
        ("source", source),
        ("web", touched),
        ("marker", marker),
        ("envoy", restarted),
    ] {
        let now = secrets.get(name).await.ok();
        assert_eq!(now.resource_version(), last.resource_version(), "{name}");
    }
    let resource_version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    assert_eq!(resource_version(&app.get().await), resource_version(&app_before));
}

#[tokio::test]
async fn a_webhook_without_audit_stages_nothing_for_a_keeper_with_it() {
    let test = "a_webhook_without_audit_stages_nothing_for_a_keeper_with_it";
    let Some((setup, keeper)) = Setup::at_rest(test).await else { return };
    drop(keeper);
    let _trial = setup.leading_keeper(&["--settle", "1h", "--audit"]).await;
    let secrets = setup.cluster.namespace(test).await;
    eventually("a rotation that is not staged", async || {
        let mut rotation = Rotation::begin(&secrets, "envoy", json!({})).await;
        let mode = json!({"metadata": {"labels": {names::MODE: "staged"}}});
        secrets.patch("envoy", MERGE, "fieldManager=person", &mode).await.ok();
        let rotated = rotation.rotate().await;
        secrets.delete("envoy").await.ok();
        let is_told = rotated.warnings.iter().any(|text| text.contains("Lease is not fresh"));
        (is_told && rotated.label(names::PHASE) == Some("overlap")).then_some(())
    })
    .await;
}
