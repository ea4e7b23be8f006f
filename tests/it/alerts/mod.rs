//! The alerts and the dashboard use only metrics that the running programs and a real API server
//! export. Each alert has a summary and a section in `docs/alerts.md`.

mod dashboard;
mod expression;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ca_overlap::names;
use devtools::certs;
use devtools::control_plane::{Supervised, http_get};
use devtools::secrets::tls_secret;
use expression::{is_exported, metrics};
use serde_json::Value;

use crate::support::{self, Cluster, Plane};

/// The start of the place of an alert's runbook. A release makes a link of it.
const RUNBOOKS: &str = "docs/alerts.md#";

#[test]
fn each_alert_has_a_summary_and_a_runbook() {
    let docs = fs::read_to_string(root().join("docs/alerts.md")).unwrap();
    let alerts = alerts();
    let sections: Vec<&str> = docs.lines().filter_map(|line| line.strip_prefix("## Ca")).collect();
    assert_eq!(sections.len(), alerts.len(), "docs/alerts.md has one section for each alert");
    for alert in &alerts {
        let name = &alert.name;
        assert!(alert.summary.ends_with('.') && alert.summary.len() > 30, "{name}");
        assert_eq!(alert.runbook, format!("{RUNBOOKS}{}", name.to_lowercase()));
        assert!(docs.contains(&format!("\n## {name}\n")), "docs/alerts.md has no section {name}");
        assert!(["warning", "critical"].contains(&alert.severity.as_str()), "{name}");
        let count = |c| alert.expression.matches(c).count();
        assert_eq!(count('('), count(')'), "{name}");
        assert_eq!(count('{'), count('}'), "{name}");
    }
}

#[tokio::test]
async fn alerts_and_dashboard_use_only_exported_metrics() {
    let test = "alerts_and_dashboard_use_only_exported_metrics";
    let Some(plane) = Plane::exclusive(test).await else { return };
    let Some(cluster) = Cluster::on(plane, test, "keeper").await else { return };
    cluster.start_webhook("webhook", cluster.port_443(), &[]).await.unwrap();
    let mut exported = cluster.metrics().await;
    exported.push_str(&keeper_metrics(&cluster).await);
    let ours = exported.clone();

    // The API server exports some metrics only after a failed call.
    let secrets = cluster.namespace(test).await;
    let (one, two) = (certs::ca_named("1"), certs::ca_named("2"));
    secrets.create(&tls_secret("it", &one.pem, &one.leaf("it"))).await.ok();
    drop(cluster.webhook.lock().await.take());
    let passed = secrets.put("it", &tls_secret("it", &two.pem, &two.leaf("it"))).await.ok();
    assert_eq!(passed.pem("ca.crt"), two.pem);
    exported.push_str(&cluster.plane.metrics().await.unwrap());

    let alerts: Vec<_> = alerts().into_iter().map(|a| (a.name, a.expression)).collect();
    let used = assert_exported(&alerts, &exported);
    assert!(used.len() >= 9, "the alerts are read: {used:?}");
    let used = assert_exported(&dashboard::queries(), &exported);
    assert!(used.len() >= 25, "the dashboard is read: {used:?}");
    // The dashboard shows every exported metric.
    let families = ours.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let families: BTreeSet<&str> = families.filter_map(|line| line.split(' ').next()).collect();
    assert!(families.len() >= 40, "{families:?}");
    let documented = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    for family in families {
        assert!(documented.contains(&format!("| `{family}")), "{family} is not in docs/metrics.md");
        if NOT_SHOWN.contains(&family) {
            continue;
        }
        assert!(used.iter().any(|it| it.starts_with(family)), "{family} is not on the dashboard");
    }
}

/// Metrics that the dashboard does not show.
const NOT_SHOWN: [&str; 2] = ["ca_overlap_connections_accepted", "process_virtual_memory_bytes"];

/// Asserts that every metric of these named expressions is exported, and returns the metrics'
/// names.
fn assert_exported(expressions: &[(String, String)], exported: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (name, expression) in expressions {
        let used = metrics(expression);
        assert!(!used.is_empty(), "{name} uses no metric");
        for metric in used {
            assert!(is_exported(&metric, exported), "{name}: no program exports {metric:?}");
            names.insert(metric.name);
        }
    }
    names
}

/// Starts a keeper and returns its metrics.
async fn keeper_metrics(cluster: &Cluster) -> String {
    let plane = &cluster.plane;
    let kubeconfig = plane
        .service_account_kubeconfig(names::NAMESPACE, names::KEEPER_SERVICE_ACCOUNT)
        .await
        .unwrap();
    let admin = SocketAddr::from((plane.next_cluster_ip().unwrap(), 8082));
    let scratch = plane.scratch().path();
    let mut keeper = Supervised::start(
        "keeper",
        &support::binary::path(),
        ["keeper", "--namespace", names::NAMESPACE, "--admin-listen", &admin.to_string()],
        &[("KUBECONFIG", kubeconfig.as_os_str()), ("NO_COLOR", OsStr::new("1"))],
        scratch,
        scratch.join("keeper.log"),
    )
    .unwrap();
    let ready = async {
        loop {
            keeper.still_running().unwrap();
            match http_get(admin, "/metrics").await {
                Ok((status, text)) if status.is_success() => break text,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ready).await.expect("the keeper's metrics")
}

struct Alert {
    name: String,
    expression: String,
    severity: String,
    summary: String,
    runbook: String,
}

fn alerts() -> Vec<Alert> {
    let path = root().join("manifests/components/prometheus/prometheusrule.yaml");
    let rules: Value = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let groups = rules["spec"]["groups"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let alert = |rule: &Value| Alert {
        name: text(&rule["alert"]),
        expression: text(&rule["expr"]),
        severity: text(&rule["labels"]["severity"]),
        summary: text(&rule["annotations"]["summary"]),
        runbook: text(&rule["annotations"]["runbook"]),
    };
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).map(alert).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
