//! A mock API server, for answers that a real one does not give at a chosen moment.

use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::ca_bundles::CaBundles;
use super::election::Leadership;
use super::pace::Pace;
use super::reconcile::{Called, Reconciler};
use super::secrets::Secrets;
use super::workloads::Restarter;
use crate::overlap::outlook::Rules;
use crate::overlap::settings::Defaults;

/// The calls, in the order they arrive.
pub(super) struct MockApi(mpsc::UnboundedReceiver<MockCall>);

/// A call that waits for its answer.
pub(super) struct MockCall {
    pub(super) method: Method,
    /// The path with its query.
    pub(super) path: String,
    /// The body; `null` if there is none.
    pub(super) body: Value,
    answer: oneshot::Sender<Response<Body>>,
}

/// A client, and the mock API server that it calls.
pub(super) fn api() -> (Client, MockApi) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let service = tower::service_fn(move |request: Request<Body>| {
        let sender = sender.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let (answer, answered) = oneshot::channel();
            let call = MockCall {
                method: head.method,
                path: head.uri.path_and_query().unwrap().to_string(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
                answer,
            };
            let gone = || std::io::Error::other("the test does not answer");
            sender.send(call).map_err(|_| gone())?;
            answered.await.map_err(|_| gone())
        }
    });
    (Client::new(service, "n"), MockApi(receiver))
}

/// A reconciler that calls it.
pub(super) fn reconciler(client: &Client, leadership: Leadership) -> Reconciler {
    Reconciler {
        secrets: Secrets::new(client.clone(), leadership.clone()),
        restarter: Restarter::new(client.clone(), leadership.clone()),
        rules: Rules { defaults: Defaults::default(), settle: Duration::from_secs(120) },
        group_wait: Duration::from_secs(360),
        pace: Pace::default(),
        ca_bundles: CaBundles::new(client.clone()),
        called: Called::default(),
        audit: None,
        leadership,
    }
}

impl MockApi {
    /// The next call.
    pub(super) async fn call(&mut self) -> MockCall {
        self.0.recv().await.unwrap()
    }

    /// The next call, which must have this method and path.
    pub(super) async fn expect(&mut self, method: &Method, path: &str) -> MockCall {
        let call = self.call().await;
        assert_eq!((&call.method, call.path.split('?').next()), (method, Some(path)));
        call
    }

    /// Whether there is no further call.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.0.try_recv().is_err()
    }
}

impl MockCall {
    pub(super) fn answer(self, body: &Value) {
        self.answer_with(StatusCode::OK, body);
    }

    pub(super) fn refuse(self, status: u16, reason: &str) {
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "reason": reason, "code": status, "message": reason,
        });
        self.answer_with(StatusCode::from_u16(status).unwrap(), &body);
    }

    /// Waits until the caller no longer waits for the answer.
    pub(super) async fn given_up(mut self) {
        self.answer.closed().await;
    }

    fn answer_with(self, status: StatusCode, body: &Value) {
        let body = Body::from(body.to_string().into_bytes());
        let response =
            Response::builder().status(status).header("content-type", "application/json");
        drop(self.answer.send(response.body(body).unwrap()));
    }
}
