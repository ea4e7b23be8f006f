//! Observes one server with one TLS version.
//!
//! ```text
//! full handshake ──► keep its sessions, as many as the evidence needs
//! check            = resume with one session  ∥  a full handshake that shows the certificate
//!   same certificate ──► the attempt is a control: does this server resume at all?
//!   another one      ──► confirm: every new connection gets another one for `settle`;
//!                        then resume with the sessions from before
//! ```
//!
//! The sessions must be from before the rotation. So a session that came with another certificate,
//! or on a resumed connection, is not kept.

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::sleep;

use super::connect::{Client, ConnectionError, Handshake};
use super::evidence::{Evidence, ProbeVerdict, judge};
use super::session::Session;
use super::trust::Trust;
use crate::x509::certs::Certificate;

/// How many controls a server gets, and how many more until one resumes: an address can have several
/// servers, and each may resume only its own sessions.
const CONTROLS: usize = 6;
const MORE_CONTROLS: usize = 18;
/// How many new connections in a row must get another certificate. An address can have several
/// servers, and an old process may accept connections for a moment beside the new one.
const SAMPLES: u32 = 10;
/// How many more of these follow a resumption.
const AFTERWARDS: u32 = 3;

/// How often to check, and how long to confirm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The time between two checks.
    pub(super) interval: Duration,
    /// How long every new connection must get the new certificate before the rotation counts as
    /// complete.
    pub(super) settle: Duration,
}

/// The progress of a probe, to be shown while it runs.
#[derive(Debug, Default)]
pub(super) struct ProbeProgress {
    pub(super) handshakes: Cell<usize>,
    pub(super) settling: Cell<bool>,
}

/// Why a server cannot be observed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ObserverError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("the certificate of {0} is not trusted: {1}; give its CA with --ca-file")]
    Untrusted(String, String),
    #[error("{0} sent no readable certificate")]
    Unreadable(String),
    #[error("the certificate of {0} changed when no session from before was left; try again")]
    Missed(String),
}

/// Observes one server and collects the evidence.
pub(super) struct Observer<'a> {
    client: &'a Client,
    trust: &'a Trust,
    progress: &'a ProbeProgress,
    held: VecDeque<Session>,
    evidence: Evidence,
    /// How many tickets or sessions the first handshake gave.
    pub(super) given: usize,
    /// The certificates served before the rotation; several if several servers answer.
    pub(super) old: Vec<Certificate>,
    /// The certificate served now, and why it is not trusted.
    pub(super) new: Option<(Certificate, Result<(), String>)>,
    /// The error of the last connection, if it failed.
    pub(super) failed: Option<ObserverError>,
    /// How many connections failed.
    pub(super) failures: usize,
}

impl<'a> Observer<'a> {
    /// Makes the first handshakes, which show whether the server resumes.
    pub(super) async fn begin(
        client: &'a Client,
        trust: &'a Trust,
        progress: &'a ProbeProgress,
    ) -> Result<Self, ObserverError> {
        let mut observer = Self {
            client,
            trust,
            progress,
            held: VecDeque::new(),
            evidence: Evidence::default(),
            given: 0,
            old: Vec::new(),
            new: None,
            failed: None,
            failures: 0,
        };
        let first = observer.full().await?;
        trust
            .check(&first.chain, &client.name)
            .map_err(|why| ObserverError::Untrusted(client.endpoint.to_string(), why))?;
        observer.given = first.sessions.len();
        observer.take(first, true)?;
        for control in 0..CONTROLS + MORE_CONTROLS {
            if control >= CONTROLS && observer.evidence.before.resumed > 0 {
                break;
            }
            observer.check(true).await?;
        }
        observer.gather(true).await?;
        Ok(observer)
    }

    /// The verdict so far.
    pub(super) fn verdict(&self) -> ProbeVerdict {
        judge(&self.evidence)
    }

    pub(super) fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Whether the verdict cannot change any more.
    pub(super) fn is_final(&self) -> bool {
        self.evidence.rotated || self.verdict() == ProbeVerdict::NoResumption
    }

    /// Checks repeatedly until the verdict is final. A server that does not answer may be
    /// restarting, so it is tried again.
    pub(super) async fn watch(&mut self, pace: Pace) {
        while !self.is_final() {
            sleep(pace.interval).await;
            let result = match self.new {
                // Uses no session before the rotation is confirmed.
                Some(_) => self.confirm(pace.settle).await,
                None => self.check(false).await,
            };
            self.failures += usize::from(result.is_err());
            self.failed = result.err();
            if let Some(ObserverError::Missed(_)) = self.failed {
                return;
            }
        }
    }

    /// Resumes and makes a full handshake at the same time. In the first checks, every certificate
    /// counts as an old one.
    async fn check(&mut self, is_first: bool) -> Result<(), ObserverError> {
        self.gather(is_first).await?;
        if self.held.len() < 2 || self.new.is_some() {
            return Ok(()); // The last session is kept for after the rotation.
        }
        let Some(session) = self.held.pop_front() else { return Ok(()) };
        let (resumed, fresh) = tokio::join!(self.resume(session), self.full());
        self.take(fresh?, is_first)?;
        let resumed = resumed?;
        // An attempt during the change of the certificate proves nothing.
        if self.new.is_none() && self.old.contains(&self.leaf(&resumed)?) {
            self.evidence.count_before(resumed.resumed);
        }
        Ok(())
    }

    /// Makes handshakes until enough sessions are kept. Many servers give more than one at a time.
    async fn gather(&mut self, is_first: bool) -> Result<(), ObserverError> {
        while self.held.len() < self.evidence.sessions_needed() && self.new.is_none() {
            let before = self.held.len();
            let more = self.full().await?;
            self.take(more, is_first)?;
            if self.held.len() == before {
                break;
            }
        }
        Ok(())
    }

    /// Waits until no new connection gets an old certificate, then resumes with the sessions from
    /// before. If a connection gets an old one, the rotation is not complete.
    async fn confirm(&mut self, settle: Duration) -> Result<(), ObserverError> {
        self.progress.settling.set(true);
        let done = self.confirm_by(settle).await;
        self.progress.settling.set(false);
        if !matches!(done, Ok(true) | Err(ObserverError::Connection(_))) {
            self.new = None;
        }
        done.map(drop)
    }

    async fn confirm_by(&mut self, settle: Duration) -> Result<bool, ObserverError> {
        if !self.all_new(SAMPLES, settle / SAMPLES).await? {
            return Ok(false);
        }
        while let Some(session) = self.held.pop_back() {
            // A session that was used is gone, even if the connection failed.
            let Ok(resumed) = self.resume(session).await else { continue };
            let is_old = !resumed.resumed && self.old.contains(&self.leaf(&resumed)?);
            // An old server that still runs may resume. Then new connections get its certificate
            // too.
            if is_old || (resumed.resumed && !self.all_new(AFTERWARDS, Duration::ZERO).await?) {
                return Ok(false);
            }
            self.evidence.after.count(resumed.resumed);
            if resumed.resumed {
                break;
            }
        }
        if self.evidence.after.tried == 0 && self.evidence.before.resumed > 0 {
            return Err(ObserverError::Missed(self.client.endpoint.to_string()));
        }
        self.evidence.rotated = true;
        Ok(true)
    }

    /// Whether `samples` new connections, with pauses between them, all get a new certificate.
    async fn all_new(&mut self, samples: u32, pause: Duration) -> Result<bool, ObserverError> {
        for _ in 0..samples {
            sleep(pause).await;
            let fresh = self.full().await?;
            self.take(fresh, false)?;
            if self.new.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the result of a full handshake. Keeps its sessions if the certificate is an old one.
    fn take(&mut self, fresh: Handshake, is_first: bool) -> Result<(), ObserverError> {
        let leaf = self.leaf(&fresh)?;
        if is_first && !self.old.contains(&leaf) {
            self.old.push(leaf.clone());
        }
        if self.old.contains(&leaf) {
            self.new = None;
            self.hold(fresh.sessions);
        } else {
            let trusted = self.trust.check(&fresh.chain, &self.client.name);
            self.new = Some((leaf, trusted));
        }
        Ok(())
    }

    /// New sessions replace the oldest ones, which expire first.
    fn hold(&mut self, sessions: Vec<Session>) {
        self.held.extend(sessions);
        let surplus = self.held.len().saturating_sub(self.evidence.sessions_needed());
        self.held.drain(..surplus);
    }

    async fn full(&self) -> Result<Handshake, ConnectionError> {
        self.progress.handshakes.set(self.progress.handshakes.get() + 1);
        self.client.full().await
    }

    async fn resume(&self, session: Session) -> Result<Handshake, ConnectionError> {
        self.progress.handshakes.set(self.progress.handshakes.get() + 1);
        self.client.resume(session).await
    }

    fn leaf(&self, handshake: &Handshake) -> Result<Certificate, ObserverError> {
        let leaf = handshake.chain.first().and_then(|der| Certificate::from_der(der.to_vec()));
        leaf.ok_or_else(|| ObserverError::Unreadable(self.client.endpoint.to_string()))
    }
}
