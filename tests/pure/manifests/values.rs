//! The table of values in the chart's README is made of `values.yaml`, and the schema has the same
//! values. `make values-table` writes the table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::{env, fs};

use serde_json::Value;

use super::kustomization::parse;
use crate::support::helm::chart;

const BEGIN: &str = "<!-- values: make values-table -->\n\n";
const END: &str = "\n<!-- values -->";

/// Values whose keys are those of Kubernetes.
const WHOLE: [&str; 3] = ["resources", "podSecurityContext", "securityContext"];

/// A value: its default, as JSON, and the comment above it, or else above the map that holds it.
struct Row {
    default: String,
    meaning: String,
}

/// The values by their paths, such as `webhook.replicas`, in the order of the file.
fn rows() -> Vec<(String, Row)> {
    let yaml = fs::read_to_string(chart().join("values.yaml")).expect("values.yaml");
    let values = parse("values.yaml", &yaml).remove(0);
    let mut rows: Vec<(String, Row)> = Vec::new();
    // The keys that lead to a line, each with its comment.
    let mut path: Vec<(&str, String)> = Vec::new();
    let mut comment = String::new();
    for line in yaml.lines() {
        let text = line.trim_start();
        if let Some(more) = text.strip_prefix('#') {
            comment += more;
            continue;
        }
        let said = std::mem::take(&mut comment).trim().to_owned();
        let Some((key, _)) = text.split_once(':') else { continue };
        let depth = (line.len() - text.len()) / 2;
        if path.iter().take(depth).any(|(key, _)| WHOLE.contains(key)) {
            continue;
        }
        path.truncate(depth);
        path.push((key, said));
        let keys: Vec<&str> = path.iter().map(|(key, _)| *key).collect();
        let value = &values[&keys[0]];
        let value = keys[1..].iter().fold(value, |value, key| &value[*key]);
        let has_rows = value.as_object().is_some_and(|map| !map.is_empty());
        if has_rows && !WHOLE.contains(&key) {
            continue;
        }
        let said = path.iter().rev().map(|(_, said)| said).take(2).find(|said| !said.is_empty());
        let as_webhook = keys[0] == "keeper" && said.is_none();
        let meaning = if as_webhook { "as for the webhook" } else { said.map_or("", |said| said) };
        let row = Row { default: value.to_string(), meaning: meaning.to_owned() };
        rows.push((keys.join("."), row));
    }
    rows
}

#[test]
fn the_readme_has_the_table_of_the_values() {
    let mut table = "| value | default | meaning |\n| --- | --- | --- |\n".to_owned();
    for (path, Row { default, meaning }) in rows() {
        let _ = writeln!(table, "| `{path}` | `{default}` | {meaning} |");
    }
    let readme_path = chart().join("README.md");
    let readme = fs::read_to_string(&readme_path).expect("README.md");
    let (before, rest) = readme.split_once(BEGIN).expect("the begin of the table");
    let (_, after) = rest.split_once(END).expect("the end of the table");
    let expected = format!("{before}{BEGIN}{table}{END}{after}");
    if env::var_os("CA_OVERLAP_RECORD").is_some() {
        fs::write(readme_path, &expected).expect("README.md");
        return;
    }
    assert!(readme == expected, "values.yaml has changed: run make values-table");
}

#[test]
fn every_value_has_its_meaning() {
    let rows = rows();
    assert!(rows.len() > 80, "{} values", rows.len());
    let of_webhook: BTreeMap<&str, &Row> =
        rows.iter().filter_map(|(path, row)| Some((path.strip_prefix("webhook.")?, row))).collect();
    for (path, row) in &rows {
        assert!(row.meaning.len() > 5 && !row.meaning.contains('|'), "{path}: {}", row.meaning);
        if row.meaning == "as for the webhook" {
            let key = path.strip_prefix("keeper.").expect("a value of the keeper");
            assert!(of_webhook.contains_key(key), "the webhook has no {key}");
        }
    }
}

/// The paths in a schema, down to maps whose keys it does not list.
fn listed(schema: &Value, path: &str, all: &mut BTreeSet<String>) {
    let properties = schema["properties"].as_object().filter(|_| !path.ends_with("Selector"));
    // The one map with keys that is empty by default.
    let properties = properties.filter(|_| path != "certManager.issuerRef");
    let Some(properties) = properties else {
        all.insert(path.to_owned());
        return;
    };
    assert_eq!(schema["additionalProperties"], false, "{path} takes unknown values");
    for (key, schema) in properties {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        listed(schema, &path, all);
    }
}

#[test]
fn the_schema_has_the_same_values() {
    let text = fs::read_to_string(chart().join("values.schema.json")).expect("a schema");
    let mut all = BTreeSet::new();
    listed(&serde_json::from_str(&text).expect("JSON"), "", &mut all);
    assert!(all.remove("global"), "Helm's own value");
    let expected: BTreeSet<String> = rows().into_iter().map(|(path, _)| path).collect();
    assert_eq!(all, expected);
}
