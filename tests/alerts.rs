//! The alerts speak of metrics that exist: ours as the running programs export them, the API
//! server's as a real one does. Each has a summary, and a section in `docs/alerts.md`.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ca_overlap::names;
use ca_overlap::tools::control_plane::{Options, Patches, Supervised, http_get};
use serde_json::Value;
use support::Cluster;
use support::certs::Ca;
use support::secrets::tls_secret;

/// Where an alert's runbook is.
const RUNBOOKS: &str = "https://github.com/ca-overlap/ca-overlap/blob/main/docs/alerts.md#";
/// Labels that Prometheus gives to what it scrapes.
const OF_TARGETS: [&str; 1] = ["instance"];

#[test]
fn each_alert_has_a_summary_and_a_runbook() {
    let docs = fs::read_to_string(root().join("docs/alerts.md")).unwrap();
    let alerts = alerts();
    let sections: Vec<&str> = docs.lines().filter_map(|line| line.strip_prefix("## Ca")).collect();
    assert_eq!(sections.len(), alerts.len(), "a section for each alert, and no other");
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

#[test]
fn an_expression_is_taken_apart() {
    let text = "sum by (code) (rate(ca_overlap_a_total{x=\"1\", y=~\"b|c\"}[5m])) > 0 and up == 1";
    let used = metrics(text);
    assert_eq!(used.len(), 1);
    assert_eq!(used[0].name, "ca_overlap_a_total");
    let expected = [("x", vec!["1"]), ("y", vec!["b", "c"]), ("code", vec![])];
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(label, values)| {
            (label.to_owned(), values.into_iter().map(str::to_owned).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(used[0].labels, expected);
    assert!(is_exported(
        &used[0],
        "ca_overlap_a_total{code=\"4\",x=\"1\",y=\"b\"} 0\nca_overlap_a_total{code=\"4\",x=\"1\",y=\"c\"} 0"
    ));
    assert!(!is_exported(&used[0], "ca_overlap_a_total{code=\"4\",x=\"1\",y=\"b\"} 0"));
    assert!(!is_exported(&used[0], "ca_overlap_a{code=\"4\",x=\"1\",y=\"b\"} 0"));
}

#[tokio::test]
async fn every_metric_of_the_alerts_is_exported() {
    let test = "every_metric_of_the_alerts_is_exported";
    let Some(assets) = support::assets(test) else { return };
    let Some(cluster) = Cluster::start(test, Options::new(assets), &[]).await else { return };
    let patches = Patches { cluster_ip: Some(cluster.service), url: None };
    let overlay = support::manifests().join("overlays/keeper");
    cluster.plane.install(&overlay, patches).await.unwrap();
    let mut exported = cluster.metrics().await;
    exported.push_str(&keeper_metrics(&cluster).await);

    // A call that fails makes the API server count it.
    let secrets = cluster.namespace(test).await;
    let (one, two) = (Ca::new("1"), Ca::new("2"));
    secrets.create(&tls_secret("it", &one.pem, &one.leaf("it"))).await.ok();
    drop(cluster.webhook.lock().await.take());
    let passed = secrets.put("it", &tls_secret("it", &two.pem, &two.leaf("it"))).await.ok();
    assert_eq!(passed.pem("ca.crt"), two.pem);
    exported.push_str(&cluster.plane.metrics().await.unwrap());

    let mut names = BTreeSet::new();
    for alert in alerts() {
        let used = metrics(&alert.expression);
        assert!(!used.is_empty(), "{} uses no metric", alert.name);
        for metric in used {
            assert!(is_exported(&metric, &exported), "{}: nobody exports {metric:?}", alert.name);
            names.insert(metric.name);
        }
    }
    assert!(names.len() >= 9, "the expressions are read: {names:?}");
}

/// What a running keeper exports.
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
        Path::new(env!("CARGO_BIN_EXE_ca-overlap")),
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
        runbook: text(&rule["annotations"]["runbook_url"]),
    };
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).map(alert).collect()
}

/// A metric in an expression, and the labels that it must have, with the values that are asked for.
#[derive(Debug)]
struct Used {
    name: String,
    labels: Vec<(String, Vec<String>)>,
}

/// Our metrics and the API server's, with their matchers and with what is aggregated by.
fn metrics(expression: &str) -> Vec<Used> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let by = expression.split("by (").skip(1).chain(expression.split("on (").skip(1));
    let by = by.filter_map(|rest| rest.split(')').next()).flat_map(|list| list.split(','));
    let by: Vec<&str> =
        by.map(str::trim).filter(|l| !l.is_empty() && !OF_TARGETS.contains(l)).collect();
    let mut found = Vec::new();
    for prefix in ["ca_overlap_", "apiserver_"] {
        for (at, _) in expression.match_indices(prefix) {
            let name: String = expression[at..].chars().take_while(|c| is_word(*c)).collect();
            let rest = &expression[at + name.len()..];
            let matchers = rest.strip_prefix('{').and_then(|rest| rest.split('}').next());
            let matchers = matchers.unwrap_or_default().split(", ").filter_map(|matcher| {
                let (label, value) = matcher.split_once('=')?;
                let values = value.trim_start_matches('~').trim_matches('"').split('|');
                Some((label.to_owned(), values.map(str::to_owned).collect()))
            });
            let mut labels: Vec<(String, Vec<String>)> = matchers.collect();
            for label in &by {
                if !labels.iter().any(|(known, _)| known == label) {
                    labels.push(((*label).to_owned(), Vec::new()));
                }
            }
            found.push(Used { name, labels });
        }
    }
    found
}

/// Whether there are series of this name with all of these labels and values.
fn is_exported(metric: &Used, exported: &str) -> bool {
    let series: Vec<&str> = exported
        .lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(&metric.name))
        .collect();
    let has = |what: &str| series.iter().any(|line| line.contains(what));
    !series.is_empty()
        && metric.labels.iter().all(|(label, values)| {
            has(&format!("{label}=\""))
                && values.iter().all(|value| has(&format!("{label}=\"{value}\"")))
        })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
