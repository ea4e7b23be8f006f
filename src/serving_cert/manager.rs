//! `--self-managed`: keeps Secret, caBundle and serving certificate in step.
//!
//! Each round reads both objects anew, does what [`super::plan`] says, and publishes a leaf. A
//! round that fails at any point leaves a state that the next one goes on from.

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

use super::Repeated;
use super::api::{ApiError, Cluster, WebhookConfiguration};
use super::authority::Authorities;
use super::files::{FilesError, client_cas};
use super::inject::{self, NoSuchWebhook};
use super::issue::{IssueError, Leaf};
use super::metrics::CertificateMetrics;
use super::plan::{self, Generation, Observed, Step, plan};
use crate::kubernetes::call::CallError;
use crate::names;
use crate::server::tls::{Publisher, ServingCert, TlsError};
use crate::x509::certs::Fingerprint;

/// What the manager goes by.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The names of the serving certificate; the first is what the API server asks for.
    pub(crate) dns_names: Vec<String>,
    /// `--ca-lifetime`.
    pub(crate) ca_lifetime: Duration,
    /// What goes by other lengths of time.
    pub(crate) plan: plan::Settings,
    /// `--client-ca`.
    pub(crate) client_ca: Option<PathBuf>,
    /// `--tls-reload-interval`: how often to look at it.
    pub(crate) reload_interval: Duration,
}

/// Keeps Secret, caBundle and serving certificate in step; see [`Manager::run`].
pub(crate) struct Manager {
    cluster: Cluster,
    settings: Settings,
    publisher: Publisher,
    trusted: watch::Sender<bool>,
    metrics: CertificateMetrics,
    /// The last good state of the Secret, for the time it is damaged or gone.
    authorities: Authorities,
    /// Since when each CA was found in the caBundle, without a break.
    seen: BTreeMap<Fingerprint, Instant>,
    /// Since when each CA was found to be active.
    active: BTreeMap<Fingerprint, Instant>,
    /// When a rotation was asked for that has not been answered yet.
    forced: Option<Timestamp>,
    leaf: Option<Leaf>,
    client_cas: Option<Vec<CertificateDer<'static>>>,
    trouble: Repeated,
    client_ca_trouble: Repeated,
}

impl Manager {
    /// Fails where `--client-ca` cannot be used: at start that is for the operator to see.
    ///
    /// What is returned beside it says whether the caBundle that was last read verifies the leaf
    /// that is served.
    pub(crate) fn new(
        cluster: Cluster,
        settings: Settings,
        publisher: Publisher,
        metrics: CertificateMetrics,
    ) -> Result<(Self, watch::Receiver<bool>), FilesError> {
        let client_cas = settings.client_ca.as_deref().map(client_cas).transpose()?;
        let (trusted, receiver) = watch::channel(false);
        let manager = Self {
            cluster,
            settings,
            publisher,
            trusted,
            metrics,
            authorities: Authorities::default(),
            seen: BTreeMap::new(),
            active: BTreeMap::new(),
            forced: None,
            leaf: None,
            client_cas,
            trouble: Repeated::default(),
            client_ca_trouble: Repeated::default(),
        };
        Ok((manager, receiver))
    }

    /// Rounds for ever: each `--reconcile-interval`, sooner while something fails.
    ///
    /// A notification forces a rotation: a round at once, which adds a CA unless one is on its way.
    pub(crate) async fn run(mut self, force: Arc<Notify>) -> Infallible {
        let mut failures = 0;
        loop {
            let pause = match self.round().await {
                Ok(()) => {
                    failures = 0;
                    if self.trouble.clear() {
                        tracing::info!("Secret, caBundle and serving certificate are in step");
                    }
                    self.settings.plan.reconcile_interval
                }
                Err(error) => {
                    // Renewals are looked at between tries, so these must not be rarer than rounds.
                    let pause = backoff(failures).min(self.settings.plan.reconcile_interval);
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

    /// Waits for the next round, with an eye on the client CA.
    async fn pause(&mut self, pause: Duration) {
        let end = tokio::time::Instant::now() + pause;
        while self.settings.client_ca.is_some()
            && tokio::time::Instant::now() + self.settings.reload_interval < end
        {
            sleep(self.settings.reload_interval).await;
            self.reread_client_ca();
        }
        sleep_until(end).await;
    }

    /// One round, with as many readings as conflicts with other replicas ask for.
    async fn round(&mut self) -> Result<(), RoundError> {
        self.reread_client_ca();
        for _ in 0..MAX_READINGS {
            match self.attempt().await {
                Ok(Progress::Done) => return Ok(()),
                Ok(Progress::Again)
                | Err(RoundError::Api(ApiError { error: CallError::Conflict, .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Err(RoundError::Contended)
    }

    async fn attempt(&mut self) -> Result<Progress, RoundError> {
        // In this order: a CA that is added once the Secret was read changes the caBundle later
        // still, so writing what we read here then conflicts. It must never take that CA out.
        let read = self.cluster.webhook().await?;
        let mut secret = self.cluster.secret().await?;
        self.observe(&read, Timestamp::now());
        let (authorities, serve) = self.settle_secret(&mut secret).await?;
        self.remember(authorities);

        let injected = self.settle_bundle(read).await;
        let now = Timestamp::now();
        // The caBundle may have become what a change was waiting for.
        if let Ok(true) = injected
            && self.next(&self.authorities, now) != Step::Serve(serve)
        {
            return Ok(Progress::Again);
        }
        self.serve(serve, now)?;
        injected.map(|_| Progress::Done)
    }

    /// Injects the caBundle if it differs; says whether it did.
    async fn settle_bundle(&mut self, read: WebhookConfiguration) -> Result<bool, RoundError> {
        let name = self.cluster.webhook_name().to_owned();
        let patch = inject::patch(&read, &self.authorities.certificates())
            .map_err(|error| RoundError::Webhook { name, error })?;
        let Some(patch) = patch else { return Ok(false) };
        let stored = self.cluster.patch_webhook(&patch).await?;
        tracing::info!(object = self.cluster.webhook_name(), "the caBundle was written");
        self.observe(&stored, Timestamp::now());
        Ok(true)
    }

    /// Notes which CAs the caBundle holds, and whether it verifies what is served.
    fn observe(&mut self, read: &WebhookConfiguration, now: Timestamp) {
        let bundle = read.ca_bundle(names::WEBHOOK).map_or("", |(_, bundle)| bundle);
        let cas = inject::certificates(bundle);
        let before = std::mem::take(&mut self.seen);
        let seen = Instant::now();
        for ca in &cas {
            let id = Fingerprint::of(ca);
            self.seen.insert(id, before.get(&id).copied().unwrap_or(seen));
        }
        self.verify(&cas, now);
    }

    fn verify(&self, cas: &[CertificateDer<'static>], now: Timestamp) {
        let (Some(leaf), Some(name)) = (&self.leaf, self.settings.dns_names.first()) else {
            return;
        };
        let verified = inject::verifies(cas, &leaf.certificate, name, now);
        self.metrics.bundle_verified(verified);
        if self.trusted.send_replace(verified) != verified {
            tracing::info!(verified, "whether the caBundle verifies the serving certificate");
        }
    }

    /// Publishes a leaf of `issuer`, a new one if need be.
    fn serve(&mut self, issuer: Fingerprint, now: Timestamp) -> Result<(), RoundError> {
        let current = self.leaf.as_ref().is_some_and(|l| l.issuer == issuer && !l.is_due(now));
        if !current {
            let authority = self.authorities.find(issuer).ok_or(RoundError::Unsettled)?;
            let leaf =
                authority.issue(&self.settings.dns_names, now, self.settings.plan.leaf_lifetime);
            let leaf = leaf.inspect_err(|_| self.metrics.refresh_failed())?;
            tracing::info!(not_after = %leaf.not_after, "serving a new certificate");
            self.leaf = Some(leaf);
            self.publish()?;
        }
        if let Some(authority) = self.authorities.find(issuer) {
            self.metrics.signing_ca(authority.facts().not_after);
        }
        let cas: Vec<_> = self
            .authorities
            .certificates()
            .into_iter()
            .filter(|ca| self.seen.contains_key(&Fingerprint::of(ca)))
            .collect();
        self.verify(&cas, now);
        Ok(())
    }

    fn publish(&self) -> Result<(), RoundError> {
        let Some(leaf) = &self.leaf else { return Ok(()) };
        let chain = vec![leaf.certificate.clone()];
        let cert = ServingCert::new(chain, leaf.key.clone_key(), self.client_cas.as_deref())
            .inspect_err(|_| self.metrics.refresh_failed())?;
        self.metrics.refreshed(cert.not_after());
        self.publisher.send_replace(Some(Arc::new(cert)));
        Ok(())
    }

    /// While the API server is away or the Secret is gone: the CA that is being served goes on.
    fn renew_from_memory(&mut self) {
        let now = Timestamp::now();
        if let Some(issuer) = self.leaf.as_ref().filter(|l| l.is_due(now)).map(|l| l.issuer)
            && let Err(error) = self.serve(issuer, now)
        {
            self.report(&error);
        }
    }

    /// A changed client CA publishes a whole new configuration; a broken one changes nothing.
    fn reread_client_ca(&mut self) {
        let Some(path) = &self.settings.client_ca else { return };
        match client_cas(path) {
            Ok(cas) => {
                self.client_ca_trouble.clear();
                if self.client_cas.as_ref() != Some(&cas) {
                    self.client_cas = Some(cas);
                    if let Err(error) = self.publish() {
                        self.report(&error);
                    }
                }
            }
            Err(error) => {
                if self.client_ca_trouble.is_news(&error.to_string(), Instant::now()) {
                    tracing::error!(%error, "the client CA read before stays");
                }
            }
        }
    }

    fn next(&self, authorities: &Authorities, now: Timestamp) -> Step {
        plan(&self.generations(authorities), now, &self.settings.plan)
    }

    fn generations(&self, authorities: &Authorities) -> Vec<Generation> {
        let now = Instant::now();
        let since = |times: &BTreeMap<Fingerprint, Instant>, id| {
            times.get(&id).map(|since| now.duration_since(*since))
        };
        authorities.generations(|id| Observed {
            trusted: since(&self.seen, id),
            active: since(&self.active, id),
        })
    }

    fn report(&mut self, error: &RoundError) {
        let message = error.to_string();
        if self.trouble.is_news(&message, Instant::now()) {
            tracing::warn!(error = message, "self-managed certificates: will be tried again");
        }
    }
}

/// How a reading of both objects ended.
enum Progress {
    Done,
    Again,
}

/// What kept a round from being finished.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("other replicas write at the same time: reading again")]
    Contended,
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the CAs in the Secret do not come to rest")]
    Unsettled,
    #[error("{name}: {error}")]
    Webhook { name: String, error: NoSuchWebhook },
}

/// Readings in one round.
const MAX_READINGS: usize = 8;

/// 1 s, doubled each time, at most 30 s.
fn backoff(failures: u32) -> Duration {
    Duration::from_secs((1 << failures.min(5)).min(30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backing_off_is_between_one_second_and_thirty() {
        let pauses: Vec<u64> = (0..8).map(|n| backoff(n).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
    }
}
