//! A private key never appears in the program's output: logs at the finest level, metrics, answers,
//! audit annotations, Events.

use base64::prelude::*;
use devtools::control_plane::{Assets, Options};
use serde_json::{Value, json};

use super::setup::{NAME, Setup};
use crate::support::{Cluster, OVERLAY, Plane, assets};

const CANARY: &str = "CANARY-7f3a9c-PRIVATE-KEY";

#[tokio::test]
async fn no_output_contains_the_canary_key() {
    let Some(assets) = assets("canary") else { return };
    let arguments = ["--log-level", "trace"];
    let plane = Plane::with(audited(assets)).await;
    let Some(cluster) = Cluster::on(plane, "canary", OVERLAY).await else { return };
    cluster.start_webhook("webhook", cluster.port_443(), &arguments).await.unwrap();
    let setup = Setup::new(cluster.namespace("canary").await);
    let with_canary = |bundle: &str| {
        let mut leaf = setup.leaf(bundle);
        leaf.key = format!("{CANARY}\n{}", leaf.key);
        setup.fresh(bundle, &leaf)
    };
    let mut answers = vec![setup.secrets.create(&with_canary("CA1")).await.ok()];
    for bundle in ["CA2", "CA3", "CA3"] {
        answers.push(setup.secrets.put(NAME, &with_canary(bundle)).await.ok());
    }
    let mut broken = with_canary("CA4");
    broken["data"]["ca.crt"] = BASE64_STANDARD.encode(format!("-----BEGIN {CANARY}-----\n")).into();
    broken["metadata"]["annotations"] = json!({"ca-overlap.dev/keep": "nine"});
    answers.push(setup.secrets.put(NAME, &broken).await.ok());
    assert!(answers.iter().any(|answer| !answer.warnings.is_empty()));
    assert_eq!(setup.bundle(&answers[2]), "CA3 CA2*", "the webhook has acted");

    for answer in &answers {
        free_of_canary(&answer.warnings.concat());
        free_of_canary(&answer.body["metadata"].to_string());
    }
    free_of_canary(&cluster.metrics().await);
    let log = cluster.log_with("keep_unreadable").await;
    assert!(log.contains("reviewed") && log.contains(NAME), "the log is from the webhook");
    free_of_canary(&log);
    let events = cluster.plane.json("GET", "/api/v1/events", &Value::Null).await.unwrap();
    free_of_canary(&events.to_string());
    audit_annotations_are_clean(&cluster);
}

/// An API server that logs the requests for Secrets at level `Request`.
pub fn audited(assets: Assets) -> Options {
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Request, resources: [{group: '', resources: [secrets]}]}]\n";
    Options::new(assets)
        .file("audit.yaml", policy)
        .flag("--audit-policy-file={dir}/audit.yaml")
        .flag("--audit-log-path={dir}/audit.log")
        .flag("--audit-log-mode=blocking-strict")
}

/// The text of that log.
pub fn audit_log(cluster: &Cluster) -> String {
    std::fs::read_to_string(cluster.plane.scratch().path().join("audit.log")).unwrap()
}

fn audit_annotations_are_clean(cluster: &Cluster) {
    let audit = audit_log(cluster);
    let mut of_the_webhook = 0;
    for line in audit.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let annotations = event["annotations"].to_string();
        of_the_webhook += usize::from(annotations.contains("secrets.ca-overlap.dev/decision"));
        free_of_canary(&annotations);
    }
    assert!(of_the_webhook >= 4, "only {of_the_webhook} decisions are in the audit log");
    assert!(
        audit.contains(&BASE64_STANDARD.encode(CANARY)[..20]),
        "the negative control: the audit log contains the requests"
    );
}

fn free_of_canary(text: &str) {
    let encoded = BASE64_STANDARD.encode(CANARY);
    assert!(!text.contains(CANARY) && !text.contains(&encoded[..encoded.len() - 4]));
}
