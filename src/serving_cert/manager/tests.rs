use std::convert::Infallible;
use std::sync::Mutex;

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, GeneralSubtree, IsCa, KeyPair, NameConstraints,
};
use serde_json::{Value, json};

use super::*;
use crate::server::tls::{self, Published};
use crate::serving_cert::objects::ObjectNames;

const NAME: &str = "ca-overlap-webhook.ca-overlap.svc";

/// The two objects of `--self-managed`, in memory.
type Objects = Arc<Mutex<[Value; 2]>>;

fn objects() -> Objects {
    let entry = json!({"name": crate::names::WEBHOOK, "clientConfig": {}});
    let metadata = json!({"resourceVersion": "1"});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata});
    Arc::new(Mutex::new([secret, json!({"metadata": metadata, "webhooks": [entry]})]))
}

/// An API server for these objects.
fn api(objects: &Objects) -> Client {
    let objects = objects.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let objects = objects.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let mut objects = objects.lock().unwrap();
            let stored = &mut objects[usize::from(!head.uri.path().contains("/secrets/"))];
            match head.method {
                Method::PUT => *stored = body,
                Method::PATCH => {
                    let patch: json_patch::Patch = serde_json::from_value(body).unwrap();
                    json_patch::patch(stored, &patch).unwrap();
                }
                _ => {}
            }
            Ok::<_, Infallible>(Response::new(Body::from(stored.to_string().into_bytes())))
        }
    });
    Client::new(service, "ca-overlap")
}

fn manager(objects: &Objects) -> (Manager, Published) {
    let names = ObjectNames {
        namespace: "ca-overlap".to_owned(),
        secret: "ca-overlap-ca".to_owned(),
        webhook_config: "ca-overlap".to_owned(),
    };
    let timing = RotationTiming {
        leaf_lifetime: Duration::from_secs(3600),
        trust_settle: Duration::from_secs(60),
        reconcile_interval: Duration::from_secs(60),
    };
    let config = ManagerConfig {
        dns_names: vec![NAME.to_owned()],
        ca_lifetime: Duration::from_secs(86_400),
        timing,
        client_ca: None,
        reload_interval: Duration::from_secs(1),
    };
    let (publisher, serving) = tls::channel();
    let client = ObjectClient::new(api(objects), &names);
    let (manager, _) =
        Manager::new(client, config, publisher, CertificateMetrics::default()).unwrap();
    (manager, serving)
}

#[tokio::test]
async fn a_publication_that_failed_is_tried_again_in_the_next_round() {
    let objects = objects();
    let (mut manager, published) = manager(&objects);
    manager.client_cas = Some(vec![CertificateDer::from(vec![1, 2, 3])]);
    for _ in 0..2 {
        let error = manager.round().await.unwrap_err();
        assert!(matches!(error, RoundError::Tls(TlsError::ClientCa)), "{error}");
        assert!(published.borrow().is_none());
    }
    manager.client_cas = None;
    manager.round().await.unwrap();
    assert!(published.borrow().is_some());
}

#[tokio::test]
async fn an_unfit_client_ca_is_refused_at_the_start() {
    let scratch = devtools::control_plane::Scratch::create().unwrap();
    let path = scratch.path().join("ca.crt");
    // Valid PEM of what is no certificate.
    let unfit = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (text, is_fit) in [(unfit, false), ("", false), (&*devtools::certs::ca().pem, true)] {
        std::fs::write(&path, text).unwrap();
        let (manager, _) = manager(&objects());
        let (objects, publisher) = (manager.objects.clone(), tls::channel().0);
        let config = ManagerConfig { client_ca: Some(path.clone()), ..manager.config };
        let made = Manager::new(objects, config, publisher, CertificateMetrics::default());
        assert_eq!(made.is_ok(), is_fit, "{text}");
    }
}

#[tokio::test]
async fn client_cas_that_cannot_be_published_are_not_taken_as_used() {
    let objects = objects();
    let (mut manager, published) = manager(&objects);
    manager.round().await.unwrap();
    let first = published.borrow().clone().unwrap();
    manager.use_client_cas(vec![CertificateDer::from(vec![1, 2, 3])]);
    assert_eq!(manager.client_cas, None, "the next reading tries again");
    assert!(Arc::ptr_eq(&first, published.borrow().as_ref().unwrap()));
    manager.use_client_cas(vec![devtools::certs::ca().der]);
    assert!(!Arc::ptr_eq(&first, published.borrow().as_ref().unwrap()));
}

/// A CA whose leaves clients reject for our name.
fn constrained_ca() -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "constrained");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let now = Timestamp::now();
    json!([{"certificate": certificate, "key": key.serialize_pem(), "added": now, "active": now}])
}

#[tokio::test]
async fn a_leaf_that_clients_would_refuse_is_not_published() {
    use base64::prelude::*;
    let objects = objects();
    let (mut manager, published) = manager(&objects);
    let text = constrained_ca().to_string();
    objects.lock().unwrap()[0]["data"] = json!({"authorities.json": BASE64_STANDARD.encode(text)});
    let error = manager.round().await.unwrap_err().to_string();
    assert!(error.contains("ca-overlap/ca-overlap-ca") && error.contains("reject"), "{error}");
    assert!(published.borrow().is_none());
    // As the message says.
    objects.lock().unwrap()[0]["data"] = Value::Null;
    manager.round().await.unwrap();
    let leaf = published.borrow().as_ref().unwrap().leaf().clone();
    let read = serde_json::from_value(objects.lock().unwrap()[1].clone()).unwrap();
    assert!(inject::verifies(&inject::trusted(&read), &leaf, NAME, Timestamp::now()));
}

#[test]
fn the_backoff_is_between_one_and_thirty_seconds() {
    let pauses: Vec<u64> = (0..8).map(|n| backoff(n).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
}
