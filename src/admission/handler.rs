//! Serves `POST /mutate` and `POST /mutate/stranger`.

use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::BoxError;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine;
use bytes::Bytes;
use futures::future::OptionFuture;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tracing::Level;

use super::keeper_lease::KeeperLease;
use super::patch;
use super::refusal::Refusal;
use super::respond::{Answer, Installation, WOULD_CHANGE, respond};
use super::review::{self, AdmissionRequest, ReadReviewError};
use crate::admission::metrics::AdmissionMetrics;
use crate::names;

/// The state of the handler, shared by all requests.
#[derive(Debug)]
pub struct Admission {
    /// The configuration that holds for every Secret. The list of distrusted CAs in it changes.
    pub installation: watch::Receiver<Installation>,
    /// The state of the keeper's Lease.
    pub keeper: watch::Receiver<KeeperLease>,
    /// The largest body that is accepted, in bytes. A larger one gets 413.
    pub max_body: usize,
    /// How long a body may take to arrive. A slower one gets 408.
    pub body_timeout: Duration,
    /// Counts the decisions.
    pub metrics: AdmissionMetrics,
}

/// A review of more bytes is large. Hostile ones take milliseconds to decide, so a thread is left for
/// the small ones: nearly all of them.
const LARGE: usize = 64 << 10;

/// The router of the webhook port: `POST` to the two paths, and nothing else.
pub fn router(admission: Arc<Admission>) -> Router {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let large = Arc::new(Semaphore::new((threads - 1).max(1)));
    let mutate = |is_by_stranger| {
        let large = large.clone();
        post(move |State(admission): State<Arc<Admission>>, request| async move {
            mutate(&admission, request, &large, is_by_stranger).await
        })
    };
    Router::new()
        .route(names::MUTATE_PATH, mutate(false))
        .route(names::STRANGER_PATH, mutate(true))
        .with_state(admission)
}

async fn mutate(
    admission: &Admission,
    request: Request<Body>,
    large: &Semaphore,
    is_by_stranger: bool,
) -> Response {
    match answer(admission, request, large, is_by_stranger).await {
        Ok(body) => ([(header::CONTENT_TYPE, JSON)], body).into_response(),
        Err(refusal) => {
            admission.metrics.refused(&refusal);
            // The rest of a refused body may still arrive, so the connection cannot be used again.
            ([(header::CONNECTION, "close")], (refusal.status(), refusal.to_string()))
                .into_response()
        }
    }
}

async fn answer(
    admission: &Admission,
    request: Request<Body>,
    large: &Semaphore,
    is_by_stranger: bool,
) -> Result<Vec<u8>, Refusal> {
    if !is_json(request.headers()) {
        return Err(Refusal::ContentType);
    }
    let body = read_body(admission, request.into_body()).await?;
    let turn = OptionFuture::from((body.len() > LARGE).then(|| large.acquire()));
    let _turn = turn.await;
    let started = Instant::now();
    // If this panics, the accept loop answers 500 to this request alone.
    review(admission, &body, is_by_stranger, started).map_err(Refusal::Unreadable)
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = |value: &str| value.split(';').next().unwrap_or_default().trim().to_owned();
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| essence(value).eq_ignore_ascii_case(JSON))
}

async fn read_body(admission: &Admission, body: Body) -> Result<Bytes, Refusal> {
    // A body that is announced as too large is refused before it arrives.
    if body.size_hint().lower() > admission.max_body as u64 {
        return Err(Refusal::TooLarge(admission.max_body));
    }
    let whole = collect(Limited::new(body, admission.max_body));
    let body = tokio::time::timeout(admission.body_timeout, whole).await;
    match body.map_err(|_| Refusal::Slow)? {
        Ok(body) => Ok(body),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge(admission.max_body)),
        Err(_) => Err(Refusal::Interrupted),
    }
}

/// Copies each frame as it arrives. Collecting the frames would take twice the memory, and hyper
/// could not reuse its buffer.
async fn collect(mut body: Limited<Body>) -> Result<Bytes, BoxError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or_default();
    // The kernel commits no memory for announced bytes that never arrive.
    let mut whole = Vec::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.into())
}

/// Logs an answer. A macro, because the level of a line has to be a constant.
macro_rules! log {
    ($level:expr, $request:expr, $answer:expr, $elapsed:expr) => {
        tracing::event!(
            $level,
            uid = name(&$request.uid),
            namespace = $request.namespace.as_deref().and_then(name),
            name = $request.name.as_deref().and_then(name),
            dry_run = $request.dry_run.unwrap_or_default(),
            decision = $answer.decision.as_str(),
            appended = $answer.appended,
            announced = $answer.announced,
            cut = $answer.cut,
            asked = $answer.asked,
            staged = $answer.staged,
            audit = $answer.audit,
            warnings = %reasons($answer),
            micros = u64::try_from($elapsed.as_micros()).unwrap_or(u64::MAX),
            "reviewed"
        )
    };
}

/// Whether a write passes as it came, and nobody is told anything. Most do.
fn changes_nothing(answer: &Answer) -> bool {
    let Answer { patch, warnings, asked, staged, audit, .. } = answer;
    let is_as_written = patch.is_none() && *audit != Some(WOULD_CHANGE);
    is_as_written && warnings.is_empty() && asked.is_none() && staged.is_none()
}

/// `text`, if an object could have it as its name or uid. What else is sent to the port could fill
/// the log.
fn name(text: &str) -> Option<&str> {
    Some(text).filter(|text| text.len() <= 253)
}

/// Names the review that is left without an answer if its handler panics.
struct Unanswered<'a>(&'a AdmissionRequest<'a>);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                uid = name(&self.0.uid),
                namespace = self.0.namespace.as_deref().and_then(name),
                name = self.0.name.as_deref().and_then(name),
                "not reviewed, because of a bug"
            );
        }
    }
}

/// Reads a review, decides, and returns the response body.
fn review(
    admission: &Admission,
    body: &[u8],
    is_by_stranger: bool,
    started: Instant,
) -> Result<Vec<u8>, ReadReviewError> {
    let mut request = review::read(body)?;
    request.is_by_stranger = is_by_stranger;
    let _unanswered = Unanswered(&request);
    let keeper = admission.keeper.borrow().keeper(started);
    let answer = respond(&request, &admission.installation.borrow(), keeper, Timestamp::now());
    let bytes = render(&request.uid, &answer);
    let elapsed = started.elapsed();
    admission.metrics.answered(&answer, elapsed);
    if changes_nothing(&answer) {
        log!(Level::DEBUG, &request, &answer, elapsed);
    } else {
        log!(Level::INFO, &request, &answer, elapsed);
    }
    Ok(bytes)
}

/// The body of the response, as JSON.
pub fn render(uid: &str, answer: &Answer) -> Vec<u8> {
    let fingerprints: Vec<_> =
        answer.record.entries().iter().map(|entry| entry.sha256.to_string()).collect();
    let review = ReviewResponse {
        api_version: "admission.k8s.io/v1",
        kind: "AdmissionReview",
        response: ResponseBody {
            uid,
            allowed: true,
            warnings: answer.texts(),
            audit_annotations: AuditAnnotations {
                decision: answer.decision.as_str(),
                carried: fingerprints.join(","),
                asked: answer.asked,
                staged: answer.staged,
                audit: answer.audit,
            },
        },
    };
    let patch = answer.patch.as_ref().map(patch::to_json);
    // Enough for the base64 of the patch, too, so that the buffer never grows.
    let mut bytes = Vec::with_capacity(512 + patch.as_ref().map_or(0, Vec::len) * 3 / 2);
    // Writing strings and lists to memory cannot fail.
    if serde_json::to_writer(&mut bytes, &review).is_err() {
        bytes.clear();
    }
    if let Some(patch) = patch {
        append_patch(&mut bytes, &patch);
    }
    bytes
}

/// Inserts the patch before the two closing braces of the response. Base64 needs no escapes in
/// JSON. Searching for some would cost as much as the rest of the response.
fn append_patch(response: &mut Vec<u8>, patch: &[u8]) {
    const BRACES: &[u8] = b"}}";
    const BEFORE: &[u8] = br#","patchType":"JSONPatch","patch":""#;
    let Some(open) = response.strip_suffix(BRACES).map(<[u8]>::len) else { return };
    response.truncate(open);
    response.extend_from_slice(BEFORE);
    let start = response.len();
    response.resize(start + base64::encoded_len(patch.len(), true).unwrap_or_default(), b'=');
    // The buffer has exactly the encoded length, so this cannot fail.
    let written = super::BASE64.encode_slice(patch, &mut response[start..]).unwrap_or_default();
    response.truncate(start + written);
    response.push(b'"');
    response.extend_from_slice(BRACES);
}

fn reasons(answer: &Answer) -> String {
    answer.warnings.iter().map(|warning| warning.reason()).collect::<Vec<_>>().join(",")
}

const JSON: &str = "application/json";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReviewResponse<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: ResponseBody<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseBody<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    audit_annotations: AuditAnnotations,
}

#[derive(Serialize)]
struct AuditAnnotations {
    decision: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    carried: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    staged: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audit: Option<&'static str>,
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::mpsc::{Sender, channel};

    use tracing::Dispatch;

    use super::*;

    /// Takes the lines of a log.
    struct Lines(Sender<String>);

    impl io::Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.send(String::from_utf8_lossy(line).into_owned()).ok();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_review_that_a_panic_leaves_without_an_answer_is_named() {
        let (sender, lines) = channel();
        let log = || {
            let sender = sender.clone();
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || Lines(sender.clone()))
        };
        let body = br#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request":
            {"uid": "u1", "operation": "UPDATE", "namespace": "gw", "name": "envoy"}}"#;
        let request = review::read(body).unwrap();
        for (log, quoted, separator) in [
            (Dispatch::new(log().finish()), "", '='),
            (Dispatch::new(log().json().finish()), "\"", ':'),
        ] {
            tracing::dispatcher::with_default(&log, || {
                drop(Unanswered(&request));
                let panics = AssertUnwindSafe(|| {
                    let _unanswered = Unanswered(&request);
                    resume_unwind(Box::new(()));
                });
                assert!(catch_unwind(panics).is_err());
            });
            let written: Vec<String> = lines.try_iter().collect();
            assert_eq!(written.len(), 1, "{written:?}");
            for (key, value) in [("uid", "u1"), ("namespace", "gw"), ("name", "envoy")] {
                let part = format!("{quoted}{key}{quoted}{separator}\"{value}\"");
                assert!(written[0].contains(&part), "{part} is not in {written:?}");
            }
        }
    }
}
