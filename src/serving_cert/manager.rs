//! Runs `--self-managed`: keeps Secret, caBundle and serving certificate consistent.
//!
//! Each round reads both objects, takes the steps of [`super::rotation`], and publishes a leaf.
//! After a failure at any point the next round continues from the stored state.

mod secret;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, sleep_until};

use super::LogLimiter;
use super::authority::Authorities;
use super::files::{FilesError, client_cas};
use super::inject::{self, NoSuchWebhook};
use super::issue::{IssueError, ServingLeaf};
use super::metrics::CertificateMetrics;
use super::objects::{ApiError, ObjectClient, WebhookConfiguration};
use super::rotation::{CaFacts, Observed, RotationStep, RotationTiming, next_step};
use crate::kubernetes::call::CallError;
use crate::server::tls::{Publisher, ServingCert, TlsError, validity};
use crate::x509::certs::Fingerprint;

/// The configuration of the manager.
#[derive(Clone, Debug)]
pub(crate) struct ManagerConfig {
    /// The DNS names of the serving certificate. The API server calls the first one.
    pub(crate) dns_names: Vec<String>,
    /// `--ca-lifetime`.
    pub(crate) ca_lifetime: Duration,
    /// The other times.
    pub(crate) timing: RotationTiming,
    /// `--client-ca`.
    pub(crate) client_ca: Option<PathBuf>,
    /// `--tls-reload-interval`: how often the client CA is read.
    pub(crate) reload_interval: Duration,
}

/// Keeps Secret, caBundle and serving certificate consistent. See [`Manager::run`].
pub(crate) struct Manager {
    objects: ObjectClient,
    config: ManagerConfig,
    publisher: Publisher,
    trusted: watch::Sender<bool>,
    metrics: CertificateMetrics,
    /// The last good state of the Secret, used while the Secret is damaged or missing.
    authorities: Authorities,
    /// Since when each CA has been in the caBundle, at every look.
    seen: BTreeMap<Fingerprint, Instant>,
    /// Since when each CA is known to be active.
    active: BTreeMap<Fingerprint, Instant>,
    /// When a rotation was requested that has not begun yet.
    forced: Option<Timestamp>,
    leaf: Option<ServingLeaf>,
    client_cas: Option<Vec<CertificateDer<'static>>>,
    failure_log: LogLimiter,
    client_ca_log: LogLimiter,
}

impl Manager {
    /// Fails if `--client-ca` cannot be used, so that the process does not start with it.
    ///
    /// The returned receiver says whether the caBundle, as last read, verifies the served leaf.
    pub(crate) fn new(
        objects: ObjectClient,
        config: ManagerConfig,
        publisher: Publisher,
        metrics: CertificateMetrics,
    ) -> Result<(Self, watch::Receiver<bool>), FilesError> {
        let client_cas = config.client_ca.as_deref().map(client_cas).transpose()?;
        let (trusted, receiver) = watch::channel(false);
        let manager = Self {
            objects,
            config,
            publisher,
            trusted,
            metrics,
            authorities: Authorities::default(),
            seen: BTreeMap::new(),
            active: BTreeMap::new(),
            forced: None,
            leaf: None,
            client_cas,
            failure_log: LogLimiter::default(),
            client_ca_log: LogLimiter::default(),
        };
        Ok((manager, receiver))
    }

    /// Runs a round at each `--reconcile-interval`, and earlier after a failure. Never returns.
    ///
    /// A notification forces a rotation: a round starts at once, and adds a CA unless a rotation is
    /// already in progress.
    pub(crate) async fn run(mut self, force: Arc<Notify>) -> Infallible {
        let mut failures = 0;
        loop {
            let pause = match self.round().await {
                Ok(()) => {
                    failures = 0;
                    if self.failure_log.clear() {
                        tracing::info!(
                            "Secret, caBundle and serving certificate are consistent again"
                        );
                    }
                    self.config.timing.reconcile_interval
                }
                Err(error) => {
                    // Renewals are checked after each attempt, so an attempt is due at least as
                    // often as a round.
                    let pause = backoff(failures).min(self.config.timing.reconcile_interval);
                    failures = failures.saturating_add(1);
                    self.report(&error);
                    self.renew_from_memory();
                    pause
                }
            };
            tokio::select! {
                () = self.pause(pause) => {}
                () = force.notified() => self.forced = Some(Timestamp::now()),
            }
        }
    }

    /// Waits for the next round. Meanwhile reads the client CA at its interval.
    async fn pause(&mut self, pause: Duration) {
        let end = tokio::time::Instant::now() + pause;
        while self.config.client_ca.is_some()
            && tokio::time::Instant::now() + self.config.reload_interval < end
        {
            sleep(self.config.reload_interval).await;
            self.reread_client_ca();
        }
        sleep_until(end).await;
    }

    /// Runs one round. Reads the objects again after a conflict with another replica.
    async fn round(&mut self) -> Result<(), RoundError> {
        self.reread_client_ca();
        for _ in 0..MAX_ATTEMPTS {
            match self.attempt().await {
                Ok(AttemptResult::Done) => return Ok(()),
                Ok(AttemptResult::Again)
                | Err(RoundError::Api(ApiError { error: CallError::Conflict, .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Err(RoundError::Contended)
    }

    async fn attempt(&mut self) -> Result<AttemptResult, RoundError> {
        // The caBundle is read first. A CA that another replica adds after we read the Secret
        // enters the caBundle later still, so our write conflicts. It must never remove that CA.
        let read = self.objects.webhook().await?;
        let mut secret = self.objects.secret().await?;
        self.observe(&read, Timestamp::now());
        let (authorities, serve) = self.settle_secret(&mut secret).await?;
        self.remember(authorities);

        let injected = self.settle_bundle(read).await;
        let now = Timestamp::now();
        // The new caBundle may allow the next step.
        if let Ok(true) = injected
            && self.next(&self.authorities, now) != RotationStep::Serve(serve)
        {
            return Ok(AttemptResult::Again);
        }
        self.serve(serve, now)?;
        injected.map(|_| AttemptResult::Done)
    }

    /// Writes the caBundle if it differs. Returns whether it did.
    async fn settle_bundle(&mut self, read: WebhookConfiguration) -> Result<bool, RoundError> {
        let name = self.objects.webhook_name().to_owned();
        let patch = inject::patch(&read, &self.authorities.certificates())
            .map_err(|error| RoundError::Webhook { name, error })?;
        let Some(patch) = patch else { return Ok(false) };
        let stored = self.objects.patch_webhook(&patch).await?;
        tracing::info!(object = self.objects.webhook_name(), "updated the caBundle");
        self.observe(&stored, Timestamp::now());
        Ok(true)
    }

    /// Records which CAs the caBundle holds, and whether it verifies the served leaf.
    fn observe(&mut self, read: &WebhookConfiguration, now: Timestamp) {
        let cas = inject::trusted(read);
        let before = std::mem::take(&mut self.seen);
        let seen = Instant::now();
        for ca in &cas {
            let id = Fingerprint::of(ca);
            self.seen.insert(id, before.get(&id).copied().unwrap_or(seen));
        }
        self.verify(&cas, now);
    }

    fn verify(&self, cas: &[CertificateDer<'static>], now: Timestamp) {
        let (Some(leaf), Some(name)) = (&self.leaf, self.config.dns_names.first()) else {
            return;
        };
        let verified = inject::verifies(cas, &leaf.certificate, name, now);
        self.metrics.bundle_verified(verified);
        if self.trusted.send_replace(verified) != verified {
            tracing::info!(
                verified,
                "checked whether the caBundle verifies the serving certificate"
            );
        }
    }

    /// Serves a leaf of `issuer`. Issues a new one if the current one is due or of another CA. A new
    /// one that fails a check is not served: the current one stays, and the next round tries again.
    fn serve(&mut self, issuer: Fingerprint, now: Timestamp) -> Result<(), RoundError> {
        let current = self.leaf.as_ref().is_some_and(|l| l.issuer == issuer && !l.is_due(now));
        if !current {
            let authority = self.authorities.find(issuer).ok_or(RoundError::Unsettled)?;
            let leaf =
                authority.issue(&self.config.dns_names, now, self.config.timing.leaf_lifetime);
            let leaf = leaf.inspect_err(|_| self.metrics.refresh_failed())?;
            let cert = self.checked(&leaf, now).inspect_err(|error| {
                self.metrics.refresh_failed();
                if matches!(error, RoundError::Unverified { .. }) {
                    // When a person removes this CA from the Secret, memory must not restore it.
                    self.authorities.drop(issuer);
                }
            })?;
            tracing::info!(not_after = %leaf.not_after, "serving a new certificate");
            self.publish(cert);
            self.leaf = Some(leaf);
        }
        if let Some(authority) = self.authorities.find(issuer) {
            self.metrics.signing_ca(authority.facts().not_after);
        }
        self.verify(&self.published_cas(), now);
        Ok(())
    }

    /// Our CAs that the caBundle holds, as last read.
    fn published_cas(&self) -> Vec<CertificateDer<'static>> {
        let mut cas = self.authorities.certificates();
        cas.retain(|ca| self.seen.contains_key(&Fingerprint::of(ca)));
        cas
    }

    /// Makes the configuration that serves `leaf`, and checks the leaf as an API server would: its
    /// chain to the caBundle, its names and its dates. If the caBundle does not hold the issuer (yet),
    /// the chain has to end there.
    fn checked(&self, leaf: &ServingLeaf, now: Timestamp) -> Result<ServingCert, RoundError> {
        let chain = vec![leaf.certificate.clone()];
        let cert = ServingCert::new(chain, leaf.key.clone_key(), self.client_cas.as_deref())?;
        let mut cas = self.published_cas();
        if !self.seen.contains_key(&leaf.issuer) {
            cas = self
                .authorities
                .find(leaf.issuer)
                .map(|it| it.certificate().clone())
                .into_iter()
                .collect();
        }
        // A leaf that is not valid yet is served anyway: it is our clock that may be wrong.
        let at = now.max(validity(&leaf.certificate)?.0);
        let is_accepted = |name: &String| inject::verifies(&cas, &leaf.certificate, name, at);
        if self.config.dns_names.iter().all(is_accepted) {
            return Ok(cert);
        }
        Err(RoundError::Unverified { object: self.objects.secret_name().to_owned() })
    }

    fn publish(&self, cert: ServingCert) {
        self.metrics.refreshed(cert.not_after());
        self.publisher.send_replace(Some(Arc::new(cert)));
    }

    /// Renews the leaf by its current CA while the API server or the Secret is not available.
    fn renew_from_memory(&mut self) {
        let now = Timestamp::now();
        if let Some(issuer) = self.leaf.as_ref().filter(|l| l.is_due(now)).map(|l| l.issuer)
            && let Err(error) = self.serve(issuer, now)
        {
            self.report(&error);
        }
    }

    /// Publishes a new configuration if the client CA has changed. An unusable one changes nothing.
    fn reread_client_ca(&mut self) {
        let Some(path) = &self.config.client_ca else { return };
        match client_cas(path) {
            Ok(cas) => {
                self.client_ca_log.clear();
                if self.client_cas.as_ref() != Some(&cas) {
                    self.use_client_cas(cas);
                }
            }
            Err(error) => {
                if self.client_ca_log.should_log(&error.to_string(), Instant::now()) {
                    tracing::error!(%error, "cannot use the new client CA, the previous one stays in use");
                }
            }
        }
    }

    /// Publishes the served leaf with other client CAs. If that fails, the previous ones stay in use,
    /// and the next reading of the file tries again.
    fn use_client_cas(&mut self, cas: Vec<CertificateDer<'static>>) {
        let before = self.client_cas.replace(cas);
        match self.leaf.as_ref().map(|leaf| self.checked(leaf, Timestamp::now())) {
            None => {}
            Some(Ok(cert)) => self.publish(cert),
            Some(Err(error)) => {
                self.client_cas = before;
                self.metrics.refresh_failed();
                self.report(&error);
            }
        }
    }

    fn next(&self, authorities: &Authorities, now: Timestamp) -> RotationStep {
        next_step(&self.facts(authorities), now, &self.config.timing)
    }

    fn facts(&self, authorities: &Authorities) -> Vec<CaFacts> {
        let now = Instant::now();
        let since = |times: &BTreeMap<Fingerprint, Instant>, id| {
            times.get(&id).map(|since| now.duration_since(*since))
        };
        authorities.facts(|id| Observed {
            trusted: since(&self.seen, id),
            active: since(&self.active, id),
        })
    }

    fn report(&mut self, error: &RoundError) {
        let message = error.to_string();
        if self.failure_log.should_log(&message, Instant::now()) {
            tracing::warn!(
                error = message,
                "cannot update the self-managed certificates, trying again"
            );
        }
    }
}

/// The result of one attempt.
enum AttemptResult {
    Done,
    Again,
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("other replicas write the same objects: reading them again")]
    Contended,
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the CAs in the Secret need too many changes in one round")]
    Unsettled,
    #[error(
        "{object}: clients would reject a leaf of the CA in it: remove its data, and a new CA is made"
    )]
    Unverified { object: String },
    #[error("{name}: {error}")]
    Webhook { name: String, error: NoSuchWebhook },
}

/// The most attempts in one round.
const MAX_ATTEMPTS: usize = 8;

/// The pause after a number of failures: 1 s, doubled each time, at most 30 s.
fn backoff(failures: u32) -> Duration {
    Duration::from_secs((1 << failures.min(5)).min(30))
}

#[cfg(test)]
mod tests;
