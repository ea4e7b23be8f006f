//! Writing one Secret's annotation, and reading back what came of it.

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::plan::{self, Holding};
use crate::kubernetes::explain::{Audience, explain};
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::x509::certs::Fingerprint;

/// Who changed the annotation, in `managedFields`.
const MANAGER: &str = "ca-overlap-distrust";
/// How often a Secret that others write at the same time is read again.
const ATTEMPTS: usize = 8;

/// What came of one Secret.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) namespace: String,
    pub(super) name: String,
    /// One for each of the certificates that it held.
    pub(super) results: Vec<Outcome>,
    /// The annotation is longer than what is brought back after a generator wiped it.
    pub(super) annotation_too_long: bool,
    /// The mode `off`, in which data is never changed.
    pub(super) is_off: bool,
    /// What failed.
    pub(super) error: Option<String>,
}

/// What came of one certificate in one Secret.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) holding: Holding,
    pub(super) result: Fate,
}

/// Where a certificate is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fate {
    /// It was carried, and is gone.
    Dropped,
    /// Somebody else took it out meanwhile.
    Gone,
    /// The generator's own, still there.
    Own,
    /// The webhook did not act.
    StillCarried,
    /// Nothing was done.
    Failed,
}

/// Distrusts the certificates that this Secret holds.
pub(super) async fn distrust(
    client: &Client,
    mut secret: SecretView,
    wanted: &[Fingerprint],
    dry_run: bool,
) -> Done {
    let now = Timestamp::now();
    let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
    let api: Api<SecretView> = Api::namespaced(client.clone(), &namespace);
    let mut done = Done {
        namespace,
        name,
        results: Vec::new(),
        annotation_too_long: false,
        is_off: secret.label(names::MODE) == Some("off"),
        error: None,
    };
    let first = plan::holdings(&secret, wanted, now);
    for _ in 0..ATTEMPTS {
        let before = plan::holdings(&secret, wanted, now);
        let Some(value) = plan::annotation(&secret, &before) else {
            done.results = outcomes(&first, &before);
            return done;
        };
        done.annotation_too_long = plan::is_too_long(&value);
        match write(&api, &secret, &value, dry_run).await {
            Ok(after) => {
                done.results = outcomes(&first, &plan::holdings(&after, wanted, now));
                return done;
            }
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {}
            Err(error) => return failed(done, &first, explain(&error, Audience::Caller)),
        }
        // Somebody else wrote it meanwhile: what it holds now counts.
        match api.get_opt(&done.name).await {
            Ok(Some(read)) => secret = read,
            Ok(None) => {
                done.results = outcomes(&first, &[]);
                return done;
            }
            Err(error) => return failed(done, &first, explain(&error, Audience::Caller)),
        }
    }
    failed(done, &first, format!("others wrote it {ATTEMPTS} times meanwhile; run this again"))
}

/// On condition that nobody else wrote it since it was read. The answer is what is stored, after
/// the webhook.
async fn write(
    api: &Api<SecretView>,
    secret: &SecretView,
    value: &str,
    dry_run: bool,
) -> Result<SecretView, kube::Error> {
    let patch = json!({"metadata": {
        "resourceVersion": secret.resource_version(),
        "annotations": {names::DISTRUST: value},
    }});
    let parameters = PatchParams { dry_run, ..PatchParams::apply(MANAGER) };
    api.patch(&secret.name_any(), &parameters, &Patch::Merge(patch)).await
}

fn outcomes(first: &[Holding], after: &[Holding]) -> Vec<Outcome> {
    let outcome = |holding: &Holding| {
        let still = after.iter().find(|other| other.fingerprint == holding.fingerprint);
        let result = match still {
            Some(still) if still.is_carried => Fate::StillCarried,
            Some(_) => Fate::Own,
            None if holding.is_carried => Fate::Dropped,
            None => Fate::Gone,
        };
        Outcome { holding: *holding, result }
    };
    first.iter().map(outcome).collect()
}

fn failed(mut done: Done, first: &[Holding], error: String) -> Done {
    let failed = |holding: &Holding| Outcome { holding: *holding, result: Fate::Failed };
    done.results = first.iter().map(failed).collect();
    done.error = Some(error);
    done
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use base64::prelude::*;
    use http::Method;
    use kube::client::Body;
    use serde_json::Value;

    use super::*;
    use crate::x509::pem;

    /// What was asked, in order.
    type Calls = Arc<Mutex<Vec<(Method, Value)>>>;

    /// The client of an API server that gives these answers one after another, and what it was
    /// asked.
    fn client(answers: Vec<(u16, Value)>) -> (Client, Calls) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let requests = asked.clone();
        let answers = Arc::new(Mutex::new(answers.into_iter()));
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (status, answer) = answers.lock().unwrap().next().expect("no more requests");
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

    async fn run(client: &Client, stored: Value, wanted: Fingerprint) -> Done {
        let stored = serde_json::from_value(stored).unwrap();
        distrust(client, stored, &[wanted], false).await
    }

    #[tokio::test]
    async fn what_somebody_else_wrote_meanwhile_is_kept() {
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
        assert_eq!(done.results[0].result, Fate::Own);
        let asked = asked.lock().unwrap();
        let patches: Vec<_> = asked.iter().filter(|(method, _)| method == Method::PATCH).collect();
        assert_eq!(patches[0].1["metadata"]["resourceVersion"], "1");
        assert_eq!(patches[1].1["metadata"]["resourceVersion"], "2");
        assert_eq!(patches[1].1["metadata"]["annotations"][names::DISTRUST], both);
    }

    #[tokio::test]
    async fn one_that_is_deleted_meanwhile_holds_nothing() {
        let ca = devtools::certs::ca().der;
        let (client, _) = client(vec![status(404), status(404)]);
        let done = run(&client, secret("1", "", &[&ca]), Fingerprint::of(&ca)).await;
        assert_eq!(done.results[0].result, Fate::Gone, "{:?}", done.error);
    }

    #[tokio::test]
    async fn conflicts_without_end_are_a_failure() {
        let ca = devtools::certs::ca().der;
        let rounds = (0..ATTEMPTS).flat_map(|_| [status(409), (200, secret("2", "", &[&ca]))]);
        let (client, _) = client(rounds.collect());
        let done = run(&client, secret("1", "", &[&ca]), Fingerprint::of(&ca)).await;
        assert_eq!(done.results[0].result, Fate::Failed);
        assert!(done.error.unwrap().contains("run this again"));
    }
}
