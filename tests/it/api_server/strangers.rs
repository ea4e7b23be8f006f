//! Who may not `get` a Secret never sees a key by writing it. The API server itself tells readers
//! and strangers apart: real users, with real rights of every form.

use base64::prelude::*;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use super::setup::{NAME, Setup};
use super::staged::{grant_and_lease, pairs, staged, values};
use crate::support::command::run;
use crate::support::{Cluster, Plane, sum};
use devtools::certs::Identity;
use devtools::secrets::{Answer, MERGE, Secrets, tls_secret};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Gives a subject these verbs on Secrets, on all or on the named one, by a Role of the namespace or
/// by a `ClusterRole`.
async fn grant(cluster: &Cluster, rights: Rights<'_>, namespace: &str, subject: &Value) {
    let Rights { kind, verbs, only } = rights;
    let name = format!("{}-{}", subject["name"].as_str().unwrap(), verbs.join("-"));
    let name = name.replace(':', "-");
    let mut permission = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": verbs});
    if let Some(only) = only {
        permission["resourceNames"] = json!([only]);
    }
    let within = format!("/apis/{RBAC}/v1/namespaces/{namespace}");
    let (root, plural) = if kind == "Role" {
        (within.as_str(), "")
    } else {
        ("/apis/rbac.authorization.k8s.io/v1", "cluster")
    };
    let version = format!("{RBAC}/v1");
    let role = json!({
        "apiVersion": version, "kind": kind, "metadata": {"name": name}, "rules": [permission],
    });
    let binding = json!({
        "apiVersion": version, "kind": format!("{kind}Binding"), "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": name}, "subjects": [subject],
    });
    for (path, object) in [("roles", role), ("rolebindings", binding)] {
        let path = format!("{root}/{plural}{path}");
        cluster.plane.json("POST", &path, &object).await.unwrap();
    }
}

struct Rights<'a> {
    /// `Role` or `ClusterRole`.
    kind: &'a str,
    verbs: &'a [&'a str],
    only: Option<&'a str>,
}

impl<'a> Rights<'a> {
    const fn of(verbs: &'a [&'a str]) -> Self {
        Self { kind: "Role", verbs, only: None }
    }
}

/// The subject of a `ServiceAccount`.
fn account(namespace: &str, name: &str) -> Value {
    json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "name": name, "apiGroup": RBAC})
}

/// The Secrets as a `ServiceAccount` sees them, by a token of its own.
async fn by_account(cluster: &Cluster, of: &str, name: &str, secrets: &Secrets) -> Secrets {
    let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    let path = format!("/api/v1/namespaces/{of}/serviceaccounts");
    cluster.plane.json("POST", &path, &object).await.unwrap();
    let file = cluster.plane.service_account_kubeconfig(of, name).await.unwrap();
    let config = Kubeconfig::read_from(file).unwrap();
    by_config(config, AuthInfo::default(), secrets).await
}

/// The Secrets as an administrator sees them who acts as this user of this group.
async fn by_user(cluster: &Cluster, user: &str, of: &str, secrets: &Secrets) -> Secrets {
    let config = Kubeconfig::read_from(cluster.plane.admin_kubeconfig()).unwrap();
    let acting = AuthInfo {
        impersonate: Some(user.to_owned()),
        impersonate_groups: Some(vec![of.to_owned(), "system:authenticated".to_owned()]),
        ..AuthInfo::default()
    };
    by_config(config, acting, secrets).await
}

async fn by_config(config: Kubeconfig, acting: AuthInfo, secrets: &Secrets) -> Secrets {
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(config, &options).await.unwrap();
    config.auth_info.impersonate = acting.impersonate;
    config.auth_info.impersonate_groups = acting.impersonate_groups;
    Secrets::new(config.try_into().unwrap(), secrets.namespace.clone())
}

/// The Secrets as a user sees them who may create and update them, and no more.
pub async fn stranger(cluster: &Cluster, secrets: Secrets) -> Secrets {
    let writes = Rights::of(&["create", "update"]);
    grant(cluster, writes, &secrets.namespace, &group("strangers")).await;
    by_user(cluster, "stranger", "strangers", &secrets).await
}

/// Whether any text of the answer holds this private key.
fn shows(answer: &Answer, key: &Identity) -> bool {
    answer.body.to_string().contains(&BASE64_STANDARD.encode(&key.key))
}

/// A cluster with the overlay `staged`, whose webhook knows a fresh Lease.
async fn start(test: &str) -> Option<Cluster> {
    let cluster = Cluster::on(Plane::exclusive(test).await?, test, "staged").await?;
    grant_and_lease(&cluster).await;
    cluster.start_webhook("webhook", cluster.port_443(), &["--staged"]).await.unwrap();
    staged(&cluster).await;
    Some(cluster)
}

/// A Secret that a rotation would stage: its mode is stored.
async fn unstaged(cluster: &Cluster) -> (Setup, Identity) {
    let setup = Setup::new(cluster.namespace("strangers").await);
    let leaf = setup.leaf("CA1");
    let mut first = setup.fresh("CA1", &leaf);
    first["metadata"]["labels"] = json!({"ca-overlap.dev/mode": "staged"});
    setup.secrets.create(&first).await.ok();
    (setup, leaf)
}

async fn calls(cluster: &Cluster) -> f64 {
    sum(&cluster.metrics().await, "ca_overlap_admissions_total", &[])
}

/// The rotation by a writer, as a dry run and as a real write. A writer who may only patch sends a PATCH.
async fn rotates(writer: &Secrets, setup: &Setup, new: &Identity, how: &str) -> [Answer; 2] {
    let mut object = tls_secret(NAME, &setup.pem("CA2"), new);
    let mut answers = Vec::new();
    for query in ["dryRun=All", ""] {
        let answer = if how == "patch" {
            object["metadata"] = json!({});
            writer.patch(NAME, MERGE, query, &object).await
        } else {
            writer.put_with(NAME, query, &object).await
        };
        answers.push(answer.ok());
    }
    answers.try_into().unwrap()
}

#[tokio::test]
async fn only_writers_who_may_read_a_secret_stage_it() {
    const BOTH: Rights<'_> = Rights::of(&["update", "get"]);
    const UPDATE: Rights<'_> = Rights::of(&["update"]);
    let Some(cluster) = start("strangers").await else { return };
    for (who, may_read) in [
        ("update", false),
        ("patch", false),
        ("get-other", false),
        ("user", false),
        ("role", true),
        ("cluster-role", true),
        ("get-this", true),
        ("group", true),
        ("user-of-group", true),
        ("administrator", true),
    ] {
        let (setup, old) = unstaged(&cluster).await;
        let namespace = setup.secrets.namespace.clone();
        let me = account(&namespace, who);
        let only = |only| Rights { only: Some(only), ..Rights::of(&["get"]) };
        let rights = match who {
            "update" => vec![(UPDATE, me)],
            "patch" => vec![(Rights::of(&["patch"]), me)],
            "role" => vec![(BOTH, me)],
            "cluster-role" => vec![(Rights { kind: "ClusterRole", ..BOTH }, me)],
            "get-this" => vec![(UPDATE, me.clone()), (only(NAME), me)],
            "get-other" => vec![(UPDATE, me.clone()), (only("other"), me)],
            "group" => {
                let all = group(&format!("system:serviceaccounts:{namespace}"));
                vec![(UPDATE, me), (Rights::of(&["get"]), all)]
            }
            "user" => vec![(UPDATE, group("writers"))],
            "user-of-group" => vec![(BOTH, group("writers"))],
            _ => vec![],
        };
        for (rights, subject) in rights {
            grant(&cluster, rights, &namespace, &subject).await;
        }
        let writer = match who {
            "administrator" => setup.secrets.clone(),
            "user" | "user-of-group" => by_user(&cluster, "eve", "writers", &setup.secrets).await,
            _ => by_account(&cluster, &namespace, who, &setup.secrets).await,
        };
        let new = setup.leaf("CA2");
        let before = calls(&cluster).await;
        let answers = rotates(&writer, &setup, &new, who).await;
        let made = calls(&cluster).await - before;
        // One for each write. The API server may try a PATCH again, on a fresh copy.
        let most = if who == "patch" { 4.5 } else { 2.5 };
        assert!(made > 1.5 && made < most, "{who}: {made} calls for two writes");
        for answer in &answers {
            let expected = if may_read { values(&old, Some(&new)) } else { values(&new, None) };
            assert_eq!(pairs(answer), expected, "{who}");
            assert_eq!(answer.pem("ca.crt"), setup.pem("CA2 CA1"), "{who}");
            assert_eq!(shows(answer, &old), may_read, "{who}");
            let says_why = answer.warnings.iter().any(|w| w.contains("may not read"));
            assert_eq!(says_why, !may_read, "{who}: {:?}", answer.warnings);
        }
        let shown = run(&cluster.plane.admin_kubeconfig(), &["status", "-n", &namespace]).stdout;
        assert_eq!(shown.contains("not staged: its writer may not read it"), !may_read, "{shown}");
    }
}

#[tokio::test]
async fn a_stranger_sees_no_key_of_a_stage_and_cannot_ask_for_one() {
    let Some(cluster) = start("stage-and-stranger").await else { return };
    for (number, query) in ["dryRun=All", ""].into_iter().enumerate() {
        let (setup, held, waiting) = staged(&cluster).await;
        let namespace = &setup.secrets.namespace;
        grant(&cluster, Rights::of(&["update"]), namespace, &account(namespace, "eve")).await;
        let eve = by_account(&cluster, namespace, "eve", &setup.secrets).await;
        // With the mode in the same write, and the held leaf, which is public, without its key.
        let own = setup.leaf("CA3");
        let mut object = tls_secret(NAME, &setup.pem("CA3"), &own);
        object["metadata"]["labels"] = json!({"ca-overlap.dev/mode": "staged"});
        let mut public = object.clone();
        public["data"]["tls.crt"] = BASE64_STANDARD.encode(&held.pem).into();
        for (object, key) in [(public, &held), (object, &own)] {
            let answer = eve.put_with(NAME, query, &object).await.ok();
            assert!(!shows(&answer, &held) && !shows(&answer, &waiting), "{number}");
            assert_eq!(pairs(&answer), [&key.pem, &own.key, "", ""].map(str::to_owned), "{number}");
        }
        let stored = setup.secrets.get(NAME).await.ok();
        let expected = if number == 0 { values(&held, Some(&waiting)) } else { values(&own, None) };
        assert_eq!(pairs(&stored), expected, "a dry run stores nothing");
    }
}

#[tokio::test]
async fn who_may_only_patch_changes_nothing_of_a_stage() {
    let Some(cluster) = start("patch-and-stage").await else { return };
    let (setup, held, waiting) = staged(&cluster).await;
    let namespace = &setup.secrets.namespace;
    grant(&cluster, Rights::of(&["patch"]), namespace, &account(namespace, "eve")).await;
    let eve = by_account(&cluster, namespace, "eve", &setup.secrets).await;
    let annotations = json!({"ca-overlap.dev/staged": null, "ca-overlap.dev/carried": null});
    for patch in [
        json!({"metadata": {"labels": {"app": "x"}}}),
        json!({"metadata": {"annotations": annotations}}),
        json!({"metadata": {"labels": {"ca-overlap.dev/phase": null}}}),
    ] {
        let answer = eve.patch(NAME, MERGE, "", &patch).await.ok();
        assert_eq!(pairs(&answer), values(&held, Some(&waiting)));
        assert_eq!(answer.label("ca-overlap.dev/phase"), Some("staged"));
    }
}

#[tokio::test]
async fn a_creation_is_reviewed_once_whoever_writes_it_and_whatever_its_name() {
    let Some(cluster) = start("creations").await else { return };
    let (setup, held, waiting) = staged(&cluster).await;
    let stored = setup.secrets.get(NAME).await.ok().body;
    let eve = stranger(&cluster, setup.secrets.clone()).await;
    for (writer, may_read) in [(&setup.secrets, true), (&eve, false)] {
        for name in [json!({"name": format!("copy-{may_read}")}), json!({"generateName": "copy-"})]
        {
            let mut copy = stored.clone();
            let metadata = &stored["metadata"];
            copy["metadata"] = name;
            for map in ["labels", "annotations"] {
                copy["metadata"][map] = metadata[map].clone();
            }
            let is_nameless = copy["metadata"]["name"].is_null();
            let before = calls(&cluster).await;
            let answer = writer.create(&copy).await.ok();
            let made = calls(&cluster).await - before;
            assert!((made - 1.0).abs() < 0.5, "{made} calls for {}", copy["metadata"]["name"]);
            assert_eq!(answer.annotation("ca-overlap.dev/carried"), Some("[]"));
            // The writer of a new object has all of its keys.
            let stages = may_read || is_nameless;
            assert_eq!(pairs(&answer), values(&held, stages.then_some(&waiting)), "{may_read}");
        }
    }
}
