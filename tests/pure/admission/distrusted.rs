//! The list of distrusted CAs counts for every Secret, from the moment that it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use ca_overlap::admission::handler::{Admission, router};
use ca_overlap::admission::keeper_lease::KeeperLease;
use ca_overlap::admission::metrics::AdmissionMetrics;
use ca_overlap::admission::respond::Installation;
use ca_overlap::overlap::distrust::DistrustList;
use ca_overlap::overlap::settings::Defaults;
use devtools::certs::{self, Identity};
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

use super::endpoint::{MAX_BODY, Outcome, annotate, as_patch, label, outcome, review, secret};

/// A webhook whose list can change.
struct Webhook {
    installation: watch::Sender<Installation>,
    admission: Arc<Admission>,
}

impl Webhook {
    fn new() -> Self {
        let usual = Installation::new(Defaults::default(), "ca-overlap");
        let (installation, current) = watch::channel(usual);
        let admission = Admission {
            installation: current,
            keeper: KeeperLease::not_watched(),
            max_body: MAX_BODY,
            body_timeout: std::time::Duration::from_secs(10),
            metrics: AdmissionMetrics::default(),
        };
        Self { installation, admission: Arc::new(admission) }
    }

    fn list(&self, cas: &[&Identity]) {
        let data: BTreeMap<_, _> = cas.iter().map(|ca| (ca.sha256(), "")).collect();
        let list = Arc::new(DistrustList::read(&data));
        self.installation.send_modify(|i| i.defaults.distrusted = list);
    }

    async fn admit(&self, review: &Value) -> Outcome {
        let body = Body::from(serde_json::to_vec(review).unwrap());
        let request = Request::post("/mutate").header("content-type", "application/json");
        let request = request.body(body).unwrap();
        let answer = router(self.admission.clone()).oneshot(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        outcome(review, &body)
    }
}

#[tokio::test]
async fn a_listed_ca_is_not_carried_and_a_carried_one_goes_with_any_write() {
    let [stolen, new] = [certs::ca(), certs::ca()];
    let webhook = Webhook::new();
    let rotation = review(&secret(&stolen.pem), &secret(&new.pem));
    let carrying = webhook.admit(&rotation).await;
    assert_eq!(carrying.ca_crt(), certs::bundle(&[&new, &stolen]), "control: nothing is listed");

    webhook.list(&[&stolen]);
    assert_eq!(webhook.admit(&rotation).await.ca_crt(), new.pem);
    let touched = annotate(carrying.stored.clone(), "keep", "2");
    let touched = webhook.admit(&as_patch(review(&carrying.stored, &touched))).await;
    assert_eq!(touched.ca_crt(), new.pem);
    assert_eq!((touched.annotation("carried"), touched.label("phase")), (Some("[]"), None));
    // A generator's own one stays, with a warning.
    let own = webhook.admit(&review(&secret(&new.pem), &secret(&stolen.pem))).await;
    assert_eq!(own.ca_crt(), certs::bundle(&[&stolen, &new]));
    assert!(own.warnings()[0].contains("distrusted"), "{:?}", own.warnings());

    webhook.list(&[]);
    assert_eq!(webhook.admit(&rotation).await.ca_crt(), certs::bundle(&[&new, &stolen]));
}

#[tokio::test]
async fn a_listed_ca_is_not_repaired() {
    let [stolen, new] = [certs::ca(), certs::ca()];
    let webhook = Webhook::new();
    let stored = label(secret(&new.pem), "mode", "bundle");
    let ask = format!(
        "repair {} #1",
        base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &stolen.der,)
    );
    let mut asking = as_patch(review(&stored, &annotate(stored.clone(), "ask", &ask)));
    asking["request"]["userInfo"]["username"] =
        json!("system:serviceaccount:ca-overlap:ca-overlap-keeper");
    let both = certs::bundle(&[&new, &stolen]);
    assert_eq!(webhook.admit(&asking).await.ca_crt(), both, "control");
    webhook.list(&[&stolen]);
    assert_eq!(webhook.admit(&asking).await.ca_crt(), new.pem);
}
