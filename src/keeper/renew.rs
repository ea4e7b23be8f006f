//! Has cert-manager issue leaves of a previous CA again, a few at a time (docs/design.md, "Cascade").
//!
//! What is to be renewed is found in the Secrets, and what is in flight in the Certificates. So
//! another replica can continue at any time, and nothing is renewed twice.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::reconcile::Reconciler;
use super::secrets::fence;
use super::tasks::Tasks;
use super::trust::Cascade;
use crate::kubernetes::call::{CallError, call};
use crate::kubernetes::explain::printable;
use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::{exempt, outlook};
use crate::x509::certs::{Bundle, Certificate, Fingerprint};
use crate::x509::issuer::{Issuers, MAX_CHAIN};

/// How many leaves of one issuer are renewed at the same time.
const MAX_OF_ISSUER: usize = 4;
/// How many of all issuers.
const MAX_RENEWALS: usize = 16;
/// How often the keeper looks for leaves to renew.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often a certificate that is being issued is read.
const POLL: Duration = Duration::from_secs(1);
/// How long a renewal keeps its place among those in flight.
const LONGEST: Duration = Duration::from_secs(600);
/// The pause after a renewal that failed. It doubles up to 32 hours, as cert-manager's own.
const AFTER_FAILURE: Duration = Duration::from_secs(3600);
const MAX_DOUBLINGS: u32 = 5;
/// The pause after a renewal. By then the watch has shown the new leaf.
const AFTER_RENEWAL: Duration = Duration::from_secs(30);
/// The pause after a call that failed.
const AFTER_ERROR: Duration = Duration::from_secs(15);

/// The result of a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// The leaf verifies against the present CA.
    Renewed,
    /// It was not issued, or not by the present CA.
    Failed(String),
    /// There is nothing to renew, or it is not ours to renew.
    Skipped(&'static str),
}

/// The renewals in flight, and those to make later.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    pub(super) tasks: Tasks<Result<Renewal, CallError>>,
    /// The issuer's Secret of each leaf in flight.
    sources: HashMap<Key, Key>,
    /// Leaves that are not looked at before this time, and how often each has failed in a row.
    paused: HashMap<Key, (Instant, u32)>,
    /// Since when an issuer waits for Secrets that do not trust its CAs.
    waiting: HashMap<Key, Waiting>,
    /// When to look again.
    pub(super) next: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    held: Vec<Fingerprint>,
    since: Instant,
    is_reported: bool,
}

impl Renewals {
    /// Whether it is time to look for leaves. The next time is a little later.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.next.is_none_or(|next| next <= now);
        if is_due {
            self.next = Some(now + INTERVAL);
        }
        is_due
    }

    /// The leaves of a cascade whose renewals are to be started now.
    pub(super) fn start(&mut self, cascade: &Cascade, now: Instant) -> Vec<Key> {
        let mut started = Vec::new();
        let mut room = MAX_RENEWALS.saturating_sub(self.tasks.len());
        let of_issuer = self.sources.values().filter(|source| **source == cascade.source).count();
        room = room.min(MAX_OF_ISSUER.saturating_sub(of_issuer));
        for leaf in cascade.leaves.iter().filter(|_| cascade.is_settled) {
            let is_free = !self.tasks.is_running(leaf)
                && self.paused.get(leaf).is_none_or(|(until, _)| *until <= now)
                && self.tasks.has_room(leaf.namespace());
            if is_free && started.len() < room {
                self.sources.insert(leaf.clone(), cascade.source.clone());
                started.push(leaf.clone());
            }
        }
        started
    }

    /// The Secrets that an issuer waits for, if it has done so for long and nobody was told yet.
    pub(super) fn waits(
        &mut self,
        cascade: &Cascade,
        longest: Duration,
        now: Instant,
    ) -> Option<String> {
        if cascade.missing.is_empty() {
            self.waiting.remove(&cascade.source);
            return None;
        }
        let waiting = self.waiting(cascade, now);
        if waiting.is_reported || now.duration_since(waiting.since) < longest {
            return None;
        }
        waiting.is_reported = true;
        Some(of_waiting(cascade))
    }

    /// Whether nobody was told of this cascade yet.
    pub(super) fn is_new(&mut self, cascade: &Cascade, now: Instant) -> bool {
        !mem::replace(&mut self.waiting(cascade, now).is_reported, true)
    }

    /// The entry of a cascade, which begins again with other CAs.
    fn waiting(&mut self, cascade: &Cascade, now: Instant) -> &mut Waiting {
        let held: Vec<_> = cascade.held.iter().map(Certificate::fingerprint).collect();
        self.waiting.retain(|source, waiting| *source != cascade.source || waiting.held == held);
        let waiting = self.waiting.entry(cascade.source.clone());
        waiting.or_insert(Waiting { held, since: now, is_reported: false })
    }

    /// Forgets the issuers and the leaves that need no renewal any more.
    pub(super) fn keep(&mut self, cascades: &[Cascade], now: Instant) {
        let sources: HashSet<&Key> = cascades.iter().map(|cascade| &cascade.source).collect();
        let leaves: HashSet<&Key> = cascades.iter().flat_map(|cascade| &cascade.leaves).collect();
        self.waiting.retain(|source, _| sources.contains(source));
        self.paused.retain(|leaf, (until, _)| *until > now || leaves.contains(leaf));
    }

    /// Notes that a renewal has ended.
    pub(super) fn ended(&mut self, leaf: &Key, result: &Result<Renewal, CallError>, now: Instant) {
        self.sources.remove(leaf);
        let failed = self.paused.get(leaf).map_or(0, |(_, failed)| *failed);
        let (pause, failed) = match result {
            Ok(Renewal::Renewed) => (AFTER_RENEWAL, 0),
            Ok(Renewal::Skipped(_)) => (AFTER_FAILURE, failed),
            Ok(Renewal::Failed(_)) => {
                (AFTER_FAILURE * (1 << failed.min(MAX_DOUBLINGS)), failed.saturating_add(1))
            }
            Err(CallError::Conflict | CallError::NotLeading) => (Duration::ZERO, failed),
            Err(_) => (AFTER_ERROR, failed),
        };
        self.paused.insert(leaf.clone(), (now + pause, failed));
        self.next = self.next.map(|next| next.min(now + POLL));
    }
}

/// The most names in an Event.
const MAX_NAMES: usize = 5;

fn of_waiting(cascade: &Cascade) -> String {
    let (leaves, missing) = (cascade.leaves.len(), &cascade.missing);
    let names: Vec<String> = missing.iter().take(MAX_NAMES).map(ToString::to_string).collect();
    format!(
        "{leaves} leaves of a previous CA are not renewed, because these of its Secrets do not trust \
         the new CA yet: {} ({} in all)",
        names.join(", "),
        missing.len()
    )
}

impl Reconciler {
    /// Has cert-manager issue the leaf of a Secret again, and waits for it, if the leaf does not
    /// verify against the CAs that its issuer holds.
    pub(super) async fn renew(
        &self,
        key: &Key,
        held: &[Certificate],
    ) -> Result<Renewal, CallError> {
        let began = Instant::now();
        let mut is_in_flight = false;
        let Some(mut secret) = self.secrets.get(key).await? else { return Ok(GONE) };
        loop {
            // Whoever writes the Secret chooses it, and it becomes a part of a path.
            let name = secret.annotation(names::CERT_MANAGER_CERTIFICATE);
            let Some(name) = name.filter(|name| names::is_name(name)) else {
                return Ok(Renewal::Skipped("it names no Certificate"));
            };
            // The Certificate before the Secret, because cert-manager writes the Secret before the
            // Certificate. An issuance that ends in between then makes the patch fail.
            let of_cert_manager = Certificates { client: self.secrets.client(), key, name };
            let certificate = match of_cert_manager.read().await {
                Err(CallError::Gone) => return Ok(Renewal::Skipped("its Certificate is gone")),
                other => other?,
            };
            let Some(read) = self.secrets.get(key).await? else { return Ok(GONE) };
            let is_same = read.annotation(names::CERT_MANAGER_CERTIFICATE) == Some(name);
            if verifies(&read, held) {
                let is_ours = is_in_flight || certificate.is_issuing();
                let already = Renewal::Skipped("its leaf is of the present CA");
                return Ok(if is_ours { Renewal::Renewed } else { already });
            }
            if !is_same || certificate.spec.secret_name != key.name() {
                return Ok(Renewal::Skipped("its Certificate names another Secret"));
            }
            if certificate.metadata.deletion_timestamp.is_some() {
                return Ok(Renewal::Skipped("its Certificate is being deleted"));
            }
            if certificate.is_issuing() {
                is_in_flight = true;
            } else if is_in_flight {
                return Ok(Renewal::Failed(certificate.failure()));
            } else if certificate.has_just_failed(Timestamp::now()) {
                let text = "cert-manager could not issue it within the last hour";
                return Ok(Renewal::Failed(text.to_owned()));
            } else if self.is_left_alone(&read) || self.is_opted_out(key).await? {
                return Ok(Renewal::Skipped("it is opted out"));
            } else {
                fence(&self.leadership)?;
                of_cert_manager.mark(&certificate, Timestamp::now()).await?;
                tracing::debug!(secret = %key, certificate = name, "asked for a new leaf");
                is_in_flight = true;
            }
            if began.elapsed() >= LONGEST {
                let text = format!("cert-manager has not issued it within {} s", LONGEST.as_secs());
                return Ok(Renewal::Failed(text));
            }
            sleep(POLL).await;
            secret = read;
        }
    }

    /// Whether nothing is ever announced to a Secret, and its leaf is not renewed: it is exempt.
    pub(super) fn is_left_alone(&self, secret: &SecretView) -> bool {
        let view = secret.view();
        let settings = outlook::settings(&view, &self.rules);
        exempt::exemption(&view, &settings, view.ca_crt, view.tls_crt).is_some()
    }
}

const GONE: Renewal = Renewal::Skipped("it is gone");

/// Whether the leaf of a Secret verifies against one of these.
fn verifies(secret: &SecretView, held: &[Certificate]) -> bool {
    let chain = secret.view().tls_crt.and_then(|text| Bundle::parse(text, MAX_CHAIN).ok());
    chain.is_some_and(|chain| Issuers::default().verifies(chain.certificates(), held))
}

/// The calls for one Certificate of cert-manager.
struct Certificates<'a> {
    client: Client,
    /// Its Secret.
    key: &'a Key,
    name: &'a str,
}

/// A Certificate of cert-manager, as far as it is read.
#[derive(Deserialize)]
struct CertificateView {
    metadata: CertificateMetadata,
    #[serde(default)]
    spec: CertificateSpec,
    #[serde(default)]
    status: CertificateStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CertificateMetadata {
    uid: String,
    resource_version: String,
    #[serde(default)]
    generation: i64,
    #[serde(default)]
    deletion_timestamp: Option<Time>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CertificateSpec {
    #[serde(default)]
    secret_name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CertificateStatus {
    /// All fields, because the patch writes the whole list.
    #[serde(default)]
    conditions: Vec<Value>,
    #[serde(default)]
    last_failure_time: Option<Time>,
}

/// The condition that starts an issuance, as `cmctl renew` does.
const ISSUING: &str = "Issuing";

impl Certificates<'_> {
    async fn read(&self) -> Result<CertificateView, CallError> {
        self.send(http::Request::get(self.path("")), Vec::new()).await
    }

    /// Sets the condition that starts an issuance. Fails if the Certificate has changed since it was
    /// read.
    async fn mark(&self, read: &CertificateView, now: Timestamp) -> Result<(), CallError> {
        let mut conditions = read.status.conditions.clone();
        conditions.retain(|condition| condition["type"] != ISSUING);
        conditions.push(json!({
            "type": ISSUING,
            "status": "True",
            "reason": "ManuallyTriggered",
            "message": "Certificate re-issuance triggered by ca-overlap: its CA was renewed",
            "lastTransitionTime": now.strftime("%FT%TZ").to_string(),
            "observedGeneration": read.metadata.generation,
        }));
        let patch = json!({
            "metadata": {
                "uid": read.metadata.uid,
                "resourceVersion": read.metadata.resource_version,
            },
            "status": {"conditions": conditions},
        });
        let status = format!("/status?fieldManager={}", names::KEEPER_SERVICE_ACCOUNT);
        let request = http::Request::patch(self.path(&status))
            .header(http::header::CONTENT_TYPE, "application/merge-patch+json");
        self.send(request, patch.to_string().into_bytes()).await.map(drop)
    }

    fn path(&self, rest: &str) -> String {
        let (namespace, name) = (self.key.namespace(), self.name);
        format!("/apis/cert-manager.io/v1/namespaces/{namespace}/certificates/{name}{rest}")
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: Vec<u8>,
    ) -> Result<CertificateView, CallError> {
        let request = request.body(body).map_err(|_| CallError::Gone)?;
        call(self.client.request(request)).await
    }
}

impl CertificateView {
    fn issuing(&self) -> Option<&Value> {
        self.status.conditions.iter().find(|condition| condition["type"] == ISSUING)
    }

    /// Whether an issuance is in flight, whoever asked for it.
    fn is_issuing(&self) -> bool {
        self.issuing().is_some_and(|issuing| issuing["status"] == "True")
    }

    /// Whether cert-manager pauses after a failure.
    fn has_just_failed(&self, now: Timestamp) -> bool {
        let pause = SignedDuration::try_from(AFTER_FAILURE).unwrap_or(SignedDuration::MAX);
        let failed = self.status.last_failure_time.as_ref();
        failed.is_some_and(|failed| now.duration_since(failed.0) < pause)
    }

    /// Why an issuance has ended without a leaf of the present CA.
    fn failure(&self) -> String {
        match self.issuing().and_then(|issuing| issuing["reason"].as_str()) {
            Some(reason) => format!("cert-manager could not issue it: {}", printable(reason)),
            None => "cert-manager has issued it by another CA".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::*;
    use devtools::certs::{self, Identity};
    use http::Method;

    use super::super::election::Leadership;
    use super::super::mock::{MockApi, api, reconciler};
    use super::*;

    const SECRET: &str = "/api/v1/namespaces/n/secrets/s";
    const CERTIFICATE: &str = "/apis/cert-manager.io/v1/namespaces/n/certificates/c";
    const STATUS: &str = "/apis/cert-manager.io/v1/namespaces/n/certificates/c/status";

    struct Fixture {
        api: MockApi,
        reconciler: Reconciler,
        old: Identity,
        new: Identity,
    }

    impl Fixture {
        fn new() -> Self {
            let (client, api) = api();
            let (_, leadership) = Leadership::switched(true);
            let reconciler = reconciler(&client, leadership);
            Self { api, reconciler, old: certs::ca_named("old"), new: certs::ca_named("new") }
        }

        fn secret(&self, issuer: &Identity) -> Value {
            json!({
                "metadata": {
                    "namespace": "n", "name": "s", "uid": "u", "resourceVersion": "1",
                    "annotations": {names::CERT_MANAGER_CERTIFICATE: "c"},
                },
                "data": {
                    "ca.crt": BASE64_STANDARD.encode(self.old.pem.clone() + &self.new.pem),
                    "tls.crt": BASE64_STANDARD.encode(&issuer.leaf("x").pem),
                },
            })
        }

        /// Renews the leaf, and answers the calls with `server`.
        async fn renew(
            &mut self,
            server: impl AsyncFnOnce(&mut MockApi),
        ) -> Result<Renewal, CallError> {
            let key = Key::new("n", "s");
            let held = [Certificate::from_der(self.new.der.to_vec()).unwrap()];
            let renewal = self.reconciler.renew(&key, &held);
            let (renewal, ()) = tokio::join!(renewal, server(&mut self.api));
            assert!(self.api.is_quiet());
            renewal
        }
    }

    fn certificate(issuing: Option<&str>) -> Value {
        let mut conditions = vec![json!({"type": "Ready", "status": "True", "of": "later"})];
        conditions
            .extend(issuing.map(|it| json!({"type": "Issuing", "status": it, "reason": "Denied"})));
        json!({
            "metadata": {"uid": "cu", "resourceVersion": "7", "generation": 3},
            "spec": {"secretName": "s"},
            "status": {"conditions": conditions},
        })
    }

    async fn get(api: &mut MockApi, path: &str, answer: &Value) {
        api.expect(&Method::GET, path).await.answer(answer);
    }

    async fn read(api: &mut MockApi, certificate: &Value, secret: &Value) {
        get(api, CERTIFICATE, certificate).await;
        get(api, SECRET, secret).await;
    }

    /// The calls up to the patch of a Certificate, whose body is checked.
    async fn mark(api: &mut MockApi, old: &Value) -> super::super::mock::MockCall {
        get(api, SECRET, old).await;
        read(api, &certificate(None), old).await;
        let namespace = json!({"metadata": {"name": "n", "uid": "nu"}});
        get(api, "/api/v1/namespaces/n", &namespace).await;
        let call = api.expect(&Method::PATCH, STATUS).await;
        let version = json!({"uid": "cu", "resourceVersion": "7"});
        assert_eq!(call.body["metadata"], version);
        let conditions = call.body["status"]["conditions"].as_array().unwrap();
        assert_eq!(conditions[0], json!({"type": "Ready", "status": "True", "of": "later"}));
        let issuing = &conditions[1];
        assert_eq!((&issuing["type"], &issuing["status"]), (&json!("Issuing"), &json!("True")));
        assert_eq!(issuing["reason"], "ManuallyTriggered");
        assert_eq!(issuing["observedGeneration"], 3);
        assert_eq!(conditions.len(), 2);
        call
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_marks_the_certificate_once_and_waits_for_the_leaf() {
        let mut fixture = Fixture::new();
        let (old, new) = (fixture.secret(&fixture.old), fixture.secret(&fixture.new));
        let renewal = fixture.renew(async |api| {
            mark(api, &old).await.answer(&certificate(Some("True")));
            read(api, &certificate(Some("True")), &old).await;
            read(api, &certificate(None), &new).await;
        });
        assert_eq!(renewal.await, Ok(Renewal::Renewed));
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuance_in_flight_is_waited_for_and_not_asked_for_again() {
        let mut fixture = Fixture::new();
        let (old, new) = (fixture.secret(&fixture.old), fixture.secret(&fixture.new));
        let renewal = fixture.renew(async |api| {
            get(api, SECRET, &old).await;
            read(api, &certificate(Some("True")), &old).await;
            read(api, &certificate(None), &new).await;
        });
        assert_eq!(renewal.await, Ok(Renewal::Renewed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_that_changes_in_between_is_not_marked() {
        let mut fixture = Fixture::new();
        let old = fixture.secret(&fixture.old);
        let renewal = fixture.renew(async |api| mark(api, &old).await.refuse(409, "Conflict"));
        assert_eq!(renewal.await, Err(CallError::Conflict));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_names_the_reason_of_cert_manager() {
        let mut fixture = Fixture::new();
        let old = fixture.secret(&fixture.old);
        for (after, why) in [(Some("False"), "Denied"), (None, "another CA")] {
            let renewal = fixture.renew(async |api| {
                mark(api, &old).await.answer(&certificate(Some("True")));
                read(api, &certificate(after), &old).await;
            });
            let Ok(Renewal::Failed(text)) = renewal.await else { unreachable!() };
            assert!(text.contains(why), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_takes_too_long_makes_room_for_others() {
        let mut fixture = Fixture::new();
        let old = fixture.secret(&fixture.old);
        let renewal = fixture.renew(async |api| {
            mark(api, &old).await.answer(&certificate(Some("True")));
            for _ in 0..LONGEST.as_secs() {
                read(api, &certificate(Some("True")), &old).await;
            }
        });
        let Ok(Renewal::Failed(text)) = renewal.await else { unreachable!() };
        assert!(text.contains("within 600 s"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_ours_to_renew_is_not_marked() {
        let mut fixture = Fixture::new();
        let (old, new) = (fixture.secret(&fixture.old), fixture.secret(&fixture.new));
        let changed = |pointer: &str, key: &str, value: Value| {
            let mut it = certificate(None);
            it.pointer_mut(pointer).unwrap()[key] = value;
            it
        };
        let now = Timestamp::now();
        let minute = SignedDuration::from_mins(1);
        let failed = |at: Timestamp| changed("/status", "lastFailureTime", json!(at.to_string()));
        let deleted = changed("/metadata", "deletionTimestamp", json!(now.to_string()));
        let other = changed("/spec", "secretName", json!("t"));
        let mut off = old.clone();
        off["metadata"]["labels"] = json!({names::MODE: "off"});
        for (certificate, secret, expected) in [
            (&deleted, &old, "its Certificate is being deleted"),
            (&other, &old, "its Certificate names another Secret"),
            (&failed(now - minute), &old, "cert-manager could not issue it within the last hour"),
            (&certificate(None), &off, "it is opted out"),
            (&certificate(None), &new, "its leaf is of the present CA"),
        ] {
            let renewal = fixture.renew(async |api| {
                get(api, SECRET, &old).await;
                read(api, certificate, secret).await;
            });
            let why = match renewal.await.unwrap() {
                Renewal::Skipped(why) => why.to_owned(),
                Renewal::Failed(why) => why,
                Renewal::Renewed => unreachable!("{expected}"),
            };
            assert_eq!(why, expected);
        }
        // Nor what is no name: it would lead to other objects.
        for name in ["c/../../n2/certificates/c", "c/status?x=", "", "C"] {
            let mut odd = old.clone();
            odd["metadata"]["annotations"][names::CERT_MANAGER_CERTIFICATE] = name.into();
            let renewal = fixture.renew(async |api| get(api, SECRET, &odd).await);
            assert_eq!(renewal.await, Ok(Renewal::Skipped("it names no Certificate")), "{name}");
        }
        // Nor in a namespace that is opted out.
        let renewal = fixture.renew(async |api| {
            get(api, SECRET, &old).await;
            read(api, &certificate(None), &old).await;
            let labels = json!({names::MODE: "off"});
            let namespace = json!({"metadata": {"name": "n", "uid": "nu", "labels": labels}});
            get(api, "/api/v1/namespaces/n", &namespace).await;
        });
        assert_eq!(renewal.await, Ok(Renewal::Skipped("it is opted out")));
        // A failure of long ago does not count.
        let renewal = fixture.renew(async |api| {
            get(api, SECRET, &old).await;
            read(api, &failed(now - 61 * minute), &old).await;
            let namespace = json!({"metadata": {"name": "n", "uid": "nu"}});
            get(api, "/api/v1/namespaces/n", &namespace).await;
            api.expect(&Method::PATCH, STATUS).await.refuse(403, "Forbidden");
        });
        assert!(matches!(renewal.await, Err(CallError::Denied(_))));
    }

    fn cascade(leaves: usize, missing: &[&str], is_settled: bool) -> Cascade {
        let keys = |names: Vec<String>| names.into_iter().map(|name| Key::new("n", name)).collect();
        Cascade {
            source: Key::new("n", "root"),
            held: Vec::new(),
            // Of as many namespaces: one has a limit of its own.
            leaves: (0..leaves).map(|n| Key::new(format!("n{n}"), "leaf")).collect(),
            missing: keys(missing.iter().map(ToString::to_string).collect()),
            is_settled,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn few_leaves_of_an_issuer_are_renewed_at_once_and_each_end_makes_room() {
        let mut renewals = Renewals::default();
        let now = Instant::now();
        assert_eq!(renewals.start(&cascade(9, &[], false), now), [], "it has not settled");
        let all = cascade(9, &[], true);
        let started = renewals.start(&all, now);
        assert_eq!(started, all.leaves[..MAX_OF_ISSUER]);
        for leaf in &started {
            renewals.tasks.start(leaf, std::future::pending());
        }
        assert_eq!(renewals.start(&all, now), []);
        let other = Cascade { source: Key::new("n", "other"), ..all.clone() };
        assert_eq!(renewals.start(&other, now).len(), MAX_OF_ISSUER, "it has places of its own");
        renewals.tasks.shutdown().await;
        let mut renewals = Renewals::default();
        for result in [
            Ok(Renewal::Renewed),
            Ok(Renewal::Failed("why".to_owned())),
            Ok(Renewal::Skipped("why")),
            Err(CallError::Failed("why".to_owned())),
        ] {
            let one = renewals.start(&cascade(1, &[], true), now);
            assert_eq!(one.len(), 1);
            renewals.ended(&one[0], &result, now);
            assert_eq!(renewals.start(&cascade(1, &[], true), now), [], "{result:?}: it pauses");
            assert_eq!(renewals.start(&all, now), all.leaves[1..=MAX_OF_ISSUER]);
            renewals = Renewals::default();
        }
        let mut later = now;
        for hours in [1, 2, 4, 8, 16, 32, 32] {
            let pause = Duration::from_secs(3600 * hours);
            let one = renewals.start(&cascade(1, &[], true), later);
            renewals.ended(&one[0], &Ok(Renewal::Failed("why".to_owned())), later);
            renewals.keep(&[cascade(1, &[], true)], later + pause);
            assert_eq!(renewals.start(&cascade(1, &[], true), later + pause - POLL), []);
            later += pause;
        }
        renewals.keep(&[], later);
        let one = renewals.start(&cascade(1, &[], true), now);
        renewals.ended(&one[0], &Err(CallError::Conflict), now);
        assert_eq!(renewals.start(&cascade(1, &[], true), now), one, "it is read again at once");
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_the_others_is_said_once_and_only_after_a_while() {
        let mut renewals = Renewals::default();
        let (longest, start) = (Duration::from_secs(900), Instant::now());
        let held = cascade(2, &["a", "b"], false);
        assert_eq!(renewals.waits(&held, longest, start), None);
        let text = renewals.waits(&held, longest, start + longest).unwrap();
        assert!(text.starts_with("2 leaves") && text.contains("n/a, n/b (2 in all)"), "{text}");
        assert_eq!(renewals.waits(&held, longest, start + 2 * longest), None);
        // Everyone trusts the CA, and then another one begins.
        assert_eq!(renewals.waits(&cascade(2, &[], true), longest, start), None);
        assert_eq!(renewals.waits(&held, longest, start + longest), None);
    }

    #[tokio::test(start_paused = true)]
    async fn with_audit_a_cascade_is_said_once() {
        let mut renewals = Renewals::default();
        let (one, now) = (cascade(2, &["a"], false), Instant::now());
        let said = [renewals.is_new(&one, now), renewals.is_new(&one, now)];
        let held = vec![Certificate::from_der(certs::ca().der.to_vec()).unwrap()];
        assert_eq!(said, [true, false]);
        assert!(renewals.is_new(&Cascade { held, ..one.clone() }, now), "another CA");
        renewals.keep(&[], now);
        assert!(renewals.is_new(&one, now), "another cascade");
    }
}
