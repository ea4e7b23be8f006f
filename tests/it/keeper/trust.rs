//! The CAs of sources are announced to the Secrets that follow them.

use base64::prelude::*;
use ca_overlap::names;
use ca_overlap::overlap::announcement::Announcement;
use ca_overlap::overlap::ask::Ask;
use ca_overlap::overlap::source::Previous;
use futures::StreamExt;
use serde_json::{Value, json};

use super::scale::{memory, number};
use super::setup::{Rotation, Setup, eventually};
use crate::support::{self, Plane};
use devtools::certs::{self, Identity, bundle};
use devtools::control_plane::{ControlPlane, Options};
use devtools::secrets::{Answer, MERGE, Secrets, secret, tls_secret};

const SETTLE: &str = "2s";
const ISSUERS: &str = "../../tests/data/issuers";

/// A cluster whose keeper may follow issuers. Its control plane is not from the pool: the CRDs would
/// stay for the next test.
async fn with_issuers(test: &str) -> Option<Setup> {
    let plane = Plane::with(Options::new(support::assets(test)?)).await;
    Setup::on(plane, test, ISSUERS, &[]).await
}

/// A Secret of a CA as a user makes it, without `ca.crt`.
fn signer(name: &str, ca: &Identity) -> Value {
    let data = [("tls.crt", ca.pem.as_bytes()), ("tls.key", ca.key.as_bytes())];
    secret(name, "kubernetes.io/tls", &data)
}

/// As many Secrets of one issuer, in three namespaces. Each run of the tests has a few;
/// `make keeper-followers` has ten thousand, prints the figures and checks the bars.
#[tokio::test(flavor = "multi_thread")]
async fn many_followers_are_told_of_the_next_ca_in_time_and_then_nothing_is_written() {
    let test = "many_followers_are_told_of_the_next_ca_in_time_and_then_nothing_is_written";
    let measured = number("CA_OVERLAP_FOLLOWERS");
    let count = measured.unwrap_or(90);
    let Some(setup) = with_issuers(test).await else { return };
    let central = setup.cluster.namespace("central").await;
    define_issuers(&setup.cluster.plane).await;
    let [old, new] = ["Old", "New"].map(certs::ca_named);
    central.create(&root("root", &old)).await.ok();
    create_issuer(&setup.cluster.plane, "ClusterIssuer", None).await;
    let mut namespaces = Vec::new();
    for name in ["a", "b", "c"] {
        namespaces.push(setup.cluster.namespace(name).await);
    }
    let leaf = issued("x", "ClusterIssuer", &old);
    let creations = futures::stream::iter(0..count).map(|number| {
        let mut object = leaf.clone();
        object["metadata"]["name"] = json!(format!("leaf-{number}"));
        let secrets = namespaces[usize::try_from(number).unwrap() % namespaces.len()].clone();
        async move { drop(secrets.create(&object).await.ok()) }
    });
    creations.buffer_unordered(32).collect::<Vec<()>>().await;

    let follow = ["--follow-issuers", "--cluster-resource-namespace", &central.namespace];
    let keeper = setup.leading_keeper(&follow).await;
    let pid = keeper.process.pid();
    eventually("a source", async || {
        let source = central.get("root").await;
        (source.label(names::SOURCE) == Some("issuer")).then_some(())
    })
    .await;
    let announced = async || keeper.asks("announce", "done").await;
    assert!(announced().await < 0.5, "what is there already is not announced");
    let begin = std::time::Instant::now();
    central.put("root", &root("root", &new)).await.ok();
    eventually("an announcement to all", async || {
        (announced().await > f64::from(count) - 0.5).then_some(())
    })
    .await;
    let (taken, peak) = (begin.elapsed(), memory(pid, "VmHWM"));
    println!("{count} followers: told after {:.1} s; {peak:.1} MiB at most", taken.as_secs_f64());
    if measured.is_some() {
        assert!(taken.as_secs() <= 60 && peak <= 128.0, "{taken:?}, {peak} MiB");
    }
    // Another keeper compares all of them again, and writes nothing.
    let last = namespaces[0].get("leaf-0").await;
    drop(keeper);
    namespaces[0].create(&signer("local", &old)).await.ok();
    let keeper = setup.leading_keeper(&follow).await;
    marker(&namespaces[0], "marker", "local", &old).await;
    assert_eq!(namespaces[0].get("leaf-0").await.resource_version(), last.resource_version());
    assert!(keeper.asks("announce", "done").await < 1.5, "only to the marker");
}

async fn annotate(secrets: &Secrets, name: &str, key: &str, value: Option<&str>) {
    let patch = json!({"metadata": {"annotations": {key: value}}});
    secrets.patch(name, MERGE, "fieldManager=person", &patch).await.ok();
}

async fn label_source(secrets: &Secrets, name: &str, value: Option<&str>) {
    let patch = json!({"metadata": {"labels": {names::SOURCE: value}}});
    secrets.patch(name, MERGE, "fieldManager=person", &patch).await.ok();
}

/// Waits until `ca.crt` holds these.
async fn trusts(secrets: &Secrets, name: &str, cas: &[&Identity]) -> Answer {
    let wanted = bundle(cas);
    eventually(&format!("{} CAs in {name}", cas.len()), async || {
        let stored = secrets.get(name).await.ok();
        (stored.pem("ca.crt") == wanted).then_some(stored)
    })
    .await
}

/// Waits until a new Secret that trusts the same source was told so: then the keeper has handled all
/// earlier writes.
async fn marker(secrets: &Secrets, name: &str, source: &str, ca: &Identity) {
    let own = certs::ca_named("marker");
    let mut marker = tls_secret(name, &own.pem, &own.leaf("marker"));
    marker["metadata"]["annotations"] = json!({names::TRUST: source});
    secrets.create(&marker).await.ok();
    trusts(secrets, name, &[&own, ca]).await;
    secrets.delete(name).await.ok();
}

fn named(secrets: &Secrets, name: &str) -> Rotation {
    Rotation { secrets: secrets.clone(), name: name.to_owned(), generation: Vec::new() }
}

#[tokio::test]
async fn a_secret_trusts_the_sources_that_it_names_and_that_consent() {
    let test = "a_secret_trusts_the_sources_that_it_names_and_that_consent";
    let Some(setup) = Setup::start(test).await else { return };
    let keeper = setup.leading_keeper(&["--settle", SETTLE]).await;
    let [shop, infra] =
        [setup.cluster.namespace("shop").await, setup.cluster.namespace("infra").await];
    let [own, first, second, local] = ["Own", "First", "Second", "Local"].map(certs::ca_named);
    infra.create(&signer("root", &first)).await.ok();
    shop.create(&tls_secret("local", &local.pem, &local.leaf("local"))).await.ok();
    shop.create(&tls_secret("web", &own.pem, &own.leaf("web"))).await.ok();
    let trust = format!("{}/root,local,missing", infra.namespace);
    annotate(&shop, "web", names::TRUST, Some(&trust)).await;

    // A source in the same namespace needs no consent.
    trusts(&shop, "web", &[&own, &local]).await;
    let web = named(&shop, "web");
    eventually("two Events", async || {
        (setup.events(&web, "TrustRefused").await.len() == 2).then_some(())
    })
    .await;
    label_source(&infra, "root", Some("issuer")).await;
    label_source(&infra, "root", Some("true")).await;
    let told = trusts(&shop, "web", &[&own, &local, &first]).await;
    let path = format!("/api/v1/namespaces/{}", infra.namespace);
    let namespace = setup.cluster.plane.json("GET", &path, &Value::Null).await.unwrap();
    let uid = namespace["metadata"]["uid"].as_str().unwrap();
    let trusted = format!("{}={uid}", infra.namespace);
    assert_eq!(told.annotation(names::TRUSTED), Some(trusted.as_str()));
    let source = infra.get("root").await.ok();
    assert_eq!((source.pem("tls.crt"), source.data("ca.crt")), (first.pem.clone(), None));

    // The generator drops what it does not know, and the webhook restores it.
    let again = shop.put("web", &tls_secret("web", &own.pem, &own.leaf("web"))).await.ok();
    assert_eq!(again.pem("ca.crt"), bundle(&[&own, &local, &first]));
    marker(&shop, "marker", "local", &local).await;
    assert_eq!(shop.get("web").await.resource_version(), again.resource_version());

    // The source moves on to another CA. No leaf is of the first one.
    infra.put("root", &signer("root", &second)).await.ok();
    trusts(&shop, "web", &[&own, &local, &second]).await;
    // A deleted source is not trusted any more, nor is one that does not consent any more.
    shop.delete("local").await.ok();
    trusts(&shop, "web", &[&own, &second]).await;
    label_source(&infra, "root", None).await;
    trusts(&shop, "web", &[&own]).await;
    label_source(&infra, "root", Some("true")).await;
    trusts(&shop, "web", &[&own, &second]).await;
    annotate(&shop, "web", names::TRUST, None).await;
    let end = trusts(&shop, "web", &[&own]).await;
    assert_eq!((end.annotation(names::CARRIED), end.label(names::PHASE)), (Some("[]"), None));
    assert_eq!(end.annotation(names::TRUSTED), None);
    assert!(keeper.asks("announce", "done").await > 0.0);
    for result in ["refused", "not_seen", "failed"] {
        assert!(keeper.asks("announce", result).await < 0.5, "{result}");
    }
}

#[tokio::test]
async fn nothing_is_written_to_followers_for_which_the_webhook_is_not_called() {
    let test = "nothing_is_written_to_followers_for_which_the_webhook_is_not_called";
    let Some(setup) = Setup::start(test).await else { return };
    setup.stop_webhook().await;
    let shop = setup.cluster.namespace("shop").await;
    let [own, source] = ["Own", "Source"].map(certs::ca_named);
    shop.create(&tls_secret("source", &source.pem, &source.leaf("source"))).await.ok();
    let mut web = tls_secret("web", &own.pem, &own.leaf("web"));
    web["metadata"]["annotations"] = json!({names::TRUST: "source"});
    let created = shop.create(&web).await.ok();
    let keeper = setup.leading_keeper(&["--settle", SETTLE]).await;
    eventually("asks that are not seen", async || {
        (keeper.asks("announce", "not_seen").await > 1.5).then_some(())
    })
    .await;
    assert_eq!(shop.get("web").await.resource_version(), created.resource_version());
    setup.start_webhook().await;
    trusts(&shop, "web", &[&own, &source]).await;
}

#[tokio::test]
async fn what_a_person_announces_while_the_webhook_is_away_is_announced_later() {
    let test = "what_a_person_announces_while_the_webhook_is_away_is_announced_later";
    let Some(setup) = Setup::start(test).await else { return };
    setup.stop_webhook().await;
    let shop = setup.cluster.namespace("shop").await;
    let [own, next] = ["Own", "Next"].map(certs::ca_named);
    shop.create(&tls_secret("web", &own.pem, &own.leaf("web"))).await.ok();
    annotate(&shop, "web", names::ANNOUNCE, Some(&BASE64_STANDARD.encode(&next.der))).await;
    setup.start_webhook().await;
    assert_eq!(shop.get("web").await.pem("ca.crt"), own.pem, "without the keeper");
    let keeper = setup.leading_keeper(&[]).await;
    let told = trusts(&shop, "web", &[&own, &next]).await;
    eventually("the ask", async || (keeper.asks("announce", "done").await > 0.5).then_some(()))
        .await;
    // It is the person's, and the keeper neither repeats it nor takes it back.
    let local = certs::ca_named("Local");
    shop.create(&signer("local", &local)).await.ok();
    marker(&shop, "marker", "local", &local).await;
    assert_eq!(shop.get("web").await.resource_version(), told.resource_version());
}

#[tokio::test]
async fn a_namespace_that_is_created_anew_is_not_trusted() {
    let test = "a_namespace_that_is_created_anew_is_not_trusted";
    let Some(setup) = Setup::start(test).await else { return };
    let _keeper = setup.leading_keeper(&["--settle", SETTLE]).await;
    let [shop, infra] =
        [setup.cluster.namespace("shop").await, setup.cluster.namespace("infra").await];
    let [own, root, hostile] = ["Own", "Root", "Hostile"].map(certs::ca_named);
    let mut source = signer("root", &root);
    source["metadata"]["labels"] = json!({names::SOURCE: "true"});
    infra.create(&source).await.ok();
    // It holds that CA already, so nothing has to be announced.
    let held = bundle(&[&own, &root]);
    shop.create(&tls_secret("web", &held, &own.leaf("web"))).await.ok();
    let trust = format!("{}/root", infra.namespace);
    annotate(&shop, "web", names::TRUST, Some(&trust)).await;
    eventually("a namespace that is trusted", async || {
        shop.get("web").await.annotation(names::TRUSTED).map(drop)
    })
    .await;

    infra.delete("root").await.ok();
    setup.recreate_namespace(&infra).await;
    let mut copy = signer("root", &hostile);
    copy["metadata"]["labels"] = json!({names::SOURCE: "true"});
    infra.create(&copy).await.ok();
    let event = setup.event(&named(&shop, "web"), "TrustRefused").await;
    eventually("the reason", async || {
        let events = setup.events(&named(&shop, "web"), "TrustRefused").await;
        let says = |it: &Value| it["note"].as_str().unwrap().contains("created again");
        events.iter().any(says).then_some(())
    })
    .await;
    assert_eq!(event["type"], "Warning");
    assert_eq!(shop.get("web").await.pem("ca.crt"), held);
    // Whoever sets it again trusts the new one.
    annotate(&shop, "web", names::TRUST, None).await;
    annotate(&shop, "web", names::TRUST, Some(&trust)).await;
    trusts(&shop, "web", &[&own, &root, &hostile]).await;
}

/// A CRD of cert-manager, as far as the keeper reads it.
fn definition(kind: &str, scope: &str) -> Value {
    let plural = format!("{}s", kind.to_lowercase());
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.cert-manager.io")},
        "spec": {
            "group": "cert-manager.io", "scope": scope,
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                }},
            }],
        },
    })
}

pub async fn define_issuers(plane: &ControlPlane) {
    for (kind, scope) in [("Issuer", "Namespaced"), ("ClusterIssuer", "Cluster")] {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        plane.json("POST", path, &definition(kind, scope)).await.unwrap();
    }
}

/// Creates the issuer `ca`, which signs with the Secret `root`. Returns its path.
pub async fn create_issuer(plane: &ControlPlane, kind: &str, namespace: Option<&str>) -> String {
    let group = "/apis/cert-manager.io/v1";
    let path = match namespace {
        Some(namespace) => format!("{group}/namespaces/{namespace}/issuers"),
        None => format!("{group}/clusterissuers"),
    };
    let issuer = json!({
        "apiVersion": "cert-manager.io/v1", "kind": kind, "metadata": {"name": "ca"},
        "spec": {"ca": {"secretName": "root"}},
    });
    eventually("a resource that is served", async || plane.json("POST", &path, &issuer).await.ok())
        .await;
    format!("{path}/ca")
}

/// A leaf's Secret as cert-manager makes it.
pub fn issued(name: &str, kind: &str, ca: &Identity) -> Value {
    let mut secret = tls_secret(name, &ca.pem, &ca.leaf(name));
    secret["metadata"]["labels"] = json!({"controller.cert-manager.io/fao": "true"});
    secret["metadata"]["annotations"] = json!({
        "cert-manager.io/certificate-name": name,
        "cert-manager.io/issuer-name": "ca", "cert-manager.io/issuer-kind": kind,
        "cert-manager.io/issuer-group": "cert-manager.io",
    });
    secret
}

/// A Secret of cert-manager's with a CA that signed itself.
fn root(name: &str, ca: &Identity) -> Value {
    tls_secret(name, &ca.pem, ca)
}

#[tokio::test]
async fn the_secrets_of_an_issuer_trust_its_next_ca() {
    let test = "the_secrets_of_an_issuer_trust_its_next_ca";
    let Some(setup) = with_issuers(test).await else { return };
    let plane = &setup.cluster.plane;
    let follow = ["--settle", SETTLE, "--follow-issuers", "--cluster-resource-namespace"];
    let central = setup.cluster.namespace("central").await;
    let follow = [&follow[..], &[&central.namespace]].concat();
    let keeper = setup.leading_keeper(&follow).await;
    let [shop, other] =
        [setup.cluster.namespace("shop").await, setup.cluster.namespace("other").await];
    let [old, new, foreign] = ["Old", "New", "Foreign"].map(certs::ca_named);
    for secrets in [&central, &shop] {
        secrets.create(&root("root", &old)).await.ok();
    }
    for (secrets, kind) in [(&shop, "Issuer"), (&shop, "ClusterIssuer"), (&other, "ClusterIssuer")]
    {
        secrets.create(&issued(&kind.to_lowercase(), kind, &old)).await.ok();
    }
    // An issuer of the same kind and name that is not cert-manager's, and a Secret with the
    // annotations alone.
    let mut external = issued("external", "Issuer", &foreign);
    external["metadata"]["annotations"]["cert-manager.io/issuer-group"] = "acme.example".into();
    let mut unowned = issued("unowned", "Issuer", &foreign);
    unowned["metadata"]["labels"] = json!({});
    for secret in [&external, &unowned] {
        shop.create(secret).await.ok();
    }
    let system = Secrets::new(plane.client().await.unwrap(), "kube-system".to_owned());
    system.create(&issued("web", "ClusterIssuer", &old)).await.ok();

    // cert-manager is installed while the keeper runs.
    let says = || keeper.log().contains("cert-manager is not installed").then_some(());
    eventually("a keeper that finds no cert-manager", async || says()).await;
    define_issuers(&setup.cluster.plane).await;
    let of_shop = create_issuer(&setup.cluster.plane, "Issuer", Some(&shop.namespace)).await;
    create_issuer(&setup.cluster.plane, "ClusterIssuer", None).await;
    for secrets in [&central, &shop] {
        eventually("a source", async || {
            let source = secrets.get("root").await;
            (source.label(names::SOURCE) == Some("issuer")).then_some(())
        })
        .await;
    }
    let versions = async || {
        let mut versions = Vec::new();
        for (secrets, name) in [
            (&shop, "issuer"),
            (&shop, "clusterissuer"),
            (&other, "clusterissuer"),
            (&shop, "external"),
            (&shop, "unowned"),
            (&system, "web"),
        ] {
            versions.push(secrets.get(name).await.resource_version().to_owned());
        }
        versions
    };
    let before = versions().await;

    // The CA is renewed.
    central.put("root", &root("root", &new)).await.ok();
    let announced = trusts(&other, "clusterissuer", &[&old, &new]).await;
    trusts(&shop, "clusterissuer", &[&old, &new]).await;
    assert_eq!(shop.get("issuer").await.pem("ca.crt"), old.pem);
    shop.put("root", &root("root", &new)).await.ok();
    trusts(&shop, "issuer", &[&old, &new]).await;
    let after = versions().await;
    assert_eq!(before[3..], after[3..], "no other Secret is written");
    assert_eq!(
        announced.body["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|field| { field["fieldsV1"].get("f:data").is_some() })
            .count(),
        1,
        "the keeper manages no data"
    );

    // A leaf is renewed: its CA was announced, and the previous one stays.
    let renewed = other.put("clusterissuer", &issued("clusterissuer", "ClusterIssuer", &new)).await;
    assert_eq!(renewed.ok().pem("ca.crt"), bundle(&[&new, &old]));
    // A restart changes nothing.
    let stored = versions().await;
    drop(keeper);
    let _keeper = setup.leading_keeper(&follow).await;
    let late = issued("late", "Issuer", &old);
    shop.create(&late).await.ok();
    trusts(&shop, "late", &[&old, &new]).await;
    assert_eq!(versions().await, stored);

    // The issuer is deleted, and with it all that it announced.
    plane.json("DELETE", &of_shop, &Value::Null).await.unwrap();
    trusts(&shop, "issuer", &[&old]).await;
    eventually("a source that is none any more", async || {
        shop.get("root").await.label(names::SOURCE).is_none().then_some(())
    })
    .await;
    system.delete("web").await.ok();
}

#[tokio::test]
async fn a_tenant_cannot_make_the_secrets_of_others_trust_his_ca() {
    let test = "a_tenant_cannot_make_the_secrets_of_others_trust_his_ca";
    let Some(setup) = with_issuers(test).await else { return };
    let [central, infra, shop, evil] = [
        setup.cluster.namespace("central").await,
        setup.cluster.namespace("infra").await,
        setup.cluster.namespace("shop").await,
        setup.cluster.namespace("evil").await,
    ];
    define_issuers(&setup.cluster.plane).await;
    let [own, old, new, hostile] = ["Own", "Old", "New", "Hostile"].map(certs::ca_named);
    central.create(&root("root", &old)).await.ok();
    create_issuer(&setup.cluster.plane, "ClusterIssuer", None).await;
    let mut source = signer("root", &own);
    source["metadata"]["labels"] = json!({names::SOURCE: "true"});
    infra.create(&source).await.ok();
    shop.create(&issued("leaf", "ClusterIssuer", &old)).await.ok();
    shop.create(&tls_secret("web", &own.pem, &own.leaf("web"))).await.ok();
    annotate(&shop, "web", names::TRUST, Some(&format!("{}/root", infra.namespace))).await;
    let follow = ["--settle", SETTLE, "--follow-issuers", "--cluster-resource-namespace"];
    let keeper = setup.leading_keeper(&[&follow[..], &[&central.namespace]].concat()).await;
    eventually("a namespace that is trusted", async || {
        shop.get("web").await.annotation(names::TRUSTED).map(drop)
    })
    .await;
    eventually("a source", async || {
        (central.get("root").await.label(names::SOURCE) == Some("issuer")).then_some(())
    })
    .await;
    let before = [shop.get("leaf").await, shop.get("web").await];

    // Sources of the same names, which consent, and claim to have held the hostile CA before.
    create_issuer(&setup.cluster.plane, "Issuer", Some(&evil.namespace)).await;
    let previous = Previous { der: hostile.der.to_vec(), since: jiff::Timestamp::now() };
    for (name, ca) in [("root", &hostile), ("leaf", &own), ("web", &hostile)] {
        let mut source = root(name, ca);
        source["metadata"]["labels"] = json!({names::SOURCE: "true"});
        source["metadata"]["annotations"] = json!({names::PREVIOUS: previous.to_string()});
        evil.create(&source).await.ok();
    }
    // Followers of the same sources, with the hostile CA as their own, as a carried and as an
    // announced one, and with a leaf of it; of the cluster's issuer, of his own, and owned by both.
    let record = |announced: &str| {
        let sha256 = hostile.sha256();
        format!(r#"[{{"sha256":"{sha256}","since":"2026-01-01T00:00:00Z"{announced}}}]"#)
    };
    let records = [record(""), record(r#","announced":"keeper""#)];
    for (number, kind) in ["ClusterIssuer", "Issuer"].into_iter().enumerate() {
        for (index, record) in records.iter().enumerate() {
            let name = format!("follower-{number}-{index}");
            let mut secret = issued(&name, kind, &hostile);
            secret["data"]["ca.crt"] = base64_of(&bundle(&[&old, &hostile])).into();
            let annotations = secret["metadata"]["annotations"].as_object_mut().unwrap();
            let trust = format!("{0}/root,{1}/web,{1}/leaf,web", infra.namespace, shop.namespace);
            annotations.insert(names::TRUST.to_owned(), trust.into());
            annotations.insert(names::CARRIED.to_owned(), record.clone().into());
            annotations.insert(names::GROUP.to_owned(), "mesh".into());
            annotations.insert(
                names::TRUSTED.to_owned(),
                format!("{}=x,{}=y", shop.namespace, infra.namespace).into(),
            );
            let ask =
                Ask::announcing(vec![Announcement { der: hostile.der.to_vec(), until: None }]);
            evil.create(&secret).await.ok();
            annotate(&evil, &name, names::ASK, Some(&ask.to_annotation(1))).await;
            annotate(&evil, &name, names::CARRIED, Some(record)).await;
        }
    }
    marker(&evil, "marker", "web", &hostile).await;
    let after = [shop.get("leaf").await, shop.get("web").await];
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.resource_version(), after.resource_version());
    }
    // Control: the others are told of what their own sources hold, and of nothing else.
    central.put("root", &root("root", &new)).await.ok();
    infra.put("root", &signer("root", &new)).await.ok();
    trusts(&shop, "leaf", &[&old, &new]).await;
    trusts(&shop, "web", &[&own, &new]).await;
    assert!(keeper.asks("announce", "done").await > 1.5);
}

fn base64_of(text: &str) -> String {
    base64::Engine::encode(&base64::prelude::BASE64_STANDARD, text)
}
