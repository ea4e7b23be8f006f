//! `ca-overlap check --pre` on a real API server, where nothing is installed.

use std::collections::BTreeMap;
use std::path::Path;

use devtools::certs::{self, Identity, Spec, bundle};
use devtools::control_plane::{Options, Patches};
use devtools::secrets::{Secrets, secret, tls_secret};
use serde_json::{Value, json};

use crate::keeper::trust::{create_issuer, define_issuers, issued};
use crate::support::command::run;
use crate::support::{self, Plane, manifests};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Creates a pod that belongs to a controller, and refers to Secrets.
async fn pod(plane: &Plane, namespace: &str, owner: (&str, &str), spec: Value) {
    let (kind, name) = owner;
    let version = if kind == "Rollout" { "argoproj.io/v1alpha1" } else { "apps/v1" };
    // A Deployment's pods belong to a ReplicaSet.
    let (kind, name, labels) = match kind {
        "Deployment" => {
            ("ReplicaSet", format!("{name}-6d5f"), json!({"pod-template-hash": "6d5f"}))
        }
        _ => (kind, name.to_owned(), json!({})),
    };
    let owners = json!([{
        "apiVersion": version, "kind": kind, "name": name, "uid": "1", "controller": true,
    }]);
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{name}-x2x7q"), "labels": labels, "ownerReferences": owners},
        "spec": spec,
    });
    object["spec"]["automountServiceAccountToken"] = json!(false);
    plane.json("POST", &format!("/api/v1/namespaces/{namespace}/pods"), &object).await.unwrap();
}

/// A pod whose container mounts a volume of this source.
fn mounting(source: &Value, sub_path: Option<&str>) -> Value {
    let mut volume = source.clone();
    volume["name"] = json!("tls");
    let mut mount = json!({"name": "tls", "mountPath": "/tls"});
    if let Some(path) = sub_path {
        mount["subPath"] = json!(path);
    }
    json!({
        "volumes": [volume],
        "containers": [{"name": "it", "image": "it", "volumeMounts": [mount]}],
    })
}

fn of_secret(name: &str) -> Value {
    json!({"secret": {"secretName": name, "optional": true}})
}

/// Namespaces with a Secret for each outcome, and pods for each way to read one.
struct Filled {
    plane: Plane,
    shop: Secrets,
    off: Secrets,
}

async fn filled(test: &str) -> Option<Filled> {
    // Not from the pool: the CRDs would stay for the next test.
    let plane = Plane::with(Options::new(support::assets(test)?)).await;
    let shop = support::namespace(&plane, test, &json!({})).await;
    let off = support::namespace(&plane, test, &json!({"ca-overlap.dev/mode": "off"})).await;
    cert_manager(&plane, &shop.namespace).await;
    let ca = certs::ca();
    let own = |name: &str| tls_secret(name, &ca.pem, &ca.leaf("it"));
    let with = |name: &str, key: &str, value: &str| {
        let mut secret = own(name);
        secret["data"][key] = json!(value);
        secret
    };
    let mut vault = issued("vault", "ClusterIssuer", &ca);
    vault["metadata"]["annotations"]["cert-manager.io/issuer-name"] = json!("vault");
    let mut short = Spec { not_after: tomorrow(), ..certs::LEAF }.signed_by(&ca);
    short.key.clone_from(&ca.leaf("it").key);
    let mut immutable = own("immutable");
    immutable["immutable"] = json!(true);
    let mut labelled = own("labelled");
    labelled["metadata"]["labels"] = json!({"ca-overlap.dev/mode": "off"});
    let mut bundled = own("mode");
    bundled["metadata"]["labels"] = json!({"ca-overlap.dev/mode": "bundle"});
    let mut told = own("told");
    told["metadata"]["labels"] = json!({"team": "a"});
    told["metadata"]["annotations"] = json!({"ca-overlap.dev/restart": "deployment/envoy"});
    let mut foreign = own("foreign");
    foreign["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "psmdb.percona.com/v1", "kind": "PerconaServerMongoDB", "name": "m", "uid": "1",
    }]);
    let cas: Vec<Identity> = (0..65).map(|_| certs::ca()).collect();
    let store = bundle(&cas.iter().collect::<Vec<_>>());
    let mut token = secret(
        "token",
        "kubernetes.io/service-account-token",
        &[("ca.crt", ca.pem.as_bytes()), ("token", b"t")],
    );
    token["metadata"]["annotations"] = json!({"kubernetes.io/service-account.name": "default"});
    let leaf = ca.leaf("it");
    let pair = [("tls.crt", leaf.pem.as_bytes()), ("tls.key", leaf.key.as_bytes())];
    for object in [
        own("own"),
        with("keystore", "keystore.jks", "eA=="),
        issued("issued", "Issuer", &ca),
        issued("issued-for-all", "ClusterIssuer", &ca),
        vault,
        secret("trust", "Opaque", &[("ca.crt", ca.pem.as_bytes())]),
        secret("store", "Opaque", &[("ca.crt", store.as_bytes())]),
        secret("signer", "Opaque", &[("ca.crt", ca.pem.as_bytes()), ("ca.key", b"k")]),
        tls_secret("authority", &ca.pem, &ca),
        tls_secret("short", &ca.pem, &short),
        secret("public", "kubernetes.io/tls", &pair),
        secret("password", "Opaque", &[("password", b"x")]),
        immutable,
        labelled,
        bundled,
        told,
        foreign,
        token,
    ] {
        shop.create(&object).await.ok();
    }
    off.create(&own("own")).await.ok();
    let system = Secrets { namespace: "kube-system".to_owned(), ..shop.clone() };
    system.create(&own("system")).await.ok();
    readers(&plane, &shop.namespace).await;
    Some(Filled { plane, shop, off })
}

/// The controller of cert-manager in a namespace of its own, and three issuers.
async fn cert_manager(plane: &Plane, namespace: &str) {
    define_issuers(plane).await;
    create_issuer(plane, "Issuer", Some(namespace)).await;
    create_issuer(plane, "ClusterIssuer", None).await;
    let vault = json!({
        "apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer", "metadata": {"name": "vault"},
        "spec": {"vault": {"server": "https://vault"}},
    });
    plane.json("POST", "/apis/cert-manager.io/v1/clusterissuers", &vault).await.unwrap();
    let central = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "central"}});
    plane.json("POST", "/api/v1/namespaces", &central).await.unwrap();
    let labels = json!({
        "app.kubernetes.io/name": "cert-manager", "app.kubernetes.io/component": "controller",
        "app.kubernetes.io/version": "v1.19.1",
    });
    let controller = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "it", "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "it", "image": "it"}]},
        }},
    });
    plane.json("POST", "/apis/apps/v1/namespaces/central/deployments", &controller).await.unwrap();
}

/// Pods that read the Secrets.
async fn readers(plane: &Plane, namespace: &str) {
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    plane.json("POST", &path, &account).await.unwrap();
    for (owner, spec) in [
        (("Deployment", "envoy"), mounting(&of_secret("own"), None)),
        (("StatefulSet", "db"), mounting(&of_secret("own"), Some("ca.crt"))),
        (("Rollout", "web"), mounting(&of_secret("own"), Some("tls.crt"))),
        (
            ("DaemonSet", "agent"),
            mounting(&json!({"projected": {"sources": [{"secret": {"name": "keystore"}}]}}), None),
        ),
        (("Deployment", "env"), {
            let source = json!({"secretKeyRef": {"name": "keystore", "key": "ca.crt"}});
            let env = json!([{"name": "CA", "valueFrom": source}]);
            json!({"containers": [{"name": "it", "image": "it", "env": env}]})
        }),
        (("Deployment", "env-from"), {
            let from = json!([{"secretRef": {"name": "trust"}}]);
            json!({"containers": [{"name": "it", "image": "it", "envFrom": from}]})
        }),
        (("Deployment", "told"), mounting(&of_secret("told"), Some("ca.crt"))),
        // It cannot be helped, and nothing is changed.
        (("Deployment", "public"), mounting(&of_secret("public"), Some("tls.crt"))),
    ] {
        pod(plane, namespace, owner, spec).await;
    }
}

/// A leaf that expires then is not held.
fn tomorrow() -> (i32, u8, u8) {
    let day = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24))
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date();
    (day.year().into(), day.month().try_into().unwrap(), day.day().try_into().unwrap())
}

/// The plan of each Secret of a namespace, with the reason.
fn plans(json: &Value, namespace: &str) -> BTreeMap<String, (String, String)> {
    let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    let all = json["secrets"].as_array().unwrap().iter();
    let all = all.filter(|it| it["namespace"] == namespace);
    all.map(|it| (text(&it["name"]), (text(&it["plan"]), text(&it["reason"])))).collect()
}

/// The result of each check.
fn checks(json: &Value) -> BTreeMap<&str, &str> {
    let all = json["checks"].as_array().unwrap().iter();
    all.map(|it| (it["name"].as_str().unwrap(), it["result"].as_str().unwrap())).collect()
}

/// The `resourceVersion` of all that a write could change, and the number of writes that the API
/// server has answered.
async fn state(plane: &Plane) -> (Vec<String>, f64) {
    let mut versions = Vec::new();
    for kind in ["secrets", "pods", "namespaces", "configmaps", "serviceaccounts"] {
        let list = plane.json("GET", &format!("/api/v1/{kind}"), &Value::Null).await.unwrap();
        let items = list["items"].as_array().unwrap().iter();
        versions.extend(items.map(|it| it["metadata"].to_string()));
    }
    let metrics = plane.metrics().await.unwrap();
    let writes = ["secrets", "pods", "namespaces", "configmaps", "clusterroles", "deployments"]
        .into_iter()
        .flat_map(|kind| ["POST", "PUT", "PATCH", "APPLY", "DELETE"].map(|verb| (kind, verb)))
        .map(|(kind, verb)| {
            let labels = [format!("resource=\"{kind}\""), format!("verb=\"{verb}\"")];
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            support::sum(&metrics, "apiserver_request_total", &labels)
        });
    (versions, writes.sum())
}

#[tokio::test]
async fn check_pre_shows_the_plan_and_writes_nothing() {
    let test = "check_pre_shows_the_plan_and_writes_nothing";
    let Some(Filled { plane, shop, off }) = filled(test).await else { return };
    let kubeconfig = plane.admin_kubeconfig();
    let before = state(&plane).await;
    let ended = run(&kubeconfig, &["check", "--pre"]);
    let shown = ended.with_code(0);
    assert_eq!(ended.stderr, "");
    let json = run(&kubeconfig, &["check", "--pre", "-A", "-o", "json"]).json();
    let yaml = run(&kubeconfig, &["check", "--pre", "-o", "yaml"]);
    assert_eq!(serde_saphyr::from_str::<Value>(yaml.with_code(0)).unwrap(), json);
    assert!(before.1 > 0.0, "writes are counted");
    assert_eq!(state(&plane).await, before);

    assert_eq!(json["apiVersion"], "ca-overlap.dev/v1alpha1");
    assert_eq!(json["kind"], "InstallationPlan");
    let names = ["certManager", "grants", "kubernetes", "rights", "webhooks"];
    assert_eq!(checks(&json), names.map(|name| (name, "good")).into());
    let found = json["checks"].to_string();
    for part in ["v1.19.1; issuers with a CA, ", ": 2 of 3", "=central", "no other webhook"] {
        assert!(found.contains(part), "{found}");
    }
    let expected = [
        ("authority", "leftAlone", "signer"),
        ("foreign", "leftAlone", "foreignOverlap"),
        ("immutable", "leftAlone", "immutable"),
        ("issued", "announced", "stagedCertManager"),
        ("issued-for-all", "announced", "stagedCertManager"),
        ("keystore", "bundled", "stagedOtherKeys"),
        ("labelled", "leftAlone", "off"),
        ("mode", "bundled", "mode"),
        ("own", "staged", ""),
        ("public", "leftAlone", "noCa"),
        ("short", "bundled", "stagedLeafExpires"),
        ("signer", "leftAlone", "signer"),
        ("store", "leftAlone", "trustStore"),
        ("token", "leftAlone", "serviceAccountToken"),
        ("told", "staged", ""),
        ("trust", "bundled", "noPair"),
        ("vault", "bundled", "stagedCertManager"),
    ];
    let expected = expected.map(|(name, plan, why)| (name.into(), (plan.into(), why.into())));
    assert_eq!(plans(&json, &shop.namespace), expected.into());
    let expected = [("own".to_owned(), ("leftAlone".to_owned(), "namespaceOff".to_owned()))];
    assert_eq!(plans(&json, &off.namespace), expected.into());
    assert_eq!(plans(&json, "kube-system")["system"].1, "systemNamespace");
    let all = json["secrets"].as_array().unwrap();
    let summary = &json["summary"];
    assert_eq!(summary["secrets"], all.len());
    let outcomes = ["staged", "announced", "bundled", "leftAlone"];
    assert_eq!(outcomes.map(|it| summary[it].as_u64().unwrap()), [2, 2, 5, 10]);
    assert_eq!(
        (&summary["readers"], &summary["readersThatNeverSeeNewFiles"]),
        (&json!(8), &json!(6))
    );

    shows_readers(&json, &shop.namespace);
    shows_text(shown, &shop.namespace);
    narrower(&kubeconfig, &shop.namespace, &off.namespace);
    callers(&plane, &kubeconfig, &shop.namespace).await;
    plane.install(&manifests().join("base"), Patches::default()).await.unwrap();
    let json = run(&kubeconfig, &["check", "--pre", "-o", "json"]).json();
    assert!(json["checks"].to_string().contains("installed already"), "{json}");
}

fn shows_readers(json: &Value, namespace: &str) {
    let all = json["secrets"].as_array().unwrap();
    let of = |name: &str| {
        all.iter().find(|it| it["namespace"] == namespace && it["name"] == name).unwrap()
    };
    assert_eq!(of("issued")["announcedFrom"], json!([format!("{namespace}/root")]));
    assert_eq!(of("issued-for-all")["announcedFrom"], json!(["central/root"]));
    let reader = |kind: &str, group: &str, name: &str, how: &str, new_files: &str| json!({"kind": kind, "group": group, "name": name, "uses": [how], "newFiles": new_files});
    let readers = json!([
        reader("Deployment", "", "envoy", "mount", "unknown"),
        reader("Rollout", "argoproj.io", "web", "subPath", "never"),
        reader("StatefulSet", "", "db", "subPath", "never"),
    ]);
    assert_eq!(of("own")["readers"], readers);
    assert_eq!(of("own")["restart"], "statefulset/db");
    let readers = json!([
        reader("DaemonSet", "", "agent", "mount", "unknown"),
        reader("Deployment", "", "env", "environment", "never"),
    ]);
    assert_eq!(of("keystore")["readers"], readers);
    assert_eq!(of("trust")["restart"], "deployment/env-from");
    assert_eq!(of("told")["restart"], "deployment/envoy,deployment/told", "what is there stays");
    assert_eq!((&of("public")["restart"], &of("issued")["restart"]), (&json!(null), &json!(null)));
}

fn shows_text(shown: &str, namespace: &str) {
    for part in [
        "The plan of overlays/full for all namespaces: 18 Secrets",
        "1 ServiceAccount token with a ca.crt: left alone, and not listed.",
        &format!(
            "kubectl annotate secret -n {namespace} own --overwrite \\\n    ca-overlap.dev/restart=statefulset/db\n"
        ),
        &format!("  {namespace} rollout.argoproj.io/web\n"),
        "never: subPath",
        "cannot be told",
        "the Secret has other data besides ca.crt and tls.*",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    assert!(!shown.contains('\u{1b}') && !shown.contains("password"), "{shown}");
}

/// A narrower scope, a namespace that is none, and another place for ca-overlap.
fn narrower(kubeconfig: &Path, shop: &str, off: &str) {
    let json = |arguments: &[&str]| {
        run(kubeconfig, &[&["check", "--pre", "-o", "json"], arguments].concat()).json()
    };
    assert_eq!(json(&["-n", off])["secrets"].as_array().unwrap().len(), 1);
    assert_eq!(json(&["-A", "-n", off]), json(&[]));
    let labelled = json(&["-l", "team=a"]);
    assert_eq!(plans(&labelled, shop).into_keys().collect::<Vec<_>>(), ["told"]);
    assert_eq!(plans(&json(&["--ca-overlap-namespace", shop]), shop)["own"].1, "ownNamespace");
    let ended = run(kubeconfig, &["check", "--pre", "-n", "no-such-namespace"]);
    assert_eq!(
        (ended.with_code(2), &*ended.stderr),
        ("", "ca-overlap: there is no namespace no-such-namespace\n")
    );
}

/// Lets a user do this in the whole cluster.
async fn allow(plane: &Plane, user: &str, rules: &Value) {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": user}, "rules": rules,
    });
    plane.json("POST", &format!("{RBAC}/clusterroles"), &role).await.unwrap();
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    plane.json("POST", &format!("{RBAC}/clusterrolebindings"), &binding).await.unwrap();
}

/// Callers with few rights.
async fn callers(plane: &Plane, kubeconfig: &Path, namespace: &str) {
    let rule = |verbs: &[&str], resources: &[&str]| json!({"apiGroups": ["*"], "verbs": verbs, "resources": resources});
    let reads = rule(&["get", "list"], &["secrets", "namespaces"]);
    let creates = rule(&["create"], &["*"]);
    let gives = rule(&["escalate", "bind"], &["roles", "clusterroles"]);
    allow(plane, "reader", &json!([reads])).await;
    allow(plane, "creator", &json!([creates])).await;
    allow(plane, "installer", &json!([creates, gives])).await;
    let pre = |user: &str| {
        let ended = run(kubeconfig, &["check", "--pre", "--as", user, "-o", "json"]);
        (ended.code, ended.json())
    };
    // He sees the plan, and not who reads the Secrets.
    let (code, json) = pre("reader");
    assert_eq!(code, 1, "{json}");
    let found = checks(&json);
    assert_eq!((found["rights"], found["grants"], found["pods"]), ("bad", "bad", "unknown"));
    assert!(json.to_string().contains("you may not create namespaces, create serviceaccounts"));
    assert_eq!(plans(&json, namespace)["own"].0, "staged");
    assert!(json["secrets"].as_array().unwrap().iter().all(|it| it["readers"].is_null()), "{json}");
    let shown = run(kubeconfig, &["check", "--pre", "--as", "reader"]);
    assert!(shown.stdout.contains("\n– pods ") && shown.stdout.contains("not known"), "{shown:?}");
    // Who may create roles may not give rights that he lacks.
    let (code, json) = pre("creator");
    let found = checks(&json);
    assert_eq!((code, found["rights"], found["grants"]), (1, "good", "bad"), "{json}");
    assert!(json.to_string().contains("what you lack: get secrets/ca-overlap-ca, "), "{json}");
    let (code, json) = pre("installer");
    let found = checks(&json);
    assert_eq!((code, found["rights"], found["grants"]), (2, "good", "good"), "{json}");
    for name in ["webhooks", "certManager", "namespaces", "secrets", "pods"] {
        assert_eq!(found[name], "unknown", "{json}");
    }
    assert_eq!(json["secrets"], json!([]));
}
