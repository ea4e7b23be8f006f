//! The Grafana dashboard is well-formed, has the label for Grafana's sidecar, and describes each
//! panel.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::expression::metrics;
use super::root;
use crate::support;

/// The queries, each with the title of its panel.
pub fn queries() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            queries.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    queries
}

fn text_of_dashboard() -> String {
    fs::read_to_string(root().join("manifests/components/prometheus/dashboard.json")).unwrap()
}

fn dashboard() -> Value {
    serde_json::from_str(&text_of_dashboard()).unwrap()
}

#[test]
fn each_panel_has_a_description_and_its_own_space() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: the id is not unique");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title}: wider than the grid");
        for y in place("y")..place("y") + place("h") {
            for x in place("x")..place("x") + place("w") {
                assert!(cells.insert((x, y)), "{title} overlaps another panel");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        let description = panel["description"].as_str().unwrap();
        assert!(description.len() > 10 && description.ends_with('.'), "{title}: {description}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let mut references = BTreeSet::new();
        for target in panel["targets"].as_array().unwrap() {
            assert!(references.insert(target["refId"].as_str().unwrap()), "{title}");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
        assert!(!references.is_empty(), "{title} has no query");
    }
}

#[test]
fn every_query_is_narrowed_by_every_variable_that_its_metric_has() {
    let variables = dashboard()["templating"]["list"].clone();
    let variables: Vec<&Value> = variables.as_array().unwrap().iter().collect();
    let names: Vec<&str> = variables.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "cluster", "namespace", "job"]);
    // Each list of values is of our own metric, and is narrowed by the variables before it.
    for (number, variable) in variables.iter().enumerate().skip(1) {
        let used = metrics(variable["query"].as_str().unwrap());
        assert_eq!(used.len(), 1, "{variable}");
        assert_eq!(used[0].name, "ca_overlap_build_info");
        assert_eq!(used[0].narrowed, narrowed_by(&names[1..number]));
        assert_eq!(variable["includeAll"], true);
    }
    for (title, query) in queries() {
        let used = metrics(&query);
        for metric in &used {
            // The API server is neither in our namespace nor in our jobs.
            let of_api_server = metric.name.starts_with("apiserver_");
            let by = if of_api_server { &names[1..2] } else { &names[1..] };
            assert_eq!(metric.narrowed, narrowed_by(by), "{title}: {query}");
        }
        // Every process has these.
        if used.iter().any(|metric| metric.name.starts_with("process_")) {
            let ours = " and on (cluster, namespace, job, instance) ca_overlap_build_info{";
            assert!(query.contains(ours), "{title}: {query}");
        }
    }
}

fn narrowed_by(variables: &[&str]) -> Vec<(String, String)> {
    variables.iter().map(|name| ((*name).to_owned(), format!("${name}"))).collect()
}

#[test]
fn every_query_has_balanced_brackets_and_a_variable_rate_interval() {
    let queries = queries();
    assert!(queries.len() >= 40, "{}", queries.len());
    for (title, query) in queries {
        let count = |c| query.matches(c).count();
        assert_eq!(count('('), count(')'), "{title}: {query}");
        assert_eq!(count('{'), count('}'), "{title}: {query}");
        for rest in query.split('[').skip(1) {
            let interval = rest.split(']').next().unwrap();
            assert!(["$__rate_interval", "24h"].contains(&interval), "{title}: {query}");
        }
    }
}

#[test]
fn the_component_ships_the_dashboard_with_grafanas_label() {
    let test = "the_component_ships_the_dashboard_with_grafanas_label";
    let Some(assets) = support::assets(test) else { return };
    let overlay = root().join("tests/data/monitored");
    let output = Command::new(&assets.kubectl).arg("kustomize").arg(overlay).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rendered: Vec<Value> =
        serde_saphyr::from_multiple(str::from_utf8(&output.stdout).unwrap()).unwrap();
    let map = rendered.iter().find(|object| object["kind"] == "ConfigMap").expect("a ConfigMap");
    assert_eq!(map["metadata"]["name"], "ca-overlap-dashboard");
    assert_eq!(map["metadata"]["namespace"], ca_overlap::names::NAMESPACE);
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    assert_eq!(map["data"]["ca-overlap.json"], text_of_dashboard());
}
