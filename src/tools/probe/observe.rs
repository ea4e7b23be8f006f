//! Watching one server by one version of TLS.
//!
//! ```text
//! full handshake ──► hold what it may be resumed with, at least one more than is needed
//! check            = resume with one of these  ∥  a full handshake that shows the certificate
//!   same as before ──► the attempt was a control: does this server resume at all?
//!   another one    ──► confirm: every new connection gets another one for `settle`;
//!                      then resume with what was held from before
//! ```
//!
//! What is spent must be from before the rotation, so nothing that came with another certificate,
//! or on a resumed connection, is ever held.

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::sleep;

use super::connect::{Client, Handshake, Refused};
use super::session::Session;
use super::trust::Trust;
use super::verdict::{Evidence, Verdict, judge};
use crate::x509::certs::Certificate;

/// How many are held at most. Newer ones replace older ones, which may outlive their lifetime.
const HELD: usize = 4;
/// How often a server that does not resume is asked again: one of several behind an address may.
const CONTROLS: usize = 3;
/// How many new connections in a row must get another certificate than before. Behind an address
/// may be several servers, and an old process may accept for a moment beside the new one.
const SAMPLES: u32 = 10;
/// As many again after one that resumed.
const AFTERWARDS: u32 = 3;

/// How fast to go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Between two checks.
    pub(super) interval: Duration,
    /// For how long no new connection may get an old certificate before a rotation counts as done.
    pub(super) settle: Duration,
}

/// What a run is doing, for people who wait.
#[derive(Debug, Default)]
pub(super) struct Doing {
    pub(super) handshakes: Cell<usize>,
    pub(super) settling: Cell<bool>,
}

/// Why nothing can be said about a server.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stuck {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the certificate of {0} is not trusted: {1} (--ca-file names its CA)")]
    Untrusted(String, String),
    #[error("{0} sent no certificate that can be read")]
    Unreadable(String),
    #[error("the certificate of {0} changed while nothing from before was held; try again")]
    Missed(String),
}

/// What is known about one server.
pub(super) struct Observer<'a> {
    client: &'a Client,
    trust: &'a Trust,
    doing: &'a Doing,
    held: VecDeque<Session>,
    evidence: Evidence,
    /// How many tickets or sessions the first handshake gave.
    pub(super) given: usize,
    /// The certificates that were served before; several where several servers answer.
    pub(super) old: Vec<Certificate>,
    /// The one that is served instead, and why it is not trusted.
    pub(super) new: Option<(Certificate, Result<(), String>)>,
    /// What the last connection failed with, if it did.
    pub(super) failed: Option<Stuck>,
    /// Connections that failed.
    pub(super) failures: usize,
}

impl<'a> Observer<'a> {
    /// Makes the first handshakes, and finds out whether the server resumes.
    pub(super) async fn begin(
        client: &'a Client,
        trust: &'a Trust,
        doing: &'a Doing,
    ) -> Result<Self, Stuck> {
        let mut observer = Self {
            client,
            trust,
            doing,
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
            .map_err(|why| Stuck::Untrusted(client.target.to_string(), why))?;
        observer.given = first.sessions.len();
        observer.take(first, true)?;
        for _ in 0..CONTROLS {
            observer.check(true).await?;
            if observer.evidence.before.resumed > 0 {
                break;
            }
        }
        Ok(observer)
    }

    /// What it all says.
    pub(super) fn verdict(&self) -> Verdict {
        judge(&self.evidence)
    }

    pub(super) fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Whether watching on can change the verdict.
    pub(super) fn is_final(&self) -> bool {
        self.evidence.rotated || self.verdict() == Verdict::NoResumption
    }

    /// Checks again and again until the verdict is final. A server that does not answer is
    /// restarting, as far as anyone can tell from here, and is tried again.
    pub(super) async fn watch(&mut self, pace: Pace) {
        while !self.is_final() {
            sleep(pace.interval).await;
            let result = match self.new {
                // Spends nothing of what is held before it is clear that there was a rotation.
                Some(_) => self.confirm(pace.settle).await,
                None => self.check(false).await,
            };
            self.failures += usize::from(result.is_err());
            self.failed = result.err();
            if let Some(Stuck::Missed(_)) = self.failed {
                return;
            }
        }
    }

    /// Resumes and makes a full handshake, at the same time. At first, every certificate that is
    /// seen counts as an old one.
    async fn check(&mut self, is_first: bool) -> Result<(), Stuck> {
        if self.held.len() < 2 {
            // Most give more than one at a time; others are asked once more.
            let more = self.full().await?;
            self.take(more, is_first)?;
        }
        if self.held.len() < 2 || self.new.is_some() {
            return Ok(()); // The last one is kept for after the rotation.
        }
        let Some(session) = self.held.pop_front() else { return Ok(()) };
        let (resumed, fresh) = tokio::join!(self.resume(session), self.full());
        self.take(fresh?, is_first)?;
        let resumed = resumed?;
        // Otherwise the attempt was made while the certificate changed, and says nothing.
        if self.new.is_none() && self.old.contains(&self.leaf(&resumed)?) {
            self.evidence.before.count(resumed.resumed);
            self.evidence.last_resumed = resumed.resumed;
        }
        Ok(())
    }

    /// Waits until no new connection gets an old certificate any more, then tries what was held.
    /// Where one does, there was no rotation, or it is not over.
    async fn confirm(&mut self, settle: Duration) -> Result<(), Stuck> {
        self.doing.settling.set(true);
        let done = self.confirm_by(settle).await;
        self.doing.settling.set(false);
        if !matches!(done, Ok(true) | Err(Stuck::Refused(_))) {
            self.new = None;
        }
        done.map(drop)
    }

    async fn confirm_by(&mut self, settle: Duration) -> Result<bool, Stuck> {
        if !self.all_new(SAMPLES, settle / SAMPLES).await? {
            return Ok(false);
        }
        while let Some(session) = self.held.pop_back() {
            // What was spent is gone, also where the connection failed.
            let Ok(resumed) = self.resume(session).await else { continue };
            let is_old = !resumed.resumed && self.old.contains(&self.leaf(&resumed)?);
            // An old server that still answers may resume: then others get its certificate, too.
            if is_old || (resumed.resumed && !self.all_new(AFTERWARDS, Duration::ZERO).await?) {
                return Ok(false);
            }
            self.evidence.after.count(resumed.resumed);
        }
        if self.evidence.after.tried == 0 && self.evidence.before.resumed > 0 {
            return Err(Stuck::Missed(self.client.target.to_string()));
        }
        self.evidence.rotated = true;
        Ok(true)
    }

    /// Whether so many new connections, with pauses between them, all get a new certificate.
    async fn all_new(&mut self, samples: u32, pause: Duration) -> Result<bool, Stuck> {
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

    /// Sorts a full handshake: one with an old certificate gives what to hold.
    fn take(&mut self, fresh: Handshake, is_first: bool) -> Result<(), Stuck> {
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

    fn hold(&mut self, sessions: Vec<Session>) {
        self.held.extend(sessions);
        let surplus = self.held.len().saturating_sub(HELD);
        self.held.drain(..surplus);
    }

    async fn full(&self) -> Result<Handshake, Refused> {
        self.doing.handshakes.set(self.doing.handshakes.get() + 1);
        self.client.full().await
    }

    async fn resume(&self, session: Session) -> Result<Handshake, Refused> {
        self.doing.handshakes.set(self.doing.handshakes.get() + 1);
        self.client.resume(session).await
    }

    fn leaf(&self, handshake: &Handshake) -> Result<Certificate, Stuck> {
        let leaf = handshake.chain.first().and_then(|der| Certificate::from_der(der.to_vec()));
        leaf.ok_or_else(|| Stuck::Unreadable(self.client.target.to_string()))
    }
}
