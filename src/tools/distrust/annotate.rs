//! Writes the annotation of one Secret and reads back what the webhook did.

use jiff::Timestamp;
use kube::{Client, ResourceExt};
use serde_json::Value;

use super::MANAGER;
use super::found::{self, FoundCa};
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::tools::annotate::{Annotation, DryRun, Written};
use crate::x509::certs::Fingerprint;

/// The result for one Secret.
#[derive(Clone, Debug)]
pub(super) struct SecretOutcome {
    pub(super) namespace: String,
    pub(super) name: String,
    /// One for each distrusted certificate that the Secret held.
    pub(super) results: Vec<CaOutcome>,
    /// The annotation is too long for the webhook to restore when a generator removes it.
    pub(super) annotation_too_long: bool,
    /// The Secret is in the mode `off`: the webhook does not change its data.
    pub(super) is_off: bool,
    /// Why the Secret could not be written.
    pub(super) error: Option<String>,
}

/// The result for one certificate in one Secret.
#[derive(Clone, Copy, Debug)]
pub(super) struct CaOutcome {
    pub(super) ca: FoundCa,
    pub(super) result: RemovalResult,
}

/// What happened to a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum RemovalResult {
    /// The certificate was carried, and the webhook dropped it.
    Dropped,
    /// Another writer removed it in the meantime.
    Gone,
    /// The generator wrote it, and it is still there.
    Own,
    /// The webhook did not drop it.
    StillCarried,
    /// The Secret would be written, and what the webhook does then was not asked.
    Planned,
    /// The Secret could not be written.
    Failed,
}

/// Adds the certificates that this Secret holds to its annotation.
pub(super) async fn distrust(
    client: &Client,
    secret: SecretView,
    wanted: &[Fingerprint],
    dry_run: DryRun,
) -> SecretOutcome {
    let now = Timestamp::now();
    let mut done = SecretOutcome {
        namespace: secret.namespace().unwrap_or_default(),
        name: secret.name_any(),
        results: Vec::new(),
        annotation_too_long: false,
        is_off: secret.label(names::MODE) == Some("off"),
        error: None,
    };
    let first = found::found(&secret, wanted, now);
    let annotation = Annotation { key: names::DISTRUST, manager: MANAGER, dry_run };
    let value = |secret: &SecretView| {
        Ok(found::annotation(secret, &found::found(secret, wanted, now)).map(Value::from))
    };
    let after = match annotation.write(client, secret, value).await {
        Ok(Written::Is(after)) => Some(after),
        Ok(Written::Planned) => return all(done, &first, RemovalResult::Planned),
        Ok(Written::Gone) => None,
        Err(error) => {
            done.error = Some(error);
            return all(done, &first, RemovalResult::Failed);
        }
    };
    let text = after.as_ref().and_then(|after| after.annotation(names::DISTRUST));
    done.annotation_too_long = text.is_some_and(found::is_too_long);
    let after = after.map(|after| found::found(&after, wanted, now));
    done.results = outcomes(&first, &after.unwrap_or_default());
    done
}

fn outcomes(first: &[FoundCa], after: &[FoundCa]) -> Vec<CaOutcome> {
    let outcome = |ca: &FoundCa| {
        let still = after.iter().find(|other| other.fingerprint == ca.fingerprint);
        let result = match still {
            Some(still) if still.is_carried => RemovalResult::StillCarried,
            Some(_) => RemovalResult::Own,
            None if ca.is_carried => RemovalResult::Dropped,
            None => RemovalResult::Gone,
        };
        CaOutcome { ca: *ca, result }
    };
    first.iter().map(outcome).collect()
}

/// The same result for each certificate.
fn all(mut done: SecretOutcome, first: &[FoundCa], result: RemovalResult) -> SecretOutcome {
    done.results = first.iter().map(|ca| CaOutcome { ca: *ca, result }).collect();
    done
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use base64::prelude::*;
    use http::Method;
    use kube::client::Body;
    use serde_json::json;

    use super::*;
    use crate::x509::pem;

    /// The requests, in order.
    type Calls = Arc<Mutex<Vec<(Method, Value)>>>;

    /// The client of an API server that gives these answers in turn, and the requests it received.
    fn client(answers: Vec<(u16, Value)>) -> (Client, Calls) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let requests = asked.clone();
        let answers = Arc::new(Mutex::new(answers.into_iter()));
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (status, answer) =
                answers.lock().unwrap().next().expect("an answer for each request");
            let requests = requests.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let body = serde_json::from_slice(&body).unwrap_or_default();
                requests.lock().unwrap().push((head.method, body));
                let answer = Body::from(answer.to_string().into_bytes());
                let answer = http::Response::builder().status(status).body(answer);
                Ok::<_, tower::BoxError>(answer?)
            }
        });
        (Client::new(service, "it"), asked)
    }

    fn secret(version: &str, distrust: &str, certificates: &[&[u8]]) -> Value {
        let mut text = Vec::new();
        for der in certificates {
            pem::encode_certificate(der, &mut text);
        }
        json!({"metadata": {"name": "it", "namespace": "it", "resourceVersion": version,
            "annotations": {names::DISTRUST: distrust}},
            "data": {"ca.crt": BASE64_STANDARD.encode(text)}})
    }

    fn status(code: u16) -> (u16, Value) {
        let reason = if code == 404 { "NotFound" } else { "Conflict" };
        (
            code,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
            "reason": reason, "message": "no"}),
        )
    }

    async fn run(client: &Client, stored: Value, wanted: Fingerprint) -> SecretOutcome {
        let stored = serde_json::from_value(stored).unwrap();
        distrust(client, stored, &[wanted], DryRun::None).await
    }

    #[tokio::test]
    async fn a_conflicting_write_is_kept() {
        let ca = devtools::certs::ca().der;
        let wanted = Fingerprint::of(&ca);
        let other = Fingerprint::of(b"other").to_string();
        let both = format!("{other},{wanted}");
        let (client, asked) = client(vec![
            status(409),
            (200, secret("2", &other, &[&ca])),
            (200, secret("3", &both, &[&ca])),
        ]);
        let done = run(&client, secret("1", "", &[&ca]), wanted).await;
        assert_eq!(done.results[0].result, RemovalResult::Own);
        let asked = asked.lock().unwrap();
        let patches: Vec<_> = asked.iter().filter(|(method, _)| method == Method::PATCH).collect();
        assert_eq!(patches[0].1["metadata"]["resourceVersion"], "1");
        assert_eq!(patches[1].1["metadata"]["resourceVersion"], "2");
        assert_eq!(patches[1].1["metadata"]["annotations"][names::DISTRUST], both);
    }

    #[tokio::test]
    async fn a_secret_that_is_deleted_in_the_meantime_holds_nothing() {
        let ca = devtools::certs::ca().der;
        let (client, _) = client(vec![status(404), status(404)]);
        let done = run(&client, secret("1", "", &[&ca]), Fingerprint::of(&ca)).await;
        assert_eq!(done.results[0].result, RemovalResult::Gone, "{:?}", done.error);
    }

    #[tokio::test]
    async fn endless_conflicts_are_a_failure() {
        let ca = devtools::certs::ca().der;
        let rounds = (0..8).flat_map(|_| [status(409), (200, secret("2", "", &[&ca]))]);
        let (client, _) = client(rounds.collect());
        let done = run(&client, secret("1", "", &[&ca]), Fingerprint::of(&ca)).await;
        assert_eq!(done.results[0].result, RemovalResult::Failed);
        assert!(done.error.unwrap().contains("run this command again"));
    }
}
