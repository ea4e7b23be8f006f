//! The Helm chart renders the same as the kustomizations, and its schema refuses wrong values.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ca_overlap::names;
use serde_json::{Value, json};

use super::kustomization::{Manifests, id, manifests_directory, parse, text};
use crate::support::helm::{self, chart, printed};

/// The values file of `examples/` that renders each kustomization.
const PAIRS: [(&str, Option<&str>); 11] = [
    ("manifests/base", None),
    ("manifests/overlays/kind", Some("kind")),
    ("manifests/overlays/opt-in", Some("opt-in")),
    ("manifests/overlays/keeper", Some("keeper")),
    ("manifests/overlays/full", Some("full")),
    ("manifests/overlays/staged", Some("full")),
    ("manifests/overlays/cert-manager", Some("cert-manager")),
    ("tests/data/monitored", Some("monitored")),
    ("tests/data/issuers", Some("issuers")),
    ("tests/data/audit", Some("audit")),
    ("tests/data/renewals", Some("renewals")),
];

#[test]
fn the_chart_renders_the_objects_of_every_kustomization() {
    let Some(helm) = Helm::find() else { return };
    for (kustomization, example) in PAIRS {
        let Some(expected) = Manifests::built(kustomization) else { return };
        let example = example.map(|name| example_path(name).display().to_string());
        let values: Vec<&str> =
            example.iter().flat_map(|path| ["--values", path.as_str()]).collect();
        let rendered = helm.render(&[&values[..], &["--set", "namespace.create=true"]].concat());
        let (rendered, expected) = (rendered.by_id(), expected.by_id());
        let ids = |objects: &[(String, &Value)]| -> Vec<String> {
            objects.iter().map(|(id, _)| id.clone()).collect()
        };
        assert_eq!(ids(&rendered), ids(&expected), "{kustomization}");
        for ((id, rendered), (_, expected)) in rendered.iter().zip(&expected) {
            assert_eq!(rendered, expected, "{kustomization}: {id}");
        }
    }
}

#[test]
fn every_overlay_and_example_is_compared() {
    let of = |directory: &Path| -> Vec<String> {
        let entries = fs::read_dir(directory).expect("a directory");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").path())
            .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let mut overlays: Vec<String> = PAIRS
        .iter()
        .filter_map(|(path, _)| Some(path.strip_prefix("manifests/overlays/")?.to_owned()))
        .collect();
    overlays.sort();
    assert_eq!(of(&manifests_directory().join("overlays")), overlays);
    let mut examples: Vec<String> =
        PAIRS.iter().filter_map(|(_, example)| example.map(str::to_owned)).collect();
    examples.sort();
    examples.dedup();
    assert_eq!(of(&chart().join("examples")), examples);
}

#[test]
fn helm_lints_the_chart_without_a_warning() {
    let Some(helm) = Helm::find() else { return };
    let examples = PAIRS.iter().filter_map(|(_, example)| *example);
    for example in [None].into_iter().chain(examples.map(Some)) {
        let mut lint = helm.command("lint");
        lint.args(["--strict", "--namespace", names::NAMESPACE]).arg(chart());
        if let Some(example) = example {
            lint.arg("--values").arg(example_path(example));
        }
        let output = lint.output().expect("helm");
        let text = printed(&output);
        assert!(output.status.success(), "{example:?}: {text}");
        assert!(!text.contains("[WARNING]") && !text.contains("[ERROR]"), "{example:?}: {text}");
    }
}

#[test]
fn the_chart_has_the_version_of_the_program() {
    let yaml = fs::read_to_string(chart().join("Chart.yaml")).expect("Chart.yaml");
    let chart = parse("Chart.yaml", &yaml).remove(0);
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn without_the_namespace_the_chart_renders_the_same_objects() {
    let Some(helm) = Helm::find() else { return };
    let mut with = helm.render(&["--set", "namespace.create=true"]);
    with.objects.retain(|object| object["kind"] != "Namespace");
    assert_eq!(helm.render(&[]).by_id(), with.by_id());
}

#[test]
fn another_namespace_is_used_everywhere() {
    let Some(helm) = Helm::find() else { return };
    let everything = [
        "--set",
        "keeper.enabled=true,staged.enabled=true,prometheus.enabled=true,namespace.create=true",
    ];
    for more in [&[][..], &["--set", "certManager.enabled=true"]] {
        let rendered = helm.render_in("elsewhere", &[&everything[..], more].concat());
        let names = ["ca-overlap-webhook.ca-overlap.svc", "ca-overlap/"];
        for object in &rendered.objects {
            let namespace = &object["metadata"]["namespace"];
            assert!(namespace.is_null() || namespace == "elsewhere", "{}", id(object));
            let json = object.to_string();
            for name in names {
                let urls = json.replace("github.com/ca-overlap/ca-overlap/", "");
                let paths = urls.replace("/etc/ca-overlap/", "").replace("ghcr.io/ca-overlap/", "");
                assert!(!paths.contains(name), "{}: {name}", id(object));
            }
            assert!(!json.contains(r#""namespace":"ca-overlap""#), "{}", id(object));
        }
        for webhook in rendered.webhooks() {
            let excluded = &webhook["namespaceSelector"]["matchExpressions"][0]["values"];
            assert_eq!(*excluded, json!(["elsewhere", "kube-system"]));
        }
    }
}

#[test]
fn the_settings_reach_both_programs() {
    let Some(helm) = Helm::find() else { return };
    let settings = "keeper.enabled=true,staged.enabled=true,keeper.settle=90s,defaults.mode=staged,\
                    defaults.keep=0,defaults.window=24h,log.level=warn,\
                    keeper.groupWait=4m,webhook.extraArgs={--max-body=9MiB},\
                    keeper.extraArgs={--lease-duration=20s}";
    let rendered = helm.render(&["--set", settings]);
    let shared = ["--settle=90s", "--default-mode=staged", "--keep=0", "--window=24h"];
    for (name, own) in [
        ("ca-overlap-webhook", ["--staged", "--max-body=9MiB"]),
        ("ca-overlap-keeper", ["--group-wait=4m", "--lease-duration=20s"]),
    ] {
        let container =
            &rendered.named("Deployment", name)["spec"]["template"]["spec"]["containers"][0];
        let args: Vec<&str> =
            container["args"].as_array().expect("args").iter().map(text).collect();
        for flag in shared.iter().chain(&own) {
            assert_eq!(
                args.iter().filter(|arg| arg == &flag).count(),
                1,
                "{name}: {flag}: {args:?}"
            );
        }
        let level = json!({"name": "CA_OVERLAP_LOG_LEVEL", "value": "warn"});
        assert!(container["env"].as_array().expect("env").contains(&level), "{name}");
    }
}

#[test]
fn the_pods_and_policies_follow_the_values() {
    let Some(helm) = Helm::find() else { return };
    let digest = format!("sha256:{}", "1".repeat(64));
    let values = format!(
        "image.repository=mirror.example/ca-overlap,image.digest={digest},\
         imagePullSecrets[0].name=pull,webhook.replicas=3,webhook.priorityClassName=high,\
         webhook.nodeSelector.kind=infra,webhook.podLabels.team=a,webhook.listenAddress=[::],\
         webhook.podDisruptionBudget.enabled=false,networkPolicy.apiServerPorts={{16443}},\
         podSecurityContext.runAsUser=null,prometheus.labels.release=x,prometheus.enabled=true,\
         registration.failurePolicy=Fail,registration.timeoutSeconds=5,\
         registration.excludedNamespaces={{kube-system,flux-system}}"
    );
    let rendered = helm.render(&["--set", &values]);
    let deployment = &rendered.one("Deployment")["spec"];
    let pod = &deployment["template"]["spec"];
    assert_eq!(deployment["replicas"], 3);
    assert_eq!(deployment["template"]["metadata"]["labels"]["team"], "a");
    assert!(deployment["selector"]["matchLabels"].get("team").is_none());
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "pull"}]));
    assert_eq!(pod["priorityClassName"], "high");
    assert_eq!(pod["nodeSelector"], json!({"kind": "infra"}));
    assert!(pod["securityContext"].get("runAsUser").is_none());
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let image = format!("mirror.example/ca-overlap@{digest}");
    assert_eq!(rendered.container()["image"], image);
    assert!(rendered.args().contains(&"--listen=[::]:8443"));
    assert!(rendered.args().contains(&"--admin-listen=[::]:8081"));
    assert!(rendered.some("PodDisruptionBudget").is_none());
    let egress = json!([{"ports": [{"port": 16443, "protocol": "TCP"}]}]);
    assert_eq!(rendered.one("NetworkPolicy")["spec"]["egress"], egress);
    assert_eq!(rendered.one("PrometheusRule")["metadata"]["labels"]["release"], "x");
    let webhook = rendered.webhook();
    assert_eq!(
        (&webhook["failurePolicy"], &webhook["timeoutSeconds"]),
        (&json!("Fail"), &json!(5))
    );
    let excluded = &webhook["namespaceSelector"]["matchExpressions"][0]["values"];
    assert_eq!(*excluded, json!(["ca-overlap", "kube-system", "flux-system"]));
}

#[test]
fn a_value_that_is_a_map_can_be_replaced() {
    let Some(helm) = Helm::find() else { return };
    let rendered = |name: &str, json: &str| {
        let value = format!("{name}={json}");
        helm.render(&["--set", "keeper.enabled=true", "--set-json", &value])
    };
    for selector in [json!({"matchLabels": {"team": "a"}}), json!({})] {
        let rendered = rendered("networkPolicy.metricsNamespaceSelector", &selector.to_string());
        for (name, rule) in [("ca-overlap-webhook", 1), ("ca-overlap-keeper", 0)] {
            let ingress = &rendered.named("NetworkPolicy", name)["spec"]["ingress"][rule];
            assert_eq!(ingress["from"], json!([{"namespaceSelector": selector}]), "{name}");
        }
    }
    for affinity in [json!({"nodeAffinity": {}}), json!({})] {
        let rendered = rendered("webhook.affinity", &affinity.to_string());
        let pod = &rendered.named("Deployment", "ca-overlap-webhook")["spec"]["template"]["spec"];
        assert_eq!(pod["affinity"], affinity);
    }
    let key = "kubectl.kubernetes.io/default-container";
    let rendered = rendered("webhook.podAnnotations", &json!({ key: "other" }).to_string());
    let pod = &rendered.named("Deployment", "ca-overlap-webhook")["spec"]["template"];
    assert_eq!(pod["metadata"]["annotations"], json!({ key: "other" }));
}

/// Copies a directory; a link is copied as a link.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory").map(|entry| entry.expect("an entry")) {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().expect("a type") {
            kind if kind.is_dir() => copy(&source, &target),
            kind if kind.is_symlink() => {
                let link = fs::read_link(&source).expect("a link");
                std::os::unix::fs::symlink(link, target).expect("a link");
            }
            _ => drop(fs::copy(&source, target).expect("a copy")),
        }
    }
}

#[test]
fn a_copied_or_packed_chart_renders_the_same_and_has_what_its_readme_names() {
    let Some(helm) = Helm::find() else { return };
    let scratch = tempfile::tempdir().expect("a directory");
    let copied = scratch.path().join("copied");
    copy(&chart(), &copied);
    let packed = helm.command("package").arg(&copied).arg("-d").arg(scratch.path()).output();
    let packed = packed.expect("helm");
    assert!(packed.status.success(), "{}", printed(&packed));
    let archive = format!("ca-overlap-{}.tgz", env!("CARGO_PKG_VERSION"));
    let archive = scratch.path().join(archive);
    let everything = "keeper.enabled=true,prometheus.enabled=true";
    let render = |chart: &Path| {
        let mut template = helm.command("template");
        template.arg("ca-overlap").arg(chart).args(["--set", everything]);
        let output = template.output().expect("helm");
        assert!(output.status.success(), "{}", printed(&output));
        printed(&output)
    };
    let expected = render(&chart());
    assert_eq!(render(&copied), expected);
    assert_eq!(render(&archive), expected);

    let listed = Command::new("tar").arg("-tzf").arg(&archive).output().expect("tar");
    let listed = printed(&listed);
    let readme = fs::read_to_string(chart().join("README.md")).expect("README.md");
    for name in PAIRS.iter().filter_map(|(_, example)| *example) {
        let file = format!("examples/{name}.yaml");
        assert!(listed.contains(&file), "{file} is not packed: {listed}");
        assert!(readme.contains(&file), "{file} is not in README.md");
    }
}

/// A chart may not hold links that leave it, and kustomize reads no file outside of its directory.
#[test]
fn the_monitoring_files_of_chart_and_component_are_alike() {
    let component = manifests_directory().join("components/prometheus");
    let entries = fs::read_dir(chart().join("files")).expect("a directory");
    for name in entries.map(|entry| entry.expect("an entry").file_name()) {
        let file = |directory: &Path| fs::read_to_string(directory.join(&name)).expect("a file");
        let is_same = file(&component) == file(&chart().join("files"));
        assert!(is_same, "copy components/prometheus/{} to chart/files", name.display());
    }
}

#[test]
fn an_issuer_of_the_user_replaces_our_ca() {
    let Some(helm) = Helm::find() else { return };
    let issuer = "certManager.enabled=true,certManager.issuerRef.name=corp,certManager.issuerRef.kind=ClusterIssuer";
    let rendered = helm.render(&["--set", issuer]);
    assert!(rendered.some("Issuer").is_none());
    let leaf = rendered.one("Certificate");
    assert_eq!(leaf["metadata"]["name"], "ca-overlap-webhook");
    assert_eq!(leaf["spec"]["issuerRef"], json!({"name": "corp", "kind": "ClusterIssuer"}));
}

#[test]
fn with_cert_manager_staged_mode_can_still_watch_the_lease() {
    let Some(helm) = Helm::find() else { return };
    let both = "certManager.enabled=true,keeper.enabled=true,staged.enabled=true";
    let rendered = helm.render(&["--set", both]);
    let webhook = rendered.named("Deployment", "ca-overlap-webhook");
    assert_eq!(webhook["spec"]["template"]["spec"]["automountServiceAccountToken"], true);
    let policy = rendered.named("NetworkPolicy", "ca-overlap-webhook");
    assert_eq!(policy["spec"]["egress"][0]["ports"][0]["port"], 443);
    rendered.named("Role", "ca-overlap-webhook-staged");
}

#[test]
fn wrong_values_are_refused_with_their_name() {
    let Some(helm) = Helm::find() else { return };
    for (values, says) in [
        ("keper.enabled=true", "keper"),
        ("webhook.replica=3", "replica"),
        ("defaults.keep=9", "keep"),
        ("defaults.mode=both", "mode"),
        ("defaults.window=soon", "window"),
        ("keeper.settle=2", "settle"),
        ("log.level=loud", "level"),
        ("image.digest=latest", "digest"),
        ("registration.failurePolicy=Maybe", "failurePolicy"),
        ("registration.timeoutSeconds=31", "timeoutSeconds"),
        ("keeper.groupWait=2", "groupWait"),
        ("certManager.issuerRef.kind=ClusterIssuer", "issuerRef"),
        ("certManager.issuerRef.group=example.com", "issuerRef"),
        ("staged.enabled=true", "keeper.enabled"),
        ("defaults.mode=staged", "staged.enabled"),
        ("webhook.podLabels.app\\.kubernetes\\.io/name=x", "webhook.podLabels"),
        ("keeper.podLabels.app\\.kubernetes\\.io/component=x", "keeper.podLabels"),
        ("defaults.mode=off,webhook.extraArgs={--default-mode=off}", "--default-mode"),
        ("webhook.extraArgs={--self-managed}", "--self-managed"),
        ("webhook.extraArgs={--max-body=1MiB,--max-body=2MiB}", "--max-body"),
        ("keeper.enabled=true,keeper.extraArgs={--settle=2s}", "--settle"),
    ] {
        let output = helm.template(names::NAMESPACE, &["--set", values]);
        assert!(!output.status.success(), "{values} was accepted");
        assert!(printed(&output).contains(says), "{values}: {}", printed(&output));
    }
    let output = helm.template("kube-system", &[]);
    assert!(
        !output.status.success() && printed(&output).contains("kube-system"),
        "{}",
        printed(&output)
    );
}

struct Helm(PathBuf);

impl Helm {
    fn find() -> Option<Self> {
        helm::find().map(Self)
    }

    fn command(&self, subcommand: &str) -> Command {
        helm::command(&self.0, subcommand)
    }

    fn template(&self, namespace: &str, arguments: &[&str]) -> Output {
        let mut template = self.command("template");
        template.args(["ca-overlap"]).arg(chart()).args(["--namespace", namespace]);
        template.args(arguments).output().unwrap_or_else(|error| panic!("helm: {error}"))
    }

    fn render(&self, arguments: &[&str]) -> Manifests {
        self.render_in(names::NAMESPACE, arguments)
    }

    fn render_in(&self, namespace: &str, arguments: &[&str]) -> Manifests {
        let output = self.template(namespace, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", printed(&output));
        let yaml = String::from_utf8(output.stdout).expect("UTF-8");
        let mut objects = parse("chart", &yaml);
        objects.retain(|object| !object.is_null());
        Manifests { name: format!("chart {arguments:?}"), objects }
    }
}

fn example_path(name: &str) -> PathBuf {
    chart().join("examples").join(name).with_extension("yaml")
}
