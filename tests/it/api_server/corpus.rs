//! The reviews that a real API server sends. `make corpus` records them in tests/data/reviews.
//! Every run compares the shape of new reviews with the recorded ones.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use base64::prelude::*;
use ca_overlap::admission::handler::{Admission, router};
use ca_overlap::admission::keeper_lease::KeeperLease;
use ca_overlap::admission::metrics::AdmissionMetrics;
use ca_overlap::admission::respond::Installation;
use ca_overlap::overlap::settings::Defaults;
use ca_overlap::server::accept::{Limits, Server, Transport, bind};
use ca_overlap::server::drain::Drain;
use ca_overlap::server::metrics::ServerMetrics;
use ca_overlap::server::tls::{self, ServingCert};
use http_body_util::BodyExt;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::setup::{NAME, Setup};
use crate::support::Cluster;
use devtools::certs;
use devtools::secrets::{JSON_PATCH, MERGE, STRATEGIC};

type Recorded = Arc<Mutex<Option<Bytes>>>;

#[tokio::test]
async fn the_recorded_reviews_have_the_shape_that_this_api_server_sends() {
    let Some(cluster) = Cluster::without_webhook("corpus").await else { return };
    let recorded = Recorded::default();
    record(&cluster, recorded.clone()).await;
    let recording = std::env::var_os("CA_OVERLAP_RECORD").is_some();
    for (name, review) in play(&cluster, &recorded).await {
        let path = directory().join(format!("{name}.json"));
        if recording {
            std::fs::write(&path, format!("{review:#}\n")).unwrap();
        }
        let known = std::fs::read_to_string(&path).expect("a recorded review: run `make corpus`");
        let known: Value = serde_json::from_str(&known).unwrap();
        assert_eq!(shape(&review), shape(&known), "{name}: record it again with `make corpus`");
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/reviews")
}

/// Writes a Secret in every way and collects the review of each write.
async fn play(cluster: &Cluster, recorded: &Recorded) -> Vec<(&'static str, Value)> {
    let setup = Setup::new(cluster.namespace("corpus").await);
    let mut leaf = setup.leaf("CA1");
    leaf.key = "a private key that nobody may read".into();
    let fresh = |bundle: &str| setup.fresh(bundle, &leaf);
    let value = |bundle: &str| BASE64_STANDARD.encode(setup.pem(bundle));
    let mut reviews = Vec::new();
    let mut take = |name| reviews.push((name, taken(recorded, name)));
    let secrets = &setup.secrets;
    secrets.create(&fresh("CA1")).await.ok();
    secrets.put_with(NAME, "dryRun=All", &fresh("CA2")).await.ok();
    take("put-dry-run");
    secrets.put(NAME, &fresh("CA2")).await.ok();
    take("put");
    secrets.put(NAME, &fresh("CA2")).await.ok();
    take("put-again");
    let stored = secrets.get(NAME).await.ok();
    let mut edited = stored.body.clone();
    edited["data"]["ca.crt"] = value("CA2 CA3").into();
    secrets.put(NAME, &edited).await.ok();
    take("read-modify-write");
    for (name, kind, bundle) in
        [("merge-patch", MERGE, "CA3"), ("strategic-merge-patch", STRATEGIC, "CA4")]
    {
        let patch = json!({"data": {"ca.crt": value(bundle)}});
        secrets.patch(NAME, kind, "", &patch).await.ok();
        take(name);
    }
    let patch = json!([{"op": "replace", "path": "/data/ca.crt", "value": value("CA1")}]);
    secrets.patch(NAME, JSON_PATCH, "", &patch).await.ok();
    take("json-patch");
    let keep = json!({"metadata": {"annotations": {"ca-overlap.dev/keep": "2"}}});
    secrets.patch(NAME, MERGE, "", &keep).await.ok();
    take("annotate");
    let keep = json!({"metadata": {"annotations": {"ca-overlap.dev/keep": null}}});
    secrets.patch(NAME, MERGE, "", &keep).await.ok();
    take("annotate-remove");
    applies(cluster, &setup, &mut take).await;
    reviews
}

async fn applies(cluster: &Cluster, setup: &Setup, take: &mut impl FnMut(&'static str)) {
    let applied = |name: &str, bundle: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque",
            "data": {"ca.crt": BASE64_STANDARD.encode(setup.pem(bundle))},
        })
    };
    for bundle in ["CA1", "CA2"] {
        setup.secrets.apply("helm", "helm", false, &applied("helm", bundle)).await.ok();
    }
    take("server-side-apply");
    let namespace = setup.secrets.namespace.as_str();
    for bundle in ["CA1", "CA2"] {
        let manifest = applied("kubectl", bundle).to_string();
        let arguments = ["apply", "-n", namespace, "-f", "-"];
        cluster.plane.kubectl(&arguments, manifest.as_bytes()).await.unwrap();
    }
    take("kubectl-apply");
    edit(cluster, setup).await;
    take("kubectl-edit");
}

/// Runs `kubectl edit` with an editor that replaces the value of `ca.crt`.
async fn edit(cluster: &Cluster, setup: &Setup) {
    let value = BASE64_STANDARD.encode(setup.pem("CA3"));
    let script = format!("#!/bin/sh\nsed -i 's|^  ca.crt: .*|  ca.crt: {value}|' \"$1\"\n");
    let editor = cluster.plane.scratch().write("editor.sh", script).unwrap();
    let status = tokio::process::Command::new(cluster.plane.kubectl_path())
        .args(["edit", "secret", "kubectl", "-n", &setup.secrets.namespace])
        .env("KUBECONFIG", cluster.plane.admin_kubeconfig())
        .env("KUBE_EDITOR", format!("sh {}", editor.display()))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status()
        .await
        .unwrap();
    assert!(status.success());
}

fn taken(recorded: &Recorded, name: &str) -> Value {
    let body = recorded.lock().unwrap().take();
    let body = body.unwrap_or_else(|| panic!("{name} was not reviewed"));
    serde_json::from_slice(&body).unwrap()
}

/// Serves the real endpoint behind the Service, and records the last review.
async fn record(cluster: &Cluster, recorded: Recorded) {
    let ca = certs::ca_named("recorder");
    let leaf = ca.leaf("ca-overlap-webhook.ca-overlap.svc");
    let chain =
        CertificateDer::pem_slice_iter(leaf.pem.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
    let (sender, published) = tls::channel();
    sender.send_replace(Some(Arc::new(ServingCert::new(chain, key, None).unwrap())));
    let hour = Duration::from_secs(3600);
    let admission = Admission {
        installation: watch::channel(Installation::new(Defaults::default(), "ca-overlap")).1,
        keeper: KeeperLease::not_watched(),
        max_body: 8 * 1024 * 1024,
        body_timeout: hour,
        metrics: AdmissionMetrics::default(),
    };
    let server = Server {
        transport: Transport::Tls(published),
        router: router(Arc::new(admission)).layer(middleware::from_fn_with_state(recorded, keep)),
        limits: Limits {
            max_connections: 64,
            body_memory: 64 << 20,
            max_body: 8 << 20,
            handshake_timeout: hour,
            request_timeout: hour,
            idle_timeout: hour,
        },
        drain: Drain::default(),
        metrics: ServerMetrics::default(),
    };
    let listener = bind("--listen", cluster.port_443()).await.unwrap();
    tokio::spawn(server.run(listener));
    // The certificate must stay published while the test runs.
    std::mem::forget(sender);
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/ca-overlap";
    let mut configuration = cluster.plane.json("GET", path, &Value::Null).await.unwrap();
    configuration["webhooks"][0]["clientConfig"]["caBundle"] =
        BASE64_STANDARD.encode(ca.pem).into();
    cluster.plane.json("PUT", path, &configuration).await.unwrap();
    cluster.plane.registration_in_force().await.unwrap();
}

async fn keep(State(recorded): State<Recorded>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    *recorded.lock().unwrap() = Some(body.clone());
    next.run(Request::from_parts(parts, Body::from(body))).await
}

/// The paths of all values, as a set: the order of managed fields can differ.
fn shape(value: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, path: &str, paths: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    walk(value, &format!("{path}/{key}"), paths);
                }
            }
            Value::Array(list) => {
                for value in list {
                    walk(value, &format!("{path}/-"), paths);
                }
            }
            _ => drop(paths.insert(path.to_owned())),
        }
    }
    let mut paths = BTreeSet::new();
    walk(value, "", &mut paths);
    paths
}
