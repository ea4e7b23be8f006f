//! The Helm chart renders the same as the kustomizations, and its schema refuses wrong values.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ca_overlap::names;
use serde_json::{Value, json};

use super::kustomization::{Manifests, id, manifests_directory, parse, text};
use super::program_knows_every_flag_and_variable;
use crate::support::helm::{self, IMAGE, chart, printed};

/// Labels of all objects of the chart, which the kustomizations do not have.
const USUAL: [&str; 5] = [
    "helm.sh/chart",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/managed-by",
];

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
            let mut rendered = (*rendered).clone();
            let labels = rendered["metadata"]["labels"].as_object_mut().expect("labels");
            for usual in USUAL {
                assert!(labels.remove(usual).is_some(), "{id} has no label {usual}");
            }
            assert_eq!(rendered, **expected, "{kustomization}: {id}");
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
        lint.args(["--strict", "--namespace", names::NAMESPACE, "--set", IMAGE]).arg(chart());
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
                let paths = json.replace("/etc/ca-overlap/", "");
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
    let everything = format!("keeper.enabled=true,prometheus.enabled=true,{IMAGE}");
    let render = |chart: &Path| {
        let mut template = helm.command("template");
        template.arg("ca-overlap").arg(chart).args(["--set", &everything]);
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

/// Nobody owns a name under which an image could be published, so the chart names none.
#[test]
fn without_an_image_the_chart_says_what_to_do() {
    let Some(helm) = Helm::find() else { return };
    let mut template = helm.command("template");
    let output = template.arg("ca-overlap").arg(chart()).output().expect("helm");
    let said = printed(&output);
    assert!(!output.status.success(), "{said}");
    for part in ["image.repository", "make image-tar", "--set", "docs/install.md#the-image"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

const FULL: &str = "keeper.enabled=true,staged.enabled=true,keeper.followIssuers=true,\
                    keeper.renewLeaves=true,prometheus.enabled=true,namespace.create=true";

/// The selector of a Deployment cannot change, and our commands find Deployments by it.
#[test]
fn labels_of_the_user_reach_every_object_and_no_selector() {
    let Some(helm) = Helm::find() else { return };
    let labels = "commonLabels.team=a,commonLabels.app\\.kubernetes\\.io/part-of=platform,\
                  keeper.podLabels.team=b";
    let rendered = helm.render_all(names::NAMESPACE, &["--set", FULL, "--set", labels]);
    for object in &rendered.objects {
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["team"], "a", "{}", id(object));
        assert_eq!(labels["app.kubernetes.io/part-of"], "platform", "{}", id(object));
        assert!(USUAL.iter().all(|usual| labels[usual].is_string()), "{}", id(object));
    }
    for (component, team) in [("webhook", "a"), ("keeper", "b")] {
        let deployment = rendered.named("Deployment", &format!("ca-overlap-{component}"));
        let selector = json!({
            "app.kubernetes.io/name": "ca-overlap", "app.kubernetes.io/component": component,
        });
        assert_eq!(deployment["spec"]["selector"]["matchLabels"], selector);
        // A new version of the chart alone replaces no pod.
        let mut labels = selector;
        labels["team"] = team.into();
        labels["app.kubernetes.io/part-of"] = "platform".into();
        assert_eq!(deployment["spec"]["template"]["metadata"]["labels"], labels);
    }
}

#[test]
fn objects_are_renamed_except_those_that_our_commands_look_for() {
    let Some(helm) = Helm::find() else { return };
    let fixed = [
        format!("Secret {}", names::CA_SECRET),
        format!("ConfigMap {}", names::DISTRUSTED_CONFIG_MAP),
        format!("Namespace {}", names::NAMESPACE),
    ];
    for (override_, name) in [
        ("fullnameOverride=trust", "trust"),
        ("nameOverride=other", "other"),
        ("nameOverride=other,fullnameOverride=trust", "trust"),
    ] {
        let arguments = ["--set", FULL, "--set", override_];
        let rendered = helm.render_all(names::NAMESPACE, &arguments);
        for object in &rendered.objects {
            let id = id(object);
            let is_named = text(&object["metadata"]["name"]).starts_with(name);
            assert_eq!(is_named, !fixed.contains(&id), "{id}");
            assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/name"], "ca-overlap");
            for subject in object["subjects"].as_array().into_iter().flatten() {
                rendered.named("ServiceAccount", text(&subject["name"]));
                let role = &object["roleRef"];
                rendered.named(text(&role["kind"]), text(&role["name"]));
            }
            if object["kind"] == "Deployment" {
                let pod = &object["spec"]["template"]["spec"];
                rendered.named("ServiceAccount", text(&pod["serviceAccountName"]));
            }
        }
        for entry in rendered.webhooks() {
            rendered.named("Service", text(&entry["clientConfig"]["service"]["name"]));
        }
        // The webhook looks for the objects by their names.
        let rendered = helm.render(&["--set", override_]);
        program_knows_every_flag_and_variable(&rendered, "webhook");
        let keeper = format!("system:serviceaccount:{}:{name}-keeper", names::NAMESPACE);
        for flag in [
            format!("--service={name}-webhook"),
            format!("--webhook-config={name}"),
            format!("--keeper-user={keeper}"),
        ] {
            assert!(rendered.args().contains(&&*flag), "{flag}: {:?}", rendered.args());
        }
        let rights = &rendered.one("ClusterRole")["rules"][0];
        assert_eq!(rights["resourceNames"], json!([name]));
    }
    let rendered = helm.render(&["--set", "fullnameOverride=trust,certManager.enabled=true"]);
    let leaf = rendered.named("Certificate", "trust-webhook");
    assert_eq!(leaf["spec"]["dnsNames"], json!(["trust-webhook.ca-overlap.svc"]));
    let pod = &rendered.one("Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][0]["secret"]["secretName"], leaf["spec"]["secretName"]);
    let registration = rendered.one("MutatingWebhookConfiguration");
    let source = &registration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"];
    assert_eq!(source, "ca-overlap/trust-webhook");
}

#[test]
fn service_accounts_can_be_those_of_the_user() {
    let Some(helm) = Helm::find() else { return };
    let accounts = "keeper.serviceAccount.create=false,keeper.serviceAccount.name=mine,\
                    webhook.serviceAccount.annotations.owner=a";
    let rendered = helm.render(&["--set", FULL, "--set", accounts]);
    let account = rendered.one("ServiceAccount");
    assert_eq!(account["metadata"]["name"], "ca-overlap-webhook");
    assert_eq!(account["metadata"]["annotations"], json!({"owner": "a"}));
    let pod = |name: &str| rendered.named("Deployment", name)["spec"]["template"]["spec"].clone();
    assert_eq!(pod("ca-overlap-keeper")["serviceAccountName"], "mine");
    let binding = rendered.named("ClusterRoleBinding", "ca-overlap-keeper");
    assert_eq!(binding["subjects"][0]["name"], "mine");
    let args = pod("ca-overlap-webhook")["containers"][0]["args"].clone();
    let flag = "--keeper-user=system:serviceaccount:ca-overlap:mine";
    assert!(args.as_array().expect("args").contains(&json!(flag)), "{args}");
}

#[test]
fn the_webhook_can_listen_on_the_hosts_network() {
    let Some(helm) = Helm::find() else { return };
    let host = "webhook.hostNetwork=true,webhook.port=9443,webhook.adminPort=9081,\
                namespace.create=true,prometheus.enabled=true";
    let rendered = helm.render(&["--set", host]);
    let deployment = &rendered.one("Deployment")["spec"];
    let pod = &deployment["template"]["spec"];
    assert_eq!(pod["hostNetwork"], true);
    assert_eq!(pod["dnsPolicy"], "ClusterFirstWithHostNet");
    // Two replicas on two nodes: a third one finds no node with free ports.
    assert_eq!(
        deployment["strategy"]["rollingUpdate"],
        json!({"maxUnavailable": 1, "maxSurge": 0})
    );
    assert!(rendered.args().contains(&"--listen=0.0.0.0:9443"));
    assert!(rendered.args().contains(&"--admin-listen=0.0.0.0:9081"));
    let ports = rendered.container()["ports"].as_array().expect("ports");
    let ports: Vec<&Value> = ports.iter().map(|port| &port["containerPort"]).collect();
    assert_eq!(ports, [9443, 9081]);
    let ingress = &rendered.one("NetworkPolicy")["spec"]["ingress"];
    assert_eq!(ingress[0]["ports"][0]["port"], 9443);
    assert_eq!(ingress[1]["ports"][0]["port"], 9081);
    let service = rendered.named("Service", "ca-overlap-webhook-metrics");
    assert_eq!(service["spec"]["ports"][0]["port"], 9081);
    let labels = &rendered.one("Namespace")["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "privileged");
    let rendered = helm.render(&["--set", "webhook.dnsPolicy=Default"]);
    let pod = &rendered.one("Deployment")["spec"]["template"]["spec"];
    assert_eq!((&pod["dnsPolicy"], pod.get("hostNetwork")), (&json!("Default"), None));
}

#[test]
fn pods_take_more_volumes_and_another_security_context() {
    let Some(helm) = Helm::find() else { return };
    for component in ["webhook", "keeper"] {
        let values = format!(
            "{FULL},{component}.extraVolumes[0].name=x,{component}.extraVolumeMounts[0].name=x,\
             securityContext.readOnlyRootFilesystem=false,{component}.podDisruptionBudget.minAvailable=1"
        );
        let rendered = helm.render(&["--set", &values]);
        let name = format!("ca-overlap-{component}");
        let pod = &rendered.named("Deployment", &name)["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        for list in [&pod["volumes"], &container["volumeMounts"]] {
            assert_eq!(list.as_array().and_then(|all| all.last()), Some(&json!({"name": "x"})));
        }
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], false);
        assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
        let budget = &rendered.named("PodDisruptionBudget", &name)["spec"];
        assert_eq!((&budget["minAvailable"], budget.get("maxUnavailable")), (&json!(1), None));
    }
}

#[test]
fn selectors_of_the_user_are_added_to_ours() {
    let Some(helm) = Helm::find() else { return };
    let selectors = json!({"registration": {
        "optIn": true,
        "namespaceSelector": {
            "matchLabels": {"a": "b"}, "matchExpressions": [{"key": "x", "operator": "Exists"}],
        },
        "objectSelector": {"matchLabels": {"c": "d"}},
    }});
    let values = format!("registration={}", selectors["registration"]);
    let rendered = helm.render(&["--set", FULL, "--set-json", &values]);
    let ours = helm.render(&[]);
    let ours = &ours.webhook()["namespaceSelector"]["matchExpressions"];
    for webhook in rendered.webhooks() {
        let selector = &webhook["namespaceSelector"];
        assert_eq!(selector["matchLabels"], json!({"a": "b"}));
        let mut expected = ours.as_array().expect("expressions").clone();
        expected.push(json!({"key": "x", "operator": "Exists"}));
        assert_eq!(selector["matchExpressions"], json!(expected));
        let selector = json!({
            "matchExpressions": [{"key": names::MODE, "operator": "Exists"}],
            "matchLabels": {"c": "d"},
        });
        assert_eq!(webhook["objectSelector"], selector);
    }
    let selector = ["--set", "registration.objectSelector.matchLabels.c=d"];
    let selector = helm.render(&selector).webhook()["objectSelector"].clone();
    assert_eq!(selector, json!({"matchLabels": {"c": "d"}}));
}

#[test]
fn each_part_of_the_monitoring_has_its_switch() {
    let Some(helm) = Helm::find() else { return };
    let parts = [
        ("serviceMonitor", "ServiceMonitor"),
        ("prometheusRule", "PrometheusRule"),
        ("dashboard", "ConfigMap ca-overlap-dashboard"),
    ];
    for (switch, _) in parts {
        let values = format!("prometheus.enabled=true,prometheus.{switch}=false");
        let rendered = helm.render(&["--set", &values]);
        let has = |part: &str| rendered.objects.iter().any(|object| id(object).starts_with(part));
        for (other, object) in parts {
            assert_eq!(has(object), other != switch, "{object} with {values}");
        }
        assert_eq!(has("Service ca-overlap-keeper-metrics"), switch != "serviceMonitor");
    }
}

/// What a reader of the terminal needs after an installation.
#[test]
fn the_notes_say_the_mode_and_what_to_run_next() {
    let Some(helm) = Helm::find() else { return };
    // Helm prints notes only for a cluster, so they become an object.
    let scratch = tempfile::tempdir().expect("a directory");
    let copied = scratch.path().join("copied");
    copy(&chart(), &copied);
    fs::rename(copied.join("templates/NOTES.txt"), copied.join("NOTES.txt")).expect("notes");
    let object = r#"{kind: Notes, text: {{ tpl (.Files.Get "NOTES.txt") . | toJson }}}"#;
    fs::write(copied.join("templates/notes.yaml"), object).expect("an object");
    let example = example_path("full").display().to_string();
    for (arguments, says) in [
        (vec![], "Mode: bundle, for every Secret"),
        (vec!["--values", &example], "Mode: staged, for every Secret"),
        (vec!["--values", &example], "ca-overlap drain -A --lease-namespace trust\n"),
        (vec!["--set", "registration.optIn=true"], "Mode: bundle, only for Secrets that ask"),
        (vec!["--set", "audit=true"], "AUDIT: nothing is changed"),
        (vec!["--set", "fullnameOverride=x"], "delete mutatingwebhookconfiguration x\n"),
        (vec!["--set", "registration.failurePolicy=Fail"], "WARNING"),
    ] {
        let mut template = helm.command("template");
        template.arg("it").arg(&copied).args(["--show-only", "templates/notes.yaml"]);
        template.args(["--namespace", "trust", "--set", IMAGE]).args(&arguments);
        let output = template.output().expect("helm");
        assert!(output.status.success(), "{}", printed(&output));
        let objects = parse("notes", &String::from_utf8(output.stdout).expect("UTF-8"));
        let notes = text(&objects[0]["text"]);
        for part in [
            says,
            "ca-overlap check --ca-overlap-namespace trust\n",
            "helm test it --namespace trust --logs",
            "ca-overlap status -A --ca-overlap-namespace trust\n",
        ] {
            assert!(notes.contains(part), "{arguments:?}: {part}: {notes}");
        }
    }
}

#[test]
fn helm_test_runs_check_with_rights_of_its_own() {
    let Some(helm) = Helm::find() else { return };
    let all = |values: &str| {
        let mut rendered = helm.render_all("trust", &["--set", values]);
        rendered.objects.retain(is_hook);
        rendered
    };
    let mut tests = all(FULL);
    assert_eq!(tests.objects.len(), 8, "{:?}", tests.by_id());
    let pod = tests.one("Pod")["spec"].clone();
    let account = tests.one("ServiceAccount")["metadata"]["name"].clone();
    assert_eq!(pod["serviceAccountName"], account);
    // The log of the pod stays, the rights do not.
    for object in &tests.objects {
        let policy = text(&object["metadata"]["annotations"]["helm.sh/hook-delete-policy"]);
        assert_eq!(policy.contains("hook-succeeded"), object["kind"] != "Pod", "{}", id(object));
        let component = &object["metadata"]["labels"]["app.kubernetes.io/component"];
        assert_eq!(component, "check", "{}: a Deployment, by its labels", id(object));
    }
    assert_eq!(
        pod["containers"][0]["args"],
        json!(["check", "--namespace=default", "--ca-overlap-namespace=trust"])
    );
    // The pod meets the standard that the namespace enforces.
    let webhook = helm.render(&[]);
    let of_webhook = &webhook.one("Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"], of_webhook["securityContext"]);
    let context = &webhook.container()["securityContext"];
    assert_eq!(pod["containers"][0]["securityContext"], *context);

    // Only as many rights as `check` uses: the webhook alone, with certificates of cert-manager.
    tests = all("certManager.enabled=true");
    let roles = tests.objects.iter().filter(|object| object["kind"] == "Role");
    let all_rules: Vec<&Value> =
        roles.flat_map(|role| role["rules"].as_array().expect("rules")).collect();
    let resources: Vec<&Value> = all_rules.iter().map(|rule| &rule["resources"][0]).collect();
    assert_eq!(resources, ["deployments", "endpointslices", "secrets"], "in two namespaces");
    assert_eq!(all_rules[2]["verbs"], json!(["create"]));
    let own = all("test.namespace=trust");
    assert!(own.objects.is_empty(), "the webhook is not called in its own namespace");
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
        ("commonLabels.app\\.kubernetes\\.io/name=x", "commonLabels"),
        ("fullnameOverride=Trust", "fullnameOverride"),
        ("webhook.port=0", "port"),
        ("webhook.serviceAccount.create=false", "webhook.serviceAccount"),
        ("registration.namespaceSelector.labels.a=b", "namespaceSelector"),
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
        template.args(["ca-overlap"]).arg(chart()).args(["--namespace", namespace, "--set", IMAGE]);
        template.args(arguments).output().unwrap_or_else(|error| panic!("helm: {error}"))
    }

    fn render(&self, arguments: &[&str]) -> Manifests {
        self.render_in(names::NAMESPACE, arguments)
    }

    /// The objects of the release, without those of `helm test`.
    fn render_in(&self, namespace: &str, arguments: &[&str]) -> Manifests {
        let mut manifests = self.render_all(namespace, arguments);
        manifests.objects.retain(|object| !is_hook(object));
        manifests
    }

    fn render_all(&self, namespace: &str, arguments: &[&str]) -> Manifests {
        let output = self.template(namespace, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", printed(&output));
        let yaml = String::from_utf8(output.stdout).expect("UTF-8");
        let mut objects = parse("chart", &yaml);
        objects.retain(|object| !object.is_null());
        Manifests { name: format!("chart {arguments:?}"), objects }
    }
}

fn is_hook(object: &Value) -> bool {
    object["metadata"]["annotations"]["helm.sh/hook"] == "test"
}

fn example_path(name: &str) -> PathBuf {
    chart().join("examples").join(name).with_extension("yaml")
}
