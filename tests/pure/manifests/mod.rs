//! The manifests agree with the constants in the code and with the design.
//!
//! The base is read from its files. `kubectl kustomize` renders the overlays; without a kubectl
//! those tests are skipped, and fail in CI (`CI=true`).

mod chart;
mod keeper;
mod kustomization;
mod values;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use ca_overlap::names;
use serde_json::{Value, json};

use self::kustomization::{Manifests, has_key, id, manifests_directory, text};

/// Nobody has registered a place where ca-overlap is published. Whoever registers a name that stands
/// here could serve a program of his to our users, so only an owner names one, in `make/owner.mk`.
#[test]
fn no_file_names_a_registry_or_an_organisation_of_ours() {
    let root = manifests_directory().join("..");
    let owner = fs::read_to_string(root.join("make/owner.mk")).expect("make/owner.mk");
    let is_empty = |name| owner.lines().any(|line| line == format!("{name} ?="));
    if !(is_empty("REGISTRY") && is_empty("REPOSITORY")) {
        return;
    }
    let mut pending: Vec<_> = [
        "manifests",
        "docs",
        "build",
        "make",
        "src",
        "tests",
        "benches",
        ".github",
        ".ci",
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "Cargo.toml",
        "Makefile",
        "Dockerfile",
    ]
    .map(|name| root.join(name))
    .into();
    let names = ["ghcr.io", "github.com", "docker.io", "quay.io", "gitlab.com"]
        .map(|host| format!("{host}/ca-overlap"));
    let mut read = 0;
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory");
            pending.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if let Ok(text) = fs::read_to_string(&path) {
            read += 1;
            let found = names.iter().find(|name| text.contains(*name));
            assert!(found.is_none(), "{} names {}", path.display(), found.expect("a name"));
        }
    }
    assert!(read > 300, "{read} files");
}

/// The longest time that a drain can take, in seconds: 90 s for idle connections, and a margin.
const DRAIN_TIMEOUT_SECONDS: u64 = 110;

// The registration

#[test]
fn the_registration_is_as_designed() {
    let base = Manifests::base();
    let webhook = base.webhook();
    let service = &webhook["clientConfig"]["service"];

    assert_eq!(webhook["name"], names::WEBHOOK);
    assert_eq!(
        *service,
        json!({
            "name": names::SERVICE,
            "namespace": names::NAMESPACE,
            "path": names::MUTATE_PATH,
            "port": 443,
        })
    );
    assert_eq!(webhook["admissionReviewVersions"], json!(["v1"]));
    assert_eq!(webhook["failurePolicy"], "Ignore");
    assert_eq!(webhook["timeoutSeconds"], 3);
    assert_eq!(webhook["sideEffects"], "None");
    assert_eq!(webhook["reinvocationPolicy"], "Never");
    assert_eq!(webhook["matchPolicy"], "Equivalent");
    assert_eq!(
        webhook["rules"],
        json!([{
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "resources": ["secrets"],
            "operations": ["CREATE", "UPDATE"],
            "scope": "Namespaced",
        }])
    );
    assert!(webhook["objectSelector"].is_null(), "the base is opt-out");
}

#[test]
fn the_registration_excludes_our_namespace_kube_system_and_mode_off() {
    assert_eq!(
        Manifests::base().webhook()["namespaceSelector"],
        json!({ "matchExpressions": [
            {
                "key": "kubernetes.io/metadata.name",
                "operator": "NotIn",
                "values": [names::NAMESPACE, "kube-system"],
            },
            { "key": names::MODE, "operator": "NotIn", "values": ["off"] },
        ] })
    );
}

#[test]
fn the_match_conditions_compare_with_our_names() {
    let base = Manifests::base();
    let conditions = base.webhook()["matchConditions"].as_array().expect("matchConditions");
    let names: Vec<&Value> = conditions.iter().map(|condition| &condition["name"]).collect();
    assert_eq!(names, ["not-a-token", "concerns-us"]);

    let concerns_us = text(&conditions[1]["expression"]);
    let quoted: BTreeSet<&str> = concerns_us.split('\'').skip(1).step_by(2).collect();
    assert_eq!(
        quoted,
        BTreeSet::from([
            "CREATE",
            names::CA_CRT,
            names::PENDING_TLS_CRT,
            names::PENDING_TLS_KEY,
            names::PREFIX,
            names::PHASE,
            names::SOURCE,
            names::TLS_CRT,
        ]),
        "every string that the expression compares with"
    );
}

/// Everything of a webhook but what tells the two entries of staged mode apart.
fn without_differences(webhook: &Value) -> Value {
    let mut webhook = webhook.clone();
    webhook["name"] = Value::Null;
    webhook["clientConfig"]["service"]["path"] = Value::Null;
    webhook["matchConditions"][1]["expression"] = Value::Null;
    webhook
}

#[test]
fn staged_mode_registers_one_entry_for_readers_and_one_for_strangers() {
    let Some(staged) = Manifests::rendered("overlays/full") else { return };
    let [reader, stranger] = staged.webhooks() else { panic!("not two webhooks") };
    let base = Manifests::base();
    let usual = base.webhook();
    for (entry, name, path, not) in [
        (reader, names::WEBHOOK, names::MUTATE_PATH, ""),
        (stranger, names::STRANGER_WEBHOOK, names::STRANGER_PATH, "!"),
    ] {
        assert_eq!(entry["name"], name);
        assert_eq!(entry["clientConfig"]["service"]["path"], path);
        let condition = |webhook: &Value| {
            let text = text(&webhook["matchConditions"][1]["expression"]).to_owned();
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let may_read = "(!has(request.name) || authorizer.group('').resource('secrets')\
                        .namespace(request.namespace).name(request.name).check('get').allowed())";
        assert_eq!(condition(entry), format!("({}) && {not}{may_read}", condition(usual)));
        assert_eq!(without_differences(entry), without_differences(usual));
    }
}

// Contents that the manifests must not have

#[test]
fn no_manifest_names_a_ca_bundle_or_data() {
    for manifests in Manifests::all() {
        for object in &manifests.objects {
            assert!(!has_key(object, "caBundle"), "{}: caBundle in {}", manifests.name, id(object));
            if ["Secret", "ConfigMap"].contains(&text(&object["kind"])) {
                assert!(
                    object.get("data").is_none() && object.get("stringData").is_none(),
                    "{}: applying {} again would reset it",
                    manifests.name,
                    id(object)
                );
            }
        }
    }
}

#[test]
fn every_object_has_our_label_and_our_namespace() {
    let cluster_wide =
        ["Namespace", "ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration"];
    for manifests in Manifests::all() {
        for object in &manifests.objects {
            let metadata = &object["metadata"];
            assert_eq!(
                metadata["labels"]["app.kubernetes.io/name"],
                "ca-overlap",
                "{}",
                id(object)
            );
            if cluster_wide.contains(&text(&object["kind"])) {
                assert!(metadata.get("namespace").is_none(), "{}", id(object));
            } else {
                assert_eq!(metadata["namespace"], names::NAMESPACE, "{}", id(object));
            }
        }
    }
}

// Rights

#[test]
fn the_webhook_has_two_rights_on_each_of_two_objects() {
    let base = Manifests::base();
    assert_eq!(
        base.one("Role")["rules"],
        json!([{
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": [names::CA_SECRET],
            "verbs": ["get", "update"],
        }])
    );
    assert_eq!(
        base.one("ClusterRole")["rules"],
        json!([{
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations"],
            "resourceNames": [names::WEBHOOK_CONFIGURATION],
            "verbs": ["get", "patch"],
        }])
    );
    assert_eq!(base.one("Secret")["metadata"]["name"], names::CA_SECRET);
    assert_eq!(
        base.one("MutatingWebhookConfiguration")["metadata"]["name"],
        names::WEBHOOK_CONFIGURATION
    );
}

#[test]
fn both_bindings_bind_only_our_service_account() {
    let base = Manifests::base();
    assert_eq!(base.one("ServiceAccount")["metadata"]["name"], names::WEBHOOK_SERVICE_ACCOUNT);
    for (binding, role) in [("RoleBinding", "Role"), ("ClusterRoleBinding", "ClusterRole")] {
        let binding = base.one(binding);
        assert_eq!(binding["roleRef"]["kind"], role);
        assert_eq!(binding["roleRef"]["name"], base.one(role)["metadata"]["name"]);
        assert_eq!(
            binding["subjects"],
            json!([{
                "kind": "ServiceAccount",
                "name": names::WEBHOOK_SERVICE_ACCOUNT,
                "namespace": names::NAMESPACE,
            }])
        );
    }
}

#[test]
fn every_rbac_rule_has_its_reason_above_it() {
    for (file, count) in [
        ("base/rbac.yaml", 2),
        ("components/keeper/rbac.yaml", 6),
        ("components/cert-manager-issuers/rbac.yaml", 1),
        ("components/cert-manager-renewals/rbac.yaml", 2),
    ] {
        let rbac = fs::read_to_string(manifests_directory().join(file)).expect(file);
        let lines: Vec<&str> = rbac.lines().collect();
        let is_rule = |&line: &usize| lines[line].trim_start().starts_with("- apiG");
        let rules: Vec<usize> = (0..lines.len()).filter(is_rule).collect();
        assert_eq!(rules.len(), count, "{file}");
        for rule in rules {
            let has_reason = lines[rule - 1].trim_start().starts_with('#');
            assert!(has_reason, "{file}: no reason above line {}", rule + 1);
        }
    }
}

#[test]
fn the_namespace_enforces_the_restricted_standard() {
    let base = Manifests::base();
    let namespace = base.one("Namespace");
    assert_eq!(namespace["metadata"]["name"], names::NAMESPACE);
    for mode in ["enforce", "audit", "warn"] {
        let label = format!("pod-security.kubernetes.io/{mode}");
        assert_eq!(namespace["metadata"]["labels"][&label], "restricted", "{label}");
    }
}

// The pod

#[test]
fn the_pod_meets_the_restricted_standard_and_more() {
    for manifests in Manifests::all() {
        let pod = &manifests.one("Deployment")["spec"]["template"]["spec"];
        assert_eq!(
            pod["securityContext"],
            json!({
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": 65532,
                "seccompProfile": { "type": "RuntimeDefault" },
            }),
            "{}",
            manifests.name
        );
        assert_eq!(
            manifests.container()["securityContext"],
            json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            }),
            "{}",
            manifests.name
        );
        assert_eq!(pod["serviceAccountName"], names::WEBHOOK_SERVICE_ACCOUNT);
        assert_eq!(pod["enableServiceLinks"], false);
    }
}

#[test]
fn a_token_is_mounted_only_where_it_is_needed() {
    for manifests in Manifests::all() {
        assert_eq!(manifests.one("ServiceAccount")["automountServiceAccountToken"], false);
        let pod = &manifests.one("Deployment")["spec"]["template"]["spec"];
        let self_managed = manifests.args().contains(&"--self-managed");
        assert_eq!(pod["automountServiceAccountToken"], self_managed, "{}", manifests.name);
        assert_eq!(manifests.some("ClusterRole").is_some(), self_managed, "{}", manifests.name);
    }
}

#[test]
fn every_server_mounts_the_list_of_distrusted_cas() {
    let keeper = Manifests::rendered("overlays/keeper");
    for manifests in Manifests::all().into_iter().chain(keeper) {
        assert_eq!(manifests.one("ConfigMap")["metadata"]["name"], names::DISTRUSTED_CONFIG_MAP);
        for object in manifests.objects.iter().filter(|object| object["kind"] == "Deployment") {
            let pod = &object["spec"]["template"]["spec"];
            let container = &pod["containers"][0];
            let of = |list: &Value| -> Value {
                let list = list.as_array().expect("a list");
                list.iter().find(|one| one["name"] == "distrusted").expect("an entry").clone()
            };
            let map = json!({ "name": names::DISTRUSTED_CONFIG_MAP, "optional": true });
            assert_eq!(of(&pod["volumes"])["configMap"], map);
            let mount = of(&container["volumeMounts"]);
            assert!(mount.get("subPath").is_none(), "files mounted by subPath are never updated");
            let flag = format!("--distrusted={}", text(&mount["mountPath"]));
            let arguments = container["args"].as_array().expect("arguments");
            assert!(arguments.iter().any(|argument| *argument == flag), "{}", id(object));
        }
    }
}

#[test]
fn a_rollout_never_leaves_the_service_empty_and_a_drain_is_never_cut_short() {
    let base = Manifests::base();
    let spec = &base.one("Deployment")["spec"];
    assert_eq!(spec["replicas"], 2);
    assert_eq!(
        spec["strategy"],
        json!({
            "type": "RollingUpdate",
            "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 },
        })
    );
    let grace = spec["template"]["spec"]["terminationGracePeriodSeconds"].as_u64();
    assert!(grace.expect("a grace period") > DRAIN_TIMEOUT_SECONDS);
    assert_eq!(base.one("PodDisruptionBudget")["spec"]["maxUnavailable"], 1);
}

#[test]
fn all_selectors_select_the_pod() {
    let base = Manifests::base();
    let deployment = &base.one("Deployment")["spec"];
    let labels = &deployment["template"]["metadata"]["labels"];
    let selectors = [
        &deployment["selector"]["matchLabels"],
        &base.one("Service")["spec"]["selector"],
        &base.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        &base.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ];
    for selector in selectors {
        assert_eq!(selector, labels);
    }
}

/// The scheduler scores no spread on a node that lacks any of its keys. So the constraints name only
/// the host, which every node has; zones are preferred by affinity.
#[test]
fn the_replicas_spread_over_hosts_also_where_there_are_no_zones() {
    let Some(all) = Manifests::rendered("overlays/keeper") else { return };
    for name in ["ca-overlap-webhook", "ca-overlap-keeper"] {
        let deployment = &all.named("Deployment", name)["spec"];
        let labels = &deployment["selector"]["matchLabels"];
        let pod = &deployment["template"]["spec"];
        let spread = pod["topologySpreadConstraints"].as_array().expect("constraints");
        let keys: Vec<_> = spread.iter().map(|one| text(&one["topologyKey"])).collect();
        assert_eq!(keys, ["kubernetes.io/hostname"], "{name}");
        assert_eq!(spread[0]["whenUnsatisfiable"], "ScheduleAnyway", "{name}");
        let zones = &pod["affinity"]["podAntiAffinity"];
        assert!(zones.get("requiredDuringSchedulingIgnoredDuringExecution").is_none(), "{name}");
        let zone = &zones["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"];
        assert_eq!(zone["topologyKey"], "topology.kubernetes.io/zone", "{name}");
        for selector in [&spread[0]["labelSelector"], &zone["labelSelector"]] {
            assert_eq!(&selector["matchLabels"], labels, "{name}");
        }
    }
}

#[test]
fn all_ports_lead_to_the_listeners() {
    for manifests in Manifests::all() {
        let args = manifests.args();
        assert!(args.contains(&"--listen=0.0.0.0:8443"), "{args:?}");
        assert!(args.contains(&"--admin-listen=0.0.0.0:8081"), "{args:?}");
        assert_eq!(
            manifests.container()["ports"],
            json!([
                { "name": "https", "containerPort": 8443, "protocol": "TCP" },
                { "name": "admin", "containerPort": 8081, "protocol": "TCP" },
            ])
        );
        assert_eq!(
            manifests.one("Service")["spec"]["ports"],
            json!([{ "name": "https", "port": 443, "targetPort": "https", "protocol": "TCP" }])
        );
        let probe = |kind: &str| manifests.container()[kind]["httpGet"].clone();
        assert_eq!(probe("readinessProbe"), json!({ "path": "/readyz", "port": "admin" }));
        assert_eq!(probe("livenessProbe"), json!({ "path": "/livez", "port": "admin" }));
        assert_eq!(probe("startupProbe"), json!({ "path": "/livez", "port": "admin" }));
    }
}

#[test]
fn the_program_knows_every_flag_and_variable_of_the_pod() {
    for manifests in Manifests::all() {
        program_knows_every_flag_and_variable(&manifests, "webhook");
    }
}

/// Fails if a flag or variable of the Deployment is not in the help of this command.
fn program_knows_every_flag_and_variable(manifests: &Manifests, command: &str) {
    let help = Command::new(crate::support::binary::path())
        .args([command, "--help"])
        .output()
        .expect("the program");
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    // Lines are wrapped anywhere.
    let help = format!("{} ", help.split_whitespace().collect::<Vec<_>>().join(" "));
    let args = manifests.args();
    assert_eq!(args[0], command);
    for flag in &args[1..] {
        let name = flag.split('=').next().unwrap_or(flag);
        assert!(help.contains(&format!(" {name} ")), "{name}");
    }
    for variable in manifests.container()["env"].as_array().expect("env") {
        let name = format!("[env: {}=", text(&variable["name"]));
        assert!(help.contains(&name), "{name}");
    }
}

#[test]
fn the_network_policy_allows_only_our_two_ports_in_and_the_api_server_out() {
    let base = Manifests::base();
    let policy = &base.one("NetworkPolicy")["spec"];
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(policy["ingress"][0], json!({ "ports": [{ "port": 8443, "protocol": "TCP" }] }));
    assert_eq!(policy["ingress"][1]["ports"], json!([{ "port": 8081, "protocol": "TCP" }]));
    assert!(policy["ingress"][1]["from"].is_array(), "the admin port is restricted");
    assert!(policy["ingress"].get(2).is_none());
    assert_eq!(
        policy["egress"],
        json!([{ "ports": [
            { "port": 443, "protocol": "TCP" },
            { "port": 6443, "protocol": "TCP" },
        ] }])
    );
}

// The overlays

#[test]
fn the_opt_in_overlay_is_the_base_with_a_selector() {
    let Some(mut opt_in) = Manifests::rendered("overlays/opt-in") else { return };
    let webhook = &mut opt_in.one_mut("MutatingWebhookConfiguration")["webhooks"][0];
    let selector = webhook.as_object_mut().expect("a webhook").remove("objectSelector");
    assert_eq!(
        selector,
        Some(json!({ "matchExpressions": [{ "key": names::MODE, "operator": "Exists" }] }))
    );
    assert_eq!(opt_in.by_id(), Manifests::base().by_id());
}

#[test]
fn the_kind_overlay_is_the_base_with_a_loaded_image_and_debug_logs() {
    let Some(mut kind) = Manifests::rendered("overlays/kind") else { return };
    let base = Manifests::base();
    let container = &mut kind.one_mut("Deployment")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "ca-overlap:dev");
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    let env = container["env"].as_array_mut().expect("env").pop();
    assert_eq!(env, Some(json!({ "name": "CA_OVERLAP_LOG_LEVEL", "value": "debug" })));
    assert_eq!(kind.by_id(), base.by_id());
}

#[test]
fn the_cert_manager_overlay_has_no_self_managed_parts() {
    let Some(overlay) = Manifests::rendered("overlays/cert-manager") else { return };
    for kind in ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Secret"] {
        assert!(overlay.some(kind).is_none(), "{kind}");
    }
    assert!(!overlay.args().contains(&"--self-managed"));
    assert_eq!(overlay.one("NetworkPolicy")["spec"]["egress"], json!([]));
}

#[test]
fn the_cert_manager_leaf_is_for_the_host_that_the_api_server_calls() {
    let Some(overlay) = Manifests::rendered("overlays/cert-manager") else { return };
    let leaf = overlay.named("Certificate", "ca-overlap-webhook");
    let ca = overlay.named("Certificate", "ca-overlap-webhook-ca");
    let issuer = overlay.named("Issuer", text(&leaf["spec"]["issuerRef"]["name"]));
    let root = overlay.named("Issuer", text(&ca["spec"]["issuerRef"]["name"]));

    let host = format!("{}.{}.svc", names::SERVICE, names::NAMESPACE);
    assert_eq!(leaf["spec"]["dnsNames"], json!([host]));
    assert_eq!(ca["spec"]["isCA"], true);
    assert_eq!(ca["spec"]["privateKey"]["rotationPolicy"], "Never");
    assert_eq!(issuer["spec"]["ca"]["secretName"], ca["spec"]["secretName"]);
    assert_eq!(root["spec"], json!({ "selfSigned": {} }));
    assert_ne!(ca["spec"]["secretName"], names::CA_SECRET, "two owners of one Secret");

    let registration = overlay.one("MutatingWebhookConfiguration");
    let source = format!("{}/{}", names::NAMESPACE, text(&leaf["metadata"]["name"]));
    let annotations = &registration["metadata"]["annotations"];
    assert_eq!(annotations["cert-manager.io/inject-ca-from"], source);

    let pod = &overlay.one("Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][0]["secret"]["secretName"], leaf["spec"]["secretName"]);
    assert_eq!(pod["volumes"][0]["secret"]["defaultMode"], 0o440);
    let mount = &overlay.container()["volumeMounts"][0];
    assert!(mount.get("subPath").is_none(), "files mounted by subPath are never renewed");
    let directory = text(&mount["mountPath"]);
    let args = overlay.args();
    assert!(args.contains(&format!("--tls-cert={directory}/tls.crt").as_str()), "{args:?}");
    assert!(args.contains(&format!("--tls-key={directory}/tls.key").as_str()), "{args:?}");
}
