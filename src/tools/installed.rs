//! The two Deployments of ca-overlap, and the flags that they run with.

use kube::Client;
use serde_json::Value;

use super::plain;
use crate::overlap::outlook::Rules;
use crate::overlap::settings::{Keep, Mode, Window, parse_time, time_to_text};

/// The Deployments in one namespace, found by their labels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Installed {
    pub(crate) webhook: Option<Server>,
    pub(crate) keeper: Option<Server>,
}

/// The Deployment of webhook or keeper.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) image: String,
    pub(crate) service_account: String,
    /// How many replicas are wanted, and how many of these are up to date and ready.
    pub(crate) wanted: i64,
    pub(crate) ready: i64,
    container: Value,
}

/// What a server runs with for a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    Set(String),
    /// The default counts.
    Unset,
    /// Its value stands in another object, such as a ConfigMap.
    Elsewhere,
}

impl Installed {
    pub(crate) async fn read(client: &Client, namespace: &str) -> Result<Self, kube::Error> {
        let path = format!(
            "/apis/apps/v1/namespaces/{namespace}/deployments?labelSelector=app.kubernetes.io%2Fname%3Dca-overlap"
        );
        Ok(Self::of(&plain::list(client, &path).await?))
    }

    pub(crate) fn of(deployments: &[Value]) -> Self {
        let find = |component: &str| {
            let label =
                |it: &&Value| it["metadata"]["labels"]["app.kubernetes.io/component"] == component;
            deployments.iter().find(label).map(|found| Server::of(found, component))
        };
        Self { webhook: find("webhook"), keeper: find("keeper") }
    }

    /// Puts the defaults and times of the servers into `rules`. Returns the flags that stand
    /// elsewhere, or do not parse.
    pub(crate) fn put_into(&self, rules: &mut Rules) -> Vec<&'static str> {
        let mut unknown = Vec::new();
        let webhook = self.webhook.as_ref();
        let mut read = |server: Option<&Server>, flag, put: &mut dyn FnMut(&str) -> bool| {
            let is_known = match server.map_or(Flag::Unset, |server| server.flag(flag)) {
                Flag::Set(text) => put(&text),
                Flag::Unset => true,
                Flag::Elsewhere => false,
            };
            if !is_known {
                unknown.push(flag);
            }
        };
        let Rules { defaults, settle } = rules;
        let parsed = |text: &str| parse_time(text).ok();
        read(webhook, "--default-mode", &mut |text| put(&mut defaults.mode, text.parse().ok()));
        read(webhook, "--keep", &mut |text| put(&mut defaults.keep, text.parse().ok()));
        read(webhook, "--window", &mut |text| put(&mut defaults.window, text.parse().ok()));
        let waits = self.keeper.as_ref().or(webhook);
        read(waits, "--settle", &mut |text| put(settle, parsed(text)));
        unknown
    }
}

fn put<T>(place: &mut T, value: Option<T>) -> bool {
    let is_some = value.is_some();
    if let Some(value) = value {
        *place = value;
    }
    is_some
}

impl Server {
    fn of(deployment: &Value, component: &str) -> Self {
        let pod = &deployment["spec"]["template"]["spec"];
        let containers = pod["containers"].as_array();
        let named = |it: &&Value| it["name"] == component;
        let container =
            containers.and_then(|all| all.iter().find(named).or_else(|| all.first())).cloned();
        let container = container.unwrap_or_default();
        let status = &deployment["status"];
        let number = |value: &Value, default| value.as_i64().unwrap_or(default);
        let is_seen = number(&status["observedGeneration"], 0)
            >= number(&deployment["metadata"]["generation"], 0);
        let (ready, updated) =
            (number(&status["readyReplicas"], 0), number(&status["updatedReplicas"], 0));
        Self {
            image: text(&container["image"]),
            service_account: text(&pod["serviceAccountName"]),
            wanted: number(&deployment["spec"]["replicas"], 1),
            ready: if is_seen { ready.min(updated) } else { 0 },
            container,
        }
    }

    /// The value of a flag such as `--window`: of the command line, else of its variable.
    pub(crate) fn flag(&self, flag: &str) -> Flag {
        let words = ["command", "args"].iter().filter_map(|key| self.container[key].as_array());
        let mut words = words.flatten().map(text);
        while let Some(word) = words.next() {
            let Some(rest) = word.strip_prefix(flag) else { continue };
            let value = match rest.strip_prefix('=') {
                Some(value) => value.to_owned(),
                // A switch has no value.
                None if rest.is_empty() => {
                    words.next().filter(|it| !it.starts_with("--")).unwrap_or_default()
                }
                None => continue,
            };
            // Kubernetes replaces this by the value of a variable.
            return if value.contains("$(") { Flag::Elsewhere } else { Flag::Set(value) };
        }
        let variable = format!("CA_OVERLAP{}", flag[1..].replace('-', "_").to_uppercase());
        let mut variables = self.container["env"].as_array().into_iter().flatten();
        match variables.rfind(|it| it["name"] == variable.as_str()) {
            Some(it) if !it["valueFrom"].is_null() => Flag::Elsewhere,
            Some(it) => match text(&it["value"]) {
                empty if empty.is_empty() => Flag::Unset,
                value => Flag::Set(value),
            },
            None if self.container["envFrom"].as_array().is_some_and(|all| !all.is_empty()) => {
                Flag::Elsewhere
            }
            None => Flag::Unset,
        }
    }

    /// The same, as it can be compared: `24h` is `1d`, and a default is what it says.
    pub(crate) fn normal(&self, flag: &str, default: &str) -> Option<String> {
        let text = match self.flag(flag) {
            Flag::Set(text) => text,
            Flag::Unset => default.to_owned(),
            Flag::Elsewhere => return None,
        };
        match flag {
            "--default-mode" => text.parse().ok().map(|mode: Mode| mode.to_string()),
            "--keep" => text.parse().ok().map(|keep: Keep| keep.to_string()),
            "--window" => text.parse().ok().map(|window: Window| window.to_string()),
            // Each has a directory of its own.
            "--distrusted" => Some(if text.is_empty() { text } else { "a list".to_owned() }),
            "--settle" => parse_time(&text).ok().map(time_to_text),
            _ => Some(text),
        }
    }

    /// Whether a switch such as `--staged` is on. One that is set elsewhere is taken for off.
    pub(crate) fn is_on(&self, switch: &str) -> bool {
        const OFF: [&str; 6] = ["0", "f", "false", "n", "no", "off"];
        match self.flag(switch) {
            Flag::Set(value) => !OFF.contains(&value.to_lowercase().as_str()),
            Flag::Unset | Flag::Elsewhere => false,
        }
    }

    /// The value of a flag that names something.
    pub(crate) fn named(&self, flag: &str, default: &str) -> String {
        match self.flag(flag) {
            Flag::Set(name) => name,
            Flag::Unset | Flag::Elsewhere => default.to_owned(),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::overlap::settings::Defaults;

    fn deployment(component: &str, container: &Value) -> Value {
        json!({
            "metadata": {"labels": {"app.kubernetes.io/component": component}, "generation": 3},
            "spec": {"replicas": 2, "template": {"spec": {
                "serviceAccountName": "account",
                "containers": [{"name": "proxy", "args": ["--window=1s"]}, container],
            }}},
            "status": {"observedGeneration": 3, "readyReplicas": 2, "updatedReplicas": 1},
        })
    }

    fn server(args: &[&str], env: &Value) -> Server {
        let container = json!({"name": "webhook", "image": "i:1", "args": args, "env": env});
        Server::of(&deployment("webhook", &container), "webhook")
    }

    #[test]
    fn a_flag_is_read_in_each_form_and_the_command_line_counts_before_the_environment() {
        let env = json!([
            {"name": "CA_OVERLAP_WINDOW", "value": "7d"}, {"name": "CA_OVERLAP_KEEP", "value": "2"},
            {"name": "CA_OVERLAP_SETTLE", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
            {"name": "CA_OVERLAP_STAGED", "value": "false"}, {"name": "CA_OVERLAP_FOLLOW_ISSUERS"},
        ]);
        let it = server(
            &[
                "webhook",
                "--windows=1h",
                "--window=24h",
                "--default-mode",
                "staged",
                "--self-managed",
                "--audit",
            ],
            &env,
        );
        let set = |text: &str| Flag::Set(text.into());
        assert_eq!(it.flag("--window"), set("24h"));
        assert_eq!(it.flag("--default-mode"), set("staged"));
        assert_eq!(it.flag("--keep"), set("2"));
        assert_eq!(it.flag("--settle"), Flag::Elsewhere);
        assert_eq!(it.flag("--distrusted"), Flag::Unset);
        assert_eq!(it.flag("--follow-issuers"), Flag::Unset, "an empty variable");
        assert!(it.is_on("--self-managed") && it.is_on("--audit") && !it.is_on("--staged"));
        assert_eq!((it.wanted, it.ready, &*it.image), (2, 1, "i:1"), "one is ready and new");
        let expanded = server(&["webhook", "--window=$(WINDOW)"], &json!([]));
        assert_eq!(expanded.flag("--window"), Flag::Elsewhere);
        let container = json!({"name": "webhook", "envFrom": [{"configMapRef": {"name": "m"}}]});
        let it = Server::of(&deployment("webhook", &container), "webhook");
        assert_eq!(it.flag("--window"), Flag::Elsewhere);
    }

    #[test]
    fn values_that_mean_the_same_are_equal() {
        let it = server(&["--window=24h", "--settle=300s", "--keep=x"], &json!([]));
        let other = server(&["--window=1d"], &json!([]));
        for (flag, default) in [("--window", "none"), ("--settle", "5m"), ("--distrusted", "")] {
            assert_eq!(it.normal(flag, default), other.normal(flag, default), "{flag}");
        }
        assert_eq!(it.normal("--keep", "1"), None, "the program does not start with it");
        assert_ne!(
            it.normal("--window", "none"),
            server(&[], &json!([])).normal("--window", "none")
        );
    }

    #[test]
    fn the_rules_are_those_of_the_installed_servers() {
        let rules = || Rules { defaults: Defaults::default(), settle: Duration::from_secs(1) };
        let container = |args: &[&str]| json!({"name": "c", "args": args});
        let webhook =
            container(&["--window=7d", "--keep=3", "--settle=1m", "--default-mode=staged"]);
        let mut webhook = deployment("webhook", &webhook);
        // The sidecar goes, because the first container counts where none has the name.
        webhook["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap().remove(0);
        let mut keeper = deployment("keeper", &container(&["--settle=2m"]));
        keeper["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap().remove(0);
        let mut found = rules();
        assert!(Installed::of(&[webhook.clone(), keeper]).put_into(&mut found).is_empty());
        assert_eq!(found.settle, Duration::from_secs(120));
        assert_eq!(found.defaults.window.to_string(), "7d");
        assert_eq!((found.defaults.keep.count(), found.defaults.mode), (3, Mode::Staged));
        let mut found = rules();
        Installed::of(&[webhook]).put_into(&mut found);
        assert_eq!(found.settle, Duration::from_secs(60), "without a keeper");
        let odd = server(&["--window=soon"], &json!([]));
        let mut found = rules();
        let unknown = Installed { webhook: Some(odd), keeper: None }.put_into(&mut found);
        assert_eq!((unknown, found.defaults), (vec!["--window"], rules().defaults));
    }
}
