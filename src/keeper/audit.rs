//! `--audit`: says what the keeper would do, once, instead of doing it.
//!
//! Each write is refused where it would be sent (`secrets::fence`), so whatever forgets to ask here
//! fails instead of writing.

use std::borrow::Cow;
use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::Resource;

use super::events::{self, Events};
use super::metrics::RestartResult;
use crate::keeper::metrics::{AskKind, AskResult, KeeperMetrics};
use crate::kubernetes::key::Key;
use crate::kubernetes::reason::Reason;
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::ask::Ask;
use crate::overlap::outlook::{Due, Outlook};
use crate::overlap::restart::RestartOutcome;
use crate::overlap::workload::Workload;
use crate::x509::certs::Fingerprint;

/// Says what would be done. Clones share what was said.
#[derive(Clone, Debug)]
pub struct Audit {
    events: Events,
    metrics: KeeperMetrics,
    state: Arc<Mutex<AuditState>>,
}

#[derive(Debug, Default)]
struct AuditState {
    /// Hashes of what was said.
    said: HashSet<u64>,
    /// The annotation `restarted` as it would be: it says for which trust restarts were begun.
    restarted: HashMap<Key, String>,
}

/// The most entries of each kind. Then all are forgotten, and things are said again.
const MAX: usize = 10_000;

impl Audit {
    /// Says it by `events`, and counts it in `metrics`.
    pub fn new(events: Events, metrics: KeeperMetrics) -> Self {
        Self { events, metrics, state: Arc::default() }
    }

    /// Says what the webhook would be asked. `outlook` is that of the Secret.
    pub(super) fn ask(
        &self,
        secret: &SecretView,
        outlook: &Outlook,
        kind: AskKind,
        ask: Option<&Ask>,
    ) {
        let (reason, what) = words(outlook, ask);
        if self.is_new(secret, reason, &what) {
            self.metrics.asked(kind, AskResult::Would);
            self.say(secret, reason, &what);
        }
    }

    /// Says that a workload would be restarted. It is not said again, because of [`Self::note`].
    pub(super) fn restart(&self, secret: &SecretView, workload: &Workload) {
        self.metrics.restart(RestartResult::Would);
        self.say(secret, Reason::Restarted, &format!("restart {workload}"));
    }

    /// Says which workloads would not be restarted, and why.
    pub(super) fn not_restarted(&self, secret: &SecretView, outcomes: &[(String, RestartOutcome)]) {
        for (workload, outcome) in outcomes {
            let (_, reason, text) = events::of_restart(outcome);
            if reason == Reason::RestartFailed {
                self.say(secret, reason, &format!("report {workload}: {text}"));
            }
        }
    }

    /// Whether this was not said before.
    fn is_new(&self, secret: &SecretView, reason: Reason, what: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        (Key::of(secret), secret.object_uid(), reason.name(), what).hash(&mut hasher);
        let mut state = self.lock();
        if state.said.len() >= MAX {
            state.said.clear();
        }
        state.said.insert(hasher.finish())
    }

    fn say(&self, secret: &SecretView, reason: Reason, what: &str) {
        self.events.would(&Key::of(secret), secret.object_uid(), reason, what);
    }

    /// Notes what the annotation `restarted` would say.
    pub(super) fn note(&self, key: &Key, restarted: String) {
        let mut state = self.lock();
        if state.restarted.len() >= MAX {
            state.restarted.clear();
        }
        state.restarted.insert(key.clone(), restarted);
    }

    /// The Secret with the annotation `restarted` as it would be.
    pub(super) fn noted<'a>(&self, secret: &'a SecretView) -> Cow<'a, SecretView> {
        let Some(note) = self.lock().restarted.get(&Key::of(secret)).cloned() else {
            return Cow::Borrowed(secret);
        };
        let mut secret = secret.clone();
        let annotations = secret.meta_mut().annotations.get_or_insert_default();
        annotations.insert(names::RESTARTED.to_owned(), note);
        Cow::Owned(secret)
    }

    fn lock(&self) -> MutexGuard<'_, AuditState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reason of the Event, and what would be done.
fn words(outlook: &Outlook, ask: Option<&Ask>) -> (Reason, String) {
    let list = |all: &mut dyn Iterator<Item = Fingerprint>| {
        all.map(|it| it.to_string()).collect::<Vec<_>>().join(", ")
    };
    let is_there = |ca: Fingerprint| {
        outlook.certificates.iter().any(|known| known.certificate.fingerprint() == ca)
    };
    match ask {
        Some(Ask::Announce(all)) => {
            let all = all.iter().map(|it| Fingerprint::of(&it.der));
            let new = list(&mut all.filter(|ca| !is_there(*ca)));
            if new.is_empty() {
                return (Reason::Withdrawn, "take announced CAs back".to_owned());
            }
            (Reason::Announced, format!("announce {new}"))
        }
        Some(Ask::Retire) => {
            let ended = match &outlook.due {
                Some(Due::Retire(ended)) => ended.as_slice(),
                _ => &[],
            };
            (Reason::Retired, format!("remove {} from ca.crt", list(&mut ended.iter().copied())))
        }
        Some(Ask::Promote(_)) => {
            (Reason::Promoted, "put the leaf that waits into service".to_owned())
        }
        Some(Ask::Unstage) => (Reason::StageEnded, "end what is left of a stage".to_owned()),
        // The webhook saw the write and left it alone, too: this is what it would have carried.
        Some(Ask::Repair(repair)) => {
            let all = repair.certificates.iter().map(|it| Fingerprint::of(&it.der));
            let all: Vec<Fingerprint> = all.collect();
            let keys: Vec<&str> = repair.settings.iter().map(|(key, _)| *key).collect();
            let reason = if all.is_empty() { Reason::Repaired } else { Reason::Overlapping };
            let carried = format!("keep {} in ca.crt", list(&mut all.into_iter()));
            let set = format!("set {} again", keys.join(", "));
            let parts = [(reason == Reason::Overlapping, carried), (!keys.is_empty(), set)];
            let parts = parts.into_iter().filter_map(|(is_part, text)| is_part.then_some(text));
            (reason, parts.collect::<Vec<_>>().join(", "))
        }
        None => (Reason::AskFailed, "remove an ask that no webhook has seen".to_owned()),
    }
}
