//! An API server that a test plays, for what a real one cannot be brought to do at a given moment.

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

/// The calls, in the order in which they come.
pub(super) struct Api(mpsc::UnboundedReceiver<Call>);

/// One call that waits for its answer.
pub(super) struct Call {
    pub(super) method: Method,
    /// With the query.
    pub(super) path: String,
    /// What was sent; `null` where that is nothing.
    pub(super) body: Value,
    answer: oneshot::Sender<Response<Body>>,
}

/// A client, and what it calls.
pub(super) fn api() -> (Client, Api) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let service = tower::service_fn(move |request: Request<Body>| {
        let sender = sender.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let (answer, answered) = oneshot::channel();
            let call = Call {
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
    (Client::new(service, "n"), Api(receiver))
}

impl Api {
    /// The next call.
    pub(super) async fn call(&mut self) -> Call {
        self.0.recv().await.unwrap()
    }

    /// The next call, which is this one: a method, and how its path goes on after `/`.
    pub(super) async fn expect(&mut self, method: &Method, path: &str) -> Call {
        let call = self.call().await;
        assert_eq!((&call.method, call.path.split('?').next()), (method, Some(path)));
        call
    }

    /// Whether nothing was called that has not been taken.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.0.try_recv().is_err()
    }
}

impl Call {
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

    /// Waits until nobody waits for the answer any more.
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
