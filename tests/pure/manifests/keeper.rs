//! The keeper beside the webhook: `components/keeper` and `overlays/keeper`.

use ca_overlap::names;
use serde_json::{Value, json};

use super::kustomization::{Manifests, has_key, id, text};
use super::program_knows_every_flag_and_variable;

const OVERLAY: &str = "overlays/keeper";
const NAME: &str = names::KEEPER_SERVICE_ACCOUNT;

/// The objects that the overlay adds to the base, whose own objects are unchanged.
fn component() -> Option<Manifests> {
    let mut overlay = Manifests::rendered(OVERLAY)?;
    for (id, object) in Manifests::base().by_id() {
        let at = overlay.objects.iter().position(|found| super::id(found) == id);
        let found = overlay.objects.remove(at.unwrap_or_else(|| panic!("no {id}")));
        assert_eq!(found, *object, "{id}");
    }
    Some(overlay)
}

#[test]
fn the_overlay_is_the_base_and_the_component() {
    let Some(component) = component() else { return };
    let kinds: Vec<&str> = component.objects.iter().map(|object| text(&object["kind"])).collect();
    for kind in [
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "Deployment",
        "PodDisruptionBudget",
        "NetworkPolicy",
    ] {
        assert!(kinds.contains(&kind), "no {kind}");
    }
    for object in &component.objects {
        let metadata = &object["metadata"];
        assert_eq!(metadata["name"], NAME, "{}", id(object));
        assert_eq!(metadata["labels"]["app.kubernetes.io/name"], "ca-overlap");
        assert_eq!(metadata["labels"]["app.kubernetes.io/component"], "keeper");
        assert!(!has_key(object, "caBundle"));
    }
}

#[test]
fn the_keeper_has_only_the_listed_rights() {
    let Some(component) = component() else { return };
    assert_eq!(
        component.one("ClusterRole")["rules"],
        json!([
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch", "patch"]},
            {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
            {
                "apiGroups": ["apps"],
                "resources": ["deployments", "statefulsets", "daemonsets"],
                "verbs": ["get", "patch"],
            },
            {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
        ])
    );
    assert_eq!(
        component.one("Role")["rules"],
        json!([
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "resourceNames": [names::KEEPER_LEASE],
                "verbs": ["get", "list", "watch", "patch"],
            },
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        ])
    );
    for (binding, role) in [("RoleBinding", "Role"), ("ClusterRoleBinding", "ClusterRole")] {
        let binding = component.one(binding);
        assert_eq!(binding["roleRef"]["kind"], role);
        assert_eq!(binding["roleRef"]["name"], NAME);
        let subject =
            json!([{"kind": "ServiceAccount", "name": NAME, "namespace": names::NAMESPACE}]);
        assert_eq!(binding["subjects"], subject);
    }
}

#[test]
fn the_full_overlay_adds_flags_an_entry_and_three_roles() {
    let Some(mut full) = Manifests::rendered("overlays/full") else { return };
    let Some(keeper) = Manifests::rendered(OVERLAY) else { return };
    let (staged, issuers) = ("ca-overlap-webhook-staged", "ca-overlap-keeper-issuers");
    let of_keeper = "ca-overlap-keeper-staged";
    assert_eq!(
        full.named("Role", staged)["rules"],
        json!([{
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [names::KEEPER_LEASE],
            "verbs": ["get", "list", "watch"],
        }])
    );
    let rules = &full.named("ClusterRole", of_keeper)["rules"];
    let verbs = rules.as_array().expect("rules").iter().map(|rule| &rule["verbs"]);
    assert!(verbs.eq([&json!(["list"]), &json!(["list"])]), "{rules}");
    for (binding, name, account) in [
        ("RoleBinding", staged, names::WEBHOOK_SERVICE_ACCOUNT),
        ("ClusterRoleBinding", of_keeper, NAME),
        ("ClusterRoleBinding", issuers, NAME),
    ] {
        let binding = full.named(binding, name);
        assert_eq!(binding["roleRef"]["name"], name);
        assert_eq!(binding["subjects"][0]["name"], account);
    }
    let added = [staged, of_keeper, issuers];
    full.objects.retain(|object| !added.contains(&text(&object["metadata"]["name"])));
    for (name, flags) in [
        (names::WEBHOOK_SERVICE_ACCOUNT, ["--staged", "--default-mode=staged"]),
        (NAME, ["--follow-issuers", "--default-mode=staged"]),
    ] {
        let is_it = |object: &&mut Value| {
            object["kind"] == "Deployment" && object["metadata"]["name"] == name
        };
        let deployment = full.objects.iter_mut().find(is_it).expect("a Deployment");
        let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
        let args = container["args"].as_array_mut().expect("args");
        let added = args.split_off(args.len() - flags.len());
        assert_eq!(added, flags, "{name}");
    }
    // Its two entries are compared with the one of the base elsewhere.
    let registration = keeper.one("MutatingWebhookConfiguration").clone();
    *full.one_mut("MutatingWebhookConfiguration") = registration;
    assert_eq!(full.by_id(), keeper.by_id());
    let Some(alias) = Manifests::rendered("overlays/staged") else { return };
    let Some(full) = Manifests::rendered("overlays/full") else { return };
    assert_eq!(alias.by_id(), full.by_id());
}

#[test]
fn the_keepers_pod_is_as_restricted_as_the_webhooks() {
    let Some(component) = component() else { return };
    let base = Manifests::base();
    let pod = &component.one("Deployment")["spec"]["template"]["spec"];
    let of_webhook = &base.one("Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"], of_webhook["securityContext"]);
    assert_eq!(component.container()["securityContext"], base.container()["securityContext"]);
    assert_eq!(component.container()["image"], base.container()["image"]);
    assert_eq!(pod["serviceAccountName"], NAME);
    assert_eq!(pod["automountServiceAccountToken"], true);
    assert_eq!(component.one("ServiceAccount")["automountServiceAccountToken"], false);
    assert_eq!(pod["enableServiceLinks"], false);
    assert_eq!(component.one("Deployment")["spec"]["replicas"], 2);
    assert_eq!(component.one("PodDisruptionBudget")["spec"]["maxUnavailable"], 1);
    assert_eq!(
        component.container()["ports"],
        json!([{"name": "admin", "containerPort": 8082, "protocol": "TCP"}])
    );
    let labels = &component.one("Deployment")["spec"]["template"]["metadata"]["labels"];
    assert_eq!(component.one("Deployment")["spec"]["selector"]["matchLabels"], *labels);
    assert_eq!(component.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"], *labels);
    let policy = &component.one("NetworkPolicy")["spec"];
    assert_eq!(policy["podSelector"]["matchLabels"], *labels);
    assert_eq!(policy["egress"], base.one("NetworkPolicy")["spec"]["egress"]);
    assert_eq!(policy["ingress"][0]["ports"], json!([{"port": 8082, "protocol": "TCP"}]));
    assert!(policy["ingress"][0]["from"].is_array() && policy["ingress"].get(1).is_none());
    let selects_webhook = &base.one("Service")["spec"]["selector"];
    assert_ne!(selects_webhook, labels, "the Service must not lead to the keeper");
}

#[test]
fn the_program_knows_every_flag_and_variable_of_the_keepers_pod() {
    let Some(component) = component() else { return };
    program_knows_every_flag_and_variable(&component, "keeper");
    assert!(component.args().contains(&"--admin-listen=0.0.0.0:8082"));
    let identity = |variable: &Value| variable["name"] == "CA_OVERLAP_IDENTITY";
    let variables = component.container()["env"].as_array().expect("env").clone();
    let of_pod = json!({"fieldRef": {"fieldPath": "metadata.name"}});
    let found = variables.into_iter().find(identity).expect("an identity");
    assert_eq!(found["valueFrom"], of_pod);
}
