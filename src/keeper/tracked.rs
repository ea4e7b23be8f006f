//! What the keeper tracks of each watched Secret. It is little, so that ten thousand Secrets fit.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use super::fair::Fair;
use crate::keeper::metrics::KeeperMetrics;
use crate::kubernetes::key::Key;
use crate::kubernetes::reason::Reason;
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::distrust::Distrust;
use crate::overlap::outlook::{Outlook, Problem};
use crate::x509::certs::Fingerprint;

/// A label selector that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selector {
    /// Secrets with the label `phase`.
    Phase,
    /// Secrets with the label `mode`.
    Mode,
}

impl Selector {
    /// Both selectors.
    pub(crate) const ALL: [Self; 2] = [Self::Phase, Self::Mode];

    /// The label that selects.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Phase => names::PHASE,
            Self::Mode => names::MODE,
        }
    }
}

/// What the keeper tracks of one Secret.
#[derive(Clone, Debug)]
pub struct TrackedSecret {
    /// The object's uid.
    pub(crate) uid: String,
    phase: SecretPhase,
    carried: Vec<CarriedCa>,
    /// The SHA-256 of `pending.tls.crt`.
    pending: Option<Fingerprint>,
    distrust: Distrust,
    problems: Vec<Problem>,
    /// Whether something is under `pending.*`.
    pub(crate) waits: bool,
    /// Whether an ask is stored, which the webhook has not seen.
    is_asked: bool,
    is_selected: [bool; 2],
}

/// A carried CA.
#[derive(Clone, Copy, Debug)]
struct CarriedCa {
    sha256: Fingerprint,
    ends: Option<Timestamp>,
    is_announced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SecretPhase {
    Overlap,
    Staged,
    None,
}

impl TrackedSecret {
    /// Takes what is tracked from a Secret and its outlook.
    pub fn of(secret: &SecretView, outlook: &Outlook) -> Self {
        let carried = outlook.certificates.iter().filter(|known| known.carried.is_some());
        let carried = carried.map(|known| CarriedCa {
            sha256: known.certificate.fingerprint(),
            ends: known.ends,
            is_announced: known.is_announced(),
        });
        Self {
            uid: secret.object_uid().unwrap_or_default().to_owned(),
            phase: match secret.label(names::PHASE) {
                Some("staged") => SecretPhase::Staged,
                Some(_) => SecretPhase::Overlap,
                None => SecretPhase::None,
            },
            carried: carried.collect(),
            pending: outlook.stage.as_ref().map(|staged| staged.stage.pending),
            distrust: outlook.settings.distrust.clone(),
            problems: outlook.problems.clone(),
            waits: secret.view().waits(),
            is_asked: secret.annotation(names::ASK).is_some(),
            is_selected: Selector::ALL.map(|selector| secret.label(selector.label()).is_some()),
        }
    }

    /// About the bytes that it takes, with its places in queues and maps.
    fn size(&self) -> usize {
        const PLACES: usize = 768;
        let carried = size_of_val(self.carried.as_slice());
        let distrust = size_of_val(self.distrust.own());
        PLACES + self.uid.len() + carried + distrust + size_of_val(self.problems.as_slice())
    }

    /// Adds a problem that the Secret itself does not show.
    pub(crate) fn add(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Whether the Secret has this problem.
    #[cfg(test)]
    pub(crate) fn has(&self, problem: &Problem) -> bool {
        self.problems.contains(problem)
    }

    /// Whether the watch of `selector` shows the Secret.
    pub(crate) fn is_selected(&self, selector: Selector) -> bool {
        self.is_selected[selector as usize]
    }

    /// Whether the change from `before` to this state shows that the webhook is called: another CA is
    /// carried, a pair begins to wait, or an ask is gone. Other writers could write this, too. They
    /// gain only a try.
    pub(crate) fn shows_webhook(&self, before: &Self) -> bool {
        let is_new = |it: &CarriedCa| before.carried.iter().all(|was| was.sha256 != it.sha256);
        let shows = self.carried.iter().any(is_new)
            || (self.pending.is_some() && self.pending != before.pending)
            || (before.is_asked && !self.is_asked);
        shows && self.uid == before.uid
    }

    /// The Events for the change from `before` to `secret`, two states of one object; `outlook` is
    /// that of `secret` at `now`.
    pub fn news(
        &self,
        before: Option<&Self>,
        secret: &SecretView,
        outlook: &Outlook,
        now: Timestamp,
    ) -> Vec<(Reason, String)> {
        let mut news = Vec::new();
        let (carried, problems) =
            before.map_or((&[][..], &[][..]), |before| (&before.carried[..], &before.problems[..]));
        for known in &outlook.certificates {
            let Some(entry) = known.carried else { continue };
            let is_announced = known.is_announced();
            let is_it =
                |was: &CarriedCa| was.sha256 == entry.sha256 && was.is_announced == is_announced;
            if carried.iter().any(is_it) {
                continue;
            }
            let sha256 = entry.sha256;
            let until = |end: &str| known.ends.map_or_else(|| end.to_owned(), |it| it.to_string());
            news.push(match entry.announced {
                None => {
                    let until = until("the next rotation");
                    let text = format!("the previous CA {sha256} stays in ca.crt until {until}");
                    (Reason::Overlapping, text)
                }
                Some(by) => {
                    let until = until("it is taken back");
                    let text =
                        format!("{by} announces the CA {sha256}: it is in ca.crt until {until}");
                    (Reason::Announced, text)
                }
            });
        }
        let is_there = |f: Fingerprint| {
            outlook.certificates.iter().any(|known| known.certificate.fingerprint() == f)
        };
        // Report only a CA that is no longer in `ca.crt`. One that is there has become the
        // generator's own.
        news.extend(
            carried.iter().filter(|it| !is_there(it.sha256)).map(|gone| self.gone(*gone, now)),
        );
        news.extend(before.and_then(|before| self.end_of_stage(before, secret)));
        if self.phase == SecretPhase::Staged
            && before.is_none_or(|b| b.phase != SecretPhase::Staged)
        {
            let text = "the new CA is in ca.crt; the new leaf waits in pending.tls.crt until \
                        readers have the new CA";
            news.push((Reason::Staged, text.to_owned()));
        }
        for problem in self.problems.iter().filter(|problem| !problems.contains(problem)) {
            match problem {
                Problem::RetireBlocked(_) => {
                    news.push((Reason::RetireBlocked, problem.to_string()));
                }
                Problem::StageImmutable => {
                    news.push((Reason::PromoteBlocked, problem.to_string()));
                }
                Problem::OwnDistrusted(_) => news.push((Reason::Distrusted, problem.to_string())),
                _ => {}
            }
        }
        news
    }

    /// The Event for a carried CA that the keeper's ask or another write has removed.
    fn gone(&self, gone: CarriedCa, now: Timestamp) -> (Reason, String) {
        let CarriedCa { sha256, ends, is_announced } = gone;
        if self.distrust.contains(&sha256) {
            return (Reason::Distrusted, format!("removed the distrusted CA {sha256} from ca.crt"));
        }
        let has_ended = ends.is_some_and(|ends| ends <= now);
        if is_announced {
            let why = if has_ended { "its announcement has ended" } else { "it was taken back" };
            let text = format!("removed the announced CA {sha256} from ca.crt: {why}");
            return (Reason::Withdrawn, text);
        }
        let why = if has_ended {
            "its overlap has ended"
        } else {
            "a later rotation replaced it, or the generator ended the overlap"
        };
        (Reason::Retired, format!("removed the previous CA {sha256} from ca.crt: {why}"))
    }

    /// The Event for a stage that the keeper's ask or another write has ended.
    fn end_of_stage(&self, before: &Self, secret: &SecretView) -> Option<(Reason, String)> {
        let pending = before.pending.filter(|_| self.phase != SecretPhase::Staged)?;
        let serves = secret.view().tls_crt.map(Fingerprint::of) == Some(pending);
        let (reason, text) = if serves {
            (Reason::Promoted, "the leaf that waited is now in tls.crt")
        } else {
            (Reason::StageEnded, "the leaf that waited was dropped; tls.crt holds another leaf")
        };
        Some((reason, text.to_owned()))
    }
}

/// The most bytes that are tracked of all Secrets together.
const MAX_ALL: usize = 64 << 20;

/// All watched Secrets, counted for the metrics.
#[derive(Debug)]
pub(crate) struct TrackedSecrets {
    secrets: Fair<Key, TrackedSecret>,
    phases: [usize; 3],
    problems: HashMap<&'static str, usize>,
    metrics: KeeperMetrics,
}

impl TrackedSecrets {
    /// Creates an empty collection.
    pub(crate) fn new(metrics: KeeperMetrics) -> Self {
        Self { secrets: Fair::new(MAX_ALL), phases: [0; 3], problems: HashMap::new(), metrics }
    }

    /// The entry of a Secret.
    pub(crate) fn get(&self, key: &Key) -> Option<&TrackedSecret> {
        self.secrets.get(key.namespace(), key)
    }

    /// Adds or replaces the entry of a Secret. Returns the Secrets for which there is no room any
    /// more.
    pub(crate) fn insert(&mut self, key: &Key, tracked: TrackedSecret) -> Vec<Key> {
        self.remove(key);
        self.add(&tracked);
        let size = tracked.size();
        let inserted = self.secrets.insert(key.namespace(), key.clone(), tracked, size);
        let forget = |(key, tracked)| {
            self.subtract(&tracked);
            key
        };
        let dropped = inserted.dropped(key.clone()).map(forget).collect();
        self.publish();
        dropped
    }

    /// Removes the entry of a Secret.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<TrackedSecret> {
        let tracked = self.secrets.remove(key.namespace(), key)?;
        self.subtract(&tracked);
        self.publish();
        Some(tracked)
    }

    fn add(&mut self, tracked: &TrackedSecret) {
        self.phases[tracked.phase as usize] += 1;
        self.count(tracked, |count| *count += 1);
    }

    fn subtract(&mut self, tracked: &TrackedSecret) {
        self.phases[tracked.phase as usize] -= 1;
        self.count(tracked, |count| *count -= 1);
    }

    /// The Secrets that the watch of `selector` has shown.
    pub(crate) fn of(&self, selector: Selector) -> impl Iterator<Item = &Key> {
        let selected =
            self.secrets.iter().filter(move |(_, tracked)| tracked.is_selected(selector));
        selected.map(|(key, _)| key)
    }

    /// All of them.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.secrets.iter().map(|(key, _)| key)
    }

    /// Counts Secrets, not problems: two problems of one kind on a Secret count once.
    fn count(&mut self, tracked: &TrackedSecret, change: impl Fn(&mut usize)) {
        let names: BTreeSet<_> = tracked.problems.iter().map(Problem::name).collect();
        for name in names {
            let count = self.problems.entry(name).or_default();
            change(count);
            self.metrics.problem(name, *count);
        }
    }

    fn publish(&self) {
        let [overlap, staged, none] = self.phases;
        self.metrics.watched(overlap, staged, none);
    }
}
