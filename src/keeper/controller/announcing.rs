//! Announces the CAs of sources to their followers: feeds [`Trust`](super::super::trust::Trust) from
//! its watches, reads sources, and has followers reconciled.

use jiff::Timestamp;
use tokio::time::Instant;

use super::super::announcing::{MAX_READS, TrustEvent};
use super::super::backoff::RetryCause;
use super::super::tasks::EndedTask;
use super::super::trust::issuers;
use super::super::trust::{SourceRead, Wanted};
use super::Controller;
use crate::kubernetes::call::CallError;
use crate::kubernetes::explain::{Audience, explain_watch};
use crate::kubernetes::key::Key;
use crate::kubernetes::reason::Reason;
use crate::kubernetes::secret_view::SecretView;

impl Controller {
    /// Takes in what a watch shows.
    pub(super) fn trust_event(&mut self, event: TrustEvent) {
        let Some(announcing) = &mut self.announcing else { return };
        let now = Instant::now();
        match event {
            TrustEvent::Secret(Ok(event)) => announcing.trust.secret(event, now),
            TrustEvent::Issuer((kind, Ok(event))) => announcing.trust.issuer(kind, event, now),
            TrustEvent::Issuer((_, Err(error))) if issuers::is_not_installed(&error) => {
                if !std::mem::replace(&mut announcing.is_reported, true) {
                    tracing::info!(
                        "cert-manager is not installed: its issuers are followed once it is"
                    );
                }
            }
            TrustEvent::Secret(Err(error)) | TrustEvent::Issuer((_, Err(error))) => {
                self.metrics.watch_failed();
                let error = explain_watch(&error, Audience::Log);
                tracing::warn!(error, "cannot watch followers or issuers: trying again");
            }
        }
        self.follow_up();
    }

    /// Starts to read the sources that are due.
    pub(super) fn read_sources(&mut self, leads: bool) {
        let Some(announcing) = self.announcing.as_mut().filter(|_| leads) else { return };
        while announcing.reads.len() < MAX_READS {
            let has_room = |namespace: &str| announcing.reads.has_room(namespace);
            let Some(key) = announcing.queue.pop(Instant::now(), has_room) else { return };
            if announcing.reads.change(&key) {
                continue;
            }
            let (reconciler, target) = (self.reconciler.clone(), key.clone());
            let label = announcing.trust.label_rule(&key);
            let read = async move { reconciler.read_source(&target, label).await };
            announcing.reads.start(&key, read);
        }
    }

    /// Takes in a source that was read.
    pub(super) fn source_read(&mut self, ended: EndedTask<Result<SourceRead, CallError>>) {
        let Some(announcing) = &mut self.announcing else { return };
        let EndedTask { key, result, is_changed } = ended;
        let now = Instant::now();
        match result {
            Ok(Ok(read)) => {
                announcing.retries.forget(&key);
                announcing.trust.source_read(&key, read, now);
            }
            Err(error) if error.is_cancelled() => drop(announcing.queue.set(&key, now)),
            Ok(Err(CallError::NotLeading)) => drop(announcing.queue.set(&key, now)),
            failed => {
                let retry = announcing.retries.failed(&key, RetryCause::Failed, "");
                drop(announcing.queue.set(&key, now + retry.pause));
                if retry.is_news {
                    let error = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => "reading it panicked".to_owned(),
                    };
                    tracing::warn!(secret = %key, error, "cannot read a source: trying again");
                }
            }
        }
        if is_changed {
            drop(announcing.queue.set(&key, now));
        }
        self.follow_up();
    }

    /// What a Secret is to be told. Reports what is refused.
    pub(super) fn wanted(&mut self, key: &Key) -> Option<Wanted> {
        let announcing = self.announcing.as_mut()?;
        let wanted = announcing.trust.wanted(key)?;
        for refusal in &wanted.new_refusals {
            let uid = announcing.trust.uid(key);
            self.events.publish(key, uid, Reason::TrustRefused, refusal.to_string());
        }
        Some(wanted)
    }

    /// Notes that a Secret was compared with what it is to be told, if it is a follower.
    pub(super) fn compared(&mut self, key: &Key, secret: &SecretView, is_opted_out: bool) {
        let Some(announcing) = &mut self.announcing else { return };
        let is_left_alone = || is_opted_out || self.reconciler.is_left_alone(secret);
        let is_left_alone = announcing.renewals.is_some().then(is_left_alone);
        let (now, time) = (Instant::now(), Timestamp::now());
        let ends = announcing.trust.compared(key, secret, is_left_alone, now, time);
        if let Some(ends) = ends {
            // It holds watched Secrets and followers only, so there is room.
            drop(self.deadlines.set_by(key, ends));
        }
    }

    /// Looks at a follower again that has changed while a task worked on it.
    pub(super) fn look_again(&mut self, key: &Key) {
        if let Some(announcing) = &mut self.announcing
            && announcing.later.remove(key)
        {
            announcing.trust.look(key);
        }
        self.follow_up();
    }

    /// Queues what is to be done.
    fn follow_up(&mut self) {
        let Some(announcing) = &mut self.announcing else { return };
        let todo = announcing.trust.take_todo();
        for (key, at) in todo.sources {
            if !announcing.retries.is_waiting(&key) {
                announcing.read_at(&key, at);
            }
        }
        for key in todo.followers {
            if self.tasks.is_running(&key) {
                if let Some(announcing) = &mut self.announcing {
                    announcing.later.insert(key);
                }
            } else {
                self.retries.changed(&key, None);
                self.schedule(&key);
            }
        }
    }
}
